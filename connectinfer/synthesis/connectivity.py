"""Posterior connectivity: the weight matrices that a fitted network implies."""

import numpy as np
import xarray as xr

from connectinfer.data.connectome import connectome


def sample_connectivity(result: xr.DataTree, *, draws: int = 200) -> xr.Dataset:
    """Weights J = m n^T / K of evenly spaced posterior draws: `weight (draw, post, pre)`.

    K is the number of units. Weights carry rates phi(h) of the presynaptic units to potentials of the postsynaptic
    ones (dimensionless). Draws of all chains are pooled; `chain` and `draw_in_chain` say where each came from. They do
    not depend on the gauge of the latent space.

    Raises:
        ValueError: the result has no loadings `m` and `n`, or `draws` is below 1.
    """
    posterior = _loadings(result)
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1; got {draws}.")
    pooled = posterior.stack(sample=("chain", "draw"))
    chosen = pooled.isel(sample=np.unique(np.linspace(0, pooled.sizes["sample"] - 1, draws).astype(int)))
    m, n = (chosen[name].transpose("sample", "unit", "latent_dim").values for name in ("m", "n"))
    weight = m @ np.swapaxes(n, 1, 2) / m.shape[1]
    unit = posterior["unit"].values
    return xr.Dataset(
        {"weight": (("draw", "post", "pre"), weight, {"long_name": "J = m n^T / K", "units": "1"})},
        coords={
            "draw": np.arange(len(weight)),
            "post": unit,
            "pre": unit,
            "chain": ("draw", chosen["chain"].values),
            "draw_in_chain": ("draw", chosen["draw"].values),
        },
        attrs={"model": result.attrs.get("model", ""), "orientation": "weight[post, pre]: weight @ rate is the input"},
    )


def connectivity_edges(connectivity: xr.Dataset) -> xr.Dataset:
    """The ordered pairs of `sample_connectivity` as a connectome: one edge from every unit to every other.

    Edge variables: `weight` (posterior mean), `weight_sd`, and `probability_positive`, the share of draws with a
    positive weight. Self-connections are left out.
    """
    weight = connectivity["weight"].transpose("draw", "post", "pre").values
    post, pre = np.nonzero(~np.eye(weight.shape[1], dtype=bool))
    pairs = weight[:, post, pre]
    return connectome(
        connectivity["pre"].values[pre],
        connectivity["post"].values[post],
        neurons=connectivity["post"].values,
        weight=pairs.mean(0),
        weight_sd=pairs.std(0),
        probability_positive=(pairs > 0).mean(0),
    )


def _loadings(result: xr.DataTree) -> xr.Dataset:
    posterior = result["posterior"].to_dataset() if "posterior" in result.children else xr.Dataset()
    if not {"m", "n"} <= set(posterior.data_vars):
        raise ValueError(
            "Connectivity needs a result with posterior loadings `m` and `n`; this one, of model "
            f"{result.attrs.get('model', 'unknown')!r}, has {sorted(map(str, posterior.data_vars)) or 'no posterior'}."
        )
    return posterior[["m", "n"]]
