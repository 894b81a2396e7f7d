"""How well an estimated latent path agrees with a known one, whatever the coordinates."""

import numpy as np
from jaxtyping import Float


def affine_alignment(
    estimate: Float[np.ndarray, "*sample rank"], truth: Float[np.ndarray, "*sample true_rank"]
) -> tuple[Float[np.ndarray, "true_rank rank"], Float[np.ndarray, " true_rank"]]:
    """The A and a for which `estimate @ A.T + a` is closest to `truth` in least squares."""
    flat = estimate.reshape(-1, estimate.shape[-1])
    design = np.concatenate([flat, np.ones((len(flat), 1))], 1)
    solution = np.linalg.lstsq(design, truth.reshape(-1, truth.shape[-1]), rcond=None)[0]
    return solution[:-1].T, solution[-1]


def latent_r2(estimate: Float[np.ndarray, "*sample rank"], truth: Float[np.ndarray, "*sample true_rank"]) -> float:
    """Variance of the true path that an affine map of the estimate explains; 1 is perfect."""
    matrix, offset = affine_alignment(estimate, truth)
    residual = truth - (estimate @ matrix.T + offset)
    centred = truth - truth.reshape(-1, truth.shape[-1]).mean(0)
    return float(1 - (residual**2).sum() / (centred**2).sum())
