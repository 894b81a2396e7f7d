"""Low-rank recurrent network with process noise, observed through overdispersed spike counts.

Generative story:
    network    m, n, b, d of the recorded units      (priors: connectinfer.latent.low_rank_network.sample_network)
    path       z_1 ~ N(0, s0^2 I),  z_{t+1} = (1 - alpha) z_t + alpha r(z_t, v_t) + sigma eps_t
               r(z, v) = (1/K) sum_i n_i phi(h_i),  h_i = m_i . z + b_i . v + d_i
    counts     y_ti ~ NegativeBinomial of mean mu_ti = exp(gain_i h_ti + bias_i) and variance mu_ti + mu_ti^2 / r_i,
               with exp(bias_i) about 5 spikes/s (0.4 to 60) and r_i about 7 (1 to 50) a priori

Symbols: latent z (trial, time, latent_dim); loadings m, n (unit, latent_dim); input loadings b (unit, input); potential
bias d (unit); gain, bias (unit; bias in log spikes per bin); concentration r (unit); sigma (process_noise, sd per bin);
s0 (initial_scale); alpha = bin width / tau; v, the inputs after `tau dv/dt = -v + u`.

Source: low-rank networks, Mastrogiuseppe & Ostojic, Neuron 99, 609 (2018), doi:10.1016/j.neuron.2018.07.003, equations
1-5; with process noise and spikes, Pals et al., NeurIPS 2024, arXiv:2406.16749, equations 1-4.
Differs from the source: counts may vary more than Poisson counts, the network consists of the recorded units, n has an
explicit linear part in m, the rotation of the latent space is fixed by principal components, and everything has a
prior.
"""

from typing import Any

import jax
import xarray as xr

from connectinfer.latent.low_rank_network import (
    NETWORK_COORDINATES,
    NETWORK_GAUGE,
    initial_network,
    sample_network_space,
)
from connectinfer.latent.network_conditionals import network_conditionals
from connectinfer.latent.observation_prior import NEGATIVE_BINOMIAL
from connectinfer.latent.path_model import sample_paths
from connectinfer.latent.recording_arrays import example_recording, recording_arrays
from connectinfer.latent.state_space import StateSpace

CARD = {"system": "latent dynamics", "engine": "state_space", "minutes": 2}

DIMS = {
    "m": ["unit", "latent_dim"],
    "n": ["unit", "latent_dim"],
    "b": ["unit", "input"],
    "d": ["unit"],
    "gain": ["unit"],
    "bias": ["unit"],
    "concentration": ["unit"],
    "overlap": ["latent_dim", "latent_from"],
    "baseline": ["trial", "unit"],
    "latent": ["trial", "time", "latent_dim"],
} | dict.fromkeys(NETWORK_COORDINATES)

GAUGE = NETWORK_GAUGE


def inputs(
    data: xr.Dataset, *, rank: int = 2, tau: float = 0.1, nonlinearity: str = "tanh", baseline: str = "constant"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and coordinates from a recording of counts; `tau` in seconds.

    With `baseline="slow"` units have one in every trial: see `connectinfer.latent.slow_baseline`.
    """
    return recording_arrays(data, "counts", rank=rank, tau=tau, nonlinearity=nonlinearity, baseline=baseline)


def state_space(filtered, basis, states, polynomials, alpha, tau, nonlinearity, baseline="constant", **_) -> StateSpace:
    """Law of paths and observations, its parameters sampled."""
    return sample_network_space(
        NEGATIVE_BINOMIAL, basis, states, polynomials, filtered, alpha, tau, nonlinearity, baseline
    )


def model(activity, mask, **arrays):
    """Joint law of network, paths and counts; `activity=None` draws counts."""
    sample_paths("counts", state_space(**arrays), activity, mask)


CONDITIONALS = network_conditionals(NEGATIVE_BINOMIAL)


def initial(activity, mask, basis, states, polynomials, filtered, rank, alpha, nonlinearity, **_):
    """Start values of the sites from principal components."""
    return initial_network(activity, mask, basis, states, polynomials, filtered, rank, alpha, nonlinearity, counts=True)


def example(key: jax.Array) -> xr.Dataset:
    """A recording of 12 units in 6 trials of 40 bins of 10 ms, drawn from the model."""
    return example_recording(key, model, "counts", "counts")
