"""Results written by hand, for pages whose words and pictures are known."""

import json

import numpy as np
import xarray as xr

N_TRIALS, N_BINS, N_UNITS, RANK = 4, 25, 6, 2


def low_rank(chains=1, draws=40, rank=RANK, *, counts=True, units=None, **attrs):
    """A result of a bistable network with small noise on every parameter; of SVI, or of NUTS with several chains."""
    rng = np.random.default_rng(0)
    sample, unit = (chains, draws), [f"u{i}" for i in range(N_UNITS)] if units is None else units
    spread = lambda *shape: 0.05 * rng.normal(size=(*sample, *shape))  # noqa: E731
    loading = np.zeros((N_UNITS, rank))
    loading[np.arange(N_UNITS), np.arange(N_UNITS) % rank] = np.arange(1, N_UNITS + 1) / 3
    m, n = loading + spread(N_UNITS, rank), 1.5 * rank * loading + spread(N_UNITS, rank)
    latent = np.sin(np.arange(N_BINS)[:, None] / 4 + np.pi / 2 * np.arange(rank)) + spread(N_TRIALS, N_BINS, rank)
    observed = rng.poisson(0.4, (N_TRIALS, N_BINS, N_UNITS)).astype(float)
    observed += 0 if counts else rng.normal(size=observed.shape)
    mask = np.ones(observed.shape, bool)
    mask[0, :, 1] = False
    dims = ("trial", "time", "unit")
    coords = {"trial": np.arange(N_TRIALS), "time": 0.01 * np.arange(N_BINS), "unit": unit}
    site = "counts" if counts else "signal"
    posterior = xr.Dataset(
        {
            "m": (("chain", "draw", "unit", "latent_dim"), m),
            "n": (("chain", "draw", "unit", "latent_dim"), n),
            "d": (("chain", "draw", "unit"), spread(N_UNITS)),
            "overlap": (("chain", "draw", "latent_dim", "latent_from"), np.einsum("cdka,cdkb->cdab", n, m) / N_UNITS),
            "process_noise": (("chain", "draw"), 0.1 + spread()),
            "latent": (("chain", "draw", "trial", "time", "latent_dim"), latent),
        },
        {**coords, "chain": np.arange(chains), "draw": np.arange(draws), "latent_dim": np.arange(rank)},
    )
    states = latent.mean((0, 1)).reshape(-1, rank)
    visited = xr.Dataset(
        {"recurrent_drift": (("chain", "draw", "point", "latent_dim"), states + spread(len(states), rank))},
        coords={
            "latent": (("point", "latent_dim"), states),
            "occupancy": ("point", np.full(len(states), 1 / len(states))),
            "latent_dim": np.arange(rank),
        },
        attrs={"tau": 0.1, "nonlinearity": "tanh", "dt": 0.01},
    )
    stats = {"log_weight": rng.normal(size=sample)}
    if chains > 1:
        stats = {name: np.zeros(sample, bool) for name in ("diverging", "reached_max_tree_depth")}
        stats["energy"] = rng.normal(size=sample)
    groups = {
        "posterior": posterior,
        "sample_stats": xr.Dataset({name: (("chain", "draw"), values) for name, values in stats.items()}),
        "observed_data": xr.Dataset({site: (dims, observed)}, coords),
        "constant_data": xr.Dataset({"mask": (dims, mask)}, coords).assign_attrs(rank=rank, tau=0.1),
        "expected": xr.Dataset({site: (dims, np.full(observed.shape, 0.4))}, coords),
        "posterior_predictive": xr.Dataset(
            {site: (("chain", "draw", *dims), rng.poisson(0.4, (1, 20, *observed.shape)).astype(float))}, coords
        ),
        "drift": visited,
    }
    if chains == 1:
        groups["optimisation"] = xr.Dataset({"loss": ("step", 1000 / np.arange(1.0, 400))}, attrs={"latent_values": 10})
    tree = xr.DataTree.from_dict(groups)
    known = {
        "model": "low_rank_rnn_poisson",
        "status": "finished",
        "seed": 7,
        "engine": "nuts" if chains > 1 else "svi",
    }
    tree.attrs = known | {"options": json.dumps({"rank": rank}), "versions": json.dumps({"jax": "0.99"})} | attrs
    return tree


def unlabelled(chains=1, draws=60):
    """A result of somebody's own model: one site, no recording."""
    rng = np.random.default_rng(0)
    sample = ("chain", "draw")
    stats = {name: (sample, np.zeros((chains, draws), bool)) for name in ("diverging", "reached_max_tree_depth")}
    stats["energy"] = (sample, rng.normal(size=(chains, draws)))
    theta = xr.Dataset({"theta": ((*sample, "axis"), rng.normal(size=(chains, draws, 2)))})
    return xr.DataTree.from_dict({"posterior": theta, "sample_stats": xr.Dataset(stats)})
