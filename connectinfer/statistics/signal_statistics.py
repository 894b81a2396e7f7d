"""Statistics of continuous signals: rates, fluorescence. Axes, masks and NaN are those of `spike_statistics`."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from connectinfer.statistics.pair_correlations import trial_residuals
from connectinfer.statistics.spike_statistics import observed_only, ratio


def signal_means(
    values: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Float[np.ndarray, "*batch unit"]:
    """Mean over the observed bins of all trials."""
    return ratio(observed_only(values, mask).sum((-3, -2), dtype=float), mask.sum((0, 1)))


def signal_deviations(
    values: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Float[np.ndarray, "*batch unit"]:
    """Standard deviation over the observed bins of all trials."""
    return np.sqrt(ratio((_centred(values, mask) ** 2).sum((-3, -2)), mask.sum((0, 1))))


def neighbour_correlations(
    values: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Float[np.ndarray, "*batch unit"]:
    """Autocorrelation from one bin to the next, over all neighbours that were both observed; NaN for a constant."""
    centred = _centred(values, mask)
    neighbours = (mask[:, 1:] & mask[:, :-1]).sum((0, 1))
    together = ratio((centred[..., 1:, :] * centred[..., :-1, :]).sum((-3, -2)), neighbours)
    return ratio(together, ratio((centred**2).sum((-3, -2)), mask.sum((0, 1))))


def population_course(
    values: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"]
) -> Float[np.ndarray, "*batch time"]:
    """Mean in every bin over the trials and units that were observed in it."""
    return ratio(observed_only(values, mask).sum((-3, -1), dtype=float), mask.sum((0, 2)))


def population_autocorrelation(
    values: Shaped[np.ndarray, "*batch trial time unit"], mask: Bool[np.ndarray, "trial time unit"], lags: int
) -> Float[np.ndarray, "*batch lag"]:
    """Autocorrelation at 1, 2, ..., `lags` bins of the mean over units, which says how long activity remembers.

    What all trials share at the same time, the response to the stimulus, is taken out where there are several trials.

    Raises:
        ValueError: no lag, or as many as a trial has bins.
    """
    n_bins = mask.shape[1]
    if not 1 <= lags < n_bins:
        raise ValueError(f"`lags` must be between 1 and {n_bins - 1}, for trials of {n_bins} bins; got {lags}.")
    population = ratio(observed_only(values, mask).sum(-1, dtype=float), mask.sum(-1))[..., None]
    seen = mask.any(-1, keepdims=True)
    centred = _centred(trial_residuals(np.nan_to_num(population), seen), seen)[..., 0]
    variance = ratio((centred**2).sum((-2, -1)), seen.sum())
    found = []
    for lag in range(1, lags + 1):
        pairs = (seen[:, lag:] & seen[:, :-lag]).sum()
        found.append(ratio((centred[..., lag:] * centred[..., :-lag]).sum((-2, -1)), pairs))
    return ratio(np.stack(found, -1), variance[..., None])


def _centred(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mean = np.nan_to_num(signal_means(values, mask))
    return observed_only(values - mean[..., None, None, :], mask)
