"""Trials of different length, stacked on one padded time axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from connectinfer.data.identifiers import as_identifiers


def stack_trials(
    data: Any, name: str, axes: tuple[str, ...]
) -> tuple[Shaped[np.ndarray, "trial time *feature"], Bool[np.ndarray, "trial time"]]:
    """Per-trial arrays as one array padded with zeros, and which bins lie within their trial.

    `data` is an array `(trial, *axes)` or a list of arrays with `axes` each, where `axes` starts with "time";
    `name` is what messages call it.
    """
    wanted = ("trial", *axes)
    if not isinstance(data, list | tuple):
        values = _numeric(data, name)
        if values.ndim != len(wanted):
            raise ValueError(
                f"`{name}` must have the axes {wanted}; got shape {values.shape}. "
                "Transpose it, or give a list with one array per trial."
            )
        return values, np.ones(values.shape[:2], bool)
    trials = [_numeric(each, f"{name}[{index}]") for index, each in enumerate(data)]
    if not trials:
        raise ValueError(f"`{name}` is an empty list; give one array with axes {axes} per trial.")
    for index, each in enumerate(trials):
        if each.ndim != len(axes) or each.shape[1:] != trials[0].shape[1:]:
            raise ValueError(
                f"`{name}[{index}]` must have the axes {axes} and the size of the first trial in all but time; "
                f"got shape {each.shape} beside {trials[0].shape}."
            )
    lengths = np.array([len(each) for each in trials])
    padded = np.zeros((len(trials), lengths.max(), *trials[0].shape[1:]), np.result_type(*trials))
    for row, each in zip(padded, trials, strict=True):
        row[: len(each)] = each
    return padded, np.arange(lengths.max()) < lengths[:, None]


def stack_inputs(
    inputs: Any, within: Bool[np.ndarray, "trial time"]
) -> tuple[Float[np.ndarray, "trial time input"], np.ndarray]:
    """Inputs on the time axis of the recording whose bins lie `within` their trials, and their names."""
    if isinstance(inputs, Mapping):
        parts = [_one_input(each, name, within) for name, each in inputs.items()]
        return np.stack(parts, axis=-1), as_identifiers([str(name) for name in inputs], "input")
    stacked = _fit_length(*stack_trials(inputs, "inputs", ("time", "input")), within, inputs, "inputs")
    return stacked, np.array([f"input_{index}" for index in range(stacked.shape[2])])


def one_trial(values: np.ndarray) -> np.ndarray:
    """`(time, unit)` as a single trial `(1, time, unit)`; anything else unchanged."""
    return values[None] if values.ndim == 2 else values


def _one_input(data: Any, name: str, within: np.ndarray) -> np.ndarray:
    label = f"inputs[{name!r}]"
    return _fit_length(*stack_trials(data, label, ("time",)), within, data, label)


def _fit_length(stacked: np.ndarray, bins: np.ndarray, within: np.ndarray, data: Any, name: str) -> np.ndarray:
    if len(stacked) != len(within):
        raise ValueError(f"`{name}` has {len(stacked)} trials, the data has {len(within)}.")
    lengths = within.sum(1)
    # A list states each trial's length; an array may also cover the padded axis of ragged data.
    ragged = isinstance(data, Sequence)
    wrong = np.flatnonzero(bins.sum(1) != lengths) if ragged else np.arange(stacked.shape[1] != within.shape[1])
    if wrong.size:
        first = wrong[0]
        expected = lengths[first] if ragged else within.shape[1]
        raise ValueError(
            f"`{name}` has {bins[first].sum()} time bins in trial {first}, the data has {expected}. "
            "Inputs must be sampled on the bins of the data."
        )
    if not np.isfinite(stacked).all():
        trial, time = np.argwhere(~np.isfinite(stacked))[0][:2]
        raise ValueError(
            f"`{name}` is NaN or infinite in trial {trial}, time bin {time}; fill it, inputs have no mask."
        )
    return stacked.astype(float)


def _numeric(data: Any, name: str) -> np.ndarray:
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"`{name}` is not rectangular; give a list with one array per trial.") from error
    if values.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must hold numbers; got dtype {values.dtype}.")
    return values
