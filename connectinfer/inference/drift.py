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
_CELLS_PER_SD = 3.0
_MOST_PATH_DRAWS = 20


def drift_group(posterior: xr.Dataset, inputs: Mapping[str, Any]) -> xr.Dataset | None:
    """Recurrent drift of every draw at representative visited states; None for models that are not low-rank networks.

    States (z, v) of the posterior paths are sorted into cells a third of a standard deviation wide; the 400 most
    occupied cells become points at the mean of their states, weighted by `occupancy`, the share of all bins.
    """
    if not {"m", "n", "d", "latent"} <= set(posterior.data_vars) or "nonlinearity" not in inputs:
        return None
    z, v, occupancy = _visited(posterior, np.asarray(inputs["filtered"]), np.asarray(inputs["mask"]))
    states = jnp.asarray(z), jnp.asarray(v)
    network_draws = {name: jnp.asarray(posterior[name].values) for name in ("m", "n", "b", "d") if name in posterior}
    evaluate = eqx.filter_jit(
        lambda draws: jax.vmap(jax.vmap(lambda draw: recurrent_drift(_network(draw, inputs), *states)))(draws)
    )
    return xr.Dataset(
        {"recurrent_drift": (("chain", "draw", "point", "latent_dim"), np.asarray(evaluate(network_draws)))},
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
    width = np.maximum(states.std(0), 1e-6) / _CELLS_PER_SD
    _, cell, size = np.unique(
        np.round(states / width).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    cell = cell.ravel()
    means = np.stack([np.bincount(cell, weights=column) for column in states.T], 1) / size[:, None]
    largest = np.argsort(size, kind="stable")[::-1][:_MOST_POINTS]
    points, share = means[largest].astype(paths.dtype), size[largest] / len(states)
    return points[:, : z.shape[1]], points[:, z.shape[1] :], share
