"""Ours: `fit(..., engine="state_space")`, every point a call of its own in a process of its own, compilation included.

The recording hides the held-out units of the test trials; their expected counts are part of the result.
"""

from peer_track import Track
from recipe import Recipe

from connectinfer.inference.fit import fit


def run(recipe: Recipe, track: Track, warmup: int, draws: int, chains: int) -> None:
    """One fit, scored once."""
    options = {"warmup": warmup, "draws": draws, "chains": chains, "show_progress": False}

    def predict():
        result = fit("low_rank_rnn_poisson", recipe.training, engine="state_space", rank=2, **options)
        return result["expected"]["counts"].values

    track.add(predict)
