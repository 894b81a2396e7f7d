"""Quantities of low-rank dynamics that do not depend on the gauge of the latent space."""

import numpy as np
import xarray as xr

_MOST_POINTS = 30


def invariants(result: xr.DataTree) -> xr.Dataset:
    """What chains must agree on whatever their gauge, `(chain, draw, ...)`; empty for models without an overlap.

    `eigenvalue_real` and `eigenvalue_imaginary (mode)` of the overlap n^T m / K, whose spectrum is the non-zero
    spectrum of the weights, sorted by real part, imaginary parts as magnitudes; `drift (point, latent_dim)`, the
    recurrent drift at the 30 most visited states, in the aligned gauge.
    """
    found: dict[str, tuple] = {}
    posterior = result["posterior"] if "posterior" in result.children else {}
    if "overlap" in posterior:
        overlap = posterior["overlap"].transpose("chain", "draw", "latent_dim", "latent_from").values
        eigenvalues = np.linalg.eigvals(overlap.astype(float))
        order = np.lexsort((np.abs(np.imag(eigenvalues)), np.real(eigenvalues)))
        eigenvalues = np.take_along_axis(eigenvalues, order, -1)
        found["eigenvalue_real"] = (("chain", "draw", "mode"), np.real(eigenvalues))
        found["eigenvalue_imaginary"] = (("chain", "draw", "mode"), np.abs(np.imag(eigenvalues)))
    if "drift" in result.children:
        drift = result["drift"]["recurrent_drift"].isel(point=slice(_MOST_POINTS))
        found["drift"] = (("chain", "draw", "point", "latent_dim"), drift.values)
    return xr.Dataset(found)
