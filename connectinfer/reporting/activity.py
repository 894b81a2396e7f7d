"""The section of the data: what was recorded, trial by trial, and how active every unit was."""

import numpy as np
import xarray as xr

from connectinfer.plots.recording import plot_activity, plot_mean_rates, plot_raster
from connectinfer.reporting.observed import Observed, order_of_units
from connectinfer.reporting.page import Block, Missing, Picture, Section, Text
from connectinfer.reporting.pictures import FULL_WIDTH, empty_axes, empty_figure, picture

# Above this many spikes a bin, ticks would hide each other.
_DENSEST_RASTER = 1.0
_MOST_UNITS = 400


def activity_section(result: xr.DataTree, observed: Observed | None) -> Section:
    """Raster or heat map of the first trials, and the mean rate of every unit."""
    blocks: list[Block] = []
    if observed is None:
        blocks.append(
            Missing("The result holds no observed site with the dims trial, time and unit, so no activity is shown.")
        )
    else:
        blocks.append(Text(f"{observed.words[0].upper()}{observed.words[1:]}."))
        blocks.append(_activity(result, observed))
        if observed.kind != "signal" and observed.kind != "fluorescence":
            blocks.append(_mean_rates(observed))
    return Section("data", "The recording", tuple(blocks))


def _in_order(result: xr.DataTree, data: xr.Dataset) -> tuple[xr.Dataset, str]:
    """At most 400 units of `data`, sorted by their mean first loading where there is one, and words that say so."""
    order, said = order_of_units(result["posterior"].to_dataset())
    if order is not None:
        data = data.sel(unit=order)
    if data.sizes["unit"] > _MOST_UNITS:
        even = np.linspace(0, data.sizes["unit"] - 1, _MOST_UNITS).astype(int)
        said += f" Of {data.sizes['unit']} units, {_MOST_UNITS} are shown."
        data = data.isel(unit=even)
    return data, said


def _activity(result: xr.DataTree, observed: Observed) -> Picture:
    data, said = _in_order(result, observed.data)
    figure = empty_figure(FULL_WIDTH, 1.2 + min(max(0.16 * data.sizes["unit"], 1.4), 4.2))
    seen = data["mask"].values
    gaps = "" if seen.all() else " Grey: not recorded, or hidden from the fit."
    if observed.kind == "counts" and data["counts"].values[seen].mean() <= _DENSEST_RASTER:
        plot_raster(data, figure=figure)
        shown = "Spikes of every unit: a tick per bin with spikes"
        alt = "Spike raster: units in rows over time, one panel per trial."
    else:
        plot_activity(data, figure=figure)
        if observed.kind == "signal":
            figure.axes[-1].set_ylabel(f"{observed.site} (as recorded)")
        shown = f"{observed.words.split(' of ')[0].capitalize()} of every unit"
        alt = "Heat map of activity: units in rows over time, one panel per trial."
    trials = "all trials" if data.sizes["trial"] <= 3 else f"first 3 of {data.sizes['trial']} trials"
    return picture(figure, alt=alt, caption=f"{shown}, {trials}.{said}{gaps}")


def _mean_rates(observed: Observed) -> Picture:
    data = observed.data
    values = data[observed.kind].where(data["mask"]).mean(("trial", "time"))
    rates = values / data.attrs["bin_width"] if observed.kind == "counts" else values
    finite = rates.values[np.isfinite(rates.values)]
    figure, ax = empty_axes(FULL_WIDTH, 2.3)
    plot_mean_rates(rates.sortby(rates), ax=ax)
    middle, least, most = (float(f(finite)) for f in (np.median, np.min, np.max))
    return picture(
        figure,
        alt=f"Mean rates of units from {least:.3g} to {most:.3g} Hz.",
        caption=f"Mean rate of every unit over its observed bins, sorted: median {middle:.3g} Hz, from {least:.3g} to "
        f"{most:.3g} Hz.",
    )
