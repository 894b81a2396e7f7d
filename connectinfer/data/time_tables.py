"""Recordings from tables of time by unit."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.padding import check_filled
from connectinfer.data.recording import KINDS, recording

# Bins that a table leaves out are masked, but not so many for each row.
BINS_PER_ROW = 1000


def from_table(
    table: pd.DataFrame,
    *,
    kind: str | None = None,
    time: Any = None,
    inputs: Any = None,
    mask: Any = None,
    unit: Any = None,
) -> xr.Dataset:
    """A recording from a table with units as columns; its index is time in s, or `(trial, time)` within the trial.

    `time` replaces the index level by bin starts or a bin width. `inputs` may be a table with the same index, `mask` is
    True where the table's entries were observed. Bins for which a trial has no row are masked.

    Raises:
        ValueError: if the index is no time, or (trial, time), on uniform bins; if `mask` or `inputs` do not fit the
            table; for fractions without `kind`, and whatever `recording` refuses.
    """
    kind = kind or guess_kind(table.to_numpy())
    observed = np.ones(table.shape, bool) if mask is None else np.asarray(mask)
    if observed.shape != table.shape:
        raise ValueError(f"`mask` has shape {observed.shape}, the table {table.shape}. They must agree.")
    trials, rows = _rows_of_trials(table.index)
    if time is None:
        time, bins = _shared_time([_seconds(table.index.get_level_values(-1))[each] for each in rows])
    else:
        bins = [np.arange(len(each)) for each in rows]

    def spread(values: np.ndarray) -> np.ndarray:
        placed = np.zeros((len(rows), max(each[-1] for each in bins) + 1, values.shape[1]), values.dtype)
        for trial, (at, each) in enumerate(zip(bins, rows, strict=True)):
            placed[trial, at] = values[each]
        return placed

    if isinstance(inputs, pd.DataFrame):
        if not inputs.index.equals(table.index):
            raise ValueError("`inputs` must have the index of the table, so that its rows belong to the same bins.")
        placed = spread(inputs.to_numpy(float))
        inputs = {str(name): placed[:, :, column] for column, name in enumerate(inputs.columns)}
    return recording(
        **{kind: spread(table.to_numpy())},
        time=time,
        unit=table.columns if unit is None else unit,
        trial=trials,
        inputs=inputs,
        mask=spread(observed),
    )


def guess_kind(values: Any) -> str:
    """The kind "counts" for whole numbers; for anything else it must be said.

    Raises:
        ValueError: for numbers that are not integers.
    """
    dtypes = {np.asarray(each).dtype.kind for each in (values if isinstance(values, list | tuple) else [values])}
    if dtypes <= set("iub"):
        return "counts"
    raise ValueError(f"these are not integers, so say what they are: `kind=` one of {KINDS}.")


def _seconds(index: pd.Index) -> np.ndarray:
    if index.dtype.kind not in "iuf":
        raise ValueError(f"the time index must be numbers in seconds; got {index.dtype}.")
    return index.to_numpy(float)


def _rows_of_trials(index: pd.Index) -> tuple[np.ndarray, list[np.ndarray]]:
    """Trial ids in their order, and the rows of each."""
    if index.nlevels > 2:
        raise ValueError(f"the index must be time, or (trial, time); got the levels {list(index.names)}.")
    if index.nlevels == 1:
        return np.arange(1), [np.arange(len(index))]
    codes, trials = pd.factorize(index.get_level_values(0))
    return np.asarray(trials), [np.flatnonzero(codes == each) for each in range(len(trials))]


def _shared_time(times: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """One uniform axis that covers the times of all trials, and each trial's bins on it."""
    steps = np.concatenate([np.diff(each) for each in times])
    if steps.size == 0 or not (steps > 0).all():
        raise ValueError("within each trial, time must increase over at least two bins; sort the table by time.")
    median, start = float(np.median(steps)), min(each[0] for each in times)
    stop = max(each.max() for each in times)
    check_filled(
        (stop - start) / median * len(times),
        steps.size,
        BINS_PER_ROW,
        f"`time` reaches from {start:.6g} s to {stop:.6g} s in steps of {median:g} s, but the table has only "
        f"{steps.size} of them. Correct the times that lie far from the others, or cut the table at the pause.",
    )
    # Rounded stamps make every step a little wrong, but not their sum.
    width = float(steps.sum() / np.maximum(np.rint(steps / median), 1).sum())
    bins = [np.rint((each - start) / width).astype(int) for each in times]
    for each, at in zip(times, bins, strict=True):
        off = np.abs(each - start - at * width)
        if off.max() > 0.1 * width or (np.diff(at) == 0).any():
            raise ValueError(
                f"`time` must be uniform: {each[off.argmax()]:g} s does not lie on bins of {width:g} s. "
                "Resample, or pass `time` as a number, the bin width."
            )
    if len(bins) > 1 and np.bincount(np.concatenate(bins)).max() == 1:
        raise ValueError("no two trials share a time: it seems to run on. Subtract each trial's start from `time`.")
    return start + np.arange(max(at[-1] for at in bins) + 1) * width, bins
