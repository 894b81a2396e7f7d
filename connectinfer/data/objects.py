"""Recordings from what is already in memory: numpy arrays, pandas tables, xarray objects."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.recording import DIMS, KINDS, check_recording, observed_kind, recording


def as_recording(data: Any, *, kind: str | None = None, time: Any = None, **parts: Any) -> xr.Dataset:
    """`data` as a recording that a model can be fitted to.

    Args:
        data: A recording; a Dataset with `counts`, `rates` or `fluorescence` (a missing mask counts as all observed);
            a DataArray with dims `(trial, time, unit)` or `(time, unit)` in any order; a DataFrame with units as
            columns and time in s as index, or `(trial, time)` as MultiIndex; an array `(trial, time, unit)` or
            `(time, unit)`, or a list with one `(time, unit)` array per trial.
        kind: "counts", "rates" or "fluorescence"; needed unless the name or an integer dtype tells.
        time: Bin starts, or the bin width, in s; needed for bare arrays, which carry no time.
        **parts: `unit`, `trial`, `inputs`, `mask` as in `recording`.

    Raises:
        ValueError: for whatever `recording` and `check_recording` refuse, or if kind or time are missing.
    """
    if isinstance(data, xr.Dataset):
        dataset = data if "mask" in data else _with_mask(data)
    elif isinstance(data, xr.DataArray):
        dataset = _from_labelled(data, kind or str(data.name), time, parts)
    elif isinstance(data, pd.DataFrame):
        dataset = from_table(data, kind=kind, time=time, **parts)
    else:
        values = data if isinstance(data, list | tuple) else one_trial(np.asarray(data))
        if time is None:
            raise ValueError(
                "a bare array carries no time: pass `time`, the bin starts or the bin width in s, for example "
                "`as_recording(array, time=0.01)`."
            )
        dataset = recording(**{kind or _guess_kind(values): values}, time=time, **parts)
    check_recording(dataset)
    return dataset


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
    """
    kind = kind or _guess_kind(table.to_numpy())
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


def one_trial(values: np.ndarray) -> np.ndarray:
    """`(time, unit)` as a single trial `(1, time, unit)`; anything else unchanged."""
    return values[None] if values.ndim == 2 else values


def _from_labelled(data: xr.DataArray, kind: str, time: Any, parts: dict[str, Any]) -> xr.Dataset:
    if kind not in KINDS:
        raise ValueError(f"say what the DataArray holds: `kind=` one of {KINDS}; its name is {data.name!r}.")
    if "trial" not in data.dims and "trial" not in data.coords:
        data = data.expand_dims("trial")
    if set(data.dims) != set(DIMS):
        raise ValueError(f"the DataArray must have dims {DIMS} in any order; got {data.dims}. Rename them.")
    if time is None and "time" not in data.coords:
        raise ValueError("the DataArray has no `time` coordinate; pass `time`, the bin starts or the bin width in s.")
    data = data.transpose(*DIMS)
    labels = {name: data[name].values for name in ("trial", "unit") if name in data.coords}
    starts = data["time"].values if time is None else time
    dataset = recording(**{kind: data.values}, time=starts, **(labels | parts))
    extra = {name: coord for name, coord in data.coords.items() if name not in DIMS}
    return dataset.assign_coords({str(name): (coord.dims, coord.values) for name, coord in extra.items()})


def _with_mask(data: xr.Dataset) -> xr.Dataset:
    kind = observed_kind(data)
    inputs = data.get("inputs")
    named = inputs is not None and "input" in inputs.coords
    if inputs is not None:
        inputs = inputs.transpose("trial", "time", "input").values
    time = None if "time" in data[kind].coords else data.attrs.get("bin_width")
    dataset = _from_labelled(data[kind], kind, time, {"inputs": inputs})
    dataset = dataset.assign_coords(input=data["input"].values) if named else dataset
    return dataset.assign_attrs({**data.attrs, **dataset.attrs})


def _guess_kind(values: Any) -> str:
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
    width, start = float(np.median(steps)), min(each[0] for each in times)
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
