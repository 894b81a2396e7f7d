"""Correlations between units, for chosen pairs of them. Axes, masks and NaN are those of `spike_statistics`."""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from connectinfer.statistics.spike_statistics import observed_only, ratio


def even_pairs(units: int, most: int) -> Int[np.ndarray, "pair 2"]:
    """At most `most` of the pairs i < j of so many units, evenly chosen from the list of all."""
    total = units * (units - 1) // 2
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))
    # Row i of the upper triangle starts after i rows that shrink by one.
    starts = np.arange(units) * (2 * units - np.arange(units) - 1) // 2
    first = np.searchsorted(starts[: max(units - 1, 0)], chosen, side="right") - 1
    return np.stack([first, chosen - starts[first] + first + 1], -1)


def trial_residuals(
    values: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Float[np.ndarray, "*batch trial time unit"]:
    """What differs from the mean over trials at the same time; unchanged where there is only one trial.

    Correlations of residuals of spike counts are noise correlations.
    """
    kept = observed_only(values, mask)
    if len(mask) == 1:
        return kept.astype(float)
    mean = np.nan_to_num(ratio(kept.sum(-3, dtype=float), mask.sum(0)))
    return observed_only(kept - mean[..., None, :, :], mask)


def pair_correlations(
    values: Shaped[np.ndarray, "*batch trial time unit"],
    mask: Bool[np.ndarray, "trial time unit"],
    pairs: Int[np.ndarray, "pair 2"],
) -> Float[np.ndarray, "*batch pair"]:
    """Pearson correlation of each pair over the entries at which both were observed; NaN where one is constant.

    `values` may be counts in windows (`window_counts`), residuals (`trial_residuals`) or a signal.
    """
    # Units first, so that those of a pair are contiguous; mean zero, so that sums of squares do not cancel.
    seen = np.moveaxis(mask, -1, 0).reshape(mask.shape[-1], -1)
    rows = np.moveaxis(observed_only(values, mask), -1, -3).astype(float)
    rows = rows.reshape(*rows.shape[:-2], -1)
    rows = (rows - np.nan_to_num(ratio(rows.sum(-1), seen.sum(-1)))[..., None]) * seen
    one, other = rows[..., pairs[:, 0], :], rows[..., pairs[:, 1], :]
    if seen.all():
        variance = (rows**2).sum(-1)
        return _cosine(_dot(one, other), variance[..., pairs[:, 0]], variance[..., pairs[:, 1]])
    both = seen[pairs[:, 0]] & seen[pairs[:, 1]]
    number, one, other = np.maximum(both.sum(-1), 1), one * both, other * both
    sum_one, sum_other = one.sum(-1), other.sum(-1)
    return _cosine(
        _dot(one, other) - sum_one * sum_other / number,
        _dot(one, one) - sum_one**2 / number,
        _dot(other, other) - sum_other**2 / number,
    )


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("...s,...s->...", one, other)


def _cosine(product: np.ndarray, variance: np.ndarray, other_variance: np.ndarray) -> np.ndarray:
    # Rounding leaves a trace of variance to constants.
    varies = (variance > 1e-12) & (other_variance > 1e-12)
    return ratio(product, np.where(varies, np.sqrt(np.abs(variance * other_variance)), 0.0))
