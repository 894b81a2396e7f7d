"""Recordings from what is already in memory: arrays, tables, xarray objects, and those of neo and pynapple."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.neural_objects import from_neural_object, is_neural_object
from connectinfer.data.recording import DIMS, KINDS, check_recording, observed_kind, recording
from connectinfer.data.time_tables import from_table, guess_kind
from connectinfer.data.trial_arrays import one_trial


def as_recording(data: Any, *, kind: str | None = None, time: Any = None, **parts: Any) -> xr.Dataset:
    """`data` as a recording that a model can be fitted to.

    Args:
        data: A recording; a Dataset with `counts`, `rates` or `fluorescence` (a missing mask counts as all observed);
            a DataArray with dims `(trial, time, unit)` or `(time, unit)` in any order; a DataFrame with units as
            columns and time in s as index, or `(trial, time)` as MultiIndex; an array `(trial, time, unit)` or
            `(time, unit)`, or a list with one `(time, unit)` array per trial; neo's `SpikeTrain` (a list of them too),
            `Segment`, `Block` (a trial per segment) and `AnalogSignal`; pynapple's `TsGroup`, `Ts`, `Tsd`, `TsdFrame`
            and `TsdTensor`.
        kind: "counts", "rates" or "fluorescence"; needed unless the name or an integer dtype tells.
        time: Bin starts, or the bin width, in s; needed for bare arrays, which carry no time. Spike trains are binned
            at 0.01 s unless it says otherwise.
        **parts: `unit`, `trial`, `inputs`, `mask` as in `recording`. For objects of neo and pynapple also `events` (an
            `IntervalSet`, `Epoch`, `Event` or times in s), `stops` and `window`, which cut trials as in
            `align_spikes`.

    Raises:
        ValueError: for whatever `recording` and `check_recording` refuse, or if kind or time are missing.
    """
    if isinstance(data, xr.Dataset):
        dataset = data if "mask" in data else _with_mask(data)
    elif isinstance(data, xr.DataArray):
        dataset = _from_labelled(data, kind or str(data.name), time, parts)
    elif isinstance(data, pd.DataFrame):
        dataset = from_table(data, kind=kind, time=time, **parts)
    elif is_neural_object(data):
        dataset = from_neural_object(data, kind=kind, time=time, **parts)
    else:
        values = data if isinstance(data, list | tuple) else one_trial(np.asarray(data))
        if time is None:
            raise ValueError(
                "a bare array carries no time: pass `time`, the bin starts or the bin width in s, for example "
                "`as_recording(array, time=0.01)`."
            )
        dataset = recording(**{kind or guess_kind(values): values}, time=time, **parts)
    check_recording(dataset)
    return dataset


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
