"""Principal components of smoothed activity: a quick look at the latent path, and where a fit starts."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d


class PrincipalComponents(NamedTuple):
    """`path (trial, time, rank)` has zero mean and identity covariance over observed bins; activity is about
    `offset + path @ loadings.T`, with `loadings (unit, rank)` in descending order of explained variance. `explained`
    is each component's share of the variance of the smoothed activity."""

    path: Float[np.ndarray, "trial time rank"]
    loadings: Float[np.ndarray, "unit rank"]
    offset: Float[np.ndarray, " unit"]
    explained: Float[np.ndarray, " rank"]


def principal_components(
    activity: Float[np.ndarray, "trial time unit"],
    mask: Bool[np.ndarray, "trial time unit"],
    rank: int,
    smoothing: float,
) -> PrincipalComponents:
    """Principal components of activity smoothed along time by a Gaussian of `smoothing` bins.

    Unobserved entries do not enter: the smoother is renormalised by the mask, and entries without any observed bin
    nearby are set to the unit's mean.

    Raises:
        ValueError: `rank` is below 1 or exceeds the number of units or of observed bins (over all trials), or
            `smoothing` is not positive.
    """
    seen = mask.any(-1)
    n_units, n_bins = activity.shape[-1], int(seen.sum())
    if not 1 <= rank <= min(n_units, n_bins):
        raise ValueError(
            "`rank` must lie between 1 and the number of units and observed bins; "
            f"got rank={rank} for {n_units} units in {n_bins} bins."
        )
    if not smoothing > 0:
        raise ValueError(f"`smoothing` is a width in bins and must be positive; got {smoothing}.")
    weight = gaussian_filter1d(mask.astype(float), smoothing, axis=1, mode="constant")
    total = gaussian_filter1d(np.where(mask, activity, 0.0), smoothing, axis=1, mode="constant")
    offset = np.where(mask, activity, 0.0).sum((0, 1)) / np.maximum(mask.sum((0, 1)), 1)
    smooth = np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), offset)
    centre = smooth[seen].mean(0)
    _, scale, right = np.linalg.svd(smooth[seen] - centre, full_matrices=False)
    sd = np.maximum(scale[:rank] / np.sqrt(max(n_bins - 1, 1)), 1e-12)
    path = (smooth - centre) @ right[:rank].T / sd
    explained = scale[:rank] ** 2 / max(np.sum(scale**2), 1e-24)
    return PrincipalComponents(path, right[:rank].T * sd, centre, explained)
