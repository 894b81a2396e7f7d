"""The sections of the dynamics: latent paths, and the flow with its fixed points."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from connectinfer.dynamics.fixed_points import MARGINAL_RATE, FixedPoints, Stability, fixed_points
from connectinfer.dynamics.phase_portrait import vector_field
from connectinfer.inference.drift import stored_drift
from connectinfer.plots.dynamics import plot_drift, plot_fixed_points, plot_flow
from connectinfer.plots.phase_portraits import to_field, to_fixed_points
from connectinfer.plots.posterior import plot_latent_paths
from connectinfer.reporting.page import Block, Missing, Picture, Section, Table, Text
from connectinfer.reporting.pictures import FULL_WIDTH, empty_axes, empty_figure, picture

_PATH_DIMS = {"chain", "draw", "trial", "time", "latent_dim"}
_MOST_LATENTS = 6
_MOST_NETWORKS = 20
_MOST_STARTS = 30
_MOST_KINDS = 3
_MOST_ROWS = 12
_VISITED_VALUES = 200_000
# Of the spread of the visited states: nearer fixed points of one kind are the same one.
_NEAR = 0.25
_MARGIN = 0.3
_OUTSIDE = 0.005
_PLANE_WIDTH, _PLANE_HEIGHT = 6.6, 4.4


def paths_section(result: xr.DataTree) -> Section:
    """Posterior mean and band of the latent paths of the first trials."""
    posterior = result["posterior"].to_dataset()
    if "latent" not in posterior or set(posterior["latent"].dims) != _PATH_DIMS:
        said = "The posterior has no latent paths (a site `latent` over trials, time and latent dimensions)."
        return Section("paths", "Latent paths", (Missing(said),))
    latent = posterior["latent"].isel(latent_dim=slice(_MOST_LATENTS), trial=slice(3))
    constants = result["constant_data"].to_dataset() if "constant_data" in result.children else xr.Dataset()
    mask = constants.get("mask")
    mask = None if mask is None or set(mask.dims) != {"trial", "time", "unit"} else mask.isel(trial=slice(3))
    figure = empty_figure(FULL_WIDTH, 0.9 + 1.45 * latent.sizes["latent_dim"])
    plot_latent_paths(latent, mask=mask, figure=figure)
    total = posterior.sizes["trial"]
    trials = "all trials" if total <= 3 else f"first 3 of {total} trials"
    gaps = "" if mask is None or bool(mask.any("unit").all()) else " Grey: no unit was observed."
    shown = picture(
        figure,
        alt="Latent paths over time with 90 % bands, a row per latent dimension and a column per trial.",
        caption=f"The state of the network over time: posterior mean and 90 % band, {trials}. Latent units are "
        f"arbitrary; all draws share one gauge.{gaps}",
    )
    return Section("paths", "Latent paths", (shown,))


def flow_section(result: xr.DataTree) -> Section:
    """The flow and the fixed points of the posterior-mean drift, and how many draws have the same ones."""
    return Section("dynamics", "Dynamics", tuple(_flow(result)))


def _flow(result: xr.DataTree) -> list[Block]:
    posterior = result["posterior"].to_dataset()
    if "drift" not in result.children:
        return [Missing("The result has no group `drift` (models with latent paths have one), so no flow is shown.")]
    group = result["drift"].to_dataset()
    group = group.isel(point=np.isfinite(group["latent"].values).all(1))
    states = np.asarray(group["latent"].values, float)
    if not len(states):
        return [Missing("None of the visited states is finite, so no flow is shown.")]
    drifts = _drifts(posterior, group.attrs)
    if not drifts:
        return _only_where_visited(group)
    starts = jnp.asarray(states[:_MOST_STARTS], float)
    per_draw = [fixed_points(drift, starts) for drift in drifts]
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *drifts)
    mean_drift = jax.tree_util.Partial(_mean_drift, stacked)
    mean = fixed_points(mean_drift, starts)
    blocks: list[Block] = []
    rank = states.shape[1]
    if rank == 1:
        blocks.append(_line_of_drift(group))
    elif rank == 2:
        blocks.append(_plane(posterior, _corners(group, mean.location), mean_drift, mean, per_draw))
    else:
        blocks.append(_projection(group, mean, per_draw))
    spread = float(np.sqrt(states.var(0).sum()))
    return [*blocks, *_fixed_point_blocks(mean, per_draw, spread, float(group.attrs["tau"]))]


def _drifts(posterior: xr.Dataset, attrs: Mapping[Any, Any]) -> list[Callable[[jax.Array], jax.Array]]:
    """Those of up to 20 draws; none if they are known only at the points of the group `drift`."""
    n_draws = posterior.sizes["draw"]
    chosen = np.unique(np.linspace(0, posterior.sizes["chain"] * n_draws - 1, _MOST_NETWORKS).astype(int))
    draws = (posterior.isel(chain=i // n_draws, draw=i % n_draws) for i in chosen)
    return [drift for draw in draws if (drift := stored_drift(draw, attrs)) is not None]


def _mean_drift(drifts: Callable[[jax.Array], jax.Array], z: jax.Array) -> jax.Array:
    """Mean of stacked drifts, which no averaged parameters have."""
    return jax.vmap(lambda drift: drift(z))(drifts).mean(0)


def _only_where_visited(group: xr.Dataset) -> list[Block]:
    said = Missing("The drift of this model is known only at the visited states: no fixed points are sought.")
    if group.sizes["latent_dim"] == 1:
        return [_line_of_drift(group), said]
    figure, ax = empty_axes(_PLANE_WIDTH, _PLANE_HEIGHT)
    plot_drift(group.isel(latent_dim=[0, 1]), ax=ax)
    shown = picture(
        figure,
        alt="Drift at the visited states, in the first two latent dimensions.",
        caption="Arrows: posterior-mean drift at the visited states, in the first two latent dimensions.",
    )
    return [shown, said]


def _line_of_drift(group: xr.Dataset) -> Picture:
    figure, ax = empty_axes(_PLANE_WIDTH, 3.4)
    plot_drift(group, ax=ax)
    return picture(
        figure,
        alt="Drift over the latent state with 90 % bars; fixed points are where it crosses zero.",
        caption="Drift at the visited states: posterior mean and 90 % bar, in latent units per τ. The state moves up "
        "where it is positive and rests where it is zero.",
    )


def _plane(
    posterior: xr.Dataset,
    corners: tuple[np.ndarray, np.ndarray],
    mean_drift: Callable[[jax.Array], jax.Array],
    mean: FixedPoints,
    per_draw: Sequence[FixedPoints],
) -> Picture:
    field = to_field(vector_field(mean_drift, jnp.asarray(corners[0]), jnp.asarray(corners[1])))
    visited = None
    if "latent" in posterior and set(posterior["latent"].dims) == _PATH_DIMS:
        step = max(posterior["latent"].size // _VISITED_VALUES, 1)
        visited = posterior["latent"].isel(draw=slice(None, None, step))
    figure, ax = empty_axes(_PLANE_WIDTH, _PLANE_HEIGHT)
    plot_flow(field, visited=visited, ax=ax)
    plot_fixed_points(to_fixed_points(per_draw), ax=ax)
    plot_fixed_points(to_fixed_points([mean]), ax=ax)
    return picture(
        figure,
        alt="Flow field in the latent plane with fixed points of the posterior-mean drift and of single draws.",
        caption="Streamlines: posterior-mean drift without input, thicker where faster. Grey: where the state has "
        "been. Large marks: fixed points of the posterior-mean drift. Small, translucent marks: those of "
        f"{len(per_draw)} posterior draws; their scatter is the uncertainty.",
    )


def _projection(group: xr.Dataset, mean: FixedPoints, per_draw: Sequence[FixedPoints]) -> Picture:
    figure, ax = empty_axes(_PLANE_WIDTH, _PLANE_HEIGHT)
    plane = {"latent_dim": [0, 1]}
    plot_drift(group.isel(plane), ax=ax)
    for found in (per_draw, [mean]):
        plot_fixed_points(to_fixed_points(found).isel(plane), ax=ax)
    return picture(
        figure,
        alt="Drift at the visited states and fixed points, projected on the first two latent dimensions.",
        caption=f"Arrows: posterior-mean drift at the visited states, of {group.sizes['latent_dim']} latent dimensions "
        "the first two. Large marks: fixed points of the posterior-mean drift without input, in the same projection. "
        f"Small, translucent marks: those of {len(per_draw)} posterior draws.",
    )


def _corners(group: xr.Dataset, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a region around nearly all visits, and around the fixed points near them."""
    states, share = np.asarray(group["latent"].values, float), group["occupancy"].values
    order = np.argsort(states, axis=0)
    below = np.cumsum(share[order], axis=0) / share.sum()
    sorted_states = np.take_along_axis(states, order, 0)
    ends = [sorted_states[(below >= q).argmax(0), np.arange(states.shape[1])] for q in (_OUTSIDE, 1 - _OUTSIDE)]
    margin = _MARGIN * max(float((ends[1] - ends[0]).max()), 1e-6)
    lower, upper = ends[0] - margin, ends[1] + margin
    near = points[((points > lower - margin) & (points < upper + margin)).all(1)]
    around = np.concatenate([np.stack([lower, upper]), near - margin / 2, near + margin / 2])
    return around.min(0), around.max(0)


def _fixed_point_blocks(mean: FixedPoints, per_draw: Sequence[FixedPoints], spread: float, tau: float) -> list[Block]:
    counted = Counter(_kinds(points) for points in per_draw).most_common()
    agreement = "; ".join(f"{count} of {len(per_draw)} draws have {kinds}" for kinds, count in counted[:_MOST_KINDS])
    if len(counted) > _MOST_KINDS:
        agreement += f"; the others have {len(counted) - _MOST_KINDS} further combinations"
    said = (
        f"Without input, {agreement}. The search starts from the states visited most: fixed points far from the data "
        "may be missed."
    )
    if not len(mean.stability):
        return [Text(f"The posterior-mean drift has no fixed point near the visited states. {said}")]
    rows = []
    for kind, location, eigenvalues in zip(mean.stability, mean.location, mean.eigenvalues, strict=True):
        near = sum(
            any(
                each == kind and np.linalg.norm(place - location) <= _NEAR * spread
                for each, place in zip(points.stability, points.location, strict=True)
            )
            for points in per_draw
        )
        place = ", ".join(f"{x:.2f}" for x in location)
        rows.append((kind, f"({place})", *_time_scale(eigenvalues[0], tau), f"{near} of {len(per_draw)}"))
    caption = (
        "Fixed points of the posterior-mean drift, with the slowest direction around each, and how many draws have one "
        f"of the same kind within {_NEAR * spread:.2g} latent units."
    )
    if len(rows) > _MOST_ROWS:
        caption += f" The first {_MOST_ROWS} of {len(rows)}."
    columns = ("kind", "latent state", "slowest direction", "rotation", "draws that agree")
    return [Text(said), Table(caption, "lrrrr", columns, tuple(rows[:_MOST_ROWS]))]


def _kinds(points: FixedPoints) -> str:
    counts = Counter(points.stability)
    named = [(counts[kind], kind) for kind in get_args(Stability.__value__) if counts[kind]]
    return ", ".join(f"{count} {kind}" for count, kind in named) or "no fixed point"


def _time_scale(eigenvalue: complex, tau: float) -> tuple[str, str]:
    turning = abs(eigenvalue.imag) / (2 * np.pi * tau)
    rotation = f"{turning:.3g} Hz" if turning > 0 else "none"
    if abs(eigenvalue.real) < MARGINAL_RATE:
        return "neither grows nor decays", rotation
    return f"{'grows' if eigenvalue.real > 0 else 'decays'} in {tau / abs(eigenvalue.real):.3g} s", rotation
