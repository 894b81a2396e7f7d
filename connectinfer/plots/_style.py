"""One look for all pictures: colours, fresh axes, legends beside the data; and the checks at every door."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito's palette, told apart with every kind of colour vision.
POSTERIOR = "#0072B2"
TRUTH = "#D55E00"
NEUTRAL = "#4D4D4D"
UNOBSERVED = "#E3E3E3"

BAND = 0.9
"""Probability inside bands and error bars, with equal tails."""

MOST_TRIALS = 3
"""Trials that are drawn when none are chosen."""

# Width of one entry, in inches.
_LEGEND_ENTRY = 1.5
_SAMPLE_DIMS = ("chain", "draw", "sample")


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """`ax`, or the axes of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def figure_or_new(figure: Figure | SubFigure | None, width: float, height: float) -> Figure | SubFigure:
    """`figure` (or subfigure), or a new one of this size in inches."""
    # With less padding the last tick label of a panel touches the first of the next.
    return plt.figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1)) if figure is None else figure


def trim(axes: Iterable[Axes]) -> None:
    """Take away the upper and right frame, which carry no ticks."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)


def legend_beside(ax: Axes) -> None:
    """One entry per label, to the right of the axes where it covers nothing."""
    handles, labels = ax.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    if named:
        legend = ax.legend(
            named.values(), named.keys(), loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, frameon=False
        )
        # Translucent marks add up where they are many; alone they could not be seen.
        for handle in filter(None, legend.legend_handles):
            handle.set_alpha(1)


def legend_above(figure: Figure | SubFigure, axes: Iterable[Axes]) -> None:
    """One entry per label of any panel, above all panels."""
    pairs = [ax.get_legend_handles_labels() for ax in axes]
    named = {label: handle for handles, labels in pairs for label, handle in zip(labels, handles, strict=True)}
    if named:
        columns = max(int(figure.bbox.width / figure.dpi / _LEGEND_ENTRY), 1)
        figure.legend(named.values(), named.keys(), loc="outside upper right", ncols=columns, frameon=False)


def check_dims(array: xr.DataArray, name: str, dims: Sequence[str]) -> xr.DataArray:
    """`array` with its dims in the order of `dims`.

    Raises:
        ValueError: if it has other dims.
    """
    if set(array.dims) != set(dims):
        raise ValueError(
            f"`{name}` must have dims {tuple(dims)}; got {array.dims}. "
            "Rename them with `.rename(...)` or pick one entry with `.isel(...)`."
        )
    return array.transpose(*dims)


def draws_of(array: xr.DataArray, name: str, dims: Sequence[str]) -> np.ndarray:
    """The values as (draw, *dims), all chains after each other.

    Raises:
        ValueError: if dims are missing, there is no dim of draws, or there are further ones.
    """
    sample_dims = [str(dim) for dim in array.dims if dim not in dims]
    if not set(dims) <= set(array.dims) or not sample_dims or not set(sample_dims) <= set(_SAMPLE_DIMS):
        raise ValueError(
            f"`{name}` must have dims {tuple(dims)} and draws along `draw` or `chain` and `draw`; got {array.dims}. "
            "Rename them with `.rename(...)`, or add one with `.expand_dims('draw')`."
        )
    values = array.transpose(*sample_dims, *dims).values
    return values.reshape(-1, *values.shape[len(sample_dims) :])


def check_labels(array: xr.DataArray, name: str, reference: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    """`array (*dims)` with the labels of `reference`, which it must carry already unless it has none.

    Raises:
        ValueError: if dims or labels differ.
    """
    array = check_dims(array, name, dims)
    for dim in dims:
        given, wanted = array[dim].values, reference[dim].values
        if len(given) != len(wanted) or (dim in array.coords and not _agree(given, wanted)):
            raise ValueError(
                f"`{name}` and the posterior differ along {dim!r}: {len(given)} entries {_ends(given)} against "
                f"{len(wanted)} entries {_ends(wanted)}. Select the same ones, or give it the labels of the posterior."
            )
    return array.assign_coords({dim: reference[dim].values for dim in dims})


def band(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper end of the band over the first axis."""
    tail = (1 - BAND) / 2
    lower, upper = np.quantile(draws, [tail, 1 - tail], axis=0)
    return draws.mean(0), lower, upper


def chosen_trials[Labelled: (xr.Dataset, xr.DataArray)](
    data: Labelled, trials: Sequence[Any] | np.ndarray | None
) -> Labelled:
    """`data` at the chosen trials, or at its first `MOST_TRIALS`.

    Raises:
        ValueError: if a trial is not there or none is chosen.
    """
    if trials is None:
        return data.isel(trial=slice(MOST_TRIALS))
    known = np.asarray(data["trial"])
    positions = [np.flatnonzero(known == trial) for trial in trials]
    missing = [trial for trial, found in zip(trials, positions, strict=True) if not len(found)]
    if missing or not positions:
        raise ValueError(f"no trial {missing or 'was chosen'}; the trials are {_ends(known)}.")
    return data.isel(trial=[int(found[0]) for found in positions])


def bin_edges(time: np.ndarray) -> tuple[float, float]:
    """Start of the first and end of the last of uniform bins with these starts, in s."""
    width = (time[-1] - time[0]) / (len(time) - 1) if len(time) > 1 else 1.0
    return float(time[0]), float(time[-1] + width)


def _agree(given: np.ndarray, wanted: np.ndarray) -> bool:
    if given.dtype.kind == "f" and wanted.dtype.kind == "f":
        return np.allclose(given, wanted)
    return np.array_equal(given, wanted)


def _ends(labels: np.ndarray) -> str:
    shown = [str(label) for label in labels]
    return ", ".join(shown) if len(shown) <= 6 else f"{', '.join(shown[:3])}, ..., {shown[-1]}"
