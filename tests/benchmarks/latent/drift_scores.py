"""How well the drift of a known network is found, in the coordinates of the truth, where its paths have been."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from recipe import Recipe

from connectinfer.dynamics.low_rank import drift

_EDGES = np.linspace(-2.4, 2.4, 31)
_LEAST_VISITS = 5


class DriftScore(NamedTuple):
    """Relative error of the posterior mean, its root mean square per tau, and the share of components that lie in 90 %
    bands, over visited cells."""

    relative_error: float
    rms: float
    coverage: float


def visited_cells(recipe: Recipe, n_training: int = 60) -> np.ndarray:
    """Centres `(cell, 2)` of cells of a 30 x 30 grid that training paths visit at least five times."""
    counts, *_ = np.histogram2d(*recipe.latent[:n_training].reshape(-1, 2).T, bins=[_EDGES, _EDGES])
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    return np.stack(np.meshgrid(centres, centres, indexing="ij"), -1)[counts >= _LEAST_VISITS]


def drift_draws(recipe: Recipe, posterior: xr.Dataset, states: np.ndarray) -> np.ndarray:
    """Drifts `(draw, cell, 2)` of all draws at `states` in the coordinates of the truth.

    Each draw has coordinates of its own, in which its loadings read its path out; the truth's follow by regression of
    one read-out on the other. What no data determine, the gauge, thus takes no part in errors and bands.
    """
    rate = np.exp(recipe.true_log_rate).mean((0, 1))
    weighted = recipe.loading * rate[:, None]
    to_truth = np.linalg.solve(weighted.T @ recipe.loading, weighted.T)
    draws = posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    found = []
    for loading, intercept, slope, threshold, weight, constant in zip(*_as_features(draws), strict=True):
        matrix = to_truth @ loading
        offset = to_truth @ (intercept - recipe.bias)
        z = np.linalg.solve(matrix, (states - offset).T).T
        found.append((-z + np.tanh(z @ slope.T + threshold) @ weight + constant) @ matrix.T)
    return np.stack(found)


def _as_features(draws: xr.Dataset) -> tuple[np.ndarray, ...]:
    """Loadings and intercepts of the read-out; slopes, thresholds and weights of the units or features that make the
    drift, and its constant."""
    values = lambda *names: (draws[name].values.astype(float) for name in names)  # noqa: E731
    if "slope" in draws:
        return tuple(values("loading", "bias", "slope", "threshold", "weight", "constant"))
    m, n, d, gain, bias = values("m", "n", "d", "gain", "bias")
    constant = np.zeros((len(m), m.shape[-1]))
    return gain[..., None] * m, bias + gain * d, m, d, n / m.shape[1], constant


def score_drift(recipe: Recipe, drawn: np.ndarray, states: np.ndarray) -> DriftScore:
    """Scores of `drift_draws` at `states`."""
    truth = np.asarray(drift(recipe.network, jnp.asarray(states, float)), float)
    error = drawn.mean(0) - truth
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    return DriftScore(
        float(np.linalg.norm(error) / np.linalg.norm(truth)),
        float(np.sqrt((error**2).mean())),
        float(((truth >= low) & (truth <= high)).mean()),
    )
