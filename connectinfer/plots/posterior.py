"""Pictures of a posterior: latent paths with their uncertainty, whether chains mix, and whether a bound has settled."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from connectinfer.plots._style import (
    BAND,
    POSTERIOR,
    TRUTH,
    UNOBSERVED,
    band,
    bin_edges,
    check_dims,
    check_labels,
    chosen_trials,
    draws_of,
    figure_or_new,
    legend_above,
    trim,
)

_RANK_COLUMNS = 3
_PATH = ("trial", "time", "latent_dim")


def plot_latent_paths(
    latent: xr.DataArray,
    *,
    truth: xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    trials: Sequence[Any] | np.ndarray | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Posterior mean and 90 % band of latent paths over time: one row per latent dimension, one column per trial.

    `latent (chain, draw, trial, time, latent_dim)` is `result["posterior"]["latent"]`. `truth (trial, time,
    latent_dim)` is drawn dashed and must be in the gauge of the posterior. `mask (trial, time, unit)`, which a result
    keeps in `constant_data`, shades the bins in which no unit was observed. `trials` are ids, by default the first
    three.

    Raises:
        ValueError: if dims are missing, labels of `truth` or `mask` differ from the posterior's, or a trial is unknown.
    """
    if truth is not None:
        truth = check_labels(truth, "truth", latent, _PATH)
    if mask is not None:
        mask = check_labels(mask.any("unit") if "unit" in mask.dims else mask, "mask", latent, _PATH[:2])
    chosen = chosen_trials(latent, trials)
    mean, lower, upper = band(draws_of(chosen, "latent", _PATH))
    time, n_trials, n_dims = chosen["time"].values, chosen.sizes["trial"], chosen.sizes["latent_dim"]
    figure = figure_or_new(figure, 1.0 + 2.8 * n_trials, 0.9 + 1.5 * n_dims)
    axes = figure.subplots(n_dims, n_trials, sharex=True, sharey="row", squeeze=False)
    trim(axes.flat)
    for column, trial in enumerate(chosen["trial"].values):
        for row, (ax, dim) in enumerate(zip(axes[:, column], chosen["latent_dim"].values, strict=True)):
            at = (column, slice(None), row)
            ax.fill_between(time, lower[at], upper[at], color=POSTERIOR, alpha=0.3, lw=0, label=f"{BAND:.0%} band")
            ax.plot(time, mean[at], color=POSTERIOR, lw=1.5, label="posterior mean")
            if truth is not None:
                path = truth.sel(trial=trial, latent_dim=dim)
                ax.plot(time, path.values, color=TRUTH, lw=1.3, ls=(0, (4, 2)), label="truth")
            if mask is not None:
                _shade_gaps(ax, time, mask.sel(trial=trial).values)
            ax.set_ylabel(f"latent {dim}" if column == 0 else "")
        axes[0, column].set_title(f"trial {trial}")
        axes[-1, column].set(xlabel="time (s)", xlim=bin_edges(time))
    legend_above(figure, axes.flat)
    return figure.get_figure(root=True)


def plot_ranks(result: xr.DataTree, variables: Sequence[str]) -> Figure:
    """Ranks of each chain's draws among those of all chains, by ArviZ: chains that mix stay within the envelope.

    One panel per entry of the posterior's `variables`; choose few entries beforehand with `.isel(...)`.

    Raises:
        ValueError: if a variable is unknown or there is only one chain, whose ranks say nothing.
    """
    posterior = result["posterior"].to_dataset()
    known = [str(name) for name in posterior.data_vars]
    unknown = [name for name in variables if name not in known]
    if unknown or not variables:
        raise ValueError(f"no variable {unknown or 'was chosen'}; the posterior has {', '.join(known)}.")
    if posterior.sizes["chain"] < 2:
        raise ValueError(
            "ranks compare chains, but the posterior has only one. Sample more: `fit(..., engine='nuts', chains=4)`."
        )
    # Takes 6 s to import, and only this function needs it.
    import arviz_plots

    plot = arviz_plots.plot_rank(
        result,
        var_names=list(variables),
        backend="matplotlib",
        method="envelope",
        col_wrap=_RANK_COLUMNS,
        figure_kwargs={"layout": "constrained"},
    )
    figure = plot.viz["/figure"].item()
    n_panels = sum(ax.get_visible() for ax in figure.axes)
    figure.set_size_inches(3.4 * min(n_panels, _RANK_COLUMNS), 0.3 + 2.0 * -(-n_panels // _RANK_COLUMNS))
    return figure


def plot_bound(bound: xr.DataArray, *, figure: Figure | SubFigure | None = None) -> Figure:
    """The evidence lower bound over the steps of an optimisation: all of them, and the second half on its own scale.

    `bound (step)` is `-result["optimisation"]["loss"]`.

    Raises:
        ValueError: if the dims are others.
    """
    values = check_dims(bound, "bound", ("step",)).values
    figure = figure_or_new(figure, 7.6, 2.7)
    axes = figure.subplots(1, 2)
    trim(axes)
    for ax, first, title in zip(axes, (0, len(values) // 2), ("all steps", "second half"), strict=True):
        ax.plot(np.arange(first, len(values)), values[first:], color=POSTERIOR, lw=0.8)
        ax.set(title=title, xlabel="step")
        ax.ticklabel_format(useOffset=False, style="plain")
    axes[0].set_ylabel("ELBO (nats)")
    return figure.get_figure(root=True)


def _shade_gaps(ax: Axes, time: np.ndarray, observed: np.ndarray) -> None:
    edges = np.append(time, bin_edges(time)[1])
    steps = np.diff(np.concatenate([[True], observed, [True]]).astype(int))
    for first, last in zip(np.flatnonzero(steps < 0), np.flatnonzero(steps > 0), strict=True):
        ax.axvspan(edges[first], edges[last], color=UNOBSERVED, lw=0, zorder=0, label="not observed")
