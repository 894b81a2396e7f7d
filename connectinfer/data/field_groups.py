"""Groups of fields that belong together, picked whole: a table of units, a table of intervals, a time series."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from connectinfer.data.field_tree import FieldTree, Leaf
from connectinfer.data.recording import DIMS, KINDS

_RESERVED = {*DIMS, *KINDS, "mask", "inputs", "input", "event", "start"}
_PLAIN = ("str", "bool", "int", "uint", "float", "<U")


def unfold(parts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[str, Any]]]:
    """`parts` with each group replaced by its fields, and the coordinates that groups bring along, with their dims.

    `spike_times` may be a table of units with the columns `spike_times` and, perhaps, `id` and `obs_intervals`;
    `events` a table of intervals with `start_time` and, perhaps, `stop_time` and `id`; counts, rates and fluorescence
    a series with `data`, `timestamps` and, perhaps, `roi`, the ids of its units. What `parts` itself holds goes
    first, and a `window` stands in for the stop times. Further columns with one value per row become coordinates,
    prefixed by `unit_` or `trial_` where their name is taken.

    Raises:
        ValueError: if a group lacks what it is needed for, or a bin width is not that of the time stamps.
    """
    unfolded, coords = dict(parts), {}
    units, intervals = parts.get("spike_times"), parts.get("events")
    if isinstance(units, Mapping) and "spike_times" in units:
        own = _fields(units, spike_times="spike_times", unit="id", observed="obs_intervals")
        unfolded = own | _without(unfolded, "spike_times")
        coords |= _scalar_columns(units, len(own["spike_times"]), "unit", ("id",), _RESERVED)
    if isinstance(intervals, Mapping) and "start_time" in intervals:
        ends = {} if "window" in parts else {"stops": "stop_time"}
        own = _fields(intervals, events="start_time", trial="id", **ends)
        unfolded = own | _without(unfolded, "events")
        coords |= _scalar_columns(intervals, len(own["events"]), "trial", ("id", "start_time"), _RESERVED | set(coords))
    for kind in KINDS:
        series = parts.get(kind)
        if isinstance(series, Mapping) and {"data", "timestamps"} <= set(series):
            own = _fields(series, **{kind: "data"}, unit="roi")
            unfolded = _with_time(own | _without(unfolded, kind), kind, series["timestamps"])
    return unfolded, coords


def _without(parts: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in parts.items() if each != name}


def _fields(group: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """The fields of the group under our names; the first must be there, the others may be missing."""
    found = {ours: group[name] for ours, name in names.items() if group.get(name) is not None}
    needed = next(iter(names))
    if needed not in found:
        raise ValueError(f"{names[needed]!r} of the group chosen for `{needed}` is not stored in this file.")
    return found


def _with_time(parts: dict[str, Any], kind: str, stamps: Any) -> dict[str, Any]:
    """With the time stamps of the series as `time`; where a bin width is given, bins of it from the first one on."""
    given = "time" if "time" in parts else "bin_width"
    width = parts.get(given)
    if stamps is None or (isinstance(width, np.ndarray) and width.ndim == 1):
        return parts
    if width is None:
        return parts | {"time": stamps}
    _check_width(np.asarray(stamps), float(width), given, kind)
    return _without(parts, "bin_width") | {"time": stamps[0] + np.arange(len(stamps)) * float(width)}


def _check_width(stamps: np.ndarray, width: float, given: str, kind: str) -> None:
    """Raise if bins of this width would move a sample by more than half of one."""
    if stamps.ndim != 1 or len(stamps) < 2:
        return
    placed = stamps[0] + np.arange(len(stamps)) * width
    worst = int(np.argmax(np.abs(placed - stamps)))
    if not abs(placed[worst] - stamps[worst]) <= width / 2:
        step = float(stamps[-1] - stamps[0]) / (len(stamps) - 1)
        raise ValueError(
            f"bins of {width:g} s (`{given}`) would move sample {worst} of `{kind}`, taken at {stamps[worst]:.10g} s, "
            f"to {placed[worst]:.10g} s; the time stamps are {step:g} s apart on average. Leave `{given}` out, so that "
            "the stamps say when each sample was taken (`rebin(recording, factor)` then makes wider bins); a series "
            "with pauses must be resampled before it is opened."
        )


def _scalar_columns(
    table: Mapping[str, Any], n: int, dim: str, consumed: tuple[str, ...], taken: set[str]
) -> dict[str, tuple[str, Any]]:
    names = [name for name in table if name not in consumed and _is_scalar_column(table, name, n)]
    return {f"{dim}_{name}" if name in taken else name: (dim, np.asarray(table[name])) for name in names}


def _is_scalar_column(table: Mapping[str, Any], name: str, n: int) -> bool:
    # Looked at in the file, so that wide columns, such as waveforms, need not be read.
    column = table.peek(name) if isinstance(table, FieldTree) else table[name]
    if isinstance(column, list) and not any(map(np.ndim, column)):
        column = np.asarray(column)
    return isinstance(column, Leaf | np.ndarray) and column.shape == (n,) and str(column.dtype).startswith(_PLAIN)
