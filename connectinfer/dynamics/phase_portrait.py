"""What a drift does: its flow on a grid, fixed points with their stability, and limit cycles."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from connectinfer.dynamics.fixed_points import MARGINAL_RATE, FixedPoints, fixed_points
from connectinfer.dynamics.limit_cycles import LimitCycle, limit_cycles

SHOWN = 12
"""At most this many fixed points are printed: a continuous attractor has as many as there were starts."""


class VectorField(NamedTuple):
    """Velocities (per tau) at the points of a regular grid, `ij`-indexed: axis k of the grid is latent dimension k."""

    points: Float[Array, "*grid rank"]
    velocity: Float[Array, "*grid rank"]


class PhasePortrait(eqx.Module):
    """Fixed points and attracting limit cycles of a drift; `print` shows them with times in seconds."""

    fixed_points: FixedPoints
    limit_cycles: tuple[LimitCycle, ...]
    tau: float

    def __str__(self) -> str:
        points = self.fixed_points
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(points.stability).items())
        lines = [f"Phase portrait of a {points.location.shape[1]}-dimensional drift, tau = {self.tau:g} s"]
        lines.append(f"Fixed points: {len(points.stability)}" + (f" ({kinds})" if kinds else ""))
        rows = zip(points.stability, points.location, points.eigenvalues[:, 0], strict=True)
        lines += [
            f"  {kind:<8}  at {_numbers(location)}  {_time_scale(eigenvalue, self.tau)}"
            for kind, location, eigenvalue in islice(rows, SHOWN)
        ]
        if len(points.stability) > SHOWN:
            lines.append(f"  ... and {len(points.stability) - SHOWN} more")
        lines.append(f"Attracting limit cycles: {len(self.limit_cycles)}")
        lines += [f"  {_describe(cycle, self.tau)}" for cycle in self.limit_cycles]
        return "\n".join(lines)


def phase_portrait(drift: Callable[[Array], Array], starts: Float[Array, "start rank"], *, tau: float) -> PhasePortrait:
    """Fixed points and attracting limit cycles found from `starts`.

    `drift` maps one state (rank,) to its velocity (rank,) in units per `tau` (s). `starts` should cover the region of
    interest: the points of `vector_field(...)` in up to three dimensions, visited states in more. What no start leads
    to is missed. For other tolerances call `fixed_points` and `limit_cycles`.

    Raises:
        ValueError: if `tau` is not positive or `starts` is not a non-empty, finite matrix.
    """
    if not tau > 0:
        raise ValueError(f"`tau` is a time constant in seconds and must be positive; got {tau}.")
    return PhasePortrait(fixed_points(drift, starts), limit_cycles(drift, starts), tau)


def vector_field(
    drift: Callable[[Array], Array],
    lower: Float[Array, " rank"],
    upper: Float[Array, " rank"],
    n_points: int = 25,
) -> VectorField:
    """The drift on a regular grid of `n_points` per dimension between the corners `lower` and `upper`.

    Raises:
        ValueError: if a corner of `upper` is not above that of `lower`.
    """
    if lower.shape != upper.shape or not bool((upper > lower).all()):
        raise ValueError(f"`upper` must lie above `lower` in every dimension; got {lower} and {upper}.")
    axes = [jnp.linspace(low, high, n_points) for low, high in zip(lower, upper, strict=True)]
    points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)
    velocity = jax.vmap(drift)(points.reshape(-1, lower.shape[0]))
    return VectorField(points, velocity.reshape(points.shape))


def _numbers(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:+.3f}" for value in values) + ")"


def _time_scale(eigenvalue: complex, tau: float) -> str:
    rate = eigenvalue.real
    if abs(rate) < MARGINAL_RATE:
        return "neither grows nor decays"
    scale = f"{'grows' if rate > 0 else 'decays'} within {tau / abs(rate):.3g} s"
    turning = abs(eigenvalue.imag) / (2 * np.pi * tau)
    return f"{scale}, turns at {turning:.3g} Hz" if turning > 0 else scale


def _describe(cycle: LimitCycle, tau: float) -> str:
    seconds = cycle.period * tau
    return (
        f"radius {cycle.radius:.3f}  around {_numbers(cycle.orbit.mean(0))}  period {seconds:.3g} s "
        f"({1 / seconds:.3g} Hz)  largest multiplier {np.abs(cycle.multipliers[1:]).max(initial=0):.2g}"
    )
