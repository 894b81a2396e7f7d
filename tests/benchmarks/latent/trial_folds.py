"""Folds over trials of one size, each hiding another group of units in its test trials."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from connectinfer.statistics.co_smoothing import Gain, mean_rates, rate_gain


class Fold(NamedTuple):
    """Counts `(trial, time, unit)` of training and test trials; `held_out (unit,)` are hidden in the latter."""

    training: xr.Dataset
    test: xr.Dataset
    held_out: np.ndarray

    @property
    def seen(self) -> xr.Dataset:
        """The test trials without the held-out units."""
        return without(self.test, self.held_out)

    def gain(self, expected: np.ndarray) -> Gain:
        """By test trial, of the counts expected of the held-out units."""
        counts, mask = (self.test[name].values[..., self.held_out] for name in ("counts", "mask"))
        training = (self.training[name].values[..., self.held_out] for name in ("counts", "mask"))
        baseline = np.broadcast_to(mean_rates(*training)[0, 0], counts.shape)
        return rate_gain(np.maximum(expected, 1e-9), counts, baseline).summed(mask, (1, 2))


def without(trials: xr.Dataset, units: np.ndarray) -> xr.Dataset:
    """The trials with `units` hidden."""
    mask = trials["mask"] & ~xr.DataArray(units, dims="unit")
    return trials.assign(counts=trials["counts"].where(mask, 0).astype(trials["counts"].dtype), mask=mask)


def trial_folds(recording: xr.Dataset, *, folds: int = 5, blocks: bool = False, seed: int = 0) -> list[Fold]:
    """All folds: groups of trials at random, or contiguous `blocks` of them, and of units at random.

    A remainder of fewer trials than folds is left out, and units silent in the training trials of any fold: one shape
    for all folds is compiled once.
    """
    rng = np.random.default_rng(seed)
    recording = recording.transpose("trial", "time", "unit", ...)
    n_trials = recording.sizes["trial"] // folds * folds
    chosen = np.arange(n_trials) if blocks else np.sort(rng.permutation(recording.sizes["trial"])[:n_trials])
    recording = recording.isel(trial=chosen)
    group = np.arange(n_trials) * folds // n_trials if blocks else rng.permutation(np.arange(n_trials) % folds)
    spikes = recording["counts"].where(recording["mask"], 0).sum("time").values
    active = np.all([spikes[group != each].sum(0) > 0 for each in range(folds)], axis=0)
    recording = recording.isel(unit=active)
    unit_group = rng.permutation(np.arange(recording.sizes["unit"]) % folds)
    parts = [(recording.isel(trial=group != k), recording.isel(trial=group == k)) for k in range(folds)]
    return [Fold(*part, unit_group == k) for k, part in enumerate(parts)]
