"""Pictures of predictive checks: statistics of the recording beside those of simulated recordings."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from connectinfer.plots._style import (
    BAND,
    NEUTRAL,
    POSTERIOR,
    TRUTH,
    band,
    draws_of,
    figure_or_new,
    legend_above,
    trim,
)

_COLUMNS = 4
_AXIS_NAMES = {"time": "time (s)", "lag": "lag (s)"}


def plot_predictive(statistics: xr.DataTree, *, figure: Figure | SubFigure | None = None) -> Figure:
    """Every statistic of the recording beside those of posterior predictive recordings, one panel each.

    `statistics` is one site of `predictive_statistics(result)`, such as `["counts"]`: groups with `observed` and
    `replicated`. Statistics of units and pairs are drawn as 90 % bars of the replicates over the observed value, which
    equal it on the diagonal; those over time and lags as a 90 % band, with the recording as a line. Panels say how many
    items lie outside: about 10 % do where the model is right.

    Raises:
        ValueError: the tree holds no such groups, or no item of any has a value.
    """
    groups = {name: child.to_dataset() for name, child in statistics.children.items() if "observed" in child}
    panels = {name: kept for name, group in groups.items() if (kept := _defined(group)).sizes[_item(group)]}
    if not panels:
        raise ValueError(
            f"no statistic to draw among {list(statistics.children) or 'no groups'}; give one site of "
            "`predictive_statistics(result)`, such as `predictive_statistics(result)['counts']`."
        )
    n_rows = -(-len(panels) // _COLUMNS)
    n_columns = -(-len(panels) // n_rows)
    figure = figure_or_new(figure, max(0.6 + 2.7 * n_columns, 5.0), 0.6 + 2.5 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    axes = list(grid.flat)
    trim(axes)
    for ax, group in zip(axes, panels.values(), strict=False):
        (_draw_course if _item(group) in _AXIS_NAMES else _draw_items)(ax, group)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    legend_above(figure, axes)
    return figure.get_figure(root=True)


def _item(group: xr.Dataset) -> str:
    return str(group["observed"].dims[0])


def _defined(group: xr.Dataset) -> xr.Dataset:
    """The items that have a value in the recording and in every replicate."""
    item = _item(group)
    replicated = draws_of(group["replicated"], "replicated", [item])
    return group.isel({item: np.isfinite(group["observed"].values) & np.isfinite(replicated).all(0)})


def _draw_items(ax: Axes, group: xr.Dataset) -> None:
    observed = group["observed"].values
    mean, lower, upper = band(draws_of(group["replicated"], "replicated", [_item(group)]))
    outside = (observed < lower) | (observed > upper)
    faint = float(np.clip(40 / len(observed), 0.06, 0.7))
    for chosen, colour, name in ((~outside, POSTERIOR, "replicates"), (outside, TRUTH, "replicates off the recording")):
        # A colour that no item has would leave a legend entry behind.
        if chosen.any():
            at = observed[chosen]
            ax.vlines(at, lower[chosen], upper[chosen], color=colour, alpha=faint, lw=1.0, rasterized=True)
            ax.plot(at, mean[chosen], "o", color=colour, ms=3, mew=0, alpha=0.6, label=name, rasterized=True)
    ends = [observed.min(), observed.max()]
    ax.plot(ends, ends, color=NEUTRAL, lw=1.0, ls=(0, (4, 2)), label="equal")
    ax.set(title=_title(group, outside), xlabel=f"recording{_unit(group)}", ylabel=f"replicates{_unit(group)}")


def _draw_course(ax: Axes, group: xr.Dataset) -> None:
    item, observed = _item(group), group["observed"].values
    _, lower, upper = band(draws_of(group["replicated"], "replicated", [item]))
    at = group[item].values
    ax.fill_between(at, lower, upper, color=POSTERIOR, alpha=0.3, lw=0, label=f"{BAND:.0%} of replicates")
    ax.plot(at, observed, color=TRUTH, lw=1.3, label="recording")
    title = _title(group, (observed < lower) | (observed > upper))
    ax.set(title=title, xlabel=_AXIS_NAMES[item], ylabel=f"recording{_unit(group)}")


def _unit(group: xr.Dataset) -> str:
    return f" ({unit})" if (unit := group["observed"].attrs.get("units")) else ""


def _title(group: xr.Dataset, outside: np.ndarray) -> str:
    return f"{group['observed'].attrs['long_name']}\n{outside.sum()} of {outside.size} outside"
