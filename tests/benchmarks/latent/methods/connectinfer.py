"""Ours: `fit`, every point a fit of its own in a process of its own, so that each includes its compilation.

The recording hides the held-out units of the test trials; their expected counts are part of the result.
"""

from methods.track import Track
from recipe import Recipe

from connectinfer.inference.fit import fit


def run(recipe: Recipe, track: Track, warmup: int, draws: int) -> None:
    """One fit of two chains, scored once."""
    options = {"warmup": warmup, "draws": draws, "chains": 2, "show_progress": False}
    track.add(lambda: fit("low_rank_rnn_poisson", recipe.training, rank=2, **options)["expected"]["counts"].values)
