"""Pictures of what was measured: spike rasters, heat maps of activity, and mean rates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from connectinfer.data.recording import observed_kind
from connectinfer.plots._style import (
    NEUTRAL,
    POSTERIOR,
    UNOBSERVED,
    axes_or_new,
    bin_edges,
    check_dims,
    chosen_trials,
    figure_or_new,
    trim,
)

_UNITS = {"counts": "spikes per bin", "rates": "rate (Hz)", "fluorescence": "fluorescence"}
_MOST_NAMED_UNITS = 20
_CLIPPED = 0.005
_PIXELS = 600


def plot_raster(
    recording: xr.Dataset, *, trials: Sequence[Any] | np.ndarray | None = None, figure: Figure | SubFigure | None = None
) -> Figure:
    """Spike raster, one panel per trial: a tick for every bin with spikes, darker for more spikes.

    `recording` holds `counts (trial, time, unit)` and `mask`; what was not observed is shaded. Units are drawn in
    their order from the bottom: `.sel(unit=...)` changes it. `trials` are ids, by default the first three.

    Raises:
        ValueError: if the recording holds no counts, or a trial is unknown.
    """
    if (kind := observed_kind(recording)) != "counts":
        raise ValueError(f"a raster shows `counts`; this recording holds `{kind}`. Use `plot_activity(...)`.")
    chosen = chosen_trials(recording, trials)
    figure, axes = _panels(chosen, figure)
    most = max(int(chosen["counts"].max()), 1)
    shades = ListedColormap(colormaps["Greys"](np.linspace(0.6, 1.0, most)) if most > 1 else ["black"])
    norm = Normalize(0.5, most + 0.5)
    for ax, trial in zip(axes, chosen["trial"].values, strict=True):
        panel = chosen.sel(trial=trial).transpose("time", "unit", ...)
        start, end = bin_edges(panel["time"].values)
        _shade_unobserved(ax, panel["mask"].values, (start, end))
        bins, units = np.nonzero(panel["counts"].values)
        times = panel["time"].values[bins] + (end - start) / panel.sizes["time"] / 2
        ticks = [[(t, u - 0.4), (t, u + 0.4)] for t, u in zip(times, units, strict=True)]
        ax.add_collection(
            LineCollection(ticks, array=panel["counts"].values[bins, units], cmap=shades, norm=norm, linewidths=1.0)
        )
    if most > 1:
        bar = figure.colorbar(ScalarMappable(norm, shades), ax=axes, label=_UNITS[kind], aspect=40, pad=0.01)
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure.get_figure(root=True)


def plot_activity(
    recording: xr.Dataset, *, trials: Sequence[Any] | np.ndarray | None = None, figure: Figure | SubFigure | None = None
) -> Figure:
    """Heat map of counts, rates (Hz) or fluorescence, one panel per trial with one colour scale.

    `recording` has dims (trial, time, unit); what was not observed is grey. The largest half per cent of the values
    (and the smallest, for fluorescence) share the colours at the end of the scale. `trials` are ids, by default the
    first three.

    Raises:
        ValueError: if the recording holds none or several of these, or a trial is unknown.
    """
    kind = observed_kind(recording)
    chosen = chosen_trials(recording, trials)
    figure, axes = _panels(chosen, figure)
    observed = chosen[kind].where(chosen["mask"])
    lowest, highest = (float(observed.quantile(q)) for q in (_CLIPPED, 1 - _CLIPPED))
    lowest = lowest if kind == "fluorescence" else 0.0
    colours = colormaps["viridis"].with_extremes(bad=UNOBSERVED)
    highest = highest if highest > lowest else lowest + 1
    norm = Normalize(lowest, highest)
    for ax, trial in zip(axes, chosen["trial"].values, strict=True):
        values = observed.sel(trial=trial).transpose("unit", "time").values
        extent = (*bin_edges(chosen["time"].values), -0.5, chosen.sizes["unit"] - 0.5)
        ax.imshow(_enlarged(values), cmap=colours, norm=norm, extent=extent, aspect="auto", origin="lower")
    beyond = bool(observed.min() < lowest), bool(observed.max() > highest)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(beyond, "neither")
    figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=_UNITS[kind], extend=extend, aspect=40, pad=0.01)
    return figure.get_figure(root=True)


def plot_mean_rates(rates: xr.DataArray, *, ax: Axes | None = None) -> Axes:
    """Mean rate of every unit as a dot on a stem, in the order of `rates (unit)` in Hz.

    Raises:
        ValueError: if the dims are others.
    """
    values = check_dims(rates, "rates", ("unit",)).values
    ax = axes_or_new(ax, 7.6, 2.3)
    position = np.arange(len(values))
    ax.vlines(position, 0.0, values, color=NEUTRAL, lw=0.6)
    ax.plot(position, values, "o", color=POSTERIOR, ms=3.5)
    ax.set(ylabel="mean rate (Hz)", ylim=(0.0, None), xlim=(-0.7, len(values) - 0.3))
    if len(values) <= _MOST_NAMED_UNITS:
        ax.set_xticks(position, [str(unit) for unit in rates["unit"].values])
        ax.set_xlabel("unit")
    else:
        ax.set_xlabel("unit (position)")
    trim([ax])
    return ax


def _panels(chosen: xr.Dataset, figure: Figure | SubFigure | None) -> tuple[Figure | SubFigure, list[Axes]]:
    n_trials, n_units = chosen.sizes["trial"], chosen.sizes["unit"]
    height = 1.2 + min(max(0.08 * n_units, 1.2), 5.0)
    figure = figure_or_new(figure, 1.5 + 2.7 * n_trials, height)
    axes = list(figure.subplots(1, n_trials, sharex=True, sharey=True, squeeze=False)[0])
    trim(axes)
    for ax, trial in zip(axes, chosen["trial"].values, strict=True):
        ax.set(title=f"trial {trial}", xlabel="time (s)")
    axes[0].set(xlim=bin_edges(chosen["time"].values), ylim=(-0.5, n_units - 0.5))
    if n_units <= _MOST_NAMED_UNITS:
        axes[0].set(ylabel="unit", yticks=range(n_units), yticklabels=[str(unit) for unit in chosen["unit"].values])
    else:
        axes[0].set_ylabel("unit (position)")
        axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _enlarged(values: np.ndarray) -> np.ndarray:
    """Entries repeated until there are more than pixels.

    An image of more entries than pixels is averaged, so that single bins stay visible; one of fewer would be smoothed,
    which blurs the border between units.
    """
    for axis, size in enumerate(values.shape):
        values = np.repeat(values, -(-_PIXELS // size), axis)
    return values


def _shade_unobserved(ax: Axes, mask: np.ndarray, edges: tuple[float, float]) -> None:
    if mask.all():
        return
    ax.imshow(
        np.where(mask.T, np.nan, 1.0),
        cmap=ListedColormap([UNOBSERVED]),
        extent=(*edges, -0.5, mask.shape[1] - 0.5),
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
