"""Low-rank recurrent network with process noise, observed through spike counts.

Generative story:
    network    m, n, b, d of the recorded units      (priors: connectinfer.latent.low_rank_network.sample_network)
    path       z_1 ~ N(0, s0^2 I),  z_{t+1} = (1 - alpha) z_t + alpha r(z_t, v_t) + sigma eps_t
               r(z, v) = (1/K) sum_i n_i phi(h_i),  h_i = m_i . z + b_i . v + d_i
    counts     y_ti ~ Poisson(exp(gain_i h_ti + bias_i)), with exp(bias_i) about 5 spikes/s (0.4 to 60) a priori

Symbols: latent z (trial, time, latent_dim); loadings m, n (unit, latent_dim); input loadings b (unit, input); potential
bias d (unit); gain, bias (unit; bias in log spikes per bin); sigma (process_noise, sd per bin); s0 (initial_scale);
alpha = bin width / tau; v, the inputs after `tau dv/dt = -v + u`.

Source: low-rank networks, Mastrogiuseppe & Ostojic, Neuron 99, 609 (2018), doi:10.1016/j.neuron.2018.07.003, equations
1-5; with process noise and spikes, Pals et al., NeurIPS 2024, arXiv:2406.16749, equations 1-4.
Differs from the source: the network consists of the recorded units, n has an explicit linear part in m, the rotation of
the latent space is fixed by principal components, and everything has a prior.
"""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import xarray as xr

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.distributions.poisson_log_rate import PoissonLogRate
from connectinfer.dynamics.low_rank import latent_step
from connectinfer.latent.low_rank_network import (
    NETWORK_COORDINATES,
    NETWORK_GAUGE,
    example_recording,
    initial_network,
    recording_arrays,
    sample_network,
)

CARD = {"system": "latent dynamics", "engine": "svi", "minutes": 2}

DIMS = {
    "m": ["unit", "latent_dim"],
    "n": ["unit", "latent_dim"],
    "b": ["unit", "input"],
    "d": ["unit"],
    "gain": ["unit"],
    "bias": ["unit"],
    "overlap": ["latent_dim", "latent_from"],
    "latent": ["trial", "time", "latent_dim"],
} | dict.fromkeys(NETWORK_COORDINATES)

GAUGE = NETWORK_GAUGE


def inputs(
    data: xr.Dataset, *, rank: int = 2, tau: float = 0.1, nonlinearity: str = "tanh"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and coordinates from a recording of counts; `tau` in seconds."""
    return recording_arrays(data, "counts", rank=rank, tau=tau, nonlinearity=nonlinearity)


def model(activity, mask, filtered, basis, states, polynomials, rank, alpha, tau, nonlinearity, **_):
    """Joint law of network, paths and counts; `activity=None` draws counts."""
    units = sample_network(
        basis,
        states,
        polynomials,
        filtered.shape[-1],
        tau,
        nonlinearity,
        bias_loc=jnp.log(5.0 * alpha * tau),
        bias_scale=1.5,
    )
    sigma = numpyro.sample("process_noise", dist.LogNormal(jnp.log(0.05), 1.0))
    s0 = numpyro.sample("initial_scale", dist.LogNormal(0.0, 0.5))
    path = LatentPath(jax.tree_util.Partial(latent_step, units.network, alpha), sigma, s0, filtered, rank)
    latent = numpyro.sample("latent", path.to_event(1))
    log_rate = units.read_out(latent, filtered)
    n_trials, n_bins, n_units = mask.shape
    with (
        numpyro.plate("trial", n_trials, dim=-3),
        numpyro.plate("time", n_bins, dim=-2),
        numpyro.plate("unit", n_units, dim=-1),
    ):
        numpyro.sample("counts", PoissonLogRate(log_rate).mask(mask), obs=activity)


def initial(activity, mask, basis, states, polynomials, rank, alpha, nonlinearity, **_):
    """Start values of the sites from principal components."""
    return initial_network(activity, mask, basis, states, polynomials, rank, alpha, nonlinearity, counts=True)


def example(key: jax.Array) -> xr.Dataset:
    """A recording of 12 units in 6 trials of 40 bins of 10 ms, drawn from the model."""
    return example_recording(key, model, "counts", "counts")
