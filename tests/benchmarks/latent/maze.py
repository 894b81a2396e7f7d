"""A reaching monkey, of which there is one trial: numbers that describe it, and no claim."""

import numpy as np
from real_data import SHORT, open_maze

from connectinfer.inference.fit import fit
from connectinfer.statistics.co_smoothing import mean_rates, rate_gain, ratio_score

CLAIM = "maze"
TARGET = "descriptive only: one trial"
_RANKS = (2, 3)


def run(quick: bool) -> dict:
    """Bits/spike of a fifth of units in the second half, which no fit sees, and what paths tell of the hand."""
    recording, lines = open_maze(), []
    units = np.random.default_rng(0).permutation(recording.sizes["unit"]) % 5 == 0
    counts, velocity = recording["counts"].values, recording["velocity"].values
    hidden = np.zeros(counts.shape, bool)
    hidden[:, counts.shape[1] // 2 :, units] = True
    # Units without a spike in the first half would be silent.
    hidden &= (counts[:, : counts.shape[1] // 2].sum((0, 1)) > 0)[None, None]
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
