"""Training and test parts of a recording. `rng` is a numpy Generator, the first argument of anything random."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Shaped
from numpy.typing import ArrayLike

from connectinfer.data.identifiers import listing
from connectinfer.data.recording import observed_kind


def split_trials(
    rng: np.random.Generator, dataset: xr.Dataset, *, test_fraction: float = 0.2
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training and test recording: whole trials at random, in their order, at least one in each.

    Raises:
        ValueError: if the fraction leaves one part without trials.
    """
    test = _draw(rng, dataset.sizes["trial"], test_fraction, "trial")
    return dataset.isel(trial=~test), dataset.isel(trial=test)


def split_units(
    rng: np.random.Generator, dataset: xr.Dataset, *, held_out_fraction: float = 0.2
) -> tuple[Shaped[np.ndarray, " held_in"], Shaped[np.ndarray, " held_out"]]:
    """Ids of held-in and held-out units, at random, in their order, at least one of each (for co-smoothing).

    Raises:
        ValueError: if the fraction leaves one part without units.
    """
    held_out = _draw(rng, dataset.sizes["unit"], held_out_fraction, "unit")
    units = dataset["unit"].values
    return units[~held_out], units[held_out]


def hold_out(dataset: xr.Dataset, *, trials: ArrayLike, units: ArrayLike) -> xr.Dataset:
    """The recording without what `units` did in `trials` (ids): those entries are masked and set to 0.

    Raises:
        ValueError: for unknown ids, or if a trial or unit would keep no observed bin.
    """
    mask = dataset["mask"] & ~held_out_entries(dataset, trials=trials, units=units)
    for dim, others in (("trial", ("time", "unit")), ("unit", ("trial", "time"))):
        lost = (dataset["mask"].any(others) & ~mask.any(others)).values
        if lost.any():
            raise ValueError(
                f"{dim}s {listing(dataset[dim].values[lost])} would keep no observed bin. "
                f"Hold out fewer entries, or leave these {dim}s out with `.sel`."
            )
    kind = observed_kind(dataset)
    return dataset.assign({kind: dataset[kind].where(mask, 0), "mask": mask})


def held_out_entries(dataset: xr.Dataset, *, trials: ArrayLike, units: ArrayLike) -> xr.DataArray:
    """The complement of `hold_out`: True at the observed bins `(trial, time, unit)` that it takes away."""
    chosen = _among(dataset["trial"], trials) & _among(dataset["unit"], units)
    return (dataset["mask"] & chosen).rename("held_out")


def _draw(rng: np.random.Generator, total: int, fraction: float, name: str) -> np.ndarray:
    chosen = round(fraction * total)
    if not 0 < chosen < total:
        raise ValueError(f"{fraction} of {total} {name}s leaves one part empty ({chosen} and {total - chosen}).")
    picked = np.zeros(total, bool)
    picked[rng.choice(total, chosen, replace=False)] = True
    return picked


def _among(labels: xr.DataArray, ids: ArrayLike | Sequence) -> xr.DataArray:
    wanted = np.atleast_1d(np.asarray(ids))
    unknown = wanted[~np.isin(wanted, labels.values)]
    if unknown.size:
        raise ValueError(f"unknown {labels.name} ids: {listing(unknown)}. Known are {listing(labels.values)}.")
    return labels.isin(wanted)
