"""Scores of predicted spike counts and signals on entries that the fit did not see."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.ndimage import gaussian_filter1d


class Gain(NamedTuple):
    """How much better than a baseline every entry was predicted, and by what sums of it are divided to make a score."""

    gain: Float[np.ndarray, "*entry"]
    scale: Float[np.ndarray, "*entry"]

    def summed(self, entries: Bool[np.ndarray, "*entry"], axis: tuple[int, ...]) -> "Gain":
        """Both summed over some axes, of the chosen `entries` alone."""
        return Gain(*(np.where(entries, x, 0.0).sum(axis) for x in self))


def rate_gain(
    rate: Float[np.ndarray, "*entry"], counts: Shaped[np.ndarray, "*entry"], baseline: Float[np.ndarray, "*entry"]
) -> Gain:
    """Poisson log likelihood of counts gained over `baseline` in bits, and spikes: their ratio is `bits_per_spike`."""
    return Gain((counts * np.log(rate / baseline) - rate + baseline) / np.log(2), counts.astype(float))


def signal_gain(
    predicted: Float[np.ndarray, "*entry"],
    observed: Float[np.ndarray, "*entry"],
    baseline: Float[np.ndarray, "*entry"],
) -> Gain:
    """Squared error below that of `baseline`, and the latter: their ratio is `explained_variance`."""
    scale = (observed - baseline) ** 2
    return Gain(scale - (observed - predicted) ** 2, scale)


def bits_per_spike(
    rate: Float[np.ndarray, "*entry"],
    counts: Shaped[np.ndarray, "*entry"],
    baseline: Float[np.ndarray, "*entry"],
    entries: Bool[np.ndarray, "*entry"],
) -> float:
    """Poisson log likelihood gained over `baseline`, in bits per spike, on the chosen `entries`.

    `rate` and `baseline` are expected counts per bin. Zero when `rate` is the baseline, negative when worse.
    Source: Pei et al., Neural Latents Benchmark, NeurIPS 2021 (co-bps).

    Raises:
        ValueError: the entries hold no spikes, or a rate on them is not positive and finite.
    """
    rate, counts, baseline = rate[entries], counts[entries], baseline[entries]
    if counts.sum() == 0:
        raise ValueError(f"The {counts.size} chosen entries hold no spikes, so bits per spike are not defined.")
    for name, values in (("rate", rate), ("baseline", baseline)):
        if not (np.isfinite(values) & (values > 0)).all():
            bad = int((~(np.isfinite(values) & (values > 0))).sum())
            raise ValueError(f"`{name}` must be positive and finite; {bad} of {values.size} entries are not.")
    gain = counts * np.log(rate / baseline) - rate + baseline
    return float(gain.sum() / counts.sum() / np.log(2))


def explained_variance(
    predicted: Float[np.ndarray, "*entry"],
    observed: Float[np.ndarray, "*entry"],
    baseline: Float[np.ndarray, "*entry"],
    entries: Bool[np.ndarray, "*entry"],
) -> float:
    """1 - squared error of `predicted` / squared error of `baseline`, on the chosen `entries`.

    One for a perfect prediction, zero when `predicted` is the baseline, negative when worse.

    Raises:
        ValueError: the baseline has no error on the entries, so there is no variance to explain.
    """
    reference = ((observed - baseline)[entries] ** 2).sum()
    if reference == 0:
        raise ValueError(
            f"`observed` equals `baseline` on all {int(entries.sum())} chosen entries: no variance to explain."
        )
    return float(1 - ((observed - predicted)[entries] ** 2).sum() / reference)


def ratio_score(gain: Float[np.ndarray, " item"], scale: Float[np.ndarray, " item"]) -> tuple[float, float]:
    """Sum of `gain` over sum of `scale`, and its standard error over the items; NaN entries are left out."""
    done = ~np.isnan(gain)
    total, number = scale[done].sum(), int(done.sum())
    if not total > 0:
        return float("nan"), float("nan")
    score = gain[done].sum() / total
    spread = (gain[done] - score * scale[done]).std(ddof=1) if number > 1 else np.nan
    return float(score), float(np.sqrt(number) * spread / total)


def histogram_r2(
    expected: Float[np.ndarray, "trial time unit"],
    observed: Shaped[np.ndarray, "trial time unit"],
    entries: Bool[np.ndarray, "trial time unit"],
    condition: Shaped[np.ndarray, " trial"],
    smoothing: float,
) -> tuple[float, float]:
    """Variance of peristimulus histograms by condition that the mean of `expected` explains, and its standard error.

    Histograms are means of the chosen `entries` over the trials of a condition, expected ones over the same trials,
    both smoothed by a Gaussian of `smoothing` bins; variance is about each unit's mean, cells count as often as they
    were observed. The error is that of the jackknife over trials. NaN where nothing varies.
    """

    def r2(trials: np.ndarray) -> float:
        residual, total, observations = [], [], []
        for named in np.unique(condition[trials]):
            chosen = trials[condition[trials] == named]
            seen = entries[chosen].sum(0)
            means = [_smoothed((x[chosen] * entries[chosen]).sum(0), seen, smoothing) for x in (observed, expected)]
            residual.append(means[0] - means[1])
            total.append(means[0])
            observations.append(seen)
        weight, values = np.stack(observations), np.stack(total)
        centre = (weight * values).sum((0, 1)) / np.maximum(weight.sum((0, 1)), 1)
        varies = (weight * (values - centre) ** 2).sum()
        return float(1 - (weight * np.stack(residual) ** 2).sum() / varies) if varies > 0 else float("nan")

    each = np.arange(len(condition))
    left_out = np.array([r2(np.delete(each, i)) for i in each]) if len(each) > 1 else np.array([np.nan])
    error = np.sqrt((len(each) - 1) * left_out.var())
    return r2(each), float(error)


def _smoothed(total: np.ndarray, seen: np.ndarray, smoothing: float) -> np.ndarray:
    """Means in every bin of totals over what was seen, 0 far from anything seen."""
    total, seen = (gaussian_filter1d(x.astype(float), smoothing, axis=0, mode="nearest") for x in (total, seen))
    return total / np.maximum(seen, 1e-9)


def mean_rates(
    counts: Shaped[np.ndarray, "trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Float[np.ndarray, "trial time unit"]:
    """Every unit's mean over observed entries, at least 1e-6, broadcast to all entries; co-smoothing's baseline."""
    mean = (counts * mask).sum((0, 1)) / np.maximum(mask.sum((0, 1)), 1)
    return np.broadcast_to(np.maximum(mean, 1e-6), counts.shape).astype(float)


def peristimulus_rates(
    counts: Shaped[np.ndarray, "trial time unit"], mask: Bool[np.ndarray, "trial time unit"], smoothing: float
) -> Float[np.ndarray, "trial time unit"]:
    """The peristimulus time histogram: mean over trials in each bin, smoothed by a Gaussian of `smoothing` bins.

    Only observed entries enter, and one pseudo-observation at the unit's mean: bins far from any observed one take
    that mean, and bins without a spike do not predict zero. Broadcast to all trials.

    Raises:
        ValueError: `smoothing` is not positive.
    """
    if not smoothing > 0:
        raise ValueError(f"`smoothing` is a width in bins and must be positive; got {smoothing}.")
    total = gaussian_filter1d((counts * mask).sum(0).astype(float), smoothing, axis=0, mode="nearest")
    seen = gaussian_filter1d(mask.sum(0).astype(float), smoothing, axis=0, mode="nearest")
    overall = mean_rates(counts, mask)[0]
    rate = (total + overall) / (seen + 1)
    return np.broadcast_to(rate, counts.shape)
