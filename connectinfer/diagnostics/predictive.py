"""Does the fitted model produce data like the data? Predictive checks, and scores of held-out entries."""

import numpy as np
import xarray as xr

from connectinfer.statistics.co_smoothing import bits_per_spike, explained_variance, mean_rates


def predictive_tail(result: xr.DataTree) -> xr.Dataset:
    """Where each unit's statistics fall among those of posterior predictive data.

    For every observed site with dims trial, time and unit: `mean (unit)` and `variance (unit)` of the unit's sum over
    a trial's observed bins, each as the share of predictive draws below the observed value (ties count half). Values
    near 0 or 1 are a mismatch. The variance needs more than one trial. Empty for a result without such sites or a mask
    of these dims.
    """
    if "mask" not in result["constant_data"]:
        return xr.Dataset()
    mask = result["constant_data"]["mask"].transpose("trial", "time", "unit").values
    found = {}
    replicates = result["posterior_predictive"].to_dataset()
    for name, observed in result["observed_data"].data_vars.items():
        if set(observed.dims) != {"trial", "time", "unit"}:
            continue
        predicted = replicates[name].stack(sample=("chain", "draw"))
        draws = predicted.transpose("sample", "trial", "time", "unit").values
        real = _trial_sums(observed.transpose("trial", "time", "unit").values, mask)
        simulated = np.stack([_trial_sums(draw, mask) for draw in draws])
        statistics = {"mean": np.mean} | ({"variance": np.var} if len(real) > 1 else {})
        for statistic, reduce in statistics.items():
            below, equal = (
                reduce(simulated, axis=1) < reduce(real, axis=0),
                reduce(simulated, axis=1) == reduce(real, axis=0),
            )
            found[f"{name}_{statistic}"] = ("unit", (below + 0.5 * equal).mean(0))
    return xr.Dataset(found, coords={"unit": result["observed_data"]["unit"].values} if found else None)


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


def _trial_sums(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, values, 0).sum(-2, dtype=float)
