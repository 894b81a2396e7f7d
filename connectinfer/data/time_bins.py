"""Coarser bins, and long stretches cut into trials."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from connectinfer.data.identifiers import listing
from connectinfer.data.padding import check_filled
from connectinfer.data.recording import DIMS, observed_kind, recording
from connectinfer.data.spike_times import trial_windows

# Trials may overlap, and share bins, this much.
BINS_PER_BIN = 100


def rebin(dataset: xr.Dataset, factor: int) -> xr.Dataset:
    """The recording with `factor` bins merged into one: counts are summed, rates, fluorescence and inputs averaged.

    A merged bin is observed only if all its parts were; the last bins of a trial that do not fill one are masked.

    Raises:
        ValueError: unless 1 <= factor <= the number of bins, or if a trial keeps no observed bin.
    """
    n_time = dataset.sizes["time"]
    if not 1 <= factor <= n_time:
        raise ValueError(f"`factor` must lie between 1 and the {n_time} bins of the recording; got {factor}.")
    kind = observed_kind(dataset)

    def grouped(name: str) -> np.ndarray:
        values = dataset[name].values[:, : n_time // factor * factor]
        return values.reshape(values.shape[0], -1, factor, values.shape[2])

    values = grouped(kind).sum(2) if kind == "counts" else grouped(kind).mean(2)
    kept = dataset.isel(time=slice(0, n_time // factor * factor, factor))
    merged = recording(
        **{kind: values},
        time=float(dataset.attrs["bin_width"]) * factor,
        unit=kept["unit"].values,
        trial=kept["trial"].values,
        mask=grouped("mask").all(2),
        inputs=grouped("inputs").mean(2) if "inputs" in dataset else None,
    )
    # The variables are replaced one by one, so that further coordinates and attributes stay.
    variables = {name: (merged[name].dims, merged[name].values) for name in merged.data_vars}
    return kept.assign(variables).assign_attrs(bin_width=merged.attrs["bin_width"])


def cut_trials(dataset: xr.Dataset, n_bins: int) -> xr.Dataset:
    """One long stretch cut into trials of `n_bins` bins; the remainder is left out and named in `attrs["left_out"]`.

    Time restarts at 0 in every trial; the coordinate `start (trial)` is where the trial began, in s.

    Raises:
        ValueError: if the recording has several trials, or fewer than `n_bins` bins.
    """
    n_trials, n_time = dataset.sizes["trial"], dataset.sizes["time"]
    if n_trials != 1:
        raise ValueError(f"only a recording of one trial can be cut into trials; this one has {n_trials}.")
    if not 1 <= n_bins <= n_time:
        raise ValueError(f"`n_bins` must lie between 1 and the {n_time} bins of the recording; got {n_bins}.")
    whole = n_time // n_bins
    kind = observed_kind(dataset)

    def cut(name: str) -> np.ndarray:
        return dataset[name].values[0, : whole * n_bins].reshape(whole, n_bins, -1)

    inputs = None
    if "inputs" in dataset:
        values = cut("inputs")
        inputs = {str(name): values[:, :, index] for index, name in enumerate(dataset["input"].values)}
    pieces = recording(
        **{kind: cut(kind)},
        time=float(dataset.attrs["bin_width"]),
        unit=dataset["unit"].values,
        mask=cut("mask"),
        inputs=inputs,
    )
    per_unit = {name: coord for name, coord in dataset.coords.items() if coord.dims == ("unit",) and name not in DIMS}
    starts = dataset["time"].values[: whole * n_bins : n_bins]
    remainder = f"the last {n_time - whole * n_bins} of {n_time} bins" if n_time % n_bins else ""
    left_out = "; ".join(filter(None, [dataset.attrs.get("left_out", ""), remainder]))
    return pieces.assign_coords({**per_unit, "start": ("trial", starts)}).assign_attrs(
        {**dataset.attrs, **pieces.attrs, **({"left_out": left_out} if left_out else {})}
    )


def cut_at_events(
    dataset: xr.Dataset,
    events: ArrayLike,
    *,
    stops: ArrayLike | None = None,
    window: tuple[float, float] | None = None,
    trial: ArrayLike | None = None,
) -> xr.Dataset:
    """One long stretch cut into trials around events; time 0 is the event.

    Bins keep their places: a trial begins at the bin whose start is nearest to where it should begin. Coordinate
    `event (trial)` is the time of the event and `start (trial)` that of the trial's first bin, in s on the clock of
    the stretch.

    Args:
        dataset: A recording with a single trial.
        events: Times of the events in s, `(trial,)`, in any order.
        stops: Ends of the trials in s, `(trial,)`: the bins after it are masked. Without `window` trials start at
            their event.
        window: Start and end of a trial relative to its event, in s.
        trial: Ids of the trials; 0, 1, ... by default.

    Raises:
        ValueError: if the recording has several trials, if both `window` and `stops` are missing, if a trial is
            shorter than a bin or none of its bins was observed.
    """
    if dataset.sizes["trial"] != 1:
        raise ValueError(f"only a recording of one trial can be cut at events; this one has {dataset.sizes['trial']}.")
    width, starts = float(dataset.attrs["bin_width"]), dataset["time"].values
    onsets, lengths, before = trial_windows(events, width, window, stops)
    check_filled(
        float(lengths.max()) * len(onsets),
        len(starts),
        BINS_PER_BIN,
        f"the longest trial would last {lengths.max() * width:.6g} s, the data {len(starts) * width:.6g} s, so nearly "
        "all bins of the trials would be padding. Are `events` and `stops` in seconds, on the clock of the data?",
    )
    first = np.rint((onsets + before - starts[0]) / width).astype(int)
    bins = first[:, None] + np.arange(lengths.max())
    inside = (bins >= 0) & (bins < len(starts)) & (bins < (first + lengths)[:, None])
    bins = np.where(inside, bins, 0)
    mask = dataset["mask"].values[0][bins] & inside[:, :, None]
    empty = ~mask.any((1, 2))
    if empty.any():
        raise ValueError(
            f"{empty.sum()} of {len(onsets)} trials have no observed bin: events at {listing(onsets[empty], 4)} s, "
            f"data from {starts[0]:g} to {starts[-1] + width:g} s. Leave these events out."
        )
    places = {"event": ("trial", onsets), "start": ("trial", starts[0] + first * width)}
    cut = _gathered(dataset, bins, inside, mask, trial)
    return cut.assign_coords({**places, "time": before + cut["time"].values})


def _gathered(dataset: xr.Dataset, bins: np.ndarray, inside: np.ndarray, mask: np.ndarray, trial: Any) -> xr.Dataset:
    """Trials made of the given bins `(trial, time)` of a single trial; what is not `inside` counts as padding."""
    kind = observed_kind(dataset)
    inputs = None
    if "inputs" in dataset:
        values = np.where(inside[:, :, None], dataset["inputs"].values[0][bins], 0.0)
        inputs = {str(name): values[:, :, index] for index, name in enumerate(dataset["input"].values)}
    cut = recording(
        **{kind: dataset[kind].values[0][bins]},
        time=float(dataset.attrs["bin_width"]),
        unit=dataset["unit"].values,
        trial=trial,
        mask=mask,
        inputs=inputs,
    )
    per_unit = {name: coord for name, coord in dataset.coords.items() if coord.dims == ("unit",) and name not in DIMS}
    return cut.assign_coords(per_unit).assign_attrs({**dataset.attrs, **cut.attrs})
