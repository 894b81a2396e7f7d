"""Attracting limit cycles of a drift: shape, period and Floquet multipliers."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Complex, Float

from connectinfer.dynamics.fixed_points import check_starts
from connectinfer.dynamics.simulate import flow, integrate

STEPS_PER_PERIOD = 256
SAMPLE_INTERVAL = 0.1
"""Settled paths are sampled at this interval (in tau) to find their first return."""


class LimitCycle(eqx.Module):
    """A closed orbit: `STEPS_PER_PERIOD` points equally spaced in time, its period in tau, and how it attracts.

    `multipliers` are the Floquet multipliers, the eigenvalues of the linearised return map after one period: the
    first is the trivial one (1, along the orbit), the others shrink perturbations if smaller than 1 in size.
    """

    orbit: Float[np.ndarray, "time rank"]
    period: float
    multipliers: Complex[np.ndarray, " rank"]

    @property
    def radius(self) -> float:
        """Root mean square distance of the orbit from its mean over time; the radius if the orbit is a circle."""
        return float(np.sqrt(np.square(self.orbit - self.orbit.mean(0)).sum(-1).mean()))

    @property
    def stable(self) -> bool:
        """Whether all multipliers but the trivial one are smaller than 1 in size."""
        return bool((np.abs(self.multipliers[1:]) < 1).all())


def limit_cycles(
    drift: Callable[[Array], Array],
    starts: Float[Array, "start rank"],
    *,
    settle: float = 200.0,
    longest_period: float = 100.0,
    tolerance: float = 1e-4,
) -> tuple[LimitCycle, ...]:
    """The distinct limit cycles that attract `starts`, refined by shooting.

    `drift` maps one state (rank,) to its velocity (rank,), per tau; all times are in tau. Paths run for `settle`,
    then for `longest_period`; those that come back to where they were are refined to closed orbits. An orbit counts
    if it closes to within `tolerance` times its radius. Repelling cycles, and cycles longer than `longest_period`,
    are not found.

    Raises:
        ValueError: if `starts` is not a non-empty matrix of finite numbers.
    """
    check_starts(starts)
    paths = np.asarray(_settled_paths(drift, starts, settle, longest_period))
    n_lost = int((~np.isfinite(paths).all(axis=(1, 2))).sum())
    if n_lost:
        warnings.warn(
            f"{n_lost} of {len(paths)} paths diverged or took too many steps and were not searched for limit cycles; "
            "choose starts closer to the visited states.",
            stacklevel=2,
        )
    scale = max(float(np.abs(np.asarray(starts)).max()), 1.0)
    cycles: list[LimitCycle] = []
    for path in paths:
        guess = _first_return(path, smallest=1e-3 * scale)
        if guess is None or any(_lies_on(path[0], cycle) for cycle in cycles):
            continue
        cycle = _refine(drift, guess, tolerance)
        if cycle is not None and not any(_lies_on(cycle.orbit[0], other) for other in cycles):
            cycles.append(cycle)
    return tuple(cycles)


class _Return(NamedTuple):
    point: np.ndarray
    period: float


def _first_return(path: np.ndarray, smallest: float) -> _Return | None:
    """Where and when `path` first comes back through the plane across its initial velocity, close to its start."""
    if not np.isfinite(path).all():
        return None
    distance = np.linalg.norm(path - path[0], axis=-1)
    size = distance.max()
    if size < smallest:
        return None
    ahead = (path - path[0]) @ (path[1] - path[0])
    crossing = (ahead[:-1] < 0) & (ahead[1:] >= 0) & (distance[1:] < 0.2 * size)
    if not crossing.any():
        return None
    k = int(np.argmax(crossing))
    fraction = ahead[k] / (ahead[k] - ahead[k + 1])
    return _Return(path[0], (k + fraction) * SAMPLE_INTERVAL)


def _refine(drift, guess: _Return, tolerance: float) -> LimitCycle | None:
    start = (jnp.asarray(guess.point), jnp.asarray(guess.period, guess.point.dtype))
    orbit, period, monodromy, gap = (np.asarray(x) for x in _shoot(drift, start))
    eigenvalues = np.linalg.eigvals(monodromy).astype(complex) if np.isfinite(monodromy).all() else None
    if eigenvalues is None or not guess.period / 2 < period < guess.period * 2:
        return None
    trivial = np.argmin(np.abs(eigenvalues - 1))
    others = np.delete(eigenvalues, trivial)
    multipliers = np.concatenate([eigenvalues[[trivial]], others[np.argsort(-np.abs(others))]])
    cycle = LimitCycle(orbit, float(period), multipliers)
    return cycle if gap <= tolerance * cycle.radius else None


@eqx.filter_jit
def _settled_paths(drift, starts, settle, longest_period):
    time = jnp.arange(round(longest_period / SAMPLE_INTERVAL) + 1) * SAMPLE_INTERVAL

    def path(start):
        settled = integrate(drift, start, jnp.array([0.0, settle]))[0]
        return integrate(drift, settled[-1], time)[0]

    # Each start has steps of its own: with shared ones a diverging start would end all paths.
    return jax.vmap(path)(starts)


@eqx.filter_jit
def _shoot(drift, guess):
    """The closed orbit near `guess` = (point, period), its period, return-map Jacobian and remaining gap."""
    anchor, _ = guess
    direction = drift(anchor)

    def after(point, period):
        return flow(drift, point, period, STEPS_PER_PERIOD)

    def gap(unknowns, _):
        point, period = unknowns
        # The plane across the drift picks one of the orbit's points, which are all equally closed.
        return after(point, period) - point, jnp.dot(direction, point - anchor)

    solver = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    point, period = optx.root_find(gap, solver, guess, max_steps=32, throw=False).value
    time = jnp.arange(STEPS_PER_PERIOD) * (period / STEPS_PER_PERIOD)
    orbit = integrate(drift, point, time)[0]
    monodromy = jax.jacfwd(after)(point, period)
    return orbit, period, monodromy, jnp.linalg.norm(after(point, period) - point)


def _lies_on(point: np.ndarray, cycle: LimitCycle) -> bool:
    return bool(np.linalg.norm(cycle.orbit - point, axis=-1).min() < 0.05 * cycle.radius)
