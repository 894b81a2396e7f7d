"""One sweep of Gibbs sampling of a state-space model: paths, noise and paths together, parameters given paths."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from connectinfer.latent.conditionals import Conditionals, Paths
from connectinfer.latent.path_moves import (
    LONGEST_PIECE,
    PathDraw,
    approximate_paths,
    deviations_from,
    free_bins,
    move_paths,
)
from connectinfer.latent.state_space import PathPosterior, Seen, StateSpace, path_log_density

_FIRST_NOISE_STEP, _NOISE_ACCEPTANCE = 0.1, 0.3
_NOISE_MOVES = 2


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
    key, key_free, key_paths, key_noise, key_update, _ = _keys(chain)
    free = free_bins(key_free, chain.paths.shape[1])
    space = conditionals.space(chain.parameters, arrays)
    found = approximate_paths(space, seen, chain.mode, chain.paths, free)
    draw, chances = move_paths(key_paths, found, chain.paths, space, seen, free, chain.taken < warmup // 2)
    parameters, noise_step, stats = chain.parameters, chain.noise_step, {"path_acceptance": jnp.nanmean(chances)}
    if conditionals.propose_noise is not None:

        def move(now: tuple[PyTree, PathDraw], key: Array) -> tuple[tuple[PyTree, PathDraw], Array]:
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
    stats |= more | {"failed_updates": failed, "log_joint": _log_joint(space, seen, draw)}
    return Chain(key, parameters, paths, mode, noise_step, chain.taken + 1), stats


def _log_joint(space: StateSpace, seen: Seen, draw: PathDraw) -> Float[Array, ""]:
    constant = jnp.where(seen.mask, space.observation.log_constant(seen.activity), 0.0)
    return draw.log_density.sum() + constant.sum()


def _keys(chain: Chain) -> Key[Array, " key"]:
    """Those of the next sweep, and the last one for what is drawn beside the chain."""
    return jax.random.split(chain.key, 6)


def drawn_sites(chain: Chain, conditionals: Conditionals, seen: Seen, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """The sites of the model where a chain stands, with what follows the end of a trial drawn from the dynamics."""
    key_sites, key_rest = jax.random.split(_keys(chain)[-1])
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
    noise = jax.random.normal(key_start, jnp.moveaxis(found.mode, 0, -1).shape, found.mode.dtype)
    start = found.mode + deviations_from(found, jnp.where(seen.alive.T[:, None], noise, 0.0))

    def move(paths: Paths, key: Array) -> tuple[Paths, Array]:
        key_free, key_paths = jax.random.split(key)
        free = free_bins(key_free, n_bins)
        # Pieces of long paths have an approximation of their own, given the bins between them.
        own = found if n_bins <= LONGEST_PIECE else approximate_paths(space, seen, found.mode, paths, free)
        draw, chances = move_paths(key_paths, own, paths, space, seen, free, False)
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


def _move_noise(
    key: PRNGKeyArray,
    noise_step: Float[Array, ""],
    parameters: PyTree,
    draw: PathDraw,
    conditionals: Conditionals,
    seen: Seen,
    free: Bool[Array, " time"],
    arrays: Mapping[str, Any],
) -> tuple[tuple[PyTree, PathDraw], Float[Array, ""]]:
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
    found = approximate_paths(space, seen, mode, paths, free)
    paths = found.mode + deviations_from(found, draw.noise)
    proposed = PathDraw(found, draw.noise, paths, path_log_density(space, seen, paths))
    # Differences bin by bin: sums over all bins would lose them in single precision.
    gained = (proposed.log_density - draw.log_density).sum()
    volume = (draw.posterior.factor.log_diagonal - found.factor.log_diagonal).sum()
    log_ratio = gained + volume + proposal.log_ratio
    accepted = jnp.log(jax.random.uniform(key_accept)) < log_ratio
    taken = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), (proposal.parameters, proposed), (parameters, draw)
    )
    chance = jnp.where(jnp.isfinite(log_ratio), jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    return taken, chance
