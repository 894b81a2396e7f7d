"""Pictures of latent dynamics in a plane: flow, fixed points, limit cycles, and the drift where the data have been.

All functions draw into one `ax`, so that calls on the same axes overlay. Labelled inputs:

* a field, `Dataset` with `drift (x, y, latent_dim)` in latent units per tau, on a regular grid: the coordinates `x`
  and `y` are values of the first and second entry of `latent_dim`, which has two;
* fixed points, `Dataset` with `position (fixed_point, latent_dim)` and `stability (fixed_point)`, one of "stable",
  "saddle", "unstable", "marginal"; the coordinate `draw (fixed_point)` says which posterior draw has which;
* limit cycles, `DataArray` with dims (limit_cycle, phase, latent_dim): closed curves.

`connectinfer.plots.phase_portraits` makes them from phase portraits. In more than two latent dimensions choose two with
`.sel(latent_dim=[0, 2])`.
"""

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, PowerNorm

from connectinfer.plots._style import (
    BAND,
    NEUTRAL,
    POSTERIOR,
    TRUTH,
    axes_or_new,
    band,
    check_dims,
    draws_of,
    legend_beside,
)

_LIGHT_GREYS = ListedColormap(colormaps["Greys"](np.linspace(0.0, 0.6, 128)))
_OCCUPANCY = ListedColormap(colormaps["viridis_r"](np.linspace(0.25, 1.0, 128)))
_DENSITY_BINS = 60
_UNIT = np.array([0.0, 1.0])
# Relative to the range of the states.
_LONGEST_ARROW = 0.15
# A marker per stability, told apart without colour; the last flag says whether it is filled.
_MARKERS = {"stable": ("o", True), "saddle": ("X", True), "unstable": ("o", False), "marginal": ("D", True)}


def plot_flow(field: xr.Dataset, *, visited: xr.DataArray | None = None, ax: Axes | None = None) -> Axes:
    """Streamlines of a drift in two latent dimensions, thicker where it is faster.

    `field` is as the module says. `visited (..., latent_dim)`, for example the posterior's `latent`, adds the density
    of these states as a grey background.

    Raises:
        ValueError: if the dims are others, or there are not two latent dimensions.
    """
    drift = check_dims(field["drift"], "drift", ("y", "x", "latent_dim"))
    _check_plane(drift, "field")
    x, y = drift["x"].values, drift["y"].values
    ax = _plane(ax, x, y)
    if visited is not None:
        _check_plane(visited, "visited")
        states = visited.transpose(..., "latent_dim").values.reshape(-1, 2)
        region = [[x[0], x[-1]], [y[0], y[-1]]]
        ax.hist2d(*states.T, bins=_DENSITY_BINS, range=region, cmap=_LIGHT_GREYS, norm=PowerNorm(0.5))
    velocity = drift.values
    speed = np.linalg.norm(velocity, axis=-1)
    width = 0.4 + 0.8 * speed / max(speed.max(), np.finfo(float).tiny)
    ax.streamplot(
        x, y, velocity[..., 0], velocity[..., 1], color=NEUTRAL, linewidth=width, arrowsize=0.8, density=1.1, zorder=1.5
    )
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    _label_plane(ax, drift)
    return ax


def plot_drift(drift: xr.Dataset | xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Posterior of the drift `recurrent_drift - z` at the visited states, from the `drift` group of a result.

    Two latent dimensions: an arrow at every state, the posterior mean times a duration that the title names, darker
    where the data have been more often. One: mean and 90 % bar over the state. The drift at a state is that under the
    inputs with which it was visited.

    Raises:
        ValueError: if the dims are others, or there are more than two latent dimensions.
    """
    group = drift.to_dataset() if isinstance(drift, xr.DataTree) else drift
    point = ("point", "latent_dim")
    state = check_dims(group["latent"], "latent", point).values
    draws = draws_of(group["recurrent_drift"], "recurrent_drift", point) - state
    if state.shape[1] == 1:
        return _plot_line_of_drift(group, state[:, 0], draws[..., 0], ax)
    _check_plane(group["latent"], "drift")
    ax = _plane(ax, *state.T)
    velocity, share = draws.mean(0), group["occupancy"].values
    fastest = max(np.linalg.norm(velocity, axis=-1).max(), np.finfo(float).tiny)
    duration = _round_duration(_LONGEST_ARROW * np.ptp(state) / fastest)
    arrows = ax.quiver(
        *state.T,
        *velocity.T,
        share,
        cmap=_OCCUPANCY,
        norm=PowerNorm(0.5),
        width=6e-3,
        angles="xy",
        scale_units="xy",
        scale=1 / duration,
    )
    ax.set_title(f"arrows: motion in {1000 * duration * group.attrs['tau']:.3g} ms", loc="left", fontsize="medium")
    # Low beside the axes, where it leaves room for the legend of what is drawn on top.
    ax.figure.colorbar(arrows, cax=ax.inset_axes((1.05, 0.0, 0.04, 0.45)), label="share of time bins")
    _label_plane(ax, group["latent"])
    return ax


def plot_fixed_points(fixed_points: xr.Dataset, *, truth: xr.Dataset | None = None, ax: Axes | None = None) -> Axes:
    """Fixed points in two latent dimensions: dots are stable, crosses saddles, rings unstable, diamonds marginal.

    `fixed_points` and `truth` are as the module says. Those of several posterior draws are small and translucent, so
    that their spread shows; the true ones lie above them.

    Raises:
        ValueError: if the dims are others, a stability is unknown, or there are not two latent dimensions.
    """
    ax = _plane(ax)
    several = "draw" in fixed_points.coords and len(np.unique(fixed_points["draw"])) > 1
    _mark(ax, fixed_points, POSTERIOR, "", size=5.0 if several else 9.0, alpha=0.35 if several else 1.0)
    if truth is not None:
        _mark(ax, truth, TRUTH, "true ", size=10.0, alpha=1.0)
    _label_plane(ax, fixed_points["position"])
    legend_beside(ax)
    return ax


def plot_limit_cycles(limit_cycles: xr.DataArray, *, truth: xr.DataArray | None = None, ax: Axes | None = None) -> Axes:
    """Limit cycles in two latent dimensions as closed curves; several are translucent, true ones dashed above them.

    `limit_cycles` and `truth` have dims (limit_cycle, phase, latent_dim).

    Raises:
        ValueError: if the dims are others, or there are not two latent dimensions.
    """
    ax = _plane(ax)
    several = limit_cycles.sizes.get("limit_cycle", 0) > 1
    _draw_orbits(ax, limit_cycles, colors=POSTERIOR, alpha=0.25 if several else 1.0, lw=1.2, label="limit cycle")
    if truth is not None:
        _draw_orbits(ax, truth, colors=TRUTH, lw=1.8, ls=(0, (4, 2)), label="true limit cycle")
    _label_plane(ax, limit_cycles)
    legend_beside(ax)
    return ax


def _plane(ax: Axes | None, x: np.ndarray = _UNIT, y: np.ndarray = _UNIT) -> Axes:
    """`ax`, or new axes in the proportions of the region of `x` and `y`, with room for a legend beside it."""
    proportion = np.ptp(x) / max(np.ptp(y), np.finfo(float).tiny)
    return axes_or_new(ax, 2.6 + 3.6 * float(np.clip(proportion, 0.5, 2.0)), 4.2)


def _plot_line_of_drift(group: xr.Dataset, state: np.ndarray, draws: np.ndarray, ax: Axes | None) -> Axes:
    ax = axes_or_new(ax, 5.4, 3.4)
    mean, lower, upper = band(draws)
    ax.axhline(0.0, color=NEUTRAL, lw=0.8)
    ax.vlines(state, lower, upper, color=POSTERIOR, alpha=0.35, lw=1.5, label=f"{BAND:.0%} band")
    ax.plot(state, mean, "o", color=POSTERIOR, ms=3.5, label="posterior mean")
    ax.set(xlabel=_axis_name(group["latent_dim"].values[0]), ylabel="drift (latent units per τ)")
    ax.spines[["top", "right"]].set_visible(False)
    legend_beside(ax)
    return ax


def _mark(ax: Axes, points: xr.Dataset, colour: str, prefix: str, size: float, alpha: float) -> None:
    position = check_dims(points["position"], "position", ("fixed_point", "latent_dim"))
    _check_plane(position, "fixed_points")
    stability = check_dims(points["stability"], "stability", ("fixed_point",)).values
    unknown = sorted(set(stability.tolist()) - set(_MARKERS))
    if unknown:
        raise ValueError(f"`stability` must be one of {', '.join(_MARKERS)}; got {', '.join(map(repr, unknown))}.")
    for kind, (marker, filled) in _MARKERS.items():
        if (stability == kind).any():
            ax.plot(
                *position.values[stability == kind].T,
                marker,
                color=colour,
                markerfacecolor=colour if filled else "none",
                markeredgecolor="white" if filled and alpha == 1 else colour,
                markeredgewidth=0.8 if filled else 1.6,
                markersize=size,
                alpha=alpha,
                label=f"{prefix}{kind}",
                zorder=3,
            )


def _draw_orbits(ax: Axes, orbits: xr.DataArray, **style) -> None:
    orbits = check_dims(orbits, "limit_cycles", ("limit_cycle", "phase", "latent_dim"))
    _check_plane(orbits, "limit_cycles")
    if orbits.sizes["limit_cycle"]:
        closed = np.concatenate([orbits.values, orbits.values[:, :1]], 1)
        ax.add_collection(LineCollection(list(closed), zorder=2.5, **style))
        ax.autoscale_view()


def _check_plane(array: xr.DataArray, name: str) -> None:
    if array.sizes.get("latent_dim") != 2:
        raise ValueError(
            f"`{name}` must have two latent dimensions to be drawn in a plane; got sizes {dict(array.sizes)}. "
            "Choose two with `.sel(latent_dim=[0, 1])`."
        )


def _label_plane(ax: Axes, array: xr.DataArray) -> None:
    first, second = array["latent_dim"].values
    ax.set(xlabel=_axis_name(first), ylabel=_axis_name(second), aspect="equal", anchor="W")
    ax.spines[["top", "right"]].set_visible(False)


def _round_duration(duration: float) -> float:
    """The next smaller 1, 2 or 5 times a power of ten; 1 where nothing moves."""
    if not 0 < duration < np.inf:
        return 1.0
    power = 10.0 ** np.floor(np.log10(duration))
    return float(max(step * power for step in (1, 2, 5) if step * power <= duration))


def _axis_name(latent_dim) -> str:
    return f"latent {latent_dim}"
