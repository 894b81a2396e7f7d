"""One sweep of Gibbs sampling of a state-space model: paths, noise and paths together, parameters given paths."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from connectinfer.latent.block_tridiagonal import solve, standardise
from connectinfer.latent.conditionals import Conditionals
from connectinfer.latent.state_space import PathPosterior, Seen, StateSpace, path_log_density, path_posterior

# In standard deviations of a whole path, hundreds of numbers: closer to the mode, proposals are no better.
_NEWTON_STEPS, _LAST_STEP = 12, 0.2
# Longer paths are drawn piece by piece: of whole ones, fewer proposals would be accepted the longer they are.
_LONGEST_PIECE = 400
_FIRST_NOISE_STEP, _NOISE_ACCEPTANCE = 0.1, 0.3
_NOISE_MOVES = 2

Paths = Float[Array, "trial time dim"]


class Chain(NamedTuple):
    """Where a chain stands: `mode` is that of the paths' last approximation, from which the next one starts;
    `noise_step` the relative size of moves of the noise; `taken` how many sweeps there were."""

    key: PRNGKeyArray
    parameters: PyTree
    paths: Paths
    mode: Paths
    noise_step: Float[Array, ""]
    taken: Int[Array, ""]


def first_link(key: PRNGKeyArray, parameters: PyTree, paths: Paths) -> Chain:
    """A chain that has not moved yet."""
    return Chain(key, parameters, paths, paths, jnp.array(_FIRST_NOISE_STEP), jnp.array(0))


def sweep(
    chain: Chain, conditionals: Conditionals, seen: Seen, arrays: Mapping[str, Any], warmup: int
) -> tuple[Chain, dict[str, Array]]:
    """The chain after one sweep, and its statistics.

    In the first half of `warmup` sweeps every proposed path is taken: from a poor start, a Metropolis step would hardly
    ever leave it. The size of moves of the noise adapts during the warm-up.
    """
    key, key_free, key_paths, key_noise, key_update = jax.random.split(chain.key, 5)
    free = _free_bins(key_free, chain.paths.shape[1])
    space = conditionals.space(chain.parameters, arrays)
    found = _approximation(space, seen, chain.mode, chain.paths, free)
    draw, chances = _move_paths(key_paths, found, chain.paths, space, seen, free, chain.taken < warmup // 2)
    parameters, noise_step, stats = chain.parameters, chain.noise_step, {"path_acceptance": jnp.nanmean(chances)}
    if conditionals.propose_noise is not None:

        def move(now: tuple[PyTree, _Draw], key: Array) -> tuple[tuple[PyTree, _Draw], Array]:
            return _move_noise(key, noise_step, *now, conditionals, seen, free, arrays)

        (parameters, draw), chances = jax.lax.scan(move, (parameters, draw), jax.random.split(key_noise, _NOISE_MOVES))
        stats["noise_acceptance"] = chance = chances.mean()
        rate = jnp.where(chain.taken < warmup, (chain.taken + 1.0) ** -0.6, 0.0)
        noise_step = noise_step * jnp.exp(rate * (chance - _NOISE_ACCEPTANCE))
    paths, mode = draw.paths, draw.posterior.mode
    moved, turned, more = conditionals.update(key_update, parameters, paths, seen, arrays)
    # A regression that fails in single precision leaves everything as it was, and is counted.
    failed = ~jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((moved, turned))]).all()
    parameters, paths = jax.tree.map(lambda new, old: jnp.where(failed, old, new), (moved, turned), (parameters, paths))
    stats |= more | {"failed_updates": failed, "log_joint": draw.log_density.sum()}
    return Chain(key, parameters, paths, mode, noise_step, chain.taken + 1), stats


def drawn_sites(chain: Chain, conditionals: Conditionals, seen: Seen, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """The sites of the model where a chain stands, with what follows the end of a trial drawn from the dynamics."""
    key_sites, key_rest = jax.random.split(chain.key)
    paths = continued(key_rest, conditionals.space(chain.parameters, arrays), seen, chain.paths)
    return conditionals.sites(key_sites, chain.parameters, paths, arrays)


def draw_paths(
    key: PRNGKeyArray, space: StateSpace, seen: Seen, found: PathPosterior, moves: int
) -> tuple[Paths, Float[Array, " trial"]]:
    """A draw of the paths from their posterior at given parameters, and every trial's mean chance of a move.

    A draw from `found`, the Laplace approximation at the mode, is followed by `moves` Metropolis moves towards others;
    what follows the end of a trial comes from the dynamics.
    """
    key_start, key_moves, key_rest = jax.random.split(key, 3)
    n_bins = seen.alive.shape[1]
    noise = jax.random.normal(key_start, _time_first(found.mode).shape, found.mode.dtype)
    start = found.mode + _drawn(found, jnp.where(seen.alive.T[:, None], noise, 0.0))

    def move(paths: Paths, key: Array) -> tuple[Paths, Array]:
        key_free, key_paths = jax.random.split(key)
        free = _free_bins(key_free, n_bins)
        # Pieces of long paths have an approximation of their own, given the bins between them.
        own = found if n_bins <= _LONGEST_PIECE else _approximation(space, seen, found.mode, paths, free)
        draw, chances = _move_paths(key_paths, own, paths, space, seen, free, False)
        return draw.paths, jnp.nanmean(chances, 1)

    paths, chances = jax.lax.scan(move, start, jax.random.split(key_moves, moves))
    return continued(key_rest, space, seen, paths), chances.mean(0)


def continued(key: PRNGKeyArray, space: StateSpace, seen: Seen, paths: Paths) -> Paths:
    """`paths` with what follows the end of a trial drawn from the dynamics."""
    n_trials, n_bins, dim = paths.shape
    noise = jax.random.normal(key, (n_bins, n_trials, dim), paths.dtype)

    def step(before: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        z, alive, v, eps = now
        z = jnp.where(alive[:, None], z, space.transition(before, v) + eps @ space.noise_tril.T)
        return z, z

    first = jnp.where(seen.alive[:, :1], paths[:, 0], space.initial_mean + noise[0] @ space.initial_tril.T)
    by_bin = (jnp.moveaxis(x, 1, 0) for x in (paths[:, 1:], seen.alive[:, 1:], space.inputs[:, :-1]))
    _, later = jax.lax.scan(step, first, (*by_bin, noise[1:]))
    return jnp.concatenate([first[:, None], jnp.moveaxis(later, 0, 1)], 1)


class _Draw(NamedTuple):
    """Paths, the approximation that they were proposed from, the standard normal numbers that it turns into them, and
    their log joint density with the observations."""

    posterior: PathPosterior
    noise: Float[Array, "time dim trial"]
    paths: Paths
    log_density: Float[Array, "trial time"]


def _free_bins(key: PRNGKeyArray, n_bins: int) -> Bool[Array, " time"]:
    """Which bins move: all of a short trial, all but one in every piece of a long one, other ones in every sweep."""
    if n_bins <= _LONGEST_PIECE:
        return jnp.ones(n_bins, bool)
    offset = jax.random.randint(key, (), 0, _LONGEST_PIECE)
    return (jnp.arange(n_bins) + offset) % _LONGEST_PIECE != 0


def _approximation(
    space: StateSpace, seen: Seen, mode: Paths, paths: Paths, free: Bool[Array, " time"]
) -> PathPosterior:
    """That of bins that move, from a `mode` nearby, given the others of `paths`."""
    start = jnp.where(free[:, None], mode, paths)
    return path_posterior(space, seen, start, steps=_NEWTON_STEPS, last_step=_LAST_STEP, free=free)


def _move_paths(
    key: PRNGKeyArray,
    found: PathPosterior,
    paths: Paths,
    space: StateSpace,
    seen: Seen,
    free: Bool[Array, " time"],
    always: bool | Bool[Array, ""],
) -> tuple[_Draw, Float[Array, "trial piece"]]:
    """Paths proposed from the approximation and accepted piece by piece, and the chances of that, NaN where a trial has
    ended."""
    key_noise, key_accept = jax.random.split(key)
    moving = (seen.alive & free).T[:, None]
    noise = jnp.where(moving, jax.random.normal(key_noise, _time_first(paths).shape, paths.dtype), 0.0)
    proposed = found.mode + _drawn(found, noise)
    before = standardise(found.factor, _time_first(paths - found.mode))
    new, old = (path_log_density(space, seen, z) for z in (proposed, paths))
    gained = (new - old) + 0.5 * (noise**2 - jnp.where(moving, before**2, 0.0)).sum(1).T
    # A bin that does not move ends a piece: what it is observed to be, and how it was reached, belongs to this one.
    piece = jnp.cumsum(~free) - ~free
    n_pieces = -(-len(free) // _LONGEST_PIECE) + 1
    by_piece = gained @ jax.nn.one_hot(piece, n_pieces, dtype=gained.dtype)
    accepted = jnp.log(jax.random.uniform(key_accept, by_piece.shape)) < by_piece
    taken = accepted[:, piece] | (always & jnp.isfinite(by_piece)[:, piece])
    draw = _Draw(
        found,
        jnp.where(taken.T[:, None], noise, before),
        jnp.where(taken[..., None], proposed, paths),
        jnp.where(taken, new, old),
    )
    holds = seen.alive.astype(gained.dtype) @ jax.nn.one_hot(piece, n_pieces, dtype=gained.dtype) > 0
    return draw, jnp.where(holds, jnp.nan_to_num(jnp.exp(jnp.minimum(by_piece, 0.0))), jnp.nan)


def _move_noise(
    key: PRNGKeyArray,
    noise_step: Float[Array, ""],
    parameters: PyTree,
    draw: _Draw,
    conditionals: Conditionals,
    seen: Seen,
    free: Bool[Array, " time"],
    arrays: Mapping[str, Any],
) -> tuple[tuple[PyTree, _Draw], Float[Array, ""]]:
    """Parameters and paths after a move of the process noise in which paths keep their standard normal numbers, and its
    chance.

    Given paths, their noise is known to within a percent, and given the noise, so are the paths' increments: moved one
    after the other, neither gets anywhere. Source: Yu & Meng, JCGS 20, 531 (2011).
    """
    assert conditionals.propose_noise is not None
    key_propose, key_accept = jax.random.split(key)
    proposal = conditionals.propose_noise(key_propose, noise_step, parameters, arrays)
    space = conditionals.space(proposal.parameters, arrays)
    mode, paths = (x @ proposal.gauge.T for x in (draw.posterior.mode, draw.paths))
    found = _approximation(space, seen, mode, paths, free)
    paths = found.mode + _drawn(found, draw.noise)
    proposed = _Draw(found, draw.noise, paths, path_log_density(space, seen, paths))
    # Differences bin by bin: sums over all bins would lose them in single precision.
    gained = (proposed.log_density - draw.log_density).sum()
    volume = 0.5 * (draw.posterior.factor.log_det - found.factor.log_det).sum()
    log_ratio = gained + volume + proposal.log_ratio
    accepted = jnp.log(jax.random.uniform(key_accept)) < log_ratio
    taken = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), (proposal.parameters, proposed), (parameters, draw)
    )
    chance = jnp.where(jnp.isfinite(log_ratio), jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    return taken, chance


def _drawn(posterior: PathPosterior, noise: Float[Array, "time dim trial"]) -> Paths:
    return jnp.moveaxis(solve(posterior.factor, jnp.zeros_like(noise), noise), -1, 0)


def _time_first(paths: Paths) -> Float[Array, "time dim trial"]:
    return jnp.moveaxis(paths, 0, -1)
