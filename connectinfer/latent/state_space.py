r"""State-space models: posteriors of latent paths given parameters, and likelihoods with the paths integrated out.

$$z_1 \sim N(\mu_0, V_0), \quad z_{t+1} \sim N(g(z_t, v_t), Q), \quad
y_{ti} \sim p(y \mid \eta_{ti}), \; \eta_{ti} = c_i \cdot z_t + o_{ti}.$$

The posterior of a path is approximated by a Gaussian around its mode whose precision, that of Gauss and Newton, is
block-tridiagonal: Newton's method takes time linear in bins, and draws come as Metropolis proposals that are nearly
always accepted.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from connectinfer.distributions.latent_path import centred_normal
from connectinfer.dynamics.observation import Observation
from connectinfer.latent.block_tridiagonal import (
    BlockTridiagonal,
    Factor,
    factorise,
    solve,
    times,
    times_vector,
    transpose,
)

# In units of the latent space: longer steps leave the region where the quadratic model means anything.
_LONGEST_STEP = 1.5
# Each step leaves a share of the error of the mode's derivative, because its matrix is not quite the Hessian: at draws
# of the priors of the zoo 0.1 (Gaussian) and 0.2 (Poisson) in the median, 0.3 and 0.6 or more in a tenth.
_IMPLICIT_STEPS = 3
# Twice the nats below the maximum. Where the noise is small, single precision gets no further than this.
_TOLERABLE_DECREMENT = 0.1
_MOST_STEPS = 100


class StateSpace(eqx.Module):
    """Law of paths and observations at given parameters; leaves may be traced.

    `transition(z, v)` maps `(..., dim)` and the inputs `(..., input)` to the mean of the next bin; `noise_tril` is the
    Cholesky factor of Q per bin. `offset` broadcasts against `(trial, time, unit)`.
    """

    initial_mean: Float[Array, " dim"]
    initial_tril: Float[Array, "dim dim"]
    transition: Callable
    noise_tril: Float[Array, "dim dim"]
    inputs: Float[Array, "trial time input"]
    loading: Float[Array, "unit dim"]
    offset: Float[Array, "..."]
    observation: Observation

    def predictor(self, z: Float[Array, "trial time dim"]) -> Float[Array, "trial time unit"]:
        """The linear predictor of every entry."""
        return z @ self.loading.T + self.offset


class Seen(NamedTuple):
    """`activity` and `mask (trial, time, unit)` of a recording; `alive (trial, time)`, False after a trial's end."""

    activity: Float[Array, "trial time unit"]
    mask: Bool[Array, "trial time unit"]
    alive: Bool[Array, "trial time"]

    @classmethod
    def of(cls, activity: Float[Array, "trial time unit"], mask: Bool[Array, "trial time unit"]) -> "Seen":
        """A trial lasts until its last observed bin; unobserved ones before it are part of it."""
        alive = jnp.flip(jnp.cumsum(jnp.flip(mask.any(-1), 1), axis=1), 1) > 0
        return cls(jnp.where(mask, activity, 0.0), mask, alive)


class PathPosterior(NamedTuple):
    """The Gaussian around the mode `(trial, time, dim)` of the paths, and the factor of its precision."""

    mode: Float[Array, "trial time dim"]
    factor: Factor


def path_posterior(
    space: StateSpace,
    seen: Seen,
    start: Float[Array, "trial time dim"],
    *,
    steps: int,
    last_step: float = 0.0,
    free: Bool[Array, " time"] | None = None,
) -> PathPosterior:
    """The Laplace approximation of the paths' posterior, by Newton steps from `start`, at most `steps`.

    They end when the next one would not be longer than `last_step` standard deviations of the posterior in any trial,
    if steps went on to shrink as the last one did; the precision is the one that led to that. Bins that are not `free`
    keep their values: the approximation is that of the others given these.
    """
    moving = seen.alive if free is None else seen.alive & free

    def step(now: _Search) -> _Search:
        found, before, _, taken = now
        slope, precision = _gradient_and_precision(space, seen, moving, found.mode)
        factor = factorise(precision)
        change = solve(factor, slope)
        size = jnp.linalg.norm(change, axis=1, keepdims=True)
        mode = found.mode + _trial_first(change * _share_taken(size))
        length = (slope * change).sum((0, 1)).max()
        return _Search(PathPosterior(mode, factor), length, length * jnp.minimum(1.0, length / before), taken + 1)

    def goes_on(now: _Search) -> Array:
        return (now.next > last_step**2) & (now.taken < steps)

    near, far = jnp.array(0.0, start.dtype), jnp.array(jnp.inf, start.dtype)
    first = _Search(PathPosterior(start, _no_factor(start)), near, far, jnp.array(0))
    return jax.lax.while_loop(goes_on, step, first).found


class _Search(NamedTuple):
    """Where Newton's method stands: squared lengths of the last step and, about, of the next one."""

    found: PathPosterior
    last: Float[Array, ""]
    next: Float[Array, ""]
    taken: Int[Array, ""]


class FoundMode(NamedTuple):
    """The Laplace approximation at the mode; by trial the squared length of the last Newton step in posterior sds, and
    whether that is below 0.1: then the mode counts as found; how many `steps` it took."""

    posterior: PathPosterior
    decrement: Float[Array, " trial"]
    converged: Bool[Array, " trial"]
    steps: Int[Array, ""]


class _Climb(NamedTuple):
    """What was found, the share of the next Newton step that is tried in every trial, and the log joint density."""

    found: FoundMode
    length: Float[Array, " trial"]
    log_density: Float[Array, "trial time"]


def find_mode(space: StateSpace, seen: Seen, start: Float[Array, "trial time dim"]) -> FoundMode:
    """The Laplace approximation of the paths' posterior at its mode, by Newton's method from `start`.

    Steps that do not raise the log joint density of a trial are not taken, and the next one is a quarter as long: from
    any start with a finite density, the method only climbs. It ends where no trial has a step of a tenth of a posterior
    sd to go (less in double precision), or after 100 steps.
    """

    negligible = 30 * jnp.finfo(start.dtype).eps ** 0.5

    def climb(now: _Climb) -> _Climb:
        mode = now.found.posterior.mode
        slope, precision = _gradient_and_precision(space, seen, seen.alive, mode)
        factor = factorise(precision)
        change = solve(factor, slope)
        decrement = (change * slope).sum((0, 1))
        # All bins of a trial keep pace: where the noise is small, a path that is bent costs hundreds of nats.
        size = jnp.linalg.norm(change, axis=1).max(0)
        proposed = mode + _trial_first(change * now.length * _share_taken(size))
        log_density = path_log_density(space, seen, proposed)
        # Differences bin by bin: sums over all bins would lose them in single precision.
        better = (log_density - now.log_density).sum(1) > -negligible
        taken = jnp.where(better[:, None, None], proposed, mode)
        converged = decrement < _TOLERABLE_DECREMENT
        found = FoundMode(PathPosterior(taken, factor), decrement, converged, now.found.steps + 1)
        length = jnp.where(better, jnp.minimum(2 * now.length, 1.0), now.length / 4)
        return _Climb(found, length, jnp.where(better[:, None], log_density, now.log_density))

    n_trials = len(start)
    none = FoundMode(
        PathPosterior(start, _no_factor(start)),
        jnp.full(n_trials, jnp.inf, start.dtype),
        jnp.zeros(n_trials, bool),
        jnp.array(0),
    )
    first = _Climb(none, jnp.ones(n_trials, start.dtype), path_log_density(space, seen, start))
    ended = lambda now: (now.found.decrement < negligible).all() | (now.found.steps >= _MOST_STEPS)  # noqa: E731
    return jax.lax.while_loop(lambda now: ~ended(now), climb, first).found


def path_log_density(space: StateSpace, seen: Seen, z: Float[Array, "trial time dim"]) -> Float[Array, "trial time"]:
    """Log joint density of paths and observations by bin, up to what depends on neither paths nor their law: of its
    observations, and of the transition that leads to it. 0 after a trial's end."""
    observed = space.observation.log_kernel(seen.activity, space.predictor(z))
    observed = jnp.where(seen.mask, observed, 0.0).sum(-1)
    first = centred_normal(space.initial_tril, z[:, 0] - space.initial_mean)
    later = centred_normal(space.noise_tril, z[:, 1:] - space.transition(z[:, :-1], space.inputs[:, :-1]))
    return jnp.where(seen.alive, observed + jnp.concatenate([first[:, None], later], 1), 0.0)


def log_marginal(space: StateSpace, seen: Seen, start: Float[Array, "trial time dim"]) -> Float[Array, " trial"]:
    """Laplace approximation of the log likelihood of every trial with its path integrated out; differentiable.

    Exact, up to the convergence of Newton's method from `start`, for linear transitions and Gaussian observations.
    Gradients account for how the mode moves with the parameters, by more Newton steps whose matrix is held fixed.
    """
    frozen = jax.lax.stop_gradient(space)
    found = jax.lax.stop_gradient(find_mode(frozen, seen, start))
    mode = found.posterior.mode
    for _ in range(_IMPLICIT_STEPS):
        slope, _ = _gradient_and_precision(space, seen, seen.alive, mode)
        change = _trial_first(solve(found.posterior.factor, slope))
        # Far from the mode whole steps lead anywhere, and then derivatives are not finite.
        mode = mode + jnp.where(found.converged[:, None, None], change, 0.0)
    _, precision = _gradient_and_precision(space, seen, seen.alive, mode)
    # The joint density is stationary at the mode: how the mode moves matters for the curvature alone.
    return log_marginal_at(space, seen, PathPosterior(jax.lax.stop_gradient(mode), factorise(precision)))


def log_marginal_at(space: StateSpace, seen: Seen, found: PathPosterior) -> Float[Array, " trial"]:
    """Laplace approximation of the log likelihood of every trial, given that of its path's posterior."""
    constant = jnp.where(seen.mask, space.observation.log_constant(seen.activity), 0.0).sum((1, 2))
    joint = path_log_density(space, seen, found.mode).sum(1) + constant
    size = seen.alive.sum(1) * found.mode.shape[-1]
    return joint - 0.5 * found.factor.log_det + 0.5 * size * jnp.log(2 * jnp.pi)


def _gradient_and_precision(
    space: StateSpace, seen: Seen, moving: Bool[Array, "trial time"], z: Float[Array, "trial time dim"]
) -> tuple[Float[Array, "time dim trial"], BlockTridiagonal]:
    """Gradient of the log joint density, 0 at bins that do not move, and Gauss and Newton's precision, there the
    identity."""
    dim, n_trials = z.shape[-1], len(z)
    score, information = space.observation.score_and_information(seen.activity, space.predictor(z))
    score, information = jnp.where(seen.mask, score, 0.0), jnp.where(seen.mask, information, 0.0)
    pairs = (space.loading[:, :, None] * space.loading[:, None]).reshape(-1, dim * dim)
    # Fused into what follows, transpositions would read memory in strides again and again.
    following, jacobian = _linearised(space, z[:, :-1])
    observed, curved, gap, jacobian = jax.lax.optimization_barrier(
        (
            _trial_last(score @ space.loading),
            _trial_last(information @ pairs).reshape(-1, dim, dim, n_trials),
            _trial_last(z[:, 1:] - following),
            jacobian,
        )
    )
    lives, moves = seen.alive.T, moving.T
    counts = (lives[1:] & lives[:-1])[:, None]
    noise, first = _inverse(space.noise_tril)[..., None], _inverse(space.initial_tril)
    pull = jnp.where(counts, times_vector(noise, gap), 0.0)
    weighted = jnp.where(counts[:, None], times(noise, jacobian), 0.0)
    into = jnp.concatenate([(first @ (z[:, 0] - space.initial_mean).T)[None], pull])
    out_of = times_vector(transpose(jacobian), pull)
    slope = observed - into + jnp.concatenate([out_of, jnp.zeros_like(into[:1])])
    arriving = jnp.where(counts[:, None], noise, 0.0)
    start = jnp.broadcast_to(first[..., None], (1, *arriving.shape[1:]))
    leaving = times(transpose(jacobian), weighted)
    diagonal = curved + jnp.concatenate([start, arriving]) + jnp.concatenate([leaving, jnp.zeros_like(start)])

    coupling = jnp.where((moves[1:] & moves[:-1])[:, None, None], -transpose(weighted), 0.0)
    diagonal = jnp.where(moves[:, None, None], diagonal, jnp.eye(dim)[..., None])
    return jnp.where(moves[:, None], slope, 0.0), BlockTridiagonal(diagonal, coupling)


def _share_taken(size: Float[Array, "*trial"]) -> Float[Array, "*trial"]:
    return jnp.minimum(1.0, _LONGEST_STEP / jnp.maximum(size, 1e-6))


def _no_factor(start: Float[Array, "trial time dim"]) -> Factor:
    n_trials, n_time, dim = start.shape
    blocks = jnp.zeros((n_time, dim, dim, n_trials), start.dtype)
    return Factor(blocks, blocks[1:])


def _linearised(
    space: StateSpace, z: Float[Array, "trial step dim"]
) -> tuple[Float[Array, "trial step dim"], Float[Array, "step dim dim trial"]]:
    """Means of the next bin, and their Jacobians `[step, to, from, trial]`."""
    mean, linear = jax.linearize(lambda z: space.transition(z, space.inputs[:, :-1]), z)
    directions = jnp.broadcast_to(jnp.eye(z.shape[-1])[:, None, None], (z.shape[-1], *z.shape))
    return mean, jnp.transpose(jax.vmap(linear)(directions), (2, 3, 0, 1))


def _inverse(tril: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    root = jnp.linalg.inv(tril)
    return root.T @ root


def _trial_last(x: Float[Array, "trial time dim"]) -> Float[Array, "time dim trial"]:
    return jnp.moveaxis(x, 0, -1)


def _trial_first(x: Float[Array, "time dim trial"]) -> Float[Array, "trial time dim"]:
    return jnp.moveaxis(x, -1, 0)
