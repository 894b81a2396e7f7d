"""Recordings from objects of neo and pynapple.

An object tells by the module of its class where it comes from, so neither package is imported here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.assembly import DEFAULT_BIN_WIDTH, TRIALS, assemble_recording, check_trials
from connectinfer.data.field_groups import unfold
from connectinfer.data.recording import recording
from connectinfer.data.spike_times import EDGE, count_in_bins, sorted_times
from connectinfer.data.time_bins import cut_at_events
from connectinfer.data.time_tables import from_table, guess_kind


def is_neural_object(data: Any) -> bool:
    """Whether `data`, or what a list holds, is of neo or pynapple."""
    first = data[0] if isinstance(data, list | tuple) and data else data
    return type(first).__module__.partition(".")[0] in ("neo", "pynapple")


def from_neural_object(data: Any, *, kind: str | None = None, time: Any = None, **parts: Any) -> xr.Dataset:
    """A recording from spike trains or signals; `as_recording` says which, and what `parts` may hold.

    Spikes are counted from the first time at which a train was recorded to the last: the time support of pynapple's
    objects, `t_start` to `t_stop` of neo's. Bins that reach beyond, for each unit, are masked. The segments of a block
    are trials whose time starts at `t_start` where all share it, else at 0; `start (trial)` is `t_start`.

    Raises:
        ValueError: for objects that hold no spike trains or signal of units, or several.
    """
    if "events" in parts:
        parts["events"] = _interval_table(parts["events"])
    segments = list(data.segments) if _is(data, "Block") else [data]
    if isinstance(data, list | tuple) and _is(data[0], "Segment"):
        segments = list(data)
    if not segments:
        raise ValueError("the block has no segments, so there is nothing to take.")
    contents = [_content(each, kind) for each in segments]
    if len(contents) > 1:
        return _from_trials(contents, kind, time, **parts)
    if isinstance(contents[0], Mapping):
        width = {} if time is None else {"bin_width": time}
        return _assembled({"spike_times": contents[0], **width, **parts})
    return _from_signal(contents[0], kind, time, **parts)


def _is(data: Any, *names: str) -> bool:
    return type(data).__name__ in names


def _content(data: Any, kind: str | None) -> dict[str, Any] | pd.DataFrame:
    """A table of units with their spike times, or a signal with units as columns over time in s."""
    if _is(data, "Segment"):
        return _content_of_segment(data, kind)
    if isinstance(data, list | tuple) or _is(data, "SpikeTrainList"):
        return _neo_units(list(data))
    if _is(data, "SpikeTrain"):
        return _neo_units([data])
    if _is(data, "AnalogSignal", "IrregularlySampledSignal"):
        return _neo_signal(data, kind)
    if _is(data, "TsGroup", "Ts"):
        return _pynapple_units(data)
    if _is(data, "Tsd", "TsdFrame", "TsdTensor"):
        return _pynapple_signal(data)
    raise ValueError(
        f"{type(data).__module__.partition('.')[0]}'s {type(data).__name__} holds no spike trains or signals of units; "
        "pass SpikeTrains, a Segment, a Block or an AnalogSignal of neo, or a Ts, TsGroup, Tsd or TsdFrame of pynapple."
    )


def _content_of_segment(segment: Any, kind: str | None) -> dict[str, Any] | pd.DataFrame:
    if kind in (None, "counts") and len(segment.spiketrains):
        return _neo_units(list(segment.spiketrains))
    if len(segment.analogsignals) != 1:
        raise ValueError(
            f"the segment has {len(segment.spiketrains)} spike trains and {len(segment.analogsignals)} analog signals, "
            f"so `kind={kind!r}` does not say what to take. Pass the trains or the one signal themselves."
        )
    return _neo_signal(segment.analogsignals[0], kind)


def _neo_units(trains: Sequence[Any]) -> dict[str, Any]:
    strange = [type(each).__name__ for each in trains if not _is(each, "SpikeTrain")]
    if strange or not trains:
        raise ValueError(f"a list of neo objects must hold SpikeTrains; got {strange[0] if strange else 'none'}.")
    names = [each.name for each in trains]
    named = all(names) and len(set(names)) == len(names)
    shared = set.intersection(*(set(each.annotations) for each in trains))
    columns = {str(name): np.asarray([each.annotations[name] for each in trains]) for name in sorted(shared)}
    return columns | {
        "spike_times": [_magnitude(each.times, "s") for each in trains],
        "id": names if named else list(range(len(trains))),
        "obs_intervals": [[[_magnitude(each.t_start, "s"), _magnitude(each.t_stop, "s")]] for each in trains],
    }


def _neo_signal(signal: Any, kind: str | None) -> pd.DataFrame:
    # Rates may come in any unit of frequency; fluorescence has units of its own, and bare numbers are what they are.
    in_hertz = kind == "rates" and signal.dimensionality.string != "dimensionless"
    values = _magnitude(signal, "Hz") if in_hertz else np.asarray(signal.magnitude)
    return pd.DataFrame(values, index=_magnitude(signal.times, "s"))


def _magnitude(quantity: Any, unit: str) -> np.ndarray:
    return np.asarray(quantity.rescale(unit).magnitude, float)


def _pynapple_units(data: Any) -> dict[str, Any]:
    group = {0: data} if _is(data, "Ts") else {unit: data[unit] for unit in data.keys()}  # noqa: SIM118
    return _columns(data) | {
        "spike_times": [np.asarray(each.t) for each in group.values()],
        "id": list(group),
        "obs_intervals": [np.asarray(data.time_support.values)] * len(group),
    }


def _pynapple_signal(data: Any) -> pd.DataFrame:
    values = np.asarray(data.values)
    if _is(data, "TsdFrame"):
        columns = list(data.columns)
    else:
        # The pixels of a tensor are named by their places.
        columns = [",".join(map(str, place)) or 0 for place in np.ndindex(values.shape[1:])]
    table = pd.DataFrame(values.reshape(len(values), -1), index=np.asarray(data.t), columns=columns)
    table.attrs["columns"] = _columns(data)
    return table


def _columns(data: Any) -> dict[str, np.ndarray]:
    """Metadata of the units or intervals, one value each."""
    metadata = getattr(data, "metadata", None)
    table = metadata if isinstance(metadata, pd.DataFrame) else pd.DataFrame()
    return {str(name): _plain(table[name].to_numpy()) for name in table}


def _plain(column: np.ndarray) -> np.ndarray:
    return column.astype(str) if column.dtype.kind in "OT" else column


def _interval_table(events: Any) -> Any:
    """Intervals and events of neo and pynapple as a table; anything else as it is."""
    if not is_neural_object(events):
        return events
    if _is(events, "IntervalSet"):
        return _columns(events) | {"start_time": np.asarray(events.start), "stop_time": np.asarray(events.end)}
    if _is(events, "Ts", "Tsd"):
        return np.asarray(events.t)
    if _is(events, "Event", "Epoch"):
        start, labels = _magnitude(events.times, "s"), {"label": _plain(np.asarray(events.labels))}
        stop = {"stop_time": start + _magnitude(events.durations, "s")} if _is(events, "Epoch") else {}
        return labels | {"start_time": start} | stop
    raise ValueError(
        f"`events` cannot be a {type(events).__name__}; pass an IntervalSet or Ts of pynapple, an Epoch or Event of "
        "neo, or times in s."
    )


def _assembled(parts: dict[str, Any]) -> xr.Dataset:
    unfolded, coords = unfold(parts)
    return assemble_recording(unfolded).assign_coords(coords)


def _from_signal(table: pd.DataFrame, kind: str | None, time: Any, **parts: Any) -> xr.Dataset:
    check_trials(parts)
    cut = [name for name in ("events", "stops", "window", "trial") if "events" in parts and name in parts]
    cutting, coords = unfold({name: parts.pop(name) for name in cut})
    dataset = from_table(table, kind=kind, time=time, **parts)
    dataset = dataset.assign_coords({name: ("unit", each) for name, each in table.attrs.get("columns", {}).items()})
    return cut_at_events(dataset, **cutting).assign_coords(coords) if cutting else dataset


def _from_trials(contents: list[Any], kind: str | None, time: Any, **parts: Any) -> xr.Dataset:
    """A trial per segment."""
    cutting = [name for name in TRIALS if name in parts]
    if cutting:
        raise ValueError(f"{cutting} cut trials out of one stretch; the {len(contents)} segments are trials already.")
    spikes = [isinstance(each, Mapping) for each in contents]
    if any(spikes) and not all(spikes):
        raise ValueError("some segments hold spike trains and others do not; pass segments of one sort.")
    trials = contents if not all(spikes) else [_binned(each, time or DEFAULT_BIN_WIDTH) for each in contents]
    ids = [list(each.columns) for each in trials]
    differing = [index for index, each in enumerate(ids) if each != ids[0]]
    if differing:
        raise ValueError(f"segments must have the same units; 0 has {ids[0]}, {differing[0]} has {ids[differing[0]]}.")
    starts = np.array([each.index[0] for each in trials])
    width = time or float(np.median(np.concatenate([np.diff(each.index) for each in trials])))
    if all(spikes):
        parts = {"mask": [each.attrs["observed"] for each in trials]} | parts
    values = [each.to_numpy() for each in trials]
    dataset = recording(
        **{"counts" if all(spikes) else kind or guess_kind(values): values},
        time=width,
        **{"unit": ids[0]} | parts,
    )
    shared = starts[0] if np.allclose(starts, starts[0]) else 0.0
    return dataset.assign_coords(time=shared + dataset["time"].values, start=("trial", starts))


def _binned(units: Mapping[str, Any], width: float) -> pd.DataFrame:
    """Counts over bin starts, from the first `t_start` to the last `t_stop`, and in attrs which bins were observed."""
    observed = np.reshape(units["obs_intervals"], (-1, 2))
    start, stop = observed[:, 0].min(), observed[:, 1].max()
    n_bins = int(np.floor((stop - start) / width + EDGE))
    if n_bins < 1:
        raise ValueError(f"a segment of {stop - start:g} s holds no bin of {width} s.")
    trains = [
        sorted_times(each, f"unit {name!r}") for name, each in zip(units["id"], units["spike_times"], strict=True)
    ]
    counts = [count_in_bins(each, np.zeros(len(each), int), 1, start, n_bins, width)[:, 0] for each in trains]
    bins = start + np.arange(n_bins) * width
    tolerance = EDGE * width
    table = pd.DataFrame(np.stack(counts, axis=-1), index=bins, columns=units["id"])
    table.attrs["observed"] = (bins[:, None] >= observed[:, 0] - tolerance) & (
        bins[:, None] + width <= observed[:, 1] + tolerance
    )
    return table
