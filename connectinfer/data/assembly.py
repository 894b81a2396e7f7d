"""A recording assembled from the parts that were picked out of a file."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.columns import joined_columns
from connectinfer.data.recording import KINDS, recording
from connectinfer.data.spike_times import count_spikes
from connectinfer.data.time_bins import cut_at_events
from connectinfer.data.time_tables import from_table
from connectinfer.data.trial_arrays import one_trial

DEFAULT_BIN_WIDTH = 0.01
TRIALS = ("events", "window", "stops")
STRETCH = ("start", "stop")
BINNING = ("bin_width", *STRETCH, *TRIALS, "observed")
RECORDING_FIELDS = (*KINDS, "spike_times", "time", "unit", "trial", "inputs", "mask", *BINNING)


def assemble_recording(parts: Mapping[str, Any]) -> xr.Dataset:
    """A recording from values under the names `RECORDING_FIELDS`; `open_recording` says what they may hold.

    Raises:
        ValueError: if the parts do not fit together, or for whatever `recording` and `bin_spikes` refuse.
    """
    given = [name for name in (*KINDS, "spike_times") if name in parts]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {(*KINDS, 'spike_times')}; got {given}.")
    check_trials(parts)
    if given == ["spike_times"]:
        return _from_spikes(**parts)
    cutting = {name: _number(parts[name]) for name in TRIALS if name in parts}
    trial = {"trial": parts["trial"]} if cutting and "trial" in parts else {}
    dataset = _from_bins(given[0], {name: each for name, each in parts.items() if name not in {*cutting, *trial}})
    return cut_at_events(dataset, **cutting, **trial) if cutting else dataset


def check_trials(parts: Mapping[str, Any]) -> None:
    """Raise unless what cuts trials has events, and nothing else says where the data lies.

    Raises:
        ValueError: names what cannot be combined.
    """
    stretch, trials = ([name for name in names if name in parts] for names in (STRETCH, TRIALS))
    if trials and "events" not in parts:
        raise ValueError(f"{trials} cut trials around `events`, which are missing; give their times in s.")
    if trials and stretch:
        raise ValueError(f"{stretch} say where one stretch lies, `events` where trials do; give one or the other.")


def _from_spikes(spike_times: Any, unit: Any = None, trial: Any = None, **options: Any) -> xr.Dataset:
    unused = sorted(set(options) - set(BINNING))
    if unused:
        raise ValueError(f"{unused} cannot be combined with `spike_times`, which are binned by {BINNING}.")
    if trial is not None and "events" not in options:
        raise ValueError("`trial` names the trials that `events` cut out of spike times; without `events` drop it.")
    if isinstance(spike_times, list):
        units = list(range(len(spike_times)) if unit is None else np.asarray(unit).tolist())
        if len(units) != len(spike_times):
            raise ValueError(f"`unit` has {len(units)} ids for {len(spike_times)} spike trains.")
        spike_times = dict(zip(units, spike_times, strict=True))
    elif not isinstance(spike_times, Mapping):
        if unit is None:
            raise ValueError("`spike_times` is one array, so `unit` must give the unit of every spike.")
        spike_times = (spike_times, unit)
    options = {"bin_width": DEFAULT_BIN_WIDTH} | {name: _number(each) for name, each in options.items()}
    return count_spikes(spike_times, trial=trial, **options)


def _from_bins(kind: str, parts: dict[str, Any]) -> xr.Dataset:
    data = parts.pop(kind)
    if ("time" in parts) == ("bin_width" in parts):
        raise ValueError(
            "give either `time`, the bin starts in s, or `bin_width`, in s. Fields of the file go to `fields`, "
            "numbers beside it: `open_recording(path, fields=..., bin_width=0.01)`."
        )
    time = parts.pop("time") if "time" in parts else _number(parts.pop("bin_width"))
    unused = sorted(set(parts) & set(BINNING))
    if unused:
        raise ValueError(f"{unused} belong to `spike_times`; `{kind}` is binned already.")
    if isinstance(data, Mapping):
        parts.setdefault("unit", list(data))
        data = joined_columns(data, kind)
    if isinstance(data, list):
        return recording(**{kind: data}, time=time, **parts)
    data = np.asarray(data)
    if data.ndim == 2 and len(data) > 1 and np.size(parts.get("trial", ())) == len(data):
        return _from_rows(kind, data, time, **parts)
    if data.ndim == 2 and data.shape[1] > data.shape[0] and "unit" not in parts:
        warnings.warn(
            f"`{kind}` of shape {data.shape} is taken for one trial of {data.shape[0]} bins and {data.shape[1]} units, "
            "more units than bins. If the file keeps units in the rows, transpose it; `unit`, the units' ids, or the "
            "shape (1, time, unit) says that it does not.",
            stacklevel=4,
        )
    return recording(**{kind: one_trial(data)}, time=time, **{n: _as_one_trial(n, v) for n, v in parts.items()})


def _from_rows(kind: str, data: np.ndarray, time: Any, trial: Any, inputs: Any = None, **parts: Any) -> xr.Dataset:
    """From one row per trial and bin."""
    per_row = np.ndim(time) == 1
    index = pd.MultiIndex.from_arrays([np.asarray(trial), np.asarray(time) if per_row else np.arange(len(data))])
    if inputs is not None:
        inputs = pd.DataFrame(inputs, index=index)
    return from_table(
        pd.DataFrame(data, index=index), kind=kind, time=None if per_row else time, inputs=inputs, **parts
    )


def _as_one_trial(name: str, value: Any) -> Any:
    """Mask and inputs of a single trial gain the trial axis that its `(time, unit)` data gained."""
    if name == "inputs" and isinstance(value, Mapping):
        return {key: np.asarray(each)[None] if np.ndim(each) == 1 else each for key, each in value.items()}
    if name in ("inputs", "mask") and isinstance(value, np.ndarray):
        return one_trial(value)
    return value


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value
