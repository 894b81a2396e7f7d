"""Bayesian regressions by which Gibbs sampling draws parameters given the paths."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.observation import Observation
from connectinfer.latent.state_space import Seen

# From a draw of the posterior, the second step ends at the mode to within a thousandth of the posterior's width.
_NEWTON_STEPS = 2
_LONGEST_STEP = 1.0
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
    coefficients and converges so fast that the proposal does not depend on them.
    """
    x, size = design.reshape(-1, design.shape[-1]), design.shape[-1]
    y, mask = seen.activity.reshape(len(x), -1), seen.mask.reshape(len(x), -1)
    pairs = (x[:, :, None] * x[:, None]).reshape(len(x), -1)
    diagonal = prior.sd[:, :, None] ** -2 * jnp.eye(size)

    def newton(found: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        b = found[0]
        score, information = observation.score_and_information(y, x @ b.T)
        slope = jnp.where(mask, score, 0.0).T @ x - (b - prior.mean) / prior.sd**2
        hessian = (jnp.where(mask, information, 0.0).T @ pairs).reshape(-1, size, size) + diagonal
        step = jnp.linalg.solve(hessian, slope[..., None])[..., 0]
        return (b + jnp.clip(step, -_LONGEST_STEP, _LONGEST_STEP), hessian), None

    def log_posterior(b: Array) -> Array:
        likelihood = jnp.where(mask, observation.log_kernel(y, x @ b.T), 0.0).sum(0)
        return likelihood - 0.5 * (((b - prior.mean) / prior.sd) ** 2).sum(1)

    (mode, hessian), _ = jax.lax.scan(newton, (coefficients, jnp.zeros_like(diagonal)), None, length=_NEWTON_STEPS)
    root = jnp.linalg.cholesky(hessian)
    noise = jax.random.normal(key, mode.shape, mode.dtype)
    proposed = mode + jax.vmap(lambda r, e: jax.scipy.linalg.solve_triangular(r, e, lower=True, trans=1))(root, noise)
    before = jnp.einsum("uij,ui->uj", root, coefficients - mode)
    log_ratio = log_posterior(proposed) - log_posterior(coefficients)
    return proposed, log_ratio + 0.5 * (noise**2).sum(1) - 0.5 * (before**2).sum(1)


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
