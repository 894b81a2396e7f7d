"""Pictures of rank selection."""

import xarray as xr
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from connectinfer.plots._style import NEUTRAL, POSTERIOR, TRUTH, figure_or_new, legend_beside, trim


def plot_rank_selection(selection: xr.Dataset, *, figure: Figure | SubFigure | None = None) -> Figure:
    """Score of every rank, with the standard error of its paired difference to the best; the chosen rank has a ring.

    `selection` is what `select_rank` returned.

    Raises:
        ValueError: it is something else.
    """
    if missing := {"score", "difference_error"} - set(selection.data_vars):
        raise ValueError(f"`selection` is what `select_rank` returns; this one lacks {sorted(missing)}.")
    figure = figure_or_new(figure, 6.2, 3.2)
    ax = figure.subplots()
    chosen, best = selection.sel(rank=selection.attrs["chosen"]), selection.sel(rank=selection.attrs["best"])
    ax.axhline(float(best["score"]), color=NEUTRAL, lw=1.0, ls=(0, (4, 2)), label="best score")
    ax.errorbar(
        selection["rank"].values,
        selection["score"].values,
        selection["difference_error"].values,
        fmt="o-",
        color=POSTERIOR,
        ms=4,
        capsize=3,
        label="score ± error of\nits difference to the best",
    )
    ring = {"mfc": "none", "mec": TRUTH, "mew": 1.5, "ls": "none", "ms": 12}
    ax.plot(selection.attrs["chosen"], float(chosen["score"]), "o", label="chosen", **ring)
    ax.set(xlabel="rank", ylabel=f"co-smoothing ({selection.attrs['units']})")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    trim([ax])
    legend_beside(ax)
    return figure.get_figure(root=True)
