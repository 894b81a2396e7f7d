"""Pictures of inferred connectivity: weight matrices with their uncertainty, recovery of known weights, spectra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from connectinfer.plots._style import (
    BAND,
    NEUTRAL,
    POSTERIOR,
    TRUTH,
    axes_or_new,
    band,
    check_dims,
    check_labels,
    draws_of,
    figure_or_new,
    legend_beside,
    trim,
)

_MATRIX = ("post", "pre")
_OVERLAP = ("latent_dim", "latent_from")
_CLIPPED = 0.01
_MOST_NAMED_NEURONS = 20


def plot_connectivity(
    weight: xr.DataArray,
    *,
    truth: xr.DataArray | None = None,
    order: Sequence[Any] | np.ndarray | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Posterior mean and standard deviation of the weights as matrices, with the true ones before them if given.

    `weight (draw, post, pre)`, for example from `sample_connectivity`; `truth (post, pre)`. Truth and mean share one
    colour scale, symmetric about zero, at whose ends the largest one per cent of the weights are clipped. `order`
    lists neuron ids: rows and columns then follow it (and only these neurons are drawn).

    Raises:
        ValueError: if the dims are others, labels of `truth` differ from the posterior's, or `order` names a neuron
            that is not there.
    """
    if truth is not None:
        truth = check_labels(truth, "truth", weight, _MATRIX)
    draws = draws_of(weight, "weight", _MATRIX)
    labels = {dim: weight[dim].values for dim in _MATRIX}
    matrices = {"posterior mean": draws.mean(0), "posterior sd": draws.std(0)}
    if truth is not None:
        matrices = {"truth": truth.values, **matrices}
    panels = {name: _sorted(xr.DataArray(x, labels, _MATRIX), order) for name, x in matrices.items()}
    signed = [panels[name].values for name in panels if name != "posterior sd"]
    largest = float(np.quantile(np.abs(np.concatenate(signed)), 1 - _CLIPPED))
    norms = dict.fromkeys(panels, Normalize(-largest or -1, largest or 1))
    norms["posterior sd"] = Normalize(0, float(np.quantile(panels["posterior sd"], 1 - _CLIPPED)) or 1)
    figure = figure_or_new(figure, 0.6 + 3.3 * len(panels), 3.3)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (name, matrix) in zip(axes, panels.items(), strict=True):
        _draw_matrix(ax, matrix, name, norms[name])
    clipped = max(np.abs(x).max() for x in signed) > norms["posterior mean"].vmax
    _add_scale(figure, list(axes[:-1]), "weight", "both" if clipped else "neither")
    clipped = panels["posterior sd"].values.max() > norms["posterior sd"].vmax
    _add_scale(figure, [axes[-1]], "weight sd", "max" if clipped else "neither")
    axes[0].set_ylabel(f"postsynaptic {_ticks(axes[0].yaxis, panels['posterior mean'], 'post')}")
    return figure.get_figure(root=True)


def plot_weight_recovery(weight: xr.DataArray, truth: xr.DataArray, *, ax: Axes | None = None) -> Axes:
    """Posterior mean and 90 % bar of every weight over its true value; on the diagonal they are equal.

    `weight (draw, post, pre)`, `truth (post, pre)`.

    Raises:
        ValueError: if the dims are others or labels of `truth` differ from the posterior's.
    """
    true = check_labels(truth, "truth", weight, _MATRIX).values.ravel()
    mean, lower, upper = (x.ravel() for x in band(draws_of(weight, "weight", _MATRIX)))
    ax = axes_or_new(ax, 5.2, 3.8)
    faint = float(np.clip(150 / len(true), 0.05, 0.7))
    # Vector files with a million bars are unusable.
    ax.vlines(true, lower, upper, color=POSTERIOR, alpha=faint, lw=1.0, label=f"{BAND:.0%} band", rasterized=True)
    ax.plot(true, mean, "o", color=POSTERIOR, ms=3, mew=0, alpha=0.6, label="posterior mean", rasterized=True)
    ends = [true.min(), true.max()]
    ax.plot(ends, ends, color=TRUTH, lw=1.3, ls=(0, (4, 2)), label="equal")
    ax.set(xlabel="true weight", ylabel="inferred weight")
    trim([ax])
    legend_beside(ax)
    return ax


def plot_overlap_spectrum(overlap: xr.DataArray, *, truth: xr.DataArray | None = None, ax: Axes | None = None) -> Axes:
    """Eigenvalues of the overlap `n^T m / K` in the complex plane: dots for all draws, crosses for the truth.

    They are the non-zero eigenvalues of the weights and the same in every gauge. `overlap (chain, draw, latent_dim,
    latent_from)` is in the posterior of the low-rank models; `truth (latent_dim, latent_from)`.

    Raises:
        ValueError: if the dims are others.
    """
    ax = axes_or_new(ax, 5.2, 3.6)
    eigenvalues = np.linalg.eigvals(draws_of(overlap, "overlap", _OVERLAP)).ravel()
    ax.axhline(0.0, color=NEUTRAL, lw=0.6, zorder=0)
    ax.plot(
        np.real(eigenvalues),
        np.imag(eigenvalues),
        "o",
        color=POSTERIOR,
        ms=4,
        mew=0,
        alpha=0.35,
        label="posterior draws",
    )
    if truth is not None:
        true = np.linalg.eigvals(check_dims(truth, "truth", _OVERLAP).values)
        ax.plot(np.real(true), np.imag(true), "X", color=TRUTH, ms=10, mec="white", label="truth")
    ax.set(xlabel="real part", ylabel="imaginary part")
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.1)
    trim([ax])
    legend_beside(ax)
    return ax


def _sorted(matrix: xr.DataArray, order: Sequence[Any] | np.ndarray | None) -> xr.DataArray:
    if order is None:
        return matrix
    for dim in _MATRIX:
        known = set(matrix[dim].values.tolist())
        missing = [neuron for neuron in order if neuron not in known]
        if missing:
            raise ValueError(f"`order` names {len(missing)} neurons that {dim!r} lacks, such as {missing[0]}.")
    return matrix.sel({dim: list(order) for dim in _MATRIX})


def _draw_matrix(ax: Axes, matrix: xr.DataArray, name: str, norm: Normalize) -> None:
    ax.imshow(matrix.values, cmap="viridis" if name == "posterior sd" else "RdBu_r", norm=norm)
    ax.set(title=name, xlabel=f"presynaptic {_ticks(ax.xaxis, matrix, 'pre')}")


def _add_scale(figure: Figure | SubFigure, axes: Sequence[Axes], label: str, extend: str) -> None:
    figure.colorbar(axes[0].images[0], ax=axes, label=label, extend=extend, shrink=0.8, pad=0.02)


def _ticks(axis: Axis, matrix: xr.DataArray, dim: str) -> str:
    """What the ticks count: ids of few neurons, positions of many."""
    if matrix.sizes[dim] <= _MOST_NAMED_NEURONS:
        axis.set_ticks(range(matrix.sizes[dim]), [str(neuron) for neuron in matrix[dim].values])
        return "neuron"
    axis.set_major_locator(MaxNLocator(5, integer=True))
    return "neuron (position)"
