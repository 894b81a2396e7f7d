"""Vector fields, fixed points and limit cycles as the labelled data that `connectinfer.plots.dynamics` draws."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from connectinfer.dynamics.fixed_points import FixedPoints
from connectinfer.dynamics.phase_portrait import PhasePortrait, VectorField


def to_field(vector_field: VectorField) -> xr.Dataset:
    """`drift (x, y, latent_dim)` of a vector field in two latent dimensions.

    Raises:
        ValueError: if the field has another number of dimensions.
    """
    points = np.asarray(vector_field.points)
    if points.ndim != 3 or points.shape[-1] != 2:
        raise ValueError(
            f"a field is drawn in two latent dimensions; got points of shape {points.shape}. "
            "Evaluate the drift on a plane of latent space first."
        )
    coords = {"x": points[:, 0, 0], "y": points[0, :, 1], "latent_dim": [0, 1]}
    return xr.Dataset({"drift": (("x", "y", "latent_dim"), np.asarray(vector_field.velocity))}, coords)


def to_fixed_points(found: Sequence[FixedPoints]) -> xr.Dataset:
    """The fixed points `found` in each of several posterior draws, after each other along `fixed_point`.

    Variables `position (fixed_point, latent_dim)` and `stability (fixed_point)`; the coordinate `draw (fixed_point)`
    counts the entries of `found`.

    Raises:
        ValueError: if `found` is empty.
    """
    _check_any(found)
    position = np.concatenate([points.location for points in found])
    stability = np.array([kind for points in found for kind in points.stability], "U8")
    draw = np.repeat(np.arange(len(found)), [len(points.stability) for points in found])
    return xr.Dataset(
        {"position": (("fixed_point", "latent_dim"), position), "stability": ("fixed_point", stability)},
        {"draw": ("fixed_point", draw), "latent_dim": np.arange(position.shape[1])},
    )


def to_limit_cycles(portraits: Sequence[PhasePortrait]) -> xr.DataArray:
    """Limit cycles of all `portraits`, one a posterior draw: dims (limit_cycle, phase, latent_dim).

    `phase` runs from 0 to 1 in equal times. The coordinate `draw (limit_cycle)` counts the portraits,
    `period (limit_cycle)` is in s.

    Raises:
        ValueError: if `portraits` is empty.
    """
    _check_any(portraits)
    found = [(draw, cycle, portrait.tau) for draw, portrait in enumerate(portraits) for cycle in portrait.limit_cycles]
    rank = portraits[0].fixed_points.location.shape[1]
    orbits = np.stack([cycle.orbit for _, cycle, _ in found]) if found else np.zeros((0, 1, rank))
    return xr.DataArray(
        orbits,
        dims=("limit_cycle", "phase", "latent_dim"),
        coords={
            "draw": ("limit_cycle", np.array([draw for draw, _, _ in found], int)),
            "period": ("limit_cycle", np.array([cycle.period * tau for _, cycle, tau in found], float)),
            "phase": np.arange(orbits.shape[1]) / orbits.shape[1],
            "latent_dim": np.arange(rank),
        },
    )


def _check_any(of_draws: Sequence) -> None:
    if not of_draws:
        raise ValueError("the list is empty; pass one entry per posterior draw, or a list with one.")
