"""Poisson neurons that excite or inhibit each other through filtered spikes (a coupled generalised linear model).

Generative story:
    weight[post, pre] ~ N(0, 0.3^2),  bias_i ~ N(-2, 2^2)
    y_ti ~ Poisson(exp(bias_i + sum_j weight_ij s_tj)),  s_{t+1} = (1 - alpha) s_t + y_t

Symbols: counts y (trial, time, unit); filtered past spikes s; bias in log spikes per bin; alpha = bin width / tau.
Source: Pillow et al., Nature 454, 995 (2008), doi:10.1038/nature07140, equation 1; here one exponential filter.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from connectinfer.distributions.poisson_log_rate import PoissonLogRate

CARD = {"system": "coupled neurons", "engine": "nuts", "minutes": 1}
DIMS = {"weight": ["post", "pre"], "bias": ["unit"]}


def inputs(data, *, tau=0.02):
    """Arrays and coordinates from a recording of counts; `tau` in seconds. A masked bin counts as silent."""
    counts, mask = data["counts"].values, data["mask"].values
    history = np.zeros(counts.shape)
    for t in range(1, counts.shape[1]):
        history[:, t] = (1 - data.attrs["bin_width"] / tau) * history[:, t - 1] + counts[:, t - 1]
    unit = data["unit"].values
    coords = {"trial": data["trial"].values, "time": data["time"].values, "unit": unit, "post": unit, "pre": unit}
    return {"counts": counts, "mask": mask, "history": history}, coords


def model(counts, mask, history):
    """Joint law of weights and counts; `counts=None` draws counts given the history."""
    n_trials, n_bins, n_units = mask.shape
    weight = numpyro.sample("weight", dist.Normal(jnp.zeros((n_units, n_units)), 0.3).to_event(2))
    bias = numpyro.sample("bias", dist.Normal(jnp.full(n_units, -2.0), 2.0).to_event(1))
    log_rate = bias + history @ weight.T
    with (
        numpyro.plate("trial", n_trials, dim=-3),
        numpyro.plate("time", n_bins, dim=-2),
        numpyro.plate("unit", n_units, dim=-1),
    ):
        numpyro.sample("counts", PoissonLogRate(log_rate).mask(mask), obs=counts)
