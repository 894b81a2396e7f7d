"""Several sessions as one recording, in which units of different sessions are never seen together."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from connectinfer.data.recording import TIME_TOLERANCE, check_recording, observed_kind, recording

SEPARATOR = ":"


def stitch(recordings: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """One recording of all trials and units of several sessions, from a mapping of session names to recordings.

    An entry is observed where its trial and its unit belong to one session and were observed there. So a model of
    latent dynamics gets one network, of the units of all sessions, whose dynamics are shared and whose read-outs are
    each unit's own. Coordinates `session (trial)` and `unit_session (unit)` say where trials and units come from; their
    ids become `"session:id"`. Inputs go by name, in the order of the first session. Shorter trials are padded and
    masked. Further coordinates of trials or units are kept where every session has them. A unit that was followed over
    sessions becomes one unit a session.

    Arrays hold every trial of every session for the units of all of them: with sessions of one size, as many times the
    memory of the sessions as there are sessions.

    Raises:
        TypeError: no mapping, or a session that is no data set.
        ValueError: no session, a name that is no text or holds `":"`, a data set that is no recording, or sessions that
            differ in what they hold, in bin width, in the time of their first bin, or in the names of their inputs.
    """
    if not isinstance(recordings, Mapping):
        raise TypeError(f"`recordings` must map session names to recordings; got {type(recordings).__name__}.")
    if not recordings:
        raise ValueError("`recordings` is empty; give a mapping of session names to recordings.")
    for name, each in recordings.items():
        if not isinstance(name, str) or not name or SEPARATOR in name:
            raise ValueError(f"session names must be text without {SEPARATOR!r}; got {name!r}.")
        check_recording(each)
    _check_alike(recordings)
    sessions = list(recordings.values())
    longest = max(sessions, key=lambda each: each.sizes["time"])
    kind, names = observed_kind(longest), [str(name) for name in recordings]
    trials, units = (_labels(recordings, dim) for dim in ("trial", "unit"))
    shape = (len(trials), longest.sizes["time"], len(units))
    values, mask = np.zeros(shape, longest[kind].dtype), np.zeros(shape, bool)
    first = sessions[0]
    inputs = {str(name): np.zeros(shape[:2]) for name in first["input"].values} if "inputs" in first else None
    row, column = 0, 0
    for each in sessions:
        rows, bins = slice(row, row + each.sizes["trial"]), slice(each.sizes["time"])
        columns = slice(column, column + each.sizes["unit"])
        values[rows, bins, columns], mask[rows, bins, columns] = each[kind].values, each["mask"].values
        for name, stitched in (inputs or {}).items():
            stitched[rows, bins] = each["inputs"].sel(input=name).values
        row, column = rows.stop, columns.stop
    # Times as the longest session states them; a single bin has no step to read the bin width from.
    time = longest["time"].values if shape[1] > 1 else float(longest.attrs["bin_width"])
    stitched = recording(time=time, unit=units, trial=trials, inputs=inputs, mask=mask, **{kind: values})
    origin = {
        "session": ("trial", np.repeat(names, [each.sizes["trial"] for each in sessions])),
        "unit_session": ("unit", np.repeat(names, [each.sizes["unit"] for each in sessions])),
    }
    return stitched.assign_coords(_shared_coordinates(sessions) | origin)


def _labels(recordings: Mapping[str, xr.Dataset], dim: str) -> list[str]:
    return [f"{name}{SEPARATOR}{label}" for name, each in recordings.items() for label in each[dim].values]


def _check_alike(recordings: Mapping[str, xr.Dataset]) -> None:
    (first_name, first), *others = recordings.items()
    for name, each in others:
        width, start = float(first.attrs["bin_width"]), float(first["time"].values[0])
        facts = {
            "hold": (observed_kind(first), observed_kind(each), observed_kind(first) == observed_kind(each)),
            "have the bin width (s)": _close(width, float(each.attrs["bin_width"]), width),
            "begin at the time (s)": _close(start, float(each["time"].values[0]), width),
            "have the inputs": (*(found := (_inputs(first), _inputs(each))), set(found[0]) == set(found[1])),
        }
        for what, (expected, got, same) in facts.items():
            if not same:
                raise ValueError(
                    f"all sessions must {what} of the first, {first_name!r}: {expected}; {name!r} has {got}. "
                    "Bin and cut all sessions alike, and name their inputs alike."
                )


def _close(expected: float, got: float, width: float) -> tuple[float, float, bool]:
    return expected, got, abs(got - expected) <= TIME_TOLERANCE * width


def _inputs(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name in dataset["input"].values] if "inputs" in dataset else []


def _shared_coordinates(sessions: list[xr.Dataset]) -> dict[str, tuple[str, np.ndarray]]:
    """Coordinates beside the ids that all sessions have along trials, or along units."""
    found = {}
    for name, coordinate in sessions[0].coords.items():
        dims = coordinate.dims
        if name in ("trial", "unit") or dims not in (("trial",), ("unit",)):
            continue
        if all(name in each.coords and each[name].dims == dims for each in sessions):
            found[str(name)] = (str(dims[0]), np.concatenate([each[name].values for each in sessions]))
    return found
