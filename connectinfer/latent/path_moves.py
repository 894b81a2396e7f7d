"""Moves of latent paths: proposed from the Laplace approximation of their posterior, accepted piece by piece."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from connectinfer.latent.block_tridiagonal import solve, standardise
from connectinfer.latent.conditionals import Paths
from connectinfer.latent.state_space import PathPosterior, Seen, StateSpace, path_log_density, path_posterior

# Length of the last Newton step, in posterior sds of a whole path, hundreds of numbers. Moves of the noise lead back
# only up to the distance from the mode; on the recipe of the benchmarks, the log of their acceptance ratio is then
# right to 0.02, which single precision alone leaves.
_NEWTON_STEPS, _LAST_STEP = 12, 0.05
# Longer paths are drawn piece by piece: of whole ones, fewer proposals would be accepted the longer they are.
LONGEST_PIECE = 400
_IMPOSSIBLE = -1e30


class PathDraw(NamedTuple):
    """Paths, the approximation that they were proposed from, the standard normal numbers that it turns into them, and
    their log joint density with the observations."""

    posterior: PathPosterior
    noise: Float[Array, "time dim trial"]
    paths: Paths
    log_density: Float[Array, "trial time"]


def free_bins(key: PRNGKeyArray, n_bins: int) -> Bool[Array, " time"]:
    """Which bins move: all of a short trial, all but one in every piece of a long one, other ones in every sweep."""
    if n_bins <= LONGEST_PIECE:
        return jnp.ones(n_bins, bool)
    offset = jax.random.randint(key, (), 0, LONGEST_PIECE)
    return (jnp.arange(n_bins) + offset) % LONGEST_PIECE != 0


def approximate_paths(
    space: StateSpace, seen: Seen, mode: Paths, paths: Paths, free: Bool[Array, " time"]
) -> PathPosterior:
    """The Laplace approximation of bins that move, from a `mode` nearby, given the others of `paths`."""
    start = jnp.where(free[:, None], mode, paths)
    return path_posterior(space, seen, start, steps=_NEWTON_STEPS, last_step=_LAST_STEP, free=free)


def move_paths(
    key: PRNGKeyArray,
    found: PathPosterior,
    paths: Paths,
    space: StateSpace,
    seen: Seen,
    free: Bool[Array, " time"],
    always: bool | Bool[Array, ""],
) -> tuple[PathDraw, Float[Array, "trial piece"]]:
    """Paths proposed from the approximation and accepted piece by piece, and the chances of that, NaN where a trial has
    ended."""
    key_noise, key_accept = jax.random.split(key)
    moving = (seen.alive & free).T[:, None]
    noise = jnp.where(moving, jax.random.normal(key_noise, _time_first(paths).shape, paths.dtype), 0.0)
    proposed = found.mode + deviations_from(found, noise)
    before = standardise(found.factor, _time_first(paths - found.mode))
    new, old = (path_log_density(space, seen, z) for z in (proposed, paths))
    gained = (new - old) + 0.5 * (noise**2 - jnp.where(moving, before**2, 0.0)).sum(1).T
    # A bin that does not move ends a piece: what it is observed to be, and how it was reached, belongs to this one.
    piece = jnp.cumsum(~free) - ~free
    n_pieces = -(-len(free) // LONGEST_PIECE) + 1
    # Times 0, infinity would spread over all pieces of a trial.
    gained = jnp.where(jnp.isfinite(gained), gained, _IMPOSSIBLE)
    by_piece = gained @ jax.nn.one_hot(piece, n_pieces, dtype=gained.dtype)
    accepted = jnp.log(jax.random.uniform(key_accept, by_piece.shape)) < by_piece
    taken = accepted[:, piece] | (always & (by_piece > 0.5 * _IMPOSSIBLE)[:, piece])
    draw = PathDraw(
        found,
        jnp.where(taken.T[:, None], noise, before),
        jnp.where(taken[..., None], proposed, paths),
        jnp.where(taken, new, old),
    )
    holds = seen.alive.astype(gained.dtype) @ jax.nn.one_hot(piece, n_pieces, dtype=gained.dtype) > 0
    return draw, jnp.where(holds, jnp.nan_to_num(jnp.exp(jnp.minimum(by_piece, 0.0))), jnp.nan)


def deviations_from(posterior: PathPosterior, noise: Float[Array, "time dim trial"]) -> Paths:
    """How far from the mode standard normal numbers lead, under the approximation."""
    return jnp.moveaxis(solve(posterior.factor, jnp.zeros_like(noise), noise), -1, 0)


def _time_first(paths: Paths) -> Float[Array, "time dim trial"]:
    return jnp.moveaxis(paths, 0, -1)
