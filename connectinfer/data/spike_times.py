"""Spike times in seconds, binned to counts: one stretch, or trials aligned to events."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from connectinfer.data.identifiers import as_identifiers, listing
from connectinfer.data.padding import check_filled
from connectinfer.data.recording import DIMS, recording

# A spike within this share of a bin below an edge belongs to the bin above: 0.3 / 0.1 is 2.9999999999999996.
EDGE = 1e-6
# Fewer spikes than one in so many bins, over all units, are taken for times in another unit or on another clock.
BINS_PER_SPIKE = 50_000
# Spikes that begin later than this, in s, and after this share of the stretch, are no stretch from 0 on.
LATE, LATE_SHARE = 60.0, 0.1
# In s; the clock of Unix is at a sixth of it, and at this size doubles still tell microseconds apart.
LATEST = 1e10


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
        start: Of the first bin, in s; 0 by default, or the first spike where that is negative. To be given where
            the first spike comes after more than 60 s and a tenth of the stretch: such silence was hardly recorded.
        stop: End of the stretch in s; by default the bin of the last spike is the last. A last bin that would
            reach beyond `stop` is left out.

    Raises:
        ValueError: for unsorted or infinite times, times that look like milliseconds or lie so far apart that nearly
            all bins would be empty, spikes that begin late without a `start`, a bin width that is not positive.
    """
    times, units, ids = _pooled(spikes)
    _check_bin_width(bin_width)
    first = min(0.0, times[0]) if start is None else start
    end = first + (np.floor((times[-1] - first) / bin_width + EDGE) + 1) * bin_width if stop is None else stop
    if start is None and stop is not None and stop <= times[0]:
        raise ValueError(f"the first spike comes at {times[0]:.6g} s, after `stop`, {stop:.6g} s. Give a later `stop`.")
    n_bins = np.floor((end - first) / bin_width + EDGE)
    if not n_bins >= 1:
        raise ValueError(f"no bin of {bin_width} s fits between start {first} s and stop {end} s.")
    _check_bins(times, first, end, n_bins, len(ids))
    if start is None and times[0] > max(LATE, LATE_SHARE * end):
        raise ValueError(
            f"the first spike comes at {times[0]:.6g} s, so that {times[0] / end:.0%} of the bins from 0 s to "
            f"{end:.6g} s would be silence that nobody may have recorded. Say where the recording begins, for example "
            f"`start={np.floor(times[0]):g}`, or `start=0` if it was recorded."
        )
    counts = count_in_bins(times, units, len(ids), first, int(n_bins), bin_width)
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
    onsets, lengths, before = trial_windows(events, bin_width, window, stops)
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
    longest = lengths.max() * bin_width
    _check_bins(times, times[0], times[-1] + longest, float(lengths.max()) * len(onsets), len(ids))
    counts = [
        count_in_bins(times, units, len(ids), onset + before, int(n_bins), bin_width)
        for onset, n_bins in zip(onsets, lengths, strict=True)
    ]
    dataset = recording(counts=counts, time=bin_width, unit=ids)
    return dataset.assign_coords(time=before + dataset["time"].values, event=("trial", onsets))


def count_spikes(
    spikes: Mapping[Any, ArrayLike] | tuple[ArrayLike, ArrayLike],
    *,
    observed: Sequence[ArrayLike] | None = None,
    trial: ArrayLike | None = None,
    **options: Any,
) -> xr.Dataset:
    """Counts by `align_spikes` if `options` have `events`, else by `bin_spikes`; unobserved bins are masked.

    Args:
        spikes: As in `bin_spikes`.
        observed: As in `mask_unobserved`. One stretch reaches from the first interval to the last unless `options`
            have `start` and `stop`.
        trial: Ids of the trials.
        **options: Of `align_spikes` or `bin_spikes`.

    Raises:
        ValueError: as `bin_spikes`, `align_spikes` and `mask_unobserved`; also for ids of trials that are floats,
            missing, or not one for each trial.
    """
    if "events" in options:
        dataset = align_spikes(spikes, **options)
    else:
        given = [] if observed is None else [_intervals(rows, unit) for unit, rows in enumerate(observed)]
        ends = np.concatenate([np.zeros(0), *map(np.ravel, given)])
        if ends.size:
            options = {"start": float(ends.min()), "stop": float(ends.max())} | options
        dataset = bin_spikes(spikes, **options)
    dataset = dataset if observed is None else mask_unobserved(dataset, observed)
    return dataset if trial is None else dataset.assign_coords(trial=as_identifiers(trial, "trial"))


def mask_unobserved(dataset: xr.Dataset, observed: Sequence[ArrayLike]) -> xr.Dataset:
    """Counts whose bins are masked unless they lie within the times in which their unit was observed.

    Args:
        dataset: What `bin_spikes` or `align_spikes` made.
        observed: One array per unit, `(interval, 2)`: start and stop of each interval in s on the clock of the
            spikes. Intervals may touch and overlap.

    Raises:
        ValueError: for other shapes, for intervals that end before they start, if a trial keeps no observed bin.
    """
    n_units, width = dataset.sizes["unit"], float(dataset.attrs["bin_width"])
    if len(observed) != n_units:
        raise ValueError(f"`observed` has intervals for {len(observed)} units, the recording {n_units} units.")
    events = dataset["event"].values if "event" in dataset.coords else np.zeros(1)
    starts = events[:, None] + dataset["time"].values
    within = np.stack(
        [_lie_within(starts, width, _intervals(rows, unit)) for unit, rows in enumerate(observed)], axis=-1
    )
    mask = dataset["mask"].values & within
    empty = ~mask.any((1, 2))
    if empty.any():
        raise ValueError(
            f"in trials {listing(dataset['trial'].values[empty])} no unit was observed for a whole bin. "
            "Leave their events out."
        )
    counts = np.where(mask, dataset["counts"].values, 0)
    return dataset.assign(counts=(DIMS, counts), mask=(DIMS, mask))


def trial_windows(
    events: ArrayLike, bin_width: float, window: tuple[float, float] | None, stops: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Event times, number of bins per trial, and the start of the first bin relative to the event.

    Raises:
        ValueError: if both `window` and `stops` are missing, or if a trial is shorter than a bin.
    """
    onsets = np.atleast_1d(np.asarray(events, float))
    if window is None and stops is None:
        raise ValueError("say where trials end: `window=(start, end)` relative to the event, or `stops`, both in s.")
    if onsets.size == 0:
        raise ValueError("there are no events to cut trials at.")
    before = 0.0 if window is None else float(window[0])
    ends = np.full(onsets.shape, np.inf if window is None else window[1])
    if stops is not None:
        given = np.atleast_1d(np.asarray(stops, float))
        if given.shape != onsets.shape:
            raise ValueError(f"`stops` needs one time per event; got {given.shape} for {onsets.shape} events.")
        ends = np.minimum(ends, given - onsets)
    if onsets.ndim != 1 or not np.isfinite(onsets + ends).all():
        raise ValueError("`events` and `stops` must be finite times in s on one axis; leave out trials without them.")
    far = np.abs(np.stack([onsets, onsets + ends, onsets + before])).max()
    if far > LATEST:
        raise ValueError(f"events or ends of trials reach {far:.3g} s, over 300 years; give them in seconds.")
    lengths = np.floor((ends - before) / bin_width + EDGE).astype(int)
    if (lengths < 1).any():
        at = int(np.argmin(lengths))
        raise ValueError(
            f"trial {at} lasts from {before:g} s to {ends[at]:g} s after its event, less than one bin of {bin_width} s."
        )
    return onsets, lengths, before


def count_in_bins(
    times: np.ndarray, units: np.ndarray, n_units: int, start: float, n_bins: int, width: float
) -> np.ndarray:
    """Spikes per bin and unit `(time, unit)`; `times` are sorted, `units` the index of each spike's unit."""
    low, high = np.searchsorted(times, [start - EDGE * width, start + n_bins * width])
    bins = np.floor((times[low:high] - start) / width + EDGE).astype(int)
    inside = (bins >= 0) & (bins < n_bins)
    flat = bins[inside] * n_units + units[low:high][inside]
    return np.bincount(flat, minlength=n_bins * n_units).reshape(n_bins, n_units)


def sorted_times(values: ArrayLike, owner: str) -> np.ndarray:
    """Spike times of `owner`, which is what messages call it.

    Raises:
        ValueError: unless they are finite and in order.
    """
    times = np.atleast_1d(np.asarray(values, float))
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"spike times of {owner} must be finite numbers on one axis; got shape {times.shape}.")
    if times.size and max(-times.min(), times.max()) > LATEST:
        raise ValueError(
            f"spike times of {owner} range over [{times.min():.3g}, {times.max():.3g}] s, more than 300 years. Convert "
            "them to seconds (from nanoseconds: times 1e-9), and leave out what stands for missing times."
        )
    backwards = np.flatnonzero(np.diff(times) < 0)
    if backwards.size:
        at = backwards[0]
        raise ValueError(
            f"spike times of {owner} are not sorted: {times[at + 1]} s follows {times[at]} s (index {at + 1}). "
            "Sort them, together with their unit ids."
        )
    return times


def _intervals(rows: ArrayLike, unit: int) -> np.ndarray:
    """Intervals in order, those that touch merged."""
    intervals = np.asarray(rows, float)
    if intervals.ndim != 2 or intervals.shape[1] != 2 or not np.isfinite(intervals).all():
        raise ValueError(
            f"`observed` of unit {unit} must hold a finite start and stop per interval, (interval, 2); "
            f"got shape {intervals.shape}."
        )
    backwards = np.flatnonzero(intervals[:, 1] < intervals[:, 0])
    if backwards.size:
        start, stop = intervals[backwards[0]]
        raise ValueError(f"`observed` of unit {unit} has an interval that starts at {start} s and stops at {stop} s.")
    merged: list[list[float]] = []
    for start, stop in sorted(intervals.tolist()):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(stop, merged[-1][1])
        else:
            merged.append([start, stop])
    return np.reshape(merged, (-1, 2))


def _lie_within(starts: np.ndarray, width: float, intervals: np.ndarray) -> np.ndarray:
    """Which bins lie as a whole within one of the intervals, which are sorted and apart."""
    if not len(intervals):
        return np.zeros(starts.shape, bool)
    at = np.searchsorted(intervals[:, 0], starts + EDGE * width, side="right") - 1
    return (at >= 0) & (starts + width <= intervals[at, 1] + EDGE * width)


def _pooled(spikes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All spike times in order, the index of each spike's unit, and the unit ids."""
    if isinstance(spikes, Mapping):
        ids = as_identifiers(list(spikes), "unit")
        trains = [sorted_times(each, f"unit {unit!r}") for unit, each in spikes.items()]
        lengths = [len(each) for each in trains]
        times, units = np.concatenate([np.zeros(0), *trains]), np.repeat(np.arange(len(ids)), lengths)
        order = np.argsort(times, kind="stable")
        times, units = times[order], units[order]
    else:
        times, clusters = sorted_times(spikes[0], "the spike table"), as_identifiers(spikes[1], "unit")
        if times.shape != clusters.shape:
            raise ValueError(f"every spike needs a unit: got {times.size} times and {clusters.size} unit ids.")
        ids, units = np.unique(clusters, return_inverse=True)
    if times.size == 0:
        raise ValueError("there are no spikes.")
    _check_seconds(times, units, ids)
    return times, units, ids


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


def _check_bins(times: np.ndarray, first: float, end: float, n_bins: float, n_units: int) -> None:
    """Refuse bins that would nearly all be empty; `n_bins` may be beyond any integer."""
    low, high = np.searchsorted(times, [first, end])
    check_filled(
        n_bins * n_units,
        int(high - low),
        BINS_PER_SPIKE,
        f"nearly all of {n_bins:.3g} bins of {n_units} units would be empty: there are {high - low} spikes in them. "
        f"Spikes lie between {times[0]:.6g} s and {times[-1]:.6g} s, bins between {first:.6g} s and {end:.6g} s. Are "
        "all times in seconds, on one clock? Then choose a stretch by `start` and `stop`, or wider bins.",
    )


def _check_bin_width(bin_width: float) -> None:
    if not (np.isfinite(bin_width) and bin_width > 0):
        raise ValueError(f"`bin_width` must be a positive number of seconds; got {bin_width}.")
