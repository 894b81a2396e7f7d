"""Results written by hand, on which every verdict is known."""

import numpy as np
import xarray as xr

N_TRIALS, N_BINS, N_UNITS = 8, 10, 3


def sampled(chains=4, draws=500, *, theta=None, **stats):
    """A result of NUTS whose chains are independent normal draws; `stats` replace sample statistics."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(chains, draws, 2)) if theta is None else theta
    sample_stats = {
        "diverging": np.zeros(values.shape[:2], bool),
        "reached_max_tree_depth": np.zeros(values.shape[:2], bool),
        "energy": rng.normal(size=values.shape[:2]),
        **stats,
    }
    posterior = xr.Dataset({"theta": (("chain", "draw", "axis"), values)})
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior.assign_coords(chain=np.arange(len(values)), draw=np.arange(values.shape[1])),
            "sample_stats": xr.Dataset({name: (("chain", "draw"), x) for name, x in sample_stats.items()}),
        }
    )
    tree.attrs["status"] = "finished"
    return tree


def gibbs_sampled(acceptance=0.8, failed=0):
    """A result of Gibbs sampling with this share of accepted paths, and this number of failed updates."""
    tree = sampled()
    stats = {
        "path_acceptance": np.full((4, 500), acceptance),
        "failed_updates": np.arange(2000).reshape(4, 500) < failed,
    }
    tree["sample_stats"] = xr.DataTree(xr.Dataset({name: (("chain", "draw"), x) for name, x in stats.items()}))
    return tree


def approximated(log_weight, **attrs):
    """A result of SVI with these log importance weights."""
    log_weight = np.asarray(log_weight)[None]
    values = np.random.default_rng(0).normal(size=(*log_weight.shape, 4, 5, 2))
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"latent": (("chain", "draw", "trial", "time", "latent_dim"), values)}),
            "sample_stats": xr.Dataset({"log_weight": (("chain", "draw"), log_weight)}),
        }
    )
    tree.attrs.update({"status": "finished", **attrs})
    return tree


def with_predictions(result, observed, predicted, mask=None):
    """`result` with counts `(trial, time, unit)` and predictive counts `(draw, trial, time, unit)` added."""
    observed, predicted = np.asarray(observed), np.asarray(predicted)
    mask = np.ones(observed.shape, bool) if mask is None else mask
    dims, unit = ("trial", "time", "unit"), [f"u{i}" for i in range(observed.shape[-1])]
    coords = {"unit": unit}
    result["observed_data"] = xr.DataTree(xr.Dataset({"counts": (dims, observed)}, coords))
    result["posterior_predictive"] = xr.DataTree(
        xr.Dataset({"counts": (("chain", "draw", *dims), predicted[None])}, coords)
    )
    result["constant_data"] = xr.DataTree(xr.Dataset({"mask": (dims, mask)}, coords))
    return result


def poisson_counts(rates, draws, seed=0):
    """Counts `(draw, trial, time, unit)` of independent Poisson units with `rates` per bin."""
    return np.random.default_rng(seed).poisson(rates, (draws, N_TRIALS, N_BINS, len(rates)))
