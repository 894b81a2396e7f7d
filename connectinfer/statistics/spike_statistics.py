"""Statistics of binned spike trains: rates, time courses, variability over trials, intervals.

Counts have the axes `(*batch, trial, time, unit)`; leading axes, such as posterior draws, are kept. Of them only what
`mask (trial, time, unit)` says was observed enters. What too few spikes, bins or trials leave undefined is NaN.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike


def firing_rates(
    counts: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"], bin_width: float
) -> Float[np.ndarray, "*batch unit"]:
    """Spikes per second of observed time; `bin_width` in s."""
    spikes = observed_only(counts, mask).sum((-3, -2), dtype=float)
    return ratio(spikes, mask.sum((0, 1)) * bin_width)


def peristimulus_histogram(
    counts: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"], bin_width: float
) -> Float[np.ndarray, "*batch time unit"]:
    """Rate in Hz in every bin, over the trials in which it was observed, not smoothed (`bin_width` in s).

    `co_smoothing.peristimulus_rates` is the smoothed one, which predicts.
    """
    return ratio(observed_only(counts, mask).sum(-3, dtype=float), mask.sum(0) * bin_width)


def rate_modulation(
    counts: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"], bin_width: float
) -> Float[np.ndarray, "*batch unit"]:
    """Standard deviation over time of the peristimulus histogram, in Hz; bins weigh by their observed trials.

    Noise counts as modulation: compare with histograms of as many trials.
    """
    weight = mask.sum(0)
    histogram = np.nan_to_num(peristimulus_histogram(counts, mask, bin_width))
    mean = ratio((weight * histogram).sum(-2), weight.sum(0))
    return np.sqrt(ratio((weight * (histogram - mean[..., None, :]) ** 2).sum(-2), weight.sum(0)))


def window_counts(
    counts: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"], window: int
) -> tuple[Float[np.ndarray, "*batch trial window unit"], Bool[np.ndarray, "trial window unit"]]:
    """Spikes in windows of `window` bins side by side, and which windows were observed in every bin.

    The first window starts with the trial; bins that fill no window are left out, and partly observed ones hold 0.

    Raises:
        ValueError: a window of no bin, or longer than the trials.
    """
    n_bins = mask.shape[1]
    if not 1 <= window <= n_bins:
        raise ValueError(f"`window` must be between 1 bin and the {n_bins} of a trial; got {window}.")
    n_windows = n_bins // window
    split = (n_windows, window, mask.shape[-1])
    whole = mask[:, : n_windows * window].reshape(-1, *split).all(2)
    cut = counts[..., : n_windows * window, :]
    sums = cut.reshape(*cut.shape[:-2], *split).sum(-2, dtype=float)
    return sums * whole, whole


def fano_factors(
    sums: Float[np.ndarray, "*batch trial window unit"], whole: Bool[np.ndarray, "trial window unit"]
) -> Float[np.ndarray, "*batch unit"]:
    """Variance of the count over trials, over its mean: 1 for a Poisson process with the same rate in every trial.

    `sums` and `whole` are `window_counts`: all windows are of one length, so trials of unequal length need no
    normalisation, only those that hold a window take part. The variance is that over trials at the same place in the
    trial, so that a rate that changes within trials does not add to it. Variances and means are pooled over windows,
    weighted by trials less one; NaN where no window has two trials, or there is no spike in these windows.
    """
    trials = whole.sum(0)
    mean = ratio(sums.sum(-3), trials)
    squares = (((sums - np.nan_to_num(mean)[..., None, :, :]) * whole) ** 2).sum((-3, -2))
    expected = (np.maximum(trials - 1, 0) * np.nan_to_num(mean)).sum(-2)
    return ratio(squares, expected)


def interval_variation(
    counts: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Float[np.ndarray, "*batch unit"]:
    """Coefficient of variation (sd over mean) of the intervals between spikes; NaN with fewer than two intervals.

    Intervals are known to a bin: spikes of one bin are 0 apart, those of neighbouring bins 1. A memoryless train with
    at most one spike a bin, of probability p, has sqrt(1 - p), and a Poisson process close to 1 while bins are short.
    No interval crosses trials or bins that were not observed.
    """
    shape = (*counts.shape[:-2], counts.shape[-1])
    total, squares, firsts = (np.zeros(shape, np.float32) for _ in range(3))
    for interval, first in _intervals(counts, mask):
        total += interval
        squares += interval * interval
        firsts += first
    # Every spike but the first of a stretch ends an interval.
    number = observed_only(counts, mask).sum((-3, -2), dtype=float) - firsts.sum(-2, dtype=float)
    mean = ratio(total.sum(-2, dtype=float), number)
    variance = ratio(squares.sum(-2, dtype=float), number) - mean**2
    return np.where(number >= 2, ratio(np.sqrt(np.maximum(variance, 0.0)), mean), np.nan)


def interval_histogram(
    counts: Shaped[np.ndarray, "trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Int[np.ndarray, "interval unit"]:
    """How many intervals of 0, 1, 2, ... bins, up to one less than a trial has, lie between spikes (as above)."""
    n_bins, n_units = counts.shape[1:]
    found = np.zeros((n_bins, n_units), int)
    found[0] = np.maximum(observed_only(counts, mask).astype(int) - 1, 0).sum((0, 1))
    for interval, _ in _intervals(counts, mask):
        trial, unit = np.nonzero(interval)
        np.add.at(found, (interval[trial, unit].astype(int), unit), 1)
    return found


def observed_only(
    values: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Shaped[np.ndarray, "*batch trial time unit"]:
    """`values` with 0 where nothing was observed."""
    return values if mask.all() else np.where(mask, values, np.zeros((), values.dtype))


def ratio(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    """`above / below`, NaN where `below` is zero."""
    positive = np.asarray(below) > 0
    return np.asarray(np.where(positive, above, np.nan) / np.where(positive, below, 1))


def _intervals(counts: np.ndarray, mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Bin by bin, `(*batch, trial, unit)`: the bins since the last spike where one fires, else 0; and where one fires
    first in its stretch of observed bins."""
    # Bins from the last spike to the next bin; 0 where there was none in this stretch. Single precision is exact for
    # intervals and, up to 4,096 bins, for their squares, and twice as fast.
    since = np.zeros((*counts.shape[:-2], counts.shape[-1]), np.float32)
    for bin_ in range(mask.shape[1]):
        seen = mask[:, bin_]
        fired = (counts[..., bin_, :] > 0) & seen
        known = since > 0
        yield since * fired, fired & ~known
        since += known
        np.copyto(since, 1.0, where=fired)
        since *= seen
