"""Recordings: what was measured, as an xarray Dataset with dims `(trial, time, unit)`.

A recording holds exactly one of `counts` (int, spikes per bin), `rates` (float, Hz) and `fluorescence` (float),
always a bool `mask` of the same dims (True: observed; masked entries hold 0), and optionally
`inputs (trial, time, input)`. `time` are uniform bin starts in seconds; `attrs["bin_width"]` is in seconds.
Trials of different length share one time axis: the bins after a trial's end are masked.
Further coordinates, such as `area (unit)` or `choice (trial)`, are welcome: add them with `.assign_coords`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

from connectinfer.data.identifiers import as_identifiers, check_unique, listing
from connectinfer.data.trial_arrays import stack_inputs, stack_trials

KINDS = ("counts", "rates", "fluorescence")
DIMS = ("trial", "time", "unit")
# Bin starts may wander by this share of a bin: time stamps are stored with few digits.
TIME_TOLERANCE = 0.02


def recording(
    *,
    time: Any,
    counts: Any = None,
    rates: Any = None,
    fluorescence: Any = None,
    unit: Any = None,
    trial: Any = None,
    inputs: Any = None,
    mask: Any = None,
) -> xr.Dataset:
    """A recording made from arrays; give exactly one of `counts`, `rates` and `fluorescence`.

    Args:
        time: Bin starts in s, `(time,)`, uniform; or one number, the bin width in s (the first bin then starts at 0).
        counts: Spikes per bin, `(trial, time, unit)`, or a list of one `(time, unit)` array per trial, whose lengths
            may differ: shorter trials are padded and masked.
        rates: Firing rates in Hz, shaped as `counts`.
        fluorescence: Calcium signals in any unit (dF/F, z-scores), shaped as `counts`.
        unit: Unit ids, int or str; 0, 1, ... by default.
        trial: Trial ids, int or str; 0, 1, ... by default.
        inputs: External inputs `(trial, time, input)`, or a list with one `(time, input)` array per trial, or a
            mapping from each input's name to its `(trial, time)` array or list of `(time,)` arrays.
        mask: True where a bin was observed, shaped as the data. Data outside the mask may be NaN.

    Raises:
        ValueError: for wrong shapes, NaN in observed bins, negative or fractional counts, trials without an observed
            bin, duplicate or float ids, times that are unsorted or not uniform.
    """
    kind, data = _only_kind({"counts": counts, "rates": rates, "fluorescence": fluorescence})
    values, within = stack_trials(data, kind, ("time", "unit"))
    observed = np.broadcast_to(within[:, :, None], values.shape) & _observed(mask, values.shape)
    trials = as_identifiers(np.arange(values.shape[0]) if trial is None else trial, "trial")
    units = as_identifiers(np.arange(values.shape[2]) if unit is None else unit, "unit")
    bin_starts, bin_width = _time_axis(time, values.shape[1])
    for name, ids, n in (("trial", trials, values.shape[0]), ("unit", units, values.shape[2])):
        if len(ids) != n:
            raise ValueError(f"`{name}` has {len(ids)} ids but `{kind}` has {n} {name}s: shape {values.shape}.")
    _check_values(kind, values, observed, trials, units)
    dtype = np.int32 if kind == "counts" else np.float64
    variables: dict[str, Any] = {
        kind: (DIMS, np.where(observed, values, 0).astype(dtype)),
        "mask": (DIMS, np.array(observed)),
    }
    coords: dict[str, Any] = {"trial": trials, "time": bin_starts, "unit": units}
    if inputs is not None:
        stacked, names = stack_inputs(inputs, within)
        variables["inputs"] = (("trial", "time", "input"), stacked)
        coords["input"] = names
    dataset = xr.Dataset(variables, coords, {"bin_width": bin_width})
    check_recording(dataset)
    return dataset


def observed_kind(dataset: xr.Dataset) -> str:
    """The variable that holds the data: "counts", "rates" or "fluorescence".

    Raises:
        ValueError: if the data set has none of them, or several.
    """
    present = [kind for kind in KINDS if kind in dataset.data_vars]
    if len(present) != 1:
        raise ValueError(
            f"a recording holds exactly one of {KINDS}; got {present or 'none of them'} among the variables "
            f"{sorted(map(str, dataset.data_vars))}. Rename with `.rename(...)` or drop with `.drop_vars(...)`."
        )
    return present[0]


def silent_units(dataset: xr.Dataset) -> Bool[np.ndarray, " unit"]:
    """Units that never fire (counts) or never change (rates, fluorescence) where they were observed."""
    kind = observed_kind(dataset)
    values, mask = dataset[kind].values, dataset["mask"].values
    if kind == "counts":
        return ~(mask & (values != 0)).any((0, 1))
    lowest = np.where(mask, values, np.inf).min((0, 1))
    return lowest >= np.where(mask, values, -np.inf).max((0, 1))


def drop_silent_units(dataset: xr.Dataset) -> xr.Dataset:
    """The recording without its `silent_units`."""
    return dataset.isel(unit=~silent_units(dataset))


def check_recording(dataset: xr.Dataset) -> None:
    """Raise unless `dataset` is laid out as a recording. What a sound recording cannot tell, `recording_limits` says.

    Raises:
        ValueError: says what is wrong, where, and what to do.
        TypeError: if it is no Dataset.
    """
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"a recording is an xarray Dataset; got {type(dataset).__name__}. Use `as_recording(...)`.")
    kind = observed_kind(dataset)
    for name in (kind, "mask"):
        if name not in dataset:
            raise ValueError(f"a recording needs a variable `{name}`; add it, or rebuild with `as_recording(...)`.")
        _check_dims(dataset, name, DIMS)
    for name in ("trial", "unit"):
        _check_stored_ids(dataset, name)
    stated = dataset.attrs.get("bin_width")
    known = None if stated is None else float(stated)
    _, bin_width = _time_axis(_coordinate(dataset, "time"), dataset.sizes["time"], known)
    if stated is None or abs(stated - bin_width) > TIME_TOLERANCE * bin_width:
        raise ValueError(f"attrs['bin_width'] is {stated}, but the time axis has bins of {bin_width:g} s. Correct it.")
    for name, types in ((kind, "iu" if kind == "counts" else "f"), ("mask", "b")):
        if dataset[name].dtype.kind not in types:
            raise ValueError(f"`{name}` has dtype {dataset[name].dtype}; rebuild the data set with `recording(...)`.")
    values, mask = dataset[kind].values, dataset["mask"].values
    _check_values(kind, values, mask, dataset["trial"].values, dataset["unit"].values)
    if (values[~mask] != 0).any():
        raise ValueError(f"masked entries of `{kind}` must hold 0; set them with `.where(recording['mask'], 0)`.")
    if "inputs" in dataset:
        _check_dims(dataset, "inputs", ("trial", "time", "input"))
        _check_stored_ids(dataset, "input")
        if not np.isfinite(dataset["inputs"].values).all():
            raise ValueError("`inputs` holds NaN or infinite values; fill them, inputs have no mask.")


def _only_kind(given: Mapping[str, Any]) -> tuple[str, Any]:
    present = {kind: data for kind, data in given.items() if data is not None}
    if len(present) != 1:
        raise ValueError(f"give exactly one of `counts`, `rates` and `fluorescence`; got {list(present) or 'none'}.")
    return next(iter(present.items()))


def _observed(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    if mask is None:
        return np.ones(shape, bool)
    observed, _ = stack_trials(mask, "mask", ("time", "unit"))
    if observed.shape != shape:
        raise ValueError(f"`mask` has shape {observed.shape}, the data (trial, time, unit) = {shape}. They must agree.")
    if observed.dtype != bool:
        raise ValueError(f"`mask` must be bool (True: observed); got {observed.dtype}. Use `mask.astype(bool)`.")
    return observed


def _time_axis(time: Any, n_time: int, bin_width: float | None = None) -> tuple[np.ndarray, float]:
    """Bin starts and bin width, both in s; `bin_width` is only used where a single bin leaves it open."""
    starts = np.asarray(time, float)
    if starts.ndim == 0:
        if not (np.isfinite(starts) and starts > 0):
            raise ValueError(f"the bin width must be a positive number of seconds; got {float(starts)}.")
        return np.arange(n_time) * float(starts), float(starts)
    if starts.shape != (n_time,):
        raise ValueError(f"`time` has shape {starts.shape}, but the data has {n_time} time bins.")
    if n_time == 0:
        raise ValueError("there are no time bins: the data is empty.")
    if n_time == 1:
        if bin_width is None:
            raise ValueError("one bin start does not give a bin width; pass `time` as a number, the bin width in s.")
        return starts, float(bin_width)
    steps = np.diff(starts)
    if not np.isfinite(starts).all() or (steps <= 0).any():
        at = int(np.argmin(np.where(np.isfinite(steps), steps, -np.inf)))
        raise ValueError(
            f"`time` must increase; bin {at + 1} starts at {starts[at + 1]} s, after {starts[at]} s. Sort the bins."
        )
    width = float((starts[-1] - starts[0]) / (n_time - 1))
    worst = int(np.argmax(np.abs(steps - width)))
    if abs(steps[worst] - width) > TIME_TOLERANCE * width:
        raise ValueError(
            f"`time` must be uniform; bins are {width:g} s apart on average, but bins {worst} and {worst + 1} are "
            f"{steps[worst]:g} s apart. Resample, mask the missing bins, or pass `time` as a number, the bin width."
        )
    return starts, width


def _check_values(kind: str, values: np.ndarray, mask: np.ndarray, trials: np.ndarray, units: np.ndarray) -> None:
    def where(wrong: np.ndarray) -> str:
        trial, time, unit = np.argwhere(wrong)[0]
        value = values[trial, time, unit]
        return f"first {value} at trial {trials[trial]!s}, time bin {time}, unit {units[unit]!s}"

    if values.size == 0:
        raise ValueError(f"`{kind}` is empty: (trial, time, unit) = {values.shape}.")
    if values.dtype.kind == "f":
        missing = mask & ~np.isfinite(values)
        if missing.any():
            raise ValueError(
                f"`{kind}` holds {missing.sum()} NaN or infinite values in observed bins ({where(missing)}). "
                f"If they were not recorded, pass `mask=np.isfinite({kind})`."
            )
    if kind == "counts":
        negative = mask & (values < 0)
        if negative.any():
            raise ValueError(f"`counts` must not be negative ({where(negative)}). Is this `fluorescence`?")
        fractional = mask & (values != np.floor(values)) if values.dtype.kind == "f" else np.zeros(1, bool)
        if fractional.any():
            raise ValueError(
                f"`counts` must be whole numbers ({where(fractional)}). Pass firing rates in Hz as `rates`, "
                "calcium signals as `fluorescence`."
            )
    empty = ~mask.any((1, 2))
    if empty.any():
        raise ValueError(f"trials without any observed bin: {listing(trials[empty])}. Leave them out.")


def _check_dims(dataset: xr.Dataset, name: str, dims: tuple[str, ...]) -> None:
    if dataset[name].dims != dims:
        raise ValueError(
            f"`{name}` must have dims {dims}; got {dataset[name].dims}. Use `.rename(...)` and `.transpose{dims}`."
        )


def _coordinate(dataset: xr.Dataset, name: str) -> np.ndarray:
    if name not in dataset.coords:
        raise ValueError(f"a recording needs the coordinate `{name}`; add it with `.assign_coords({name}=...)`.")
    return dataset[name].values


def _check_stored_ids(dataset: xr.Dataset, name: str) -> None:
    check_unique(as_identifiers(_coordinate(dataset, name), name), name)
