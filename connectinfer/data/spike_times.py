"""Spike times in seconds, binned to counts: one stretch, or trials aligned to events."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from connectinfer.data.identifiers import as_identifiers, listing
from connectinfer.data.recording import recording

# A spike within this share of a bin below an edge belongs to the bin above: 0.3 / 0.1 is 2.9999999999999996.
EDGE = 1e-6


def bin_spikes(
    spikes: Mapping[Any, ArrayLike] | tuple[ArrayLike, ArrayLike],
    *,
    bin_width: float,
    start: float | None = None,
    stop: float | None = None,
) -> xr.Dataset:
    """Counts of one stretch of time, as a recording with a single trial.

    Args:
        spikes: Spike times in s: a mapping from unit id to its sorted times, or `(times, clusters)` with the unit id
            of every spike, sorted by time.
        bin_width: In s. Bins contain their start and not their end.
        start: Of the first bin, in s; 0 by default, or the first spike where that is negative.
        stop: End of the stretch in s; by default the bin of the last spike is the last. A last bin that would
            reach beyond `stop` is left out.

    Raises:
        ValueError: for unsorted or infinite times, times that look like milliseconds, a bin width that is not
            positive.
    """
    times, units, ids = _pooled(spikes)
    _check_bin_width(bin_width)
    first = min(0.0, times[0]) if start is None else start
    end = first + (np.floor((times[-1] - first) / bin_width + EDGE) + 1) * bin_width if stop is None else stop
    n_bins = int(np.floor((end - first) / bin_width + EDGE))
    if n_bins < 1:
        raise ValueError(f"no bin of {bin_width} s fits between start {first} s and stop {end} s.")
    counts = _count(times, units, len(ids), first, n_bins, bin_width)
    dataset = recording(counts=counts[None], time=bin_width, unit=ids)
    return dataset.assign_coords(time=first + dataset["time"].values)


def align_spikes(
    spikes: Mapping[Any, ArrayLike] | tuple[ArrayLike, ArrayLike],
    events: ArrayLike,
    *,
    bin_width: float,
    window: tuple[float, float] | None = None,
    stops: ArrayLike | None = None,
) -> xr.Dataset:
    """Counts around events, one trial each; time 0 is the event, coordinate `event (trial)` its time in s.

    Args:
        spikes: As in `bin_spikes`.
        events: Times of the events in s, `(trial,)`, in any order.
        bin_width: In s.
        window: Start and end of a trial relative to its event, in s.
        stops: Ends of the trials in s on the clock of the events, `(trial,)`: bins that reach beyond are masked.
            Without `window` trials start at their event.

    Raises:
        ValueError: as `bin_spikes`; also if both `window` and `stops` are missing, if a trial ends before its first
            bin does, or if a trial lies before the first or after the last spike.
    """
    times, units, ids = _pooled(spikes)
    _check_bin_width(bin_width)
    onsets, lengths, before = _trial_windows(events, bin_width, window, stops)
    outside = (onsets + before + lengths * bin_width < times[0]) | (onsets + before > times[-1])
    if outside.all():
        raise ValueError(
            f"no event has a spike around it: events lie in [{onsets.min():g}, {onsets.max():g}], spikes in "
            f"[{times[0]:g}, {times[-1]:g}]. Both must be in seconds, on the same clock."
        )
    if outside.any():
        raise ValueError(
            f"{outside.sum()} of {len(onsets)} trials lie outside the spikes, which range over "
            f"[{times[0]:g}, {times[-1]:g}] s (first: event {np.flatnonzero(outside)[0]} at "
            f"{onsets[outside][0]:g} s). Silence that was not recorded is no data: leave these events out."
        )
    counts = [
        _count(times, units, len(ids), onset + before, int(n_bins), bin_width)
        for onset, n_bins in zip(onsets, lengths, strict=True)
    ]
    dataset = recording(counts=counts, time=bin_width, unit=ids)
    return dataset.assign_coords(time=before + dataset["time"].values, event=("trial", onsets))


def _trial_windows(
    events: ArrayLike, bin_width: float, window: tuple[float, float] | None, stops: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Event times, number of bins per trial, and the start of the first bin relative to the event."""
    onsets = np.atleast_1d(np.asarray(events, float))
    if window is None and stops is None:
        raise ValueError("say where trials end: `window=(start, end)` relative to the event, or `stops`, both in s.")
    before = 0.0 if window is None else float(window[0])
    ends = np.full(onsets.shape, np.inf if window is None else window[1])
    if stops is not None:
        given = np.atleast_1d(np.asarray(stops, float))
        if given.shape != onsets.shape:
            raise ValueError(f"`stops` needs one time per event; got {given.shape} for {onsets.shape} events.")
        ends = np.minimum(ends, given - onsets)
    if onsets.ndim != 1 or not np.isfinite(onsets + ends).all():
        raise ValueError("`events` and `stops` must be finite times in s on one axis; leave out trials without them.")
    lengths = np.floor((ends - before) / bin_width + EDGE).astype(int)
    if (lengths < 1).any():
        at = int(np.argmin(lengths))
        raise ValueError(
            f"trial {at} lasts from {before:g} s to {ends[at]:g} s after its event, less than one bin of {bin_width} s."
        )
    return onsets, lengths, before


def _count(times: np.ndarray, units: np.ndarray, n_units: int, start: float, n_bins: int, width: float) -> np.ndarray:
    low, high = np.searchsorted(times, [start - EDGE * width, start + n_bins * width])
    bins = np.floor((times[low:high] - start) / width + EDGE).astype(int)
    inside = (bins >= 0) & (bins < n_bins)
    flat = bins[inside] * n_units + units[low:high][inside]
    return np.bincount(flat, minlength=n_bins * n_units).reshape(n_bins, n_units)


def _pooled(spikes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All spike times in order, the index of each spike's unit, and the unit ids."""
    if isinstance(spikes, Mapping):
        ids = as_identifiers(list(spikes), "unit")
        trains = [_sorted_times(each, f"unit {unit!r}") for unit, each in spikes.items()]
        lengths = [len(each) for each in trains]
        times, units = np.concatenate([np.zeros(0), *trains]), np.repeat(np.arange(len(ids)), lengths)
        order = np.argsort(times, kind="stable")
        times, units = times[order], units[order]
    else:
        times, clusters = _sorted_times(spikes[0], "the spike table"), as_identifiers(spikes[1], "unit")
        if times.shape != clusters.shape:
            raise ValueError(f"every spike needs a unit: got {times.size} times and {clusters.size} unit ids.")
        ids, units = np.unique(clusters, return_inverse=True)
    if times.size == 0:
        raise ValueError("there are no spikes.")
    _check_seconds(times, units, ids)
    return times, units, ids


def _sorted_times(values: ArrayLike, owner: str) -> np.ndarray:
    times = np.atleast_1d(np.asarray(values, float))
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"spike times of {owner} must be finite numbers on one axis; got shape {times.shape}.")
    backwards = np.flatnonzero(np.diff(times) < 0)
    if backwards.size:
        at = backwards[0]
        raise ValueError(
            f"spike times of {owner} are not sorted: {times[at + 1]} s follows {times[at]} s (index {at + 1}). "
            "Sort them, together with their unit ids."
        )
    return times


def _check_seconds(times: np.ndarray, units: np.ndarray, ids: np.ndarray) -> None:
    """Refuse intervals between a unit's spikes that no neuron has if time is in seconds.

    Neurons nearly always have some intervals below half a second, because they fire in bursts, but never one below
    half a millisecond. In milliseconds or samples, refractoriness leaves hardly any interval below 0.5.
    """
    order = np.argsort(units, kind="stable")
    intervals = np.diff(times[order])[np.diff(units[order]) == 0]
    if intervals.size < 20:
        return
    median = float(np.median(intervals))
    if median > 10 and (intervals < 0.5).mean() < 0.01:
        raise ValueError(
            f"spike times look like milliseconds or samples: units {listing(ids, 3)} fire about every {median:.3g} s "
            f"over {times[-1] - times[0]:.4g} s, and hardly ever within 0.5 s. Divide by 1000, or by the sampling rate."
        )
    if median < 0.0005:
        raise ValueError(
            f"spike times are not in seconds: the median interval of a unit would be {median * 1000:.3g} ms, "
            f"over 1000 Hz. Convert them to seconds (from minutes: times 60; from hours: times 3600)."
        )


def _check_bin_width(bin_width: float) -> None:
    if not (np.isfinite(bin_width) and bin_width > 0):
        raise ValueError(f"`bin_width` must be a positive number of seconds; got {bin_width}.")
