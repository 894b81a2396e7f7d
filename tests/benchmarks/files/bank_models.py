"""Small models of the bank of fits, and their three engines; posteriors of the first six are known exactly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from numpyro.distributions import constraints

from connectinfer.inference.flow_posterior import fit_flow_posterior
from connectinfer.inference.nuts import sample_nuts
from connectinfer.inference.svi import fit_svi

N_ROWS, N_COLUMNS = 40, 3
N_TRIALS, N_BINS, N_UNITS = 10, 40, 6
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SIGNAL_NOISE = 0.5


def nuts(model: Callable, inputs: Mapping[str, Any], seed: int, **options: Any) -> xr.DataTree:
    """A fit by `sample_nuts` without output."""
    return sample_nuts(jax.random.key(seed), model, inputs, show_progress=False, **options)


def svi(model: Callable, inputs: Mapping[str, Any], seed: int, **options: Any) -> xr.DataTree:
    """A fit by `fit_svi` without output."""
    return fit_svi(jax.random.key(seed), model, inputs, show_progress=False, **options)


def flow(model: Callable, inputs: Mapping[str, Any], seed: int, **options: Any) -> xr.DataTree:
    """A fit by `fit_flow_posterior` without output: one round of 3,000 simulations, 1,500 steps, unless asked else."""
    sizes: dict[str, Any] = {"simulations": 3000, "rounds": 1, "steps": 1500} | options
    return fit_flow_posterior(jax.random.key(seed), model, inputs, show_progress=False, **sizes)


def regression(x: np.ndarray, y: np.ndarray | None) -> None:
    """Coefficients of normal data with unit noise: `y_r ~ N(x_r c, 1)`, `c ~ N(0, 2^2)`."""
    c = numpyro.sample("c", dist.Normal(jnp.zeros(x.shape[1]), 2.0).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(x @ c, 1.0), obs=y)


def regression_data(seed: int, correlation: float = 0.0, rows: int = N_ROWS) -> dict[str, np.ndarray]:
    """Columns of exactly this correlation, variance one, and data drawn with coefficients 1, -1, 0.5."""
    rng = np.random.default_rng(seed)
    square = np.full((N_COLUMNS, N_COLUMNS), correlation) + (1 - correlation) * np.eye(N_COLUMNS)
    orthogonal = np.linalg.qr(rng.normal(size=(rows, N_COLUMNS)))[0] * np.sqrt(rows)
    x = orthogonal @ np.linalg.cholesky(square).T
    return {"x": x, "y": x @ [1.0, -1.0, 0.5] + rng.normal(size=rows)}


def schools(effects: np.ndarray, centred: bool) -> None:
    """Eight schools (Rubin 1981): `theta_j ~ N(mu, tau^2)`, centred or as `mu + tau z_j`."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(ERRORS)):
        theta = (
            numpyro.sample("theta", dist.Normal(mu, tau))
            if centred
            else mu + tau * numpyro.sample("z", dist.Normal(0.0, 1.0))
        )
        numpyro.sample("effects", dist.Normal(theta, ERRORS), obs=effects)


def steady_counts(counts: np.ndarray | None, mask: np.ndarray) -> None:
    """Poisson counts at a constant rate of every unit, `rate_i ~ Gamma(2, 2)` spikes per bin."""
    with numpyro.plate("unit", mask.shape[-1], dim=-1):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 2.0))
    with _entries(mask):
        numpyro.sample("counts", dist.Poisson(rate).mask(mask), obs=counts)


def common_counts(counts: np.ndarray | None, mask: np.ndarray) -> None:
    """Poisson counts at one constant rate of all units, `rate ~ Gamma(2, 2)` spikes per bin."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 2.0))
    with _entries(mask):
        numpyro.sample("counts", dist.Poisson(rate).mask(mask), obs=counts)


def counts_data(seed: int, gain: Any = 1.0, rates: Any = None) -> dict[str, np.ndarray]:
    """Poisson counts of units with rates drawn from the prior (kept off zero), times `gain (trial, time, unit)`."""
    rng = np.random.default_rng(seed)
    drawn = rng.gamma(2.0, 0.5, N_UNITS) + 0.1
    mean = (drawn if rates is None else rates) * np.broadcast_to(gain, (N_TRIALS, N_BINS, N_UNITS))
    return {"counts": rng.poisson(mean), "mask": np.ones(mean.shape, bool)}


def steady_signal(signal: np.ndarray | None, mask: np.ndarray) -> None:
    """Independent normal signals around a mean of every unit, `mean_i ~ N(0, 1)`, noise sd 0.5."""
    with numpyro.plate("unit", mask.shape[-1], dim=-1):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with _entries(mask):
        numpyro.sample("signal", dist.Normal(mean, SIGNAL_NOISE).mask(mask), obs=signal)


def signal_data(seed: int, noise: float = SIGNAL_NOISE, added: Any = 0.0) -> dict[str, np.ndarray]:
    """Normal signals around means drawn from the prior, plus what is `added (trial, time, unit)`."""
    rng = np.random.default_rng(seed)
    shape = (N_TRIALS, N_BINS, N_UNITS)
    return {"signal": rng.normal(size=N_UNITS) + noise * rng.normal(size=shape) + added, "mask": np.ones(shape, bool)}


def two_modes(y: np.ndarray, noise: float) -> None:
    """The square of `theta ~ N(0, 3^2)` is seen, so its sign is open."""
    theta = numpyro.sample("theta", dist.Normal(0.0, 3.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(theta**2, noise), obs=y)


def funnel(y: np.ndarray) -> None:
    """Neal's funnel in nine dimensions, hardly constrained by data: `x_i ~ N(0, exp(v))`, `v ~ N(0, 3^2)`."""
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    with numpyro.plate("row", len(y)):
        x = numpyro.sample("x", dist.Normal(0.0, jnp.exp(v / 2)))
        numpyro.sample("y", dist.Normal(x, 100.0), obs=y)


def heavy_tails(y: np.ndarray) -> None:
    """Four Cauchy values of which the data say next to nothing."""
    with numpyro.plate("row", len(y)):
        theta = numpyro.sample("theta", dist.Cauchy(0.0, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1e4), obs=y)


def ridge(y: np.ndarray) -> None:
    """Two values of which only the sum is seen, under priors that leave their difference open."""
    a = numpyro.sample("a", dist.Normal(0.0, 1000.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1000.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(a + b, 0.5), obs=y)


def separated(y: np.ndarray) -> None:
    """Successes without a failure, and a flat prior of their log odds: no posterior exists."""
    odds = numpyro.sample("odds", dist.ImproperUniform(constraints.real, (), ()))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=odds), obs=y)


def undefined_root(y: np.ndarray) -> None:
    """A summary that is no number for half of the posterior."""
    theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
    numpyro.deterministic("root", jnp.sqrt(theta))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(theta, 10.0), obs=y)


def unstable_solver(y: np.ndarray) -> None:
    """A growth rate, and Euler steps that overflow where it is large, as a solver reports it."""
    rate = numpyro.sample("rate", dist.Normal(0.0, 1.0))
    path = jax.lax.fori_loop(0, 20, lambda _, x: x + jnp.where(jnp.abs(x) < 1e3, rate * x, 0.0), 1.0)
    numpyro.deterministic("failed_solves", jnp.abs(path) >= 1e3)
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(jnp.tanh(path), 1.0), obs=y)


def overflowing(y: np.ndarray | None) -> None:
    """Data of which about one simulation in five is not finite."""
    theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", 5):
        numpyro.sample("y", dist.Normal(jnp.where(jnp.greater(theta, 0.8), jnp.inf, theta), 1.0), obs=y)


@contextmanager
def _entries(mask: np.ndarray) -> Iterator[None]:
    n_trials, n_bins, n_units = mask.shape
    with (
        numpyro.plate("trial", n_trials, dim=-3),
        numpyro.plate("time", n_bins, dim=-2),
        numpyro.plate("unit", n_units, dim=-1),
    ):
        yield
