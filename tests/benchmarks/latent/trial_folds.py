"""Folds over trials of one size, each hiding another group of units in its test trials; scores are kept on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from connectinfer.statistics.co_smoothing import Gain, mean_rates, rate_gain

KEPT = Path(__file__).resolve().parents[3] / ".benchmarks"
"""Results of earlier runs; git ignores the folder."""


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


def kept(name: str, compute: Callable[[], dict]) -> dict:
    """What `compute` gave in this or an earlier run: numbers and lists of them, under `name` in the folder `KEPT`."""
    path = KEPT / f"{name}.json"
    if not path.exists():
        found = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found, default=lambda x: np.asarray(x).tolist()))
        partial.replace(path)
    return json.loads(path.read_text())


def keep_compiled() -> None:
    """Compiled programs serve the next fold, and the next run."""
    jax.config.update("jax_compilation_cache_dir", str(KEPT / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
