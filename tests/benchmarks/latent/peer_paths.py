"""Methods of others, from maintained libraries, that predict held-out units from latent paths seen through the others.

Every method learns its path from the held-in units of the training trials; the read-outs of the held-out units are
Poisson regressions on the training paths. All take a `Fold` and give expected counts `(trial, time, held-out unit)`.
"""

import warnings

import neo
import numpy as np
import quantities as pq
import xarray as xr
from elephant.gpfa import GPFA
from scipy.ndimage import gaussian_filter1d
from sklearn.decomposition import FactorAnalysis
from threadpoolctl import threadpool_limits
from trial_folds import Fold

from connectinfer.latent.principal_path import poisson_regression
from connectinfer.statistics.co_smoothing import peristimulus_rates


def histogram(fold: Fold, *, smoothing: float = 2.0) -> np.ndarray:
    """The peristimulus histogram of every unit, smoothed by that many bins."""
    counts, mask = _held_out(fold)
    return np.broadcast_to(
        peristimulus_rates(counts, mask, smoothing)[:1], (fold.test.sizes["trial"], *counts.shape[1:])
    )


def histogram_by(fold: Fold, condition: str, *, smoothing: float = 2.0) -> np.ndarray:
    """The same for every value of a trial coordinate, that of the test trial included: no latent path knows it."""
    counts, mask = _held_out(fold)
    before, now = fold.training[condition].values, fold.test[condition].values
    expected = histogram(fold, smoothing=smoothing).copy()
    for value in np.unique(before):
        chosen = before == value
        expected[now == value] = peristimulus_rates(counts[chosen], mask[chosen], smoothing)[0]
    return expected


def factor_analysis(fold: Fold, rank: int, *, smoothing: float) -> np.ndarray:
    """Factors of the roots of counts, smoothed by a Gaussian of `smoothing` bins (scikit-learn)."""
    signals = [_smoothed_roots(trials, fold.held_out, smoothing) for trials in (fold.training, fold.test)]
    alive = [trials["mask"].values.any(-1) for trials in (fold.training, fold.test)]
    factors = FactorAnalysis(rank, svd_method="lapack", max_iter=500, tol=1e-3).fit(signals[0][alive[0]])
    paths = [factors.transform(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:2], rank) for x in signals]
    return read_out(fold, *paths)


def gaussian_process_factors(fold: Fold, rank: int) -> np.ndarray:
    """Factors that are Gaussian processes in time (elephant), with the library's defaults but for 100 EM steps. It
    learns from pieces of 20 bins and so leaves shorter training trials out, which is its own doing."""
    width = float(fold.training.attrs["bin_width"]) * 1000
    method = GPFA(bin_size=width * pq.ms, x_dim=rank, em_max_iters=100, verbose=False)
    # Threads of small matrix products wait for each other, ten times as long where others compute.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="trial corresponding to index")
        method.fit(_spike_trains(fold.training, fold.held_out, width))
        paths = []
        for trials in (fold.training, fold.test):
            found = method.transform(_spike_trains(trials, fold.held_out, width))
            path = np.zeros((*trials["counts"].shape[:2], rank))
            for trial, each in zip(path, found, strict=True):
                trial[: each.shape[1]] = each.T
            paths.append(path)
    return read_out(fold, *paths)


def read_out(fold: Fold, training_path: np.ndarray, test_path: np.ndarray) -> np.ndarray:
    """Counts of the held-out units expected by their Poisson regression on a path."""
    ones = lambda path: np.concatenate([path, np.ones((*path.shape[:2], 1))], -1)  # noqa: E731
    weights = poisson_regression(ones(training_path), *_held_out(fold))
    return np.exp(np.clip(ones(test_path) @ weights.T, -20, 20))


def _held_out(fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    return fold.training["counts"].values[..., fold.held_out], fold.training["mask"].values[..., fold.held_out]


def _smoothed_roots(trials: xr.Dataset, held_out: np.ndarray, smoothing: float) -> np.ndarray:
    """Smoothed within trials, the smoother renormalised at their ends."""
    counts, mask = (trials[name].values[..., ~held_out].astype(float) for name in ("counts", "mask"))
    total, weight = (
        gaussian_filter1d(x, smoothing, axis=1, mode="constant") for x in (np.sqrt(counts + 0.25) * mask, mask)
    )
    return total / np.maximum(weight, 1e-3)


def _spike_trains(trials: xr.Dataset, held_out: np.ndarray, width: float) -> list[list[neo.SpikeTrain]]:
    """Spikes evenly spread in their bins of `width` ms."""
    lengths = trials["mask"].values.any(-1).sum(1)
    counts = trials["counts"].values[..., ~held_out].astype(int)
    return [[_spike_train(unit, width) for unit in trial[:n].T] for trial, n in zip(counts, lengths, strict=True)]


def _spike_train(counts: np.ndarray, width: float) -> neo.SpikeTrain:
    bins = np.repeat(np.arange(len(counts)), counts)
    within = np.concatenate([(np.arange(n) + 0.5) / n for n in counts[counts > 0]]) if len(bins) else np.zeros(0)
    return neo.SpikeTrain((bins + within) * width * pq.ms, t_stop=len(counts) * width * pq.ms)
