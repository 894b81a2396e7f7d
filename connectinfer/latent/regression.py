"""Bayesian regressions by which Gibbs sampling draws parameters given the paths."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.observation import Observation
from connectinfer.latent.state_space import Seen

_NEWTON_STEPS, _LONGEST_STEP = 12, 2.0
# In standard deviations of the posterior: the next one would be about as long as its square.
_LAST_STEP = 0.1
# Relative to the mean eigenvalue: what single precision rounds off a Gram matrix.
_JITTER = 1e-6


def precision_root(precision: Float[Array, "feature feature"]) -> Float[Array, "feature feature"]:
    """The Cholesky factor of a posterior's precision."""
    size = len(precision)
    return jnp.linalg.cholesky(precision + _JITTER * jnp.trace(precision) / size * jnp.eye(size))


def draw_normal(
    key: Key[Array, ""], root: Float[Array, "feature feature"], moment: Float[Array, "feature dim"]
) -> Float[Array, "feature dim"]:
    """Independent normal columns with precision `root root^T` and means `precision^-1 moment`: regression weights, of
    which `moment` is `features^T targets`."""
    noise = jax.random.normal(key, moment.shape, moment.dtype)
    half = jax.scipy.linalg.solve_triangular(root, moment, lower=True)
    return jax.scipy.linalg.solve_triangular(root, half + noise, lower=True, trans=1)


class CoefficientPrior(NamedTuple):
    """Independent normal priors of read-out coefficients."""

    mean: Float[Array, "unit regressor"]
    sd: Float[Array, "unit regressor"]


def propose_coefficients(
    key: Key[Array, ""],
    coefficients: Float[Array, "unit regressor"],
    design: Float[Array, "trial time regressor"],
    seen: Seen,
    observation: Observation,
    prior: CoefficientPrior,
) -> tuple[Float[Array, "unit regressor"], Float[Array, " unit"]]:
    """Every unit's read-out coefficients drawn from the Laplace approximation of their posterior given the paths, and
    the log ratio by which a Metropolis step has to accept them.

    The ratio is that of the regression's posterior, corrected for the proposal. Newton's method starts at the present
    coefficients, and ends so close to the mode that the proposal does not depend on them.
    """
    diagonal = prior.sd[:, :, None] ** -2 * jnp.eye(design.shape[-1])

    def step(now: tuple[Array, ...]) -> tuple[Array, ...]:
        mode, _, _, taken = now
        found = _passed(mode, design, seen, observation)
        slope, hessian = found.score - (mode - prior.mean) / prior.sd**2, found.information + diagonal
        change = jnp.linalg.solve(hessian, slope[..., None])[..., 0]
        mode = mode + jnp.clip(change, -_LONGEST_STEP, _LONGEST_STEP)
        return mode, hessian, (slope * change).sum(1).max(), taken + 1

    def goes_on(now: tuple[Array, ...]) -> Array:
        return (now[2] > _LAST_STEP**2) & (now[3] < _NEWTON_STEPS)

    far = jnp.array(jnp.inf, coefficients.dtype)
    mode, hessian, *_ = jax.lax.while_loop(goes_on, step, (coefficients, jnp.zeros_like(diagonal), far, jnp.array(0)))
    root = jnp.linalg.cholesky(hessian)
    noise = jax.random.normal(key, mode.shape, mode.dtype)
    proposed = mode + jax.vmap(lambda r, e: jax.scipy.linalg.solve_triangular(r, e, lower=True, trans=1))(root, noise)
    before = jnp.einsum("uij,ui->uj", root, coefficients - mode)

    def log_posterior(b: Array) -> Array:
        likelihood = _passed(b, design, seen, observation).log_likelihood
        return likelihood - 0.5 * (((b - prior.mean) / prior.sd) ** 2).sum(1)

    log_ratio = log_posterior(proposed) - log_posterior(coefficients)
    return proposed, log_ratio + 0.5 * (noise**2).sum(1) - 0.5 * (before**2).sum(1)


class _Passed(NamedTuple):
    """Every unit's log likelihood, up to a constant, with its gradient and the information on the coefficients."""

    log_likelihood: Float[Array, " unit"]
    score: Float[Array, "unit regressor"]
    information: Float[Array, "unit regressor regressor"]


def _passed(
    coefficients: Float[Array, "unit regressor"],
    design: Float[Array, "trial time regressor"],
    seen: Seen,
    observation: Observation,
) -> _Passed:
    n_units, size = coefficients.shape

    def add(total: _Passed, trial: tuple[Array, Array, Array]) -> tuple[_Passed, None]:
        x, activity, mask = trial
        predictor, pairs = x @ coefficients.T, (x[:, :, None] * x[:, None]).reshape(-1, size**2)
        score, information = observation.score_and_information(activity, predictor)
        own = _Passed(
            jnp.where(mask, observation.log_kernel(activity, predictor), 0.0).sum(0),
            jnp.where(mask, score, 0.0).T @ x,
            (jnp.where(mask, information, 0.0).T @ pairs).reshape(n_units, size, size),
        )
        return jax.tree.map(jnp.add, total, own), None

    # Trial by trial, what belongs to every entry stays in the cache.
    start = _Passed(*(jnp.zeros((n_units, *axes), design.dtype) for axes in ((), (size,), (size, size))))
    total, _ = jax.lax.scan(add, start, (design, seen.activity, seen.mask))
    return total


def random_walk(
    key: Key[Array, ""],
    value: Float[Array, "*shape"],
    log_density: Callable[[Array], Array],
    step: Float[Array, "..."] | float,
    repeats: int = 10,
) -> Float[Array, "*shape"]:
    """Metropolis steps of independent numbers; `log_density(value)` has their shape."""

    def move(now: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        value, density = now
        key_step, key_accept = jax.random.split(key)
        proposed = value + step * jax.random.normal(key_step, value.shape, value.dtype)
        reached = log_density(proposed)
        accepted = jnp.log(jax.random.uniform(key_accept, value.shape)) < reached - density
        return (jnp.where(accepted, proposed, value), jnp.where(accepted, reached, density)), None

    (value, _), _ = jax.lax.scan(move, (value, log_density(value)), jax.random.split(key, repeats))
    return value
