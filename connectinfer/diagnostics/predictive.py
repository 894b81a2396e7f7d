"""Does the fitted model produce data like the data? Predictive checks, and scores of held-out entries."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from connectinfer.statistics.co_smoothing import bits_per_spike, explained_variance, mean_rates
from connectinfer.statistics.pair_correlations import even_pairs, pair_correlations, trial_residuals
from connectinfer.statistics.signal_statistics import (
    neighbour_correlations,
    population_autocorrelation,
    population_course,
    signal_deviations,
    signal_means,
)
from connectinfer.statistics.spike_statistics import (
    fano_factors,
    firing_rates,
    interval_variation,
    rate_modulation,
    window_counts,
)

_DIMS = ("trial", "time", "unit")
_MOST_DRAWS = 200
_MOST_PAIRS = 1000
_MOST_LAGS = 20
_LEAST_WINDOWS = 40
_VALUES_AT_ONCE = 2_000_000
_DECIMALS = 10
# At most 1 % even of items that are extreme all at once: 200 draws have two such ranks in 201.
_OUTER = 0.01


class Statistic(NamedTuple):
    """What is compared: the axis of its items, its name and unit, and what may mend a model that misses it."""

    dim: str
    name: str
    units: str
    remedy: str


STATISTICS = {
    "rate": Statistic("unit", "firing rate", "Hz", "Look at the priors of the read-out, or another observation model."),
    "modulation": Statistic("unit", "rate modulation", "Hz", "Try another rank, or give the inputs."),
    "fano_factor": Statistic("unit", "Fano factor", "", "Try another observation model, or another rank."),
    "interval_variation": Statistic("unit", "CV of intervals", "", "Try another observation model, or finer bins."),
    "mean": Statistic("unit", "mean", "", "Look at the priors of the read-out."),
    "deviation": Statistic("unit", "standard deviation", "", "Try another rank, or another observation model."),
    "neighbour_correlation": Statistic("unit", "correlation of neighbouring bins", "", "Try another rank or `tau`."),
    "correlation": Statistic("pair", "correlation of pairs", "", "Try another rank."),
    "time_course": Statistic("time", "population time course", "", "Try another rank, or give the inputs."),
    "autocorrelation": Statistic("lag", "population autocorrelation", "", "Try another rank or `tau`."),
}


class Extremes(NamedTuple):
    """Items whose observed value lies in the outer 1 % of the replicated ones, and how many may by chance.

    `judged` items have a value in the recording and in every one of the `draws` replicates, `left_out` do not.
    """

    items: list[str]
    allowed: int
    judged: int
    left_out: int
    draws: int


def predictive_statistics(result: xr.DataTree) -> xr.DataTree:
    """Statistics of the recording and of posterior predictive recordings: a group per observed site and statistic.

    Sites are those with dims trial, time and unit; masked entries never enter. Of counts `rate`, `modulation` (sd of
    the peristimulus histogram), `fano_factor` and `interval_variation (unit)`, of other signals `mean`, `deviation` and
    `neighbour_correlation (unit)`; of both `correlation (pair)` over at most 1,000 evenly chosen pairs, `time_course
    (time)` and `autocorrelation (lag)` of the mean over units. `connectinfer.statistics` defines them. Fano factors and
    correlations, those of residuals over trials, use windows as long as the shortest quarter of the trials, or shorter
    where these would be fewer than about 40.

    Every group holds `observed (item)`, `replicated (chain, draw, item)` of at most 200 draws, and `tail (item)`, the
    share of replicates below the observed value (ties count half): near 0 or 1 is a mismatch. NaN is what too few
    spikes leave undefined. Without such a site, or a mask of its dims, the tree is empty.
    """
    tree = xr.DataTree()
    if "mask" not in result["constant_data"]:
        return tree
    mask = result["constant_data"]["mask"].transpose(*_DIMS).values.astype(bool)
    for name, observed in result["observed_data"].data_vars.items():
        if set(observed.dims) != set(_DIMS):
            continue
        replicates = _few(result["posterior_predictive"].to_dataset()[name])
        recording = observed.transpose(*_DIMS)
        for statistic, dataset in _compare(recording, replicates, mask).items():
            tree[f"{name}/{statistic}"] = xr.DataTree(dataset)
    return tree


def extremes(compared: xr.Dataset) -> Extremes:
    """Which items of one group of `predictive_statistics` are extreme, and how many a sound model may have.

    Every replicate is ranked among all others and the recording, as the recording is; one that is the lowest or the
    highest of 200 is extreme. Of fewer that happens too often: it must also lie 2.6 sd from the mean. The items that
    may be extreme are the largest of three 99 % quantiles: binomial, beta-binomial with the variance that the
    replicates' numbers of extreme items have, and that of these numbers themselves. The binomial alone, which takes
    items for independent, would fail up to 20 % of sound models where they are correlated.
    """
    dim = compared["observed"].dims[0]
    replicated = compared["replicated"].transpose("chain", "draw", dim).values.reshape(-1, compared.sizes[dim])
    pool = np.concatenate([compared["observed"].values[None], replicated])
    defined = np.isfinite(pool).all(0)
    n_draws, n_items = len(replicated), int(defined.sum())
    if not n_items:
        return Extremes([], 0, 0, len(defined), n_draws)
    pool = pool[:, defined]
    share = (stats.rankdata(pool, axis=0) - 1) / n_draws
    extreme = (share < _OUTER / 2) | (share > 1 - _OUTER / 2)
    if n_draws < 2 / _OUTER - 1:
        extreme &= np.abs(pool - pool.mean(0)) > stats.norm.isf(_OUTER / 2) * pool.std(0, ddof=1)
    allowed = _most_by_chance(extreme[1:].sum(1), n_items)
    named = _item_names(compared, str(dim))[defined][extreme[0]]
    return Extremes([str(item) for item in named], allowed, n_items, len(defined) - n_items, n_draws)


def held_out_score(result: xr.DataTree, recording: xr.Dataset) -> float:
    """Score of the posterior-mean prediction on entries of `recording` that the fit did not see.

    Bits per spike over each unit's mean rate for counts, explained variance over each unit's mean for continuous
    signals; unit means come from the entries that the fit saw. Trials and units are matched by their labels.

    Raises:
        ValueError: the fit saw every observed entry of `recording`, `recording` lacks trials or units of the result, or
            its time bins are others.
    """
    expectations = result["expected"].to_dataset()
    recording = _matched(recording, expectations)
    expected = next(iter(expectations.data_vars.values())).transpose("trial", "time", "unit").values
    seen = result["constant_data"]["mask"].transpose("trial", "time", "unit").values
    kind = next(k for k in ("counts", "rates", "fluorescence") if k in recording)
    observed = recording[kind].transpose("trial", "time", "unit").values
    entries = recording["mask"].transpose("trial", "time", "unit").values & ~seen
    if not entries.any():
        raise ValueError("The fit saw every observed entry of the recording; hold some out with `hold_out` first.")
    if kind == "counts":
        return bits_per_spike(expected, observed, mean_rates(observed, seen), entries)
    mean = (observed * seen).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
    return explained_variance(expected, observed, np.broadcast_to(mean, observed.shape), entries)


def _matched(recording: xr.Dataset, expectations: xr.Dataset) -> xr.Dataset:
    for dim in ("trial", "unit"):
        wanted = expectations[dim].values
        if missing := [str(x) for x in wanted if x not in recording[dim].values]:
            raise ValueError(
                f"The recording lacks {len(missing)} of the {len(wanted)} {dim}s that the result predicts, among them "
                f"{', '.join(missing[:3])}. Give the recording that was fitted, before entries were held out."
            )
        recording = recording.sel({dim: wanted})
    given, wanted = (dataset["time"].values for dataset in (recording, expectations))
    tolerance = 0.01 * float(recording.attrs["bin_width"])
    if len(given) != len(wanted) or not np.allclose(given, wanted, rtol=0, atol=tolerance):
        raise ValueError(
            f"The recording has {len(given)} time bins from {given[0]:g} to {given[-1]:g} s; the result predicts "
            f"{len(wanted)} from {wanted[0]:g} to {wanted[-1]:g} s. Give the recording that was fitted."
        )
    return recording


def _few(replicates: xr.DataArray) -> xr.DataArray:
    a_chain = max(_MOST_DRAWS // replicates.sizes["chain"], 1)
    even = np.unique(np.linspace(0, replicates.sizes["draw"] - 1, a_chain).astype(int))
    return replicates.isel(draw=even).transpose("chain", "draw", *_DIMS)


def _compare(recording: xr.DataArray, replicates: xr.DataArray, mask: np.ndarray) -> dict[str, xr.Dataset]:
    compute = _statistics_of(recording, mask)
    observed = compute(recording.values)
    draws = replicates.values.reshape(-1, *mask.shape)
    step = max(_VALUES_AT_ONCE // mask.size, 1)
    parts = [compute(draws[first : first + step]) for first in range(0, len(draws), step)]
    coords = _coordinates(recording, observed)
    samples = {name: replicates[name].values for name in ("chain", "draw")}
    found = {}
    for name, real in observed.items():
        about = STATISTICS[name]
        # Counts become rates.
        units = "Hz" if name == "time_course" and "rate" in observed else about.units
        simulated = np.concatenate([part[name] for part in parts])
        below, equal = (simulated < real).mean(0), (simulated == real).mean(0)
        tail = np.where(np.isfinite(simulated).all(0) & np.isfinite(real), below + 0.5 * equal, np.nan)
        variables = {
            "observed": (about.dim, real, {"long_name": about.name, "units": units}),
            "replicated": (("chain", "draw", about.dim), simulated.reshape(*replicates.shape[:2], -1)),
            "tail": (about.dim, tail),
        }
        found[name] = xr.Dataset(variables, coords[about.dim] | samples)
    return found


def _statistics_of(recording: xr.DataArray, mask: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The function that computes all statistics of draws `(*batch, trial, time, unit)` of data like this recording."""
    n_bins, seen = mask.shape[1], recording.values[mask]
    width = _bin_width(recording)
    window, pairs, lags = _window(mask), even_pairs(mask.shape[-1], _MOST_PAIRS), min(_MOST_LAGS, n_bins - 1)
    counted = bool((seen >= 0).all() and (seen == np.floor(seen)).all())

    def compute(values: np.ndarray) -> dict[str, np.ndarray]:
        sums, whole = window_counts(values, mask, window)
        found = {"time_course": population_course(values, mask) / (width if counted else 1.0)}
        if counted:
            found["rate"] = firing_rates(values, mask, width)
            found["modulation"] = rate_modulation(values, mask, width)
            found["fano_factor"] = fano_factors(sums, whole)
            found["interval_variation"] = interval_variation(values, mask)
        else:
            found["mean"] = signal_means(values, mask)
            found["deviation"] = signal_deviations(values, mask)
            found["neighbour_correlation"] = neighbour_correlations(values, mask)
        if len(pairs):
            found["correlation"] = pair_correlations(trial_residuals(sums, whole), whole, pairs)
        if lags:
            found["autocorrelation"] = population_autocorrelation(values, mask, lags)
        # Rounding differs with the number of draws computed at once, and would break ties.
        return {name: np.round(found[name], _DECIMALS) for name in STATISTICS if name in found}

    return compute


def _bin_width(recording: xr.DataArray) -> float:
    # A single bin does not say how long it is.
    return float(np.diff(recording["time"].values[:2]).sum()) or 1.0


def _window(mask: np.ndarray) -> int:
    lengths = mask.any(-1).sum(1)
    return max(min(int(np.quantile(lengths, 0.25, method="lower")), int(lengths.sum()) // _LEAST_WINDOWS), 1)


def _coordinates(recording: xr.DataArray, observed: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    units = recording["unit"].values
    pairs = even_pairs(len(units), _MOST_PAIRS)
    lags = _bin_width(recording) * np.arange(1, len(observed.get("autocorrelation", ())) + 1)
    return {
        "unit": {"unit": units},
        "time": {"time": recording["time"].values},
        "lag": {"lag": lags},
        "pair": {"unit_1": ("pair", units[pairs[:, 0]]), "unit_2": ("pair", units[pairs[:, 1]])},
    }


def _item_names(compared: xr.Dataset, dim: str) -> np.ndarray:
    if dim == "pair":
        return np.array([f"{a}-{b}" for a, b in zip(compared["unit_1"].values, compared["unit_2"].values, strict=True)])
    if dim == "unit":
        return compared[dim].values.astype(str)
    return np.array([f"{seconds:.4g} s" for seconds in compared[dim].values])


def _most_by_chance(extreme: np.ndarray, n_items: int) -> int:
    """The number of extreme items that 99 of 100 sound models do not exceed, from those of the replicates."""
    # One item may be extreme in exactly 1 of 100: rounding must not decide.
    quantile = 0.99 - 1e-9
    limits = [stats.binom.ppf(quantile, n_items, _OUTER), np.quantile(extreme, 0.99, method="higher")]
    if n_items > 1 and len(extreme) > 1:
        # Correlated items are extreme together: the variance then exceeds the binomial one.
        excess = extreme.var(ddof=1) / (n_items * _OUTER * (1 - _OUTER)) - 1
        correlation = min(excess / (n_items - 1), 0.999)
        if correlation > 0:
            weight = 1 / correlation - 1
            limits.append(stats.betabinom.ppf(quantile, n_items, _OUTER * weight, (1 - _OUTER) * weight))
    return int(max(limits))
