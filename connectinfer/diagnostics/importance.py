"""How far may draws be reweighted? k-hat of importance weights, and the paths that make it hopeless."""

import numpy as np
import xarray as xr
from jaxtyping import Float

_ROUNDING = 1e-10


def k_hat(log_weights: Float[np.ndarray, " draw"]) -> float:
    """Estimated shape of the tail of importance weights; 0 for equal ones."""
    from arviz_stats.base.array import array_stats

    # ArviZ takes log likelihoods, the negative log weights of leaving one out.
    return float(array_stats.psislw(-log_weights)[1]) if _has_tail(log_weights) else 0.0


def smoothed_weights(log_weights: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " draw"]:
    """Importance weights of sum one, the largest replaced by quantiles of the Pareto tail fitted to them."""
    from arviz_stats.base.array import array_stats

    smoothed = np.asarray(array_stats.psislw(-log_weights)[0], float) if _has_tail(log_weights) else log_weights
    weights = np.exp(smoothed - smoothed.max())
    return weights / weights.sum()


def largest_k_hat(draws: int) -> float:
    """The k-hat up to which the weights of so many draws behave."""
    return min(1 - 1 / np.log10(max(draws, 10)), 0.7)


def path_sites(result: xr.DataTree) -> list[str]:
    """The sampled sites with a value for every time bin, named by the engine or known by their prior and dims."""
    if named := str(result.attrs.get("path_sites", "")):
        return named.split(",")
    if not {"log_prior", "posterior"} <= set(result.children):
        return []
    posterior = result["posterior"].to_dataset()
    return [str(name) for name in result["log_prior"].data_vars if name in posterior and "time" in posterior[name].dims]


def at_draws_of(likelihood: xr.Dataset, group: xr.Dataset) -> xr.Dataset:
    """`group` at the draws whose log likelihood is known: with paths integrated out it is that of some hundreds."""
    return group if likelihood.sizes["draw"] == group.sizes["draw"] else group.sel(draw=likelihood["draw"])


def _has_tail(log_weights: Float[np.ndarray, " draw"]) -> bool:
    """Whether the largest weights, to which a Pareto law is fitted, differ by more than rounding."""
    n_tail = int(max(min(len(log_weights) / 5, 3 * len(log_weights) ** 0.5), 1))
    return bool(np.ptp(np.sort(log_weights)[-n_tail:]) > _ROUNDING)
