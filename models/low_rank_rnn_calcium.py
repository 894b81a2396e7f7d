"""Low-rank recurrent network with process noise, observed through calcium: an exponential kernel and Gaussian noise.

Generative story:
    network    m, n, b, d of the recorded units      (priors: connectinfer.latent.low_rank_network.sample_network)
    path       z_1 ~ N(0, s0^2 I),  z_{t+1} = (1 - alpha) z_t + alpha r(z_t, v_t) + sigma eps_t
               r(z, v) = (1/K) sum_i n_i phi(h_i),  h_i = m_i . z + b_i . v + d_i
    calcium    x_{t+1} = g x_t + (1 - g) (z_t + z_{t+1}) / 2 + (1 - g) sigma / sqrt(12) eps'_t,  x_1 ~ N(0, s0^2 I)
    signal     y_ti ~ N(gain_i (m_i . x_t + b_i . x^v_t + d_i) + bias_i, noise_i^2), x^v the inputs v filtered like z

Symbols: latent z and its calcium x (trial, time, latent_dim); loadings m, n (unit, latent_dim); input loadings b (unit,
input); potential bias d (unit); gain, bias, noise (unit, in the units of the signal); sigma (process_noise, sd per
bin); s0 (initial_scale); alpha = bin width / tau; g = exp(-bin width / calcium_decay), calcium_decay in seconds; v, the
inputs after `tau dv/dt = -v + u`.

Source: low-rank networks, Mastrogiuseppe & Ostojic, Neuron 99, 609 (2018), doi:10.1016/j.neuron.2018.07.003, equations
1-5; calcium as an autoregressive process of order 1 with Gaussian noise, Vogelstein et al., J Neurophysiol 104, 3691
(2010), doi:10.1152/jn.01073.2009, equations 1-2.
Differs from the source: calcium follows the units' potentials instead of their spikes, which linear dynamics allow to
be filtered as one path for all units, and its decay is shared; the network consists of the recorded units, has process
noise, and everything has a prior. The priors of gain, bias and noise expect signals of unit scale: z-score or use dF/F.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import xarray as xr

from connectinfer.latent.calcium import kept_share, pairs_behind
from connectinfer.latent.low_rank_network import (
    NETWORK_COORDINATES,
    NETWORK_GAUGE,
    initial_network,
    sample_network_space,
)
from connectinfer.latent.network_conditionals import network_conditionals
from connectinfer.latent.observation_prior import CALCIUM, CALCIUM_DECAY
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
    "overlap": ["latent_dim", "latent_from"],
    "baseline": ["trial", "unit"],
    "noise": ["unit"],
    "latent": ["trial", "time", "latent_dim"],
    "latent_and_calcium": None,
} | dict.fromkeys(NETWORK_COORDINATES)

GAUGE = NETWORK_GAUGE


def inputs(
    data: xr.Dataset, *, rank: int = 2, tau: float = 0.1, nonlinearity: str = "tanh", baseline: str = "constant"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and coordinates from a recording of fluorescence; `tau` in seconds.

    With `baseline="slow"` units have one in every trial: see `connectinfer.latent.slow_baseline`.
    """
    return recording_arrays(data, "fluorescence", rank=rank, tau=tau, nonlinearity=nonlinearity, baseline=baseline)


def state_space(filtered, basis, states, polynomials, alpha, tau, nonlinearity, baseline="constant", **_) -> StateSpace:
    """Law of paths and observations, its parameters sampled."""
    return sample_network_space(CALCIUM, basis, states, polynomials, filtered, alpha, tau, nonlinearity, baseline)


def model(activity, mask, rank, **arrays):
    """Joint law of network, paths and signal; `activity=None` draws a signal."""
    both = sample_paths("signal", state_space(**arrays), activity, mask, path_site="latent_and_calcium")
    numpyro.deterministic("latent", both[..., :rank])


CONDITIONALS = network_conditionals(CALCIUM)


def initial(activity, mask, basis, states, polynomials, filtered, rank, alpha, tau, nonlinearity, **_):
    """Start values of the sites from principal components, which calcium follows."""
    start = initial_network(
        activity, mask, basis, states, polynomials, filtered, rank, alpha, nonlinearity, counts=False
    )
    decay = math.exp(CALCIUM_DECAY[0])
    both = pairs_behind(jnp.asarray(start.pop("latent"), float), kept_share(jnp.asarray(decay), alpha * tau))
    return start | {"latent_and_calcium": both, "calcium_decay": decay}


def example(key: jax.Array) -> xr.Dataset:
    """A recording of 12 units in 6 trials of 40 bins of 10 ms, drawn from the model."""
    return example_recording(key, model, "signal", "fluorescence")
