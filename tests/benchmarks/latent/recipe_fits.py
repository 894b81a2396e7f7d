"""Fits to the recipe, scored against its truth."""

import time
from collections.abc import Callable

import arviz as az
import numpy as np
import xarray as xr
from drift_scores import drift_draws, score_drift, visited_cells
from recipe import ALPHA, Recipe, score

from connectinfer.dynamics.low_rank import drift
from connectinfer.inference.fit import fit
from connectinfer.statistics.latent_recovery import latent_r2

_JUDGED_STATES = 30


def measure(
    recipe: Recipe, model: str, n_training: int, data: xr.Dataset | None = None, **options: int
) -> dict[str, float]:
    """Scores of one fit, of `data` if they are not those of the recipe, and how well its chains agree about the drift
    and about the scales."""
    started = time.perf_counter()
    result = fit(
        model, recipe.training if data is None else data, engine="state_space", rank=2, show_progress=False, **options
    )
    seconds = time.perf_counter() - started
    posterior = result["posterior"].to_dataset()
    states = visited_cells(recipe, n_training)
    drawn = drift_draws(recipe, posterior, states)
    found = score_drift(recipe, drawn, states)
    path = posterior["latent"].mean(("chain", "draw")).values
    size = posterior.sizes["chain"], posterior.sizes["draw"]
    chosen = np.linspace(0, len(states) - 1, _JUDGED_STATES).astype(int)
    at_states = xr.Dataset({"drift": (("chain", "draw", "state", "dim"), drawn.reshape(*size, -1, 2)[:, :, chosen])})
    scales = xr.Dataset({str(name): x for name, x in posterior.data_vars.items() if x.ndim == 2})
    if "noise_covariance" in posterior:
        scales["noise"] = (("chain", "draw"), np.linalg.slogdet(posterior["noise_covariance"].values)[1])
    judged = {"drift": at_states, "scales": scales}
    agreement = {f"rhat_{name}": max(float(x.max()) for x in az.rhat(each).values()) for name, each in judged.items()}
    sizes = {f"ess_{name}": min(float(x.min()) for x in az.ess(each).values()) for name, each in judged.items()}
    stats = {name: float(x.mean()) for name, x in result["sample_stats"].data_vars.items() if "acceptance" in str(name)}
    own = {
        "error": found.relative_error,
        "rms": found.rms,
        "coverage": found.coverage,
        "latent_r2": latent_r2(path, recipe.latent),
        "bits": score(recipe, result["expected"]["counts"].values),
        "of_true_rates": score(recipe, result["expected"]["counts"].values)
        / score(recipe, np.exp(recipe.true_log_rate)),
        "seconds": seconds,
    }
    return own | agreement | sizes | stats


def regression_error(recipe: Recipe, n_training: int, n_features: int = 60) -> float:
    """Relative error of the drift by ridge regression of the true increments on random features of the true latents:
    the smallest of odd features, as the drifts of all teachers are, and general ones, and of three shrinkages."""
    latent = recipe.latent[:n_training]
    now, later = latent[:, :-1].reshape(-1, 2), latent[:, 1:].reshape(-1, 2)
    generator = np.random.default_rng(0)
    slope, threshold = 0.7 * generator.normal(size=(n_features, 2)) / latent.std(), generator.normal(size=n_features)
    general = lambda z: np.concatenate([np.ones((len(z), 1)), np.tanh(z @ slope.T + threshold)], 1)  # noqa: E731
    odd = lambda z: np.tanh(z @ slope.T)  # noqa: E731
    y = (later - (1 - ALPHA) * now) / ALPHA
    states = visited_cells(recipe, n_training)
    truth = np.asarray(drift(recipe.network, np.asarray(states, np.float32)), float)
    noise = (later - now).std() / ALPHA

    def error(features: Callable[[np.ndarray], np.ndarray], shrinkage: float) -> float:
        x = features(now)
        weight = np.linalg.solve(x.T @ x + shrinkage * noise**2 * np.eye(x.shape[1]), x.T @ y)
        return float(np.linalg.norm(features(states) @ weight - states - truth) / np.linalg.norm(truth))

    return min(error(features, shrinkage) for features in (general, odd) for shrinkage in (1.0, 10.0, 100.0))
