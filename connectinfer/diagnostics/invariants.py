"""Quantities of low-rank dynamics on which chains must agree: spectrum, drift and fixed points."""

import jax.numpy as jnp
import numpy as np
import xarray as xr

from connectinfer.dynamics.fixed_points import fixed_points
from connectinfer.inference.drift import stored_drift

_MOST_POINTS = 30
_NETWORKS_A_CHAIN = 10
_KINDS = ("stable", "saddle", "unstable", "marginal")


def invariants(result: xr.DataTree) -> xr.Dataset:
    """What chains must agree on beside the parameters, `(chain, draw, ...)`; empty for models without an overlap.

    `eigenvalue_real` and `eigenvalue_imaginary (mode)` of the overlap n^T m / K, whose spectrum is the non-zero
    spectrum of the weights, sorted by real part, imaginary parts as magnitudes; `drift (point, latent_dim)`, the
    recurrent drift at the 30 most visited states, in the aligned gauge.
    """
    found: dict[str, tuple] = {}
    posterior = result["posterior"] if "posterior" in result.children else {}
    if "overlap" in posterior:
        overlap = posterior["overlap"].transpose("chain", "draw", "latent_dim", "latent_from").values
        eigenvalues = np.full(overlap.shape[:-1], np.nan, complex)
        # A matrix that is not finite would end the whole call.
        finite = np.isfinite(overlap).all((-2, -1))
        eigenvalues[finite] = np.linalg.eigvals(overlap[finite].astype(float))
        order = np.lexsort((np.abs(np.imag(eigenvalues)), np.real(eigenvalues)))
        eigenvalues = np.take_along_axis(eigenvalues, order, -1)
        found["eigenvalue_real"] = (("chain", "draw", "mode"), np.real(eigenvalues))
        found["eigenvalue_imaginary"] = (("chain", "draw", "mode"), np.abs(np.imag(eigenvalues)))
    if "drift" in result.children:
        recurrent = result["drift"]["recurrent_drift"].isel(point=slice(_MOST_POINTS))
        found["drift"] = (("chain", "draw", "point", "latent_dim"), recurrent.values)
    return xr.Dataset(found)


def fixed_point_kinds(result: xr.DataTree) -> xr.DataArray | None:
    """The fixed points without input of up to 10 evenly spaced draws of every chain, `(chain, draw)`, in words such as
    "2 stable, 1 saddle"; None for a result without a `drift` group, or whose drift is known only at its points.

    Newton's method starts at the 30 most visited states: fixed points far from the data may be missed.
    """
    if "drift" not in result.children:
        return None
    posterior, group = result["posterior"].to_dataset(), result["drift"].to_dataset()
    chosen = np.unique(np.linspace(0, posterior.sizes["draw"] - 1, _NETWORKS_A_CHAIN).astype(int))
    starts = jnp.asarray(group["latent"].values[:_MOST_POINTS], float)
    kinds = np.empty((posterior.sizes["chain"], len(chosen)), object)
    for chain, position in np.ndindex(*kinds.shape):
        drift = stored_drift(posterior.isel(chain=chain, draw=chosen[position]), group.attrs)
        if drift is None:
            return None
        stability = fixed_points(drift, starts).stability
        counted = [f"{stability.count(kind)} {kind}" for kind in _KINDS if kind in stability]
        kinds[chain, position] = ", ".join(counted) or "none"
    draws = posterior["draw"].values[chosen]
    return xr.DataArray(kinds.astype(str), {"chain": posterior["chain"], "draw": draws}, ("chain", "draw"))
