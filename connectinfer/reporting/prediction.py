"""The section of the predictions: what the model expects and simulates, beside what was recorded."""

import xarray as xr

from connectinfer.diagnostics.predictive import extremes, predictive_statistics
from connectinfer.plots.predictive import plot_predictive
from connectinfer.plots.recording import plot_activity
from connectinfer.reporting.observed import Observed, order_of_units
from connectinfer.reporting.page import Missing, Picture, Section
from connectinfer.reporting.pictures import FULL_WIDTH, empty_figure, picture


def prediction_section(result: xr.DataTree, observed: Observed | None) -> Section:
    """The expected activity of the first trials, and the predictive checks."""
    if observed is None:
        said = "Without a recording in the result, simulated data were not compared with it."
        return Section("predictions", "Predictions", (Missing(said),))
    return Section("predictions", "Predictions", (_expectation(result, observed), _checks(result, observed)))


def _checks(result: xr.DataTree, observed: Observed) -> Picture | Missing:
    needed = {"posterior_predictive", "observed_data", "constant_data"}
    if lacking := sorted(needed - set(result.children)):
        return Missing(f"The result has no group {' or '.join(lacking)}, so simulated data were not compared with it.")
    found = predictive_statistics(result).children.get(observed.site, xr.DataTree())
    if not any(extremes(group.to_dataset()).judged for group in found.children.values()):
        return Missing("No statistic of the recording could be compared with simulated recordings.")
    n_rows = -(-len(found.children) // 4)
    figure = empty_figure(FULL_WIDTH, 0.6 + 2.5 * n_rows)
    plot_predictive(found, figure=figure)
    return picture(
        figure,
        alt="Statistics of the recording beside those of recordings that the fitted model simulates, a panel each.",
        caption="Does the model make data like the data? Statistics of the recording against those of recordings that "
        "the fitted model simulates: 90 % bars or bands of the simulations. About a tenth lies outside where the model "
        "is right; the verdicts above judge how many are too many.",
    )


def _expectation(result: xr.DataTree, observed: Observed) -> Picture | Missing:
    groups = result.children
    if "expected" not in groups or observed.site not in groups["expected"].data_vars:
        return Missing("The result has no group `expected`, so no expected activity is shown.")
    expected = groups["expected"].to_dataset()[observed.site].transpose("trial", "time", "unit").astype(float)
    order, said = order_of_units(result["posterior"].to_dataset())
    if order is not None:
        expected = expected.sel(unit=order)
    return _spiking(expected, observed, said) if observed.kind == "counts" else _signal(expected, observed, said)


def _spiking(expected: xr.DataArray, observed: Observed, said: str) -> Picture:
    rates = expected / observed.data.attrs["bin_width"]
    shown = xr.Dataset({"rates": rates, "mask": xr.ones_like(rates, bool)})
    figure = empty_figure(FULL_WIDTH, _height(shown.sizes["unit"]))
    plot_activity(shown, figure=figure)
    return picture(
        figure,
        alt="Heat map of expected firing rates: units in rows over time, one panel per trial.",
        caption="Firing rates that the model expects, averaged over the posterior, in the trials of the recording "
        f"above and for all units, hidden ones included.{said}",
    )


def _signal(expected: xr.DataArray, observed: Observed, said: str) -> Picture:
    stored = "fluorescence" if observed.kind == "signal" else observed.kind
    data = observed.data.sel(unit=expected["unit"])
    first = [data[stored].isel(trial=[0]), expected.isel(trial=[0])]
    trial = data["trial"].values[0]
    both = xr.concat([x.assign_coords(trial=[i]) for i, x in enumerate(first)], "trial")
    mask = xr.ones_like(both, bool)
    mask[0] = data["mask"].values[0]
    figure = empty_figure(FULL_WIDTH, _height(both.sizes["unit"]))
    plot_activity(xr.Dataset({stored: both, "mask": mask}), figure=figure)
    for ax, title in zip(figure.axes, (f"recorded, trial {trial}", "expected by the model"), strict=False):
        ax.set_title(title)
    if observed.kind == "signal":
        figure.axes[-1].set_ylabel(f"{observed.site} (as recorded)")
    return picture(
        figure,
        alt="Heat maps of the recorded and the expected signal of every unit over one trial.",
        caption=f"Trial {trial} as recorded, and as the model expects it, averaged over the posterior; one colour "
        f"scale. What the left has and the right lacks, the model takes for noise.{said}",
    )


def _height(n_units: int) -> float:
    return 1.2 + min(max(0.16 * n_units, 1.4), 3.6)
