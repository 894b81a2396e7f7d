"""Fits that are right, each beside moments of its posterior that no sampler and no check of connectinfer computed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from bank_models import (
    EFFECTS,
    ERRORS,
    N_COLUMNS,
    N_UNITS,
    SIGNAL_NOISE,
    common_counts,
    counts_data,
    flow,
    nuts,
    regression,
    regression_data,
    schools,
    signal_data,
    steady_counts,
    steady_signal,
    svi,
)
from scipy import optimize, stats

from connectinfer.zoo import load_model

COUPLED = "examples/models/coupled_poisson.py"
_PROPOSALS = 20_000
_LARGEST_SHIFT, _LARGEST_RATIO = 0.25, 1.25


class Reference(NamedTuple):
    """Posterior means and sds of the sites by name, and how they are known."""

    moments: dict[str, tuple[np.ndarray, np.ndarray]]
    source: str


class Sound(NamedTuple):
    """A fit, and what it must agree with."""

    fit: Callable[[], xr.DataTree]
    reference: Callable[[], Reference]


def disagreement(result: xr.DataTree, reference: Reference) -> str:
    """Where draws differ from the reference by over 0.25 sd in the mean or 1.25 in the sd; empty if nowhere."""
    found = []
    for name, (mean, sd) in reference.moments.items():
        draws = result["posterior"].to_dataset()[name].values
        draws = draws.reshape(-1, *draws.shape[2:])
        shift = np.max(np.abs(draws.mean(0) - mean) / sd)
        ratio = np.exp(np.max(np.abs(np.log(draws.std(0) / sd))))
        if not (shift <= _LARGEST_SHIFT and ratio <= _LARGEST_RATIO):
            found.append(f"{name}: mean off by {shift:.2f} sd, sd by a factor {ratio:.2f}")
    return "; ".join(found)


def regression_moments(x: np.ndarray, y: np.ndarray) -> Reference:
    """Closed form of `bank_models.regression`."""
    covariance = np.linalg.inv(x.T @ x + np.eye(N_COLUMNS) / 4)
    return Reference({"c": (covariance @ x.T @ y, np.sqrt(np.diag(covariance)))}, "closed form")


def counts_moments(counts: np.ndarray, mask: np.ndarray, *, common: bool = False) -> Reference:
    """Closed form of `bank_models.steady_counts` and, if `common`, `common_counts`."""
    axes = None if common else (0, 1)
    posterior = stats.gamma(2 + (counts * mask).sum(axes), scale=1 / (2 + mask.sum(axes)))
    return Reference({"rate": (posterior.mean(), posterior.std())}, "closed form")


def signal_moments(signal: np.ndarray, mask: np.ndarray) -> Reference:
    """Closed form of `bank_models.steady_signal`."""
    variance = 1 / (1 + mask.sum((0, 1)) / SIGNAL_NOISE**2)
    return Reference({"mean": (variance * signal.sum((0, 1)) / SIGNAL_NOISE**2, np.sqrt(variance))}, "closed form")


def schools_moments() -> Reference:
    """Quadrature over `tau` of `bank_models.schools`; the other values are normal given it."""
    tau = np.linspace(1e-3, 200, 40_000)
    precision = 1 / (ERRORS**2 + tau[:, None] ** 2)
    total = 1 / 25 + precision.sum(1)
    centre = (precision * EFFECTS).sum(1) / total
    log_density = 0.5 * (np.log(precision).sum(1) - np.log(total) - (precision * EFFECTS**2).sum(1) + total * centre**2)
    weight = np.exp(log_density - log_density.max()) * stats.halfcauchy.pdf(tau, scale=5)
    weight /= weight.sum()
    mean_mu, mean_tau = weight @ centre, weight @ tau
    sd_mu = np.sqrt(weight @ (1 / total + centre**2) - mean_mu**2)
    moments = {"mu": (mean_mu, sd_mu), "tau": (mean_tau, np.sqrt(weight @ tau**2 - mean_tau**2))}
    return Reference({name: (np.array(m), np.array(s)) for name, (m, s) in moments.items()}, "quadrature")


def coupled_data(seed: int, drive: float = 0.0) -> dict[str, np.ndarray]:
    """Counts of three coupled units simulated by hand; a rhythm of size `drive` that the model does not know."""
    rng = np.random.default_rng(seed)
    weight, n_trials, n_bins, n_units = np.array([[0, 0.3, -0.3], [0, 0, 0.3], [-0.2, 0, 0]]), 6, 60, 3
    counts, history = np.zeros((n_trials, n_bins, n_units), int), np.zeros((n_trials, n_bins, n_units))
    rhythm = drive * np.sin(2 * np.pi * np.arange(n_bins) / 30)
    for t in range(n_bins):
        if t:
            history[:, t] = 0.5 * history[:, t - 1] + counts[:, t - 1]
        counts[:, t] = rng.poisson(np.exp(-1.0 + rhythm[t] + history[:, t] @ weight.T))
    return {"counts": counts, "mask": np.ones(counts.shape, bool), "history": history}


def coupled_moments(counts: np.ndarray, mask: np.ndarray, history: np.ndarray) -> Reference:
    """Importance sampling from a Student t at the mode, a unit at a time: given the counts, units are independent."""
    n_units = counts.shape[-1]
    x = np.c_[history[mask[..., 0]], np.ones(mask[..., 0].sum())]
    prior = stats.norm(np.r_[np.zeros(n_units), -2.0], np.r_[np.full(n_units, 0.3), 2.0])
    found = [
        _importance_moments(lambda b, y=counts[..., i][mask[..., i]]: _glm(b, x, y, prior)) for i in range(n_units)
    ]
    mean, sd = (np.array(x) for x in zip(*found, strict=True))
    return Reference({"weight": (mean[:, :-1], sd[:, :-1]), "bias": (mean[:, -1], sd[:, -1])}, "importance sampling")


def _glm(b: np.ndarray, x: np.ndarray, y: np.ndarray, prior: Any) -> np.ndarray:
    log_rate = b @ x.T
    return prior.logpdf(b).sum(-1) + (y * log_rate - np.exp(log_rate)).sum(-1)


def _importance_moments(log_density: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    best = optimize.minimize(lambda b: -log_density(b), np.array([0.0, 0.0, 0.0, -1.0]))
    proposal = stats.multivariate_t(best.x, best.hess_inv, df=8, seed=0)
    drawn = proposal.rvs(_PROPOSALS)
    log_weight = log_density(drawn) - proposal.logpdf(drawn)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = weight @ drawn
    return mean, np.sqrt(weight @ (drawn - mean) ** 2)


def products(x: np.ndarray) -> Callable:
    """The sufficient statistic of `regression` for a flow."""
    return lambda data: x.T @ data["y"] / len(x)


def _regression(engine: Callable, seed: int, correlation: float, **options) -> Sound:
    data = regression_data(seed, correlation)
    if engine is flow:
        # One round of simulations from the prior does not resolve posteriors that are much narrower.
        data = regression_data(seed, correlation, rows=6)
        options = {"summary": products(data["x"]), "simulations": 10_000, "steps": 4000}
    return Sound(partial(engine, regression, data, seed, **options), partial(regression_moments, **data))


def _counts(engine: Callable, seed: int, **options) -> Sound:
    data = counts_data(seed)
    return Sound(partial(engine, steady_counts, data, seed, **options), partial(counts_moments, **data))


def _common(seed: int) -> Sound:
    data = counts_data(seed, rates=np.full(N_UNITS, 0.8))
    return Sound(partial(nuts, common_counts, data, seed), partial(counts_moments, **data, common=True))


def _signal(engine: Callable, seed: int, **options) -> Sound:
    data = signal_data(seed)
    return Sound(partial(engine, steady_signal, data, seed, **options), partial(signal_moments, **data))


def _coupled(seed: int) -> Sound:
    data = coupled_data(seed)
    model = load_model(COUPLED).model
    return Sound(partial(nuts, model, data, seed), partial(coupled_moments, **data))


def _schools(seed: int) -> Sound:
    data = {"effects": EFFECTS, "centred": False}
    return Sound(partial(nuts, schools, data, seed, target_accept_prob=0.99, draws=1000), schools_moments)


SOUND: dict[str, Sound] = {
    **{f"regression, nuts {s}": _regression(nuts, s, 0.0) for s in range(3)},
    **{f"correlated regression, nuts {s}": _regression(nuts, s, 0.9, draws=1000) for s in range(3)},
    **{f"regression, svi {s}": _regression(svi, s, 0.0) for s in range(4)},
    **{
        f"correlated regression, svi low_rank {s}": _regression(svi, s, 0.9, guide="low_rank", steps=8000)
        for s in range(2)
    },
    **{f"regression, flow {s}": _regression(flow, s, 0.0) for s in range(2)},
    **{f"eight schools not centred, nuts {s}": _schools(s) for s in range(4)},
    **{f"steady counts, nuts {s}": _counts(nuts, s) for s in range(6)},
    **{f"steady counts, svi {s}": _counts(svi, s) for s in range(6, 12)},
    **{f"common rate, nuts {s}": _common(s) for s in range(2)},
    **{f"steady signal, nuts {s}": _signal(nuts, s) for s in range(4)},
    **{f"steady signal, svi {s}": _signal(svi, s, steps=8000) for s in range(4, 8)},
    **{f"coupled Poisson, nuts {s}": _coupled(s) for s in range(4)},
}
