"""The `drift` group of a result: the dynamics that each posterior draw implies, where the data have been."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from connectinfer.dynamics.low_rank import LowRankRNN, recurrent_drift

_MOST_POINTS = 400
_CELLS_PER_SD = (3.0, 2.5, 2.0, 1.6, 1.3, 1.0, 0.8, 0.65, 0.5)
_LEAST_COVERAGE = 0.9
_MOST_PATH_DRAWS = 20


def drift_group(posterior: xr.Dataset, inputs: Mapping[str, Any]) -> xr.Dataset | None:
    """Recurrent drift of every draw at representative visited states; None for models that are not low-rank networks.

    States (z, v) of the posterior paths are sorted into cells a third of a standard deviation wide, or wider (up to
    two), until the 400 most occupied ones hold 90 % of all bins. These become points at the mean of their states,
    weighted by `occupancy`, the share of all bins.
    """
    if not {"m", "n", "d", "latent"} <= set(posterior.data_vars) or "nonlinearity" not in inputs:
        return None
    z, v, occupancy = _visited(posterior, np.asarray(inputs["filtered"]), np.asarray(inputs["mask"]))
    states = jnp.asarray(z), jnp.asarray(v)
    network_draws = {name: jnp.asarray(posterior[name].values) for name in ("m", "n", "b", "d") if name in posterior}
    # One draw after the other: potentials at all points of all draws would fill the memory.
    evaluate = eqx.filter_jit(
        lambda draws: jax.lax.map(lambda draw: recurrent_drift(_network(draw, inputs), *states), draws)
    )
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    flat = {name: draws.reshape(n_chains * n_draws, *draws.shape[2:]) for name, draws in network_draws.items()}
    recurrent = np.asarray(evaluate(flat)).reshape(n_chains, n_draws, *z.shape)
    return xr.Dataset(
        {"recurrent_drift": (("chain", "draw", "point", "latent_dim"), recurrent)},
        coords={
            "chain": posterior["chain"],
            "draw": posterior["draw"],
            "latent_dim": posterior["latent_dim"],
            "latent": (("point", "latent_dim"), z),
            "input": (("point", "input_dim"), v),
            "occupancy": ("point", occupancy),
        },
        attrs={
            "nonlinearity": inputs["nonlinearity"],
            "tau": inputs["tau"],
            "dt": inputs["alpha"] * inputs["tau"],
            "units": "latent units per tau",
        },
    )


def _network(draw: Mapping[str, Any], inputs: Mapping[str, Any]) -> LowRankRNN:
    return LowRankRNN(
        draw["m"], draw["n"], draw.get("b"), draw["d"], tau=inputs["tau"], nonlinearity=inputs["nonlinearity"]
    )


def _visited(posterior: xr.Dataset, filtered: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
    paths = (
        posterior["latent"].stack(sample=("chain", "draw")).transpose("sample", "trial", "time", "latent_dim").values
    )
    paths = paths[:: max(len(paths) // _MOST_PATH_DRAWS, 1)]
    # A bin is part of its trial until the last observed one; padding after it was never visited.
    alive = np.flip(np.logical_or.accumulate(np.flip(mask.any(-1), 1), axis=1), 1)
    z = paths[:, alive].reshape(-1, paths.shape[-1])
    v = np.tile(filtered[alive], (len(paths), 1))
    states = np.concatenate([z, v], 1)
    sd = np.maximum(states.std(0), 1e-6)
    for per_sd in _CELLS_PER_SD:
        cells = np.round(states * per_sd / sd).astype(np.int64)
        _, cell, size = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        largest = np.argsort(size, kind="stable")[::-1][:_MOST_POINTS]
        if size[largest].sum() >= _LEAST_COVERAGE * len(states):
            break
    means = np.stack([np.bincount(cell.ravel(), weights=column) for column in states.T], 1) / size[:, None]
    points, share = means[largest].astype(paths.dtype), size[largest] / len(states)
    return points[:, : z.shape[1]], points[:, z.shape[1] :], share
