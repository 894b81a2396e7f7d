"""A Poisson linear dynamical system fitted by expectation maximisation with Laplace's approximation of the paths.

z_1 ~ N(mu, V), z_{t+1} ~ N(A z_t, Q), y_ti ~ Poisson(exp(c_i . z_t + b_i)). Source: Macke et al., NeurIPS 24 (2011).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from trial_folds import Fold

from connectinfer.dynamics.observation import Poisson
from connectinfer.latent.principal_path import components_of, poisson_regression
from connectinfer.latent.state_space import PathPosterior, Seen, StateSpace, path_posterior

# Of the read-outs' normal prior and of the noise, against units that hardly fire and paths without noise.
_RIDGE, _LEAST_NOISE = 0.01, 1e-4
# Of a posterior, and of those that follow one another to the mode in test trials.
_NEWTON_STEPS, _TEST_ROUNDS = 4, 8
# Principal components are of counts smoothed by a third of 1 / alpha bins.
_START_ALPHA = 0.15


class _System(NamedTuple):
    matrix: jax.Array
    noise: jax.Array
    initial_mean: jax.Array
    initial: jax.Array
    loading: jax.Array
    bias: jax.Array


def poisson_lds(fold: Fold, rank: int, *, steps: int = 60) -> np.ndarray:
    """Expected counts `(trial, time, held-out unit)` in the test trials, from `steps` of expectation maximisation on
    the training trials."""
    training = _arrays(fold.training)
    system, paths = _begin(fold.training, rank)
    for _ in range(steps):
        system, paths = _maximised(system, training, _posterior(system, training, paths))
    # As many trials as in training, the last ones empty: one program serves both.
    n_test, n_more = fold.test.sizes["trial"], len(training.alive) - fold.test.sizes["trial"]
    test = _arrays(fold.seen.pad(trial=(0, n_more), constant_values={"counts": 0, "mask": False}))
    posterior = _posterior(system, test, jnp.zeros_like(paths))
    for _ in range(_TEST_ROUNDS):
        posterior = _posterior(system, test, posterior.mode)
    mean, covariance, _ = _moments(posterior)
    expected = np.asarray(_expected_rate(system, mean, covariance))[:n_test, :, fold.held_out]
    if not np.isfinite(expected).all():
        raise ValueError("Expectation maximisation diverged: expected counts are not finite.")
    return expected


def _arrays(trials: xr.Dataset) -> Seen:
    return Seen.of(jnp.asarray(trials["counts"].values, float), jnp.asarray(trials["mask"].values))


def _begin(trials: xr.Dataset, rank: int) -> tuple[_System, jax.Array]:
    """A slow random walk behind principal components."""
    counts, mask = trials["counts"].values, trials["mask"].values
    no_inputs = np.zeros((*counts.shape[:2], 0))
    found = components_of(counts.astype(float), mask, no_inputs, rank, _START_ALPHA, counts=True)
    path = found.components.path
    weights = poisson_regression(np.concatenate([path, np.ones((*path.shape[:2], 1))], -1), counts, mask)
    eye = jnp.eye(rank)
    loading, bias = (jnp.asarray(x, float) for x in (weights[:, :-1], weights[:, -1]))
    return _System(0.95 * eye, 0.1 * eye, jnp.zeros(rank), eye, loading, bias), jnp.asarray(path, float)


@jax.jit
def _posterior(system: _System, seen: Seen, start: jax.Array) -> PathPosterior:
    space = StateSpace(
        initial_mean=system.initial_mean,
        initial_tril=jnp.linalg.cholesky(system.initial),
        transition=jax.tree_util.Partial(_advance, system.matrix),
        noise_tril=jnp.linalg.cholesky(system.noise),
        inputs=jnp.zeros((*start.shape[:2], 0)),
        loading=system.loading,
        offset=system.bias,
        observation=Poisson(),
    )
    return path_posterior(space, seen, start, steps=_NEWTON_STEPS, last_step=0.1)


def _advance(matrix: jax.Array, z: jax.Array, v: jax.Array) -> jax.Array:
    del v
    return z @ matrix.T


@jax.jit
def _moments(posterior: PathPosterior) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Means `(trial, time, dim)`, covariances, and those of every bin with the one before `(trial, time - 1, ...)`."""
    root, gain = (jnp.moveaxis(x, -1, 1) for x in posterior.factor)
    eye = jnp.broadcast_to(jnp.eye(root.shape[-1]), root.shape)
    inverse = jax.scipy.linalg.solve_triangular(root, eye, lower=True)
    own, pull = jnp.einsum("...ka,...kb->...ab", inverse, inverse), -jnp.swapaxes(inverse[1:], -1, -2) @ gain

    def step(before: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        own, pull = now
        cross = pull @ before
        here = own + cross @ jnp.swapaxes(pull, -1, -2)
        return here, (here, cross)

    _, (later, cross) = jax.lax.scan(step, own[0], (own[1:], pull))
    covariance = jnp.concatenate([own[:1], later])
    return posterior.mode, jnp.moveaxis(covariance, 1, 0), jnp.moveaxis(cross, 1, 0)


def _expected_rate(system: _System, mean: jax.Array, covariance: jax.Array) -> jax.Array:
    spread = jnp.einsum("rtab,ia,ib->rti", covariance, system.loading, system.loading)
    return jnp.exp(jnp.clip(mean @ system.loading.T + system.bias + 0.5 * spread, -20, 10))


@jax.jit
def _maximised(system: _System, seen: Seen, posterior: PathPosterior) -> tuple[_System, jax.Array]:
    """A step of expectation maximisation, and the paths from which the next one starts."""
    mean, covariance, cross = _moments(posterior)
    second = covariance + mean[..., :, None] * mean[..., None, :]
    counts = (seen.alive[:, 1:] & seen.alive[:, :-1])[..., None, None]
    now, later = (jnp.where(counts, x, 0.0).sum((0, 1)) for x in (second[:, :-1], second[:, 1:]))
    product = jnp.where(counts, cross + mean[:, 1:, :, None] * mean[:, :-1, None, :], 0.0).sum((0, 1))
    matrix = jnp.linalg.solve(now, product.T).T
    eye = jnp.eye(len(now))
    noise = (later - matrix @ product.T) / counts.sum() + _LEAST_NOISE * eye
    initial_mean = mean[:, 0].mean(0)
    initial = second[:, 0].mean(0) - jnp.outer(initial_mean, initial_mean) + _LEAST_NOISE * eye
    loading, bias = _read_out(system, seen, mean, covariance)
    return _System(matrix, (noise + noise.T) / 2, initial_mean, initial, loading, bias), mean


def _read_out(system: _System, seen: Seen, mean: jax.Array, covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One Newton step of every unit's expected log likelihood."""
    rate = jnp.where(seen.mask, _expected_rate(system, mean, covariance), 0.0)
    tilted = mean[:, :, None] + jnp.einsum("rtab,ib->rtia", covariance, system.loading)
    design = jnp.concatenate([tilted, jnp.ones((*tilted.shape[:-1], 1))], -1)
    plain = jnp.concatenate([mean, jnp.ones((*mean.shape[:2], 1))], -1)
    weights = jnp.concatenate([system.loading, system.bias[:, None]], 1)
    ridge = _RIDGE * jnp.diag(jnp.r_[jnp.ones(mean.shape[-1]), 0.0])
    slope = jnp.einsum("rti,rta->ia", seen.activity, plain) - jnp.einsum("rti,rtia->ia", rate, design) - weights @ ridge
    curvature = jnp.einsum("rti,rtia,rtib->iab", rate, design, design) + ridge
    curved = jnp.einsum("rti,rtab->iab", rate, covariance)
    curvature = curvature.at[:, :-1, :-1].add(curved)
    weights = weights + jnp.clip(jnp.linalg.solve(curvature, slope[..., None])[..., 0], -0.5, 0.5)
    return weights[:, :-1], weights[:, -1]
