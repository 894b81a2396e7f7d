"""Coarser bins, and long stretches cut into trials."""

import numpy as np
import xarray as xr

from connectinfer.data.recording import DIMS, observed_kind, recording


def rebin(dataset: xr.Dataset, factor: int) -> xr.Dataset:
    """The recording with `factor` bins merged into one: counts are summed, rates, fluorescence and inputs averaged.

    A merged bin is observed only if all its parts were; the last bins of a trial that do not fill one are masked.

    Raises:
        ValueError: unless 1 <= factor <= the number of bins, or if a trial keeps no observed bin.
    """
    n_time = dataset.sizes["time"]
    if not 1 <= factor <= n_time:
        raise ValueError(f"`factor` must lie between 1 and the {n_time} bins of the recording; got {factor}.")
    kind = observed_kind(dataset)

    def grouped(name: str) -> np.ndarray:
        values = dataset[name].values[:, : n_time // factor * factor]
        return values.reshape(values.shape[0], -1, factor, values.shape[2])

    values = grouped(kind).sum(2) if kind == "counts" else grouped(kind).mean(2)
    kept = dataset.isel(time=slice(0, n_time // factor * factor, factor))
    merged = recording(
        **{kind: values},
        time=float(dataset.attrs["bin_width"]) * factor,
        unit=kept["unit"].values,
        trial=kept["trial"].values,
        mask=grouped("mask").all(2),
        inputs=grouped("inputs").mean(2) if "inputs" in dataset else None,
    )
    # The variables are replaced one by one, so that further coordinates and attributes stay.
    variables = {name: (merged[name].dims, merged[name].values) for name in merged.data_vars}
    return kept.assign(variables).assign_attrs(bin_width=merged.attrs["bin_width"])


def cut_trials(dataset: xr.Dataset, n_bins: int) -> xr.Dataset:
    """One long stretch cut into trials of `n_bins` bins; the remainder is left out and named in `attrs["left_out"]`.

    Time restarts at 0 in every trial; the coordinate `start (trial)` is where the trial began, in s.

    Raises:
        ValueError: if the recording has several trials, or fewer than `n_bins` bins.
    """
    n_trials, n_time = dataset.sizes["trial"], dataset.sizes["time"]
    if n_trials != 1:
        raise ValueError(f"only a recording of one trial can be cut into trials; this one has {n_trials}.")
    if not 1 <= n_bins <= n_time:
        raise ValueError(f"`n_bins` must lie between 1 and the {n_time} bins of the recording; got {n_bins}.")
    whole = n_time // n_bins
    kind = observed_kind(dataset)

    def cut(name: str) -> np.ndarray:
        return dataset[name].values[0, : whole * n_bins].reshape(whole, n_bins, -1)

    inputs = None
    if "inputs" in dataset:
        values = cut("inputs")
        inputs = {str(name): values[:, :, index] for index, name in enumerate(dataset["input"].values)}
    pieces = recording(
        **{kind: cut(kind)},
        time=float(dataset.attrs["bin_width"]),
        unit=dataset["unit"].values,
        mask=cut("mask"),
        inputs=inputs,
    )
    per_unit = {name: coord for name, coord in dataset.coords.items() if coord.dims == ("unit",) and name not in DIMS}
    starts = dataset["time"].values[: whole * n_bins : n_bins]
    remainder = f"the last {n_time - whole * n_bins} of {n_time} bins" if n_time % n_bins else ""
    left_out = "; ".join(filter(None, [dataset.attrs.get("left_out", ""), remainder]))
    return pieces.assign_coords({**per_unit, "start": ("trial", starts)}).assign_attrs(
        {**dataset.attrs, **pieces.attrs, **({"left_out": left_out} if left_out else {})}
    )
