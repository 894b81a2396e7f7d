"""Bayesian regressions by which Gibbs sampling draws parameters given the paths."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from connectinfer.dynamics.observation import Observation
from connectinfer.latent.state_space import Seen

_LONGEST_STEP = 1.0
# Posteriors of units with few spikes have longer tails than normal ones: proposals without them would get stuck there.
_FREEDOM = 5.0
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


def draw_covariance_root(
    key: Key[Array, ""], rate: Float[Array, "dim dim"], dof: Num[Array, ""]
) -> Float[Array, "dim dim"]:
    """A root F of a covariance F F^T whose law is inverse-Wishart: of `dof` normal numbers with squares `rate`, prior
    included. By Bartlett's decomposition."""
    key_diagonal, key_below = jax.random.split(key)
    dim = len(rate)
    diagonal = jnp.sqrt(jax.random.chisquare(key_diagonal, dof - jnp.arange(dim)))
    factor = jnp.tril(jax.random.normal(key_below, (dim, dim)), -1) + jnp.diag(diagonal)
    inverse = jax.scipy.linalg.solve_triangular(factor, jnp.eye(dim), lower=True)
    return jnp.linalg.cholesky(rate) @ inverse.T


class CoefficientPrior(NamedTuple):
    """Independent normal priors of read-out coefficients."""

    mean: Float[Array, "unit regressor"]
    sd: Float[Array, "unit regressor"]


def propose_coefficients(
    key: Key[Array, ""],
    coefficients: Float[Array, "unit regressor"],
    design: Float[Array, "trial time regressor"],
    offset: Float[Array, "..."],
    seen: Seen,
    observation: Observation,
    prior: CoefficientPrior,
    step: Float[Array, " unit"] | float = 1.0,
) -> tuple[Float[Array, "unit regressor"], Float[Array, " unit"]]:
    """Every unit's read-out coefficients drawn from about the Laplace approximation of their posterior given the paths,
    and the log ratio by which a Metropolis step has to accept them. `offset`, which broadcasts against `(trial, time,
    unit)`, adds to the predictor.

    The proposal is Student's t around where Newton's method leads in one step from the present coefficients, the way
    back around where it leads from the proposed ones: exact also where it converges slowly. A `step` below 1 goes only
    a part of the way, with noise of its size, so that the posterior stays about the same.
    """
    x, size = design.reshape(-1, design.shape[-1]), design.shape[-1]
    y, mask = seen.activity.reshape(len(x), -1), seen.mask.reshape(len(x), -1)
    pairs = (x[:, :, None] * x[:, None]).reshape(len(x), -1)
    constant = jnp.broadcast_to(offset, seen.activity.shape).reshape(y.shape) if offset.ndim else offset
    diagonal = prior.sd[:, :, None] ** -2 * jnp.eye(size)
    noise_sd = jnp.asarray(step)[..., None]
    share = 1 - jnp.sqrt(1 - noise_sd**2)

    def approximation(b: Array) -> tuple[Array, Array, Array]:
        """Predictor at `b`, centre of the proposal from there, and Cholesky factor of its precision."""
        predictor = x @ b.T + constant
        score, information = observation.score_and_information(y, predictor)
        slope = jnp.where(mask, score, 0.0).T @ x - (b - prior.mean) / prior.sd**2
        root = jnp.linalg.cholesky((jnp.where(mask, information, 0.0).T @ pairs).reshape(-1, size, size) + diagonal)
        newton = jax.scipy.linalg.cho_solve((root, True), slope[..., None])[..., 0]
        return predictor, b + share * jnp.clip(newton, -_LONGEST_STEP, _LONGEST_STEP), root

    def log_proposal(standard: Array, root: Array) -> Array:
        tails = 0.5 * (_FREEDOM + size) * jnp.log1p((standard**2).sum(1) / _FREEDOM)
        return jnp.log(jnp.diagonal(root, axis1=1, axis2=2)).sum(1) - tails

    predictor, centre, root = approximation(coefficients)
    key_noise, key_tail = jax.random.split(key)
    noise = jax.random.normal(key_noise, centre.shape, centre.dtype)
    noise = noise / jnp.sqrt(jax.random.chisquare(key_tail, _FREEDOM, (len(noise), 1), noise.dtype) / _FREEDOM)
    unscaled = jax.vmap(lambda r, e: jax.scipy.linalg.solve_triangular(r, e, lower=True, trans=1))(root, noise)
    proposed = centre + noise_sd * unscaled
    other_predictor, back, other_root = approximation(proposed)
    before = jnp.einsum("uij,ui->uj", other_root, (coefficients - back) / noise_sd)
    # Entry by entry: of long recordings, the sums would lose the difference in single precision.
    gained = observation.log_kernel(y, other_predictor) - observation.log_kernel(y, predictor)
    standard = (proposed - prior.mean) / prior.sd, (coefficients - prior.mean) / prior.sd
    gained = jnp.where(mask, gained, 0.0).sum(0) + 0.5 * (standard[1] ** 2 - standard[0] ** 2).sum(1)
    return proposed, gained + log_proposal(before, other_root) - log_proposal(noise, root)


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
