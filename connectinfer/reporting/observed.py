"""What a result holds of the recording that it was fitted to, and of draws that can be shown."""

from typing import NamedTuple

import numpy as np
import xarray as xr

_DIMS = ("trial", "time", "unit")
_WORDS = {"counts": "spike counts", "rates": "firing rates", "fluorescence": "fluorescence", "signal": "a signal"}


class Observed(NamedTuple):
    """A recording with its kind ("counts", "rates", "fluorescence", or "signal" where a result does not say which)."""

    data: xr.Dataset
    kind: str
    site: str

    @property
    def words(self) -> str:
        """What was recorded and how much of it."""
        sizes = self.data.sizes
        words = {"trial": "trial", "time": "bin", "unit": "unit"}
        shape = " × ".join(f"{sizes[dim]} {word}{'s' * (sizes[dim] != 1)}" for dim, word in words.items())
        return f"{_WORDS[self.kind]} of {shape}, bins of {self.data.attrs['bin_width']:.4g} s"


def observed_in(result: xr.DataTree) -> Observed | None:
    """The first observed site with dims trial, time and unit as a recording; None if there is none.

    What is masked or not finite counts as not observed. A continuous signal of unknown kind is stored as fluorescence.
    """
    if "observed_data" not in result.children:
        return None
    found = {str(n): x for n, x in result["observed_data"].data_vars.items() if set(x.dims) == set(_DIMS)}
    if not found:
        return None
    site, values = next(iter(found.items()))
    values = values.transpose(*_DIMS).astype(float)
    mask = np.isfinite(values.values) & _mask(result, values)
    shown = values.where(mask, 0.0)
    whole = bool(((shown >= 0) & (shown == np.floor(shown))).all())
    kind = str(result.attrs.get("observed_kind"))
    if kind not in _WORDS:
        kind = "counts" if whole else "signal"
    stored = "fluorescence" if kind == "signal" else kind
    labelled = shown.assign_coords({dim: values[dim].values for dim in _DIMS})
    if kind == "counts":
        labelled = labelled.astype(int)
    dataset = xr.Dataset({stored: labelled, "mask": (_DIMS, mask)}, attrs={"bin_width": _bin_width(labelled)})
    return Observed(dataset, kind, site)


def with_finite_draws(result: xr.DataTree) -> tuple[xr.DataTree, int]:
    """`result` with the draws of `posterior` and `drift` that are finite in all chains; and how many are not."""
    posterior = result["posterior"].to_dataset()
    finite = np.ones(posterior.sizes["draw"], bool)
    for values in posterior.data_vars.values():
        if values.dtype.kind in "fc" and "draw" in values.dims:
            draws = values.transpose("draw", ...).values
            finite &= np.isfinite(draws).reshape(len(draws), -1).all(1)
    if finite.all():
        return result, 0
    kept = result.copy(deep=False)
    kept["posterior"] = xr.DataTree(posterior.isel(draw=finite))
    if "drift" in result.children:
        kept["drift"] = xr.DataTree(result["drift"].to_dataset().isel(draw=finite))
    return kept, int((~finite).sum())


def order_of_units(posterior: xr.Dataset) -> tuple[np.ndarray | None, str]:
    """Unit ids by their mean first loading, and words that say so; None where units have no loadings."""
    if "m" not in posterior or set(posterior["m"].dims) != {"chain", "draw", "unit", "latent_dim"}:
        return None, ""
    loading = posterior["m"].isel(latent_dim=0).mean(("chain", "draw"))
    order = loading["unit"].values[np.argsort(loading.values, kind="stable")]
    return order, f" Units are sorted by their loading on latent {posterior['latent_dim'].values[0]}."


def percent(share: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * share:.0f} %"


def _mask(result: xr.DataTree, values: xr.DataArray) -> np.ndarray:
    constants = result["constant_data"].to_dataset() if "constant_data" in result.children else xr.Dataset()
    if "mask" not in constants or set(constants["mask"].dims) != set(_DIMS):
        return np.ones(values.shape, bool)
    return constants["mask"].transpose(*_DIMS).values.astype(bool)


def _bin_width(values: xr.DataArray) -> float:
    time = values["time"].values
    return float((time[-1] - time[0]) / (len(time) - 1)) if len(time) > 1 else 1.0
