"""The `drift` group of a result: the dynamics that each posterior draw implies, where the data have been."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.dynamics.low_rank import LowRankRNN, drift, recurrent_drift
from connectinfer.dynamics.random_features import RandomFeatureDynamics
from connectinfer.inference.trace import bare_law, describe_sites, trace_model
from connectinfer.latent.state_space import within_trial

_MOST_POINTS = 400
_CELLS_PER_SD = (3.0, 2.5, 2.0, 1.6, 1.3, 1.0, 0.8, 0.65, 0.5)
_LEAST_COVERAGE = 0.9
_MOST_PATH_DRAWS = 20


def drift_group(
    posterior: xr.Dataset,
    inputs: Mapping[str, Any],
    samples: Mapping[str, Any],
    bound: Callable[[Mapping[str, Any]], Any],
    arrays: Mapping[str, Any],
) -> xr.Dataset | None:
    """Recurrent drift of every draw at representative visited states; None for models whose `latent` is neither a
    `LatentPath` nor the path of a low-rank network.

    `samples (draw, ...)` are the latent sites of the `bound` model, before their gauge was fixed. States (z, v) of the
    posterior paths are sorted into cells a third of a standard deviation wide, or wider (up to two), until the 400 most
    occupied ones hold 90 % of all bins. These become points at the mean of their states, weighted by `occupancy`, the
    share of all bins.
    """
    if "latent" not in posterior or not {"filtered", "mask", "alpha", "tau"} <= set(inputs):
        return None
    sites = describe_sites(bound, arrays)
    has_transition = "latent" in sites and sites["latent"].law is LatentPath
    if not has_transition and not {"m", "n", "d"} <= set(posterior.data_vars):
        return None
    path = posterior["latent"].transpose("chain", "draw", ...)
    dim = str(path.dims[-1])
    z, v, occupancy = _visited(path.values, np.asarray(inputs["filtered"]), np.asarray(inputs["mask"]))
    states = jnp.asarray(z), jnp.asarray(v)
    if has_transition:
        flat = dict(samples) | _flat(posterior, "gauge")
        recurrent = _of_transitions(flat, states, bound, arrays, inputs["alpha"])
    else:
        recurrent = _of_networks(_flat(posterior, "m", "n", "b", "d"), states, inputs)
    return xr.Dataset(
        {
            "recurrent_drift": (
                ("chain", "draw", "point", dim),
                np.asarray(recurrent).reshape(posterior.sizes["chain"], posterior.sizes["draw"], *z.shape),
            )
        },
        coords={
            "chain": posterior["chain"],
            "draw": posterior["draw"],
            dim: posterior[dim],
            "latent": (("point", dim), z),
            "input": (("point", "input_dim"), v),
            "occupancy": ("point", occupancy),
        },
        attrs={name: inputs[name] for name in ("nonlinearity", "tau") if name in inputs}
        | {"dt": inputs["alpha"] * inputs["tau"], "units": "latent units per tau"},
    )


def stored_drift(draw: xr.Dataset, attrs: Mapping[Any, Any]) -> Callable[[Array], Array] | None:
    """`tau dz/dt` without input of one draw of a stored posterior, a pytree; `attrs` are those of the group `drift`.

    None for models that are neither low-rank networks (`m`, `n`, `d`) nor sums of features (`slope`, `threshold`,
    `weight`, `constant`): of these, only the drift at the points of the group is known.
    """
    if {"m", "n", "d"} <= set(draw.data_vars):
        m, n = (draw[name].transpose("unit", "latent_dim").values for name in ("m", "n"))
        tau, nonlinearity = float(attrs["tau"]), str(attrs["nonlinearity"])
        return jax.tree_util.Partial(drift, LowRankRNN(m, n, d=draw["d"].values, tau=tau, nonlinearity=nonlinearity))
    if {"slope", "threshold", "weight", "constant"} <= set(draw.data_vars):
        slope, weight = (
            jnp.asarray(draw[name].transpose("feature", "latent_dim").values, float) for name in ("slope", "weight")
        )
        threshold, constant = (jnp.asarray(draw[name].values, float) for name in ("threshold", "constant"))
        no_inputs = jnp.zeros((0, len(constant)))
        dynamics = RandomFeatureDynamics(slope, threshold, weight, constant, no_inputs)
        return jax.tree_util.Partial(RandomFeatureDynamics.drift, dynamics)
    return None


def _flat(posterior: xr.Dataset, *names: str) -> dict[str, Array]:
    draws = {name: jnp.asarray(posterior[name].values) for name in names if name in posterior}
    return {name: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) for name, x in draws.items()}


def _of_transitions(
    draws: Mapping[str, Array],
    states: tuple[Array, Array],
    bound: Callable[[Mapping[str, Any]], Any],
    arrays: Mapping[str, Any],
    alpha: float,
) -> Array:
    """From the law of the path under every draw, in the gauge of the result."""

    @jax.jit
    def evaluate(draws: Mapping[str, Array], arrays: Mapping[str, Any]) -> Array:
        def of_draw(draw: Mapping[str, Array]) -> Array:
            values = {name: x for name, x in draw.items() if name != "gauge"}
            path = bare_law(trace_model(jax.random.key(0), bound, arrays, values)["latent"]["fn"])
            gauge = draw.get("gauge", jnp.eye(states[0].shape[1]))
            z = states[0] @ gauge
            return (path.transition(z, states[1]) - (1 - alpha) * z) / alpha @ gauge.T

        # One draw after the other: features at all points of all draws would fill the memory.
        return jax.lax.map(of_draw, draws)

    return evaluate(dict(draws), dict(arrays))


def _of_networks(draws: Mapping[str, Array], states: tuple[Array, Array], inputs: Mapping[str, Any]) -> Array:
    def of_draw(draw: Mapping[str, Array]) -> Array:
        tau, nonlinearity = inputs["tau"], inputs["nonlinearity"]
        network = LowRankRNN(draw["m"], draw["n"], draw.get("b"), draw["d"], tau=tau, nonlinearity=nonlinearity)
        return recurrent_drift(network, *states)

    return jax.jit(lambda draws: jax.lax.map(of_draw, draws))(dict(draws))


def _visited(paths: np.ndarray, filtered: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of `paths (chain, draw, trial, time, dim)`."""
    paths = paths.reshape(-1, *paths.shape[2:])
    paths = paths[:: max(len(paths) // _MOST_PATH_DRAWS, 1)]
    # Padding after the end of a trial was never visited.
    alive = np.asarray(within_trial(jnp.asarray(mask)))
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
