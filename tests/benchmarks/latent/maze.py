"""A reaching monkey, of which there is one trial: numbers that describe it, and no claim."""

import numpy as np
from cases import compile_once
from real_data import SHORT, open_maze

from connectinfer.inference.fit import fit
from connectinfer.statistics.co_smoothing import mean_rates, rate_gain, ratio_score

CLAIM = "maze"
TARGET = "descriptive only: one trial"
_RANKS = (2, 3)
# In bins of 20 ms.
_PIECE = 10


def run(quick: bool) -> dict:
    """Bits/spike of a fifth of units in every second 200 ms, which no fit sees, and what paths tell of the hand."""
    compile_once()
    recording, lines = open_maze(), []
    counts, velocity = recording["counts"].values, recording["velocity"].values
    chosen = np.random.default_rng(0).permutation(counts.shape[2]) % 5 == 0
    later = np.arange(counts.shape[1]) // _PIECE % 2 == 1
    # Units that fire in the hidden pieces alone would be silent.
    chosen &= (counts[0, ~later] > 0).any(0)
    hidden = np.broadcast_to(later[:, None] & chosen, counts.shape)
    mask = recording["mask"] & ~hidden
    training = recording.assign(counts=recording["counts"].where(mask, 0).astype(int), mask=mask)
    baseline = mean_rates(counts, mask.values)
    for rank in _RANKS[: 1 if quick else None]:
        result = fit("low_rank_rnn_poisson", training, rank=rank, **SHORT)
        gain = rate_gain(result["expected/counts"].values, counts, baseline).summed(hidden, (0, 1))
        score, error = ratio_score(*gain)
        path = result["posterior/latent"].mean(("chain", "draw")).values[0]
        lines.append(
            f"rank {rank}: {score:.4f} ± {error:.4f} bits/spike over the units' means (error over "
            f"{int((gain.scale > 0).sum())} hidden units), in-sample R2 of hand velocity {_r2(path, velocity):.2f}"
        )
    return {"value": "; ".join(lines), "passed": True, "details": "\n".join(lines)}


def _r2(path: np.ndarray, velocity: np.ndarray) -> float:
    """Of the linear regression on the path, in the same bins."""
    design = np.concatenate([path, np.ones((len(path), 1))], 1)
    residual = velocity - design @ np.linalg.lstsq(design, velocity, rcond=None)[0]
    return float(1 - residual.var(0).sum() / velocity.var(0).sum())
