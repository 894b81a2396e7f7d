"""Low-rank recurrent network with process noise, observed through a continuous signal with Gaussian noise.

Generative story:
    network    m, n, b, d of the recorded units      (priors: connectinfer.latent.low_rank_network.sample_network)
    path       z_1 ~ N(0, s0^2 I),  z_{t+1} = (1 - alpha) z_t + alpha r(z_t, v_t) + sigma eps_t
               r(z, v) = (1/K) sum_i n_i phi(h_i),  h_i = m_i . z + b_i . v + d_i
    signal     y_ti ~ N(gain_i h_ti + bias_i, noise_i^2)

Symbols: latent z (trial, time, latent_dim); loadings m, n (unit, latent_dim); input loadings b (unit, input); potential
bias d (unit); gain, bias, noise (unit, in the units of the signal); sigma (process_noise, sd per bin); s0
(initial_scale); alpha = bin width / tau; v, the inputs after `tau dv/dt = -v + u`.

Source: low-rank networks, Mastrogiuseppe & Ostojic, Neuron 99, 609 (2018), doi:10.1016/j.neuron.2018.07.003, equations
1-5; fitted to continuous signals, Valente, Pillow & Ostojic, NeurIPS 2022, arXiv:2210.10669 (LINT).
Differs from the source: the network consists of the recorded units, has process noise, n has an explicit linear part in
m, the rotation of the latent space is fixed by principal components, and everything has a prior. The priors of gain,
bias and noise expect signals of unit scale: z-score or use dF/F.
"""

from typing import Any

import jax
import xarray as xr

from connectinfer.data.recording import observed_kind
from connectinfer.latent.low_rank_network import (
    NETWORK_COORDINATES,
    NETWORK_GAUGE,
    initial_network,
    sample_network_space,
)
from connectinfer.latent.network_conditionals import network_conditionals
from connectinfer.latent.observation_prior import GAUSSIAN
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
} | dict.fromkeys(NETWORK_COORDINATES)

GAUGE = NETWORK_GAUGE


def inputs(
    data: xr.Dataset, *, rank: int = 2, tau: float = 0.1, nonlinearity: str = "tanh", baseline: str = "constant"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and coordinates from a recording of rates or fluorescence; `tau` in seconds.

    With `baseline="slow"` units have one in every trial: see `connectinfer.latent.slow_baseline`.
    """
    kind = "rates" if observed_kind(data) == "rates" else "fluorescence"
    return recording_arrays(data, kind, rank=rank, tau=tau, nonlinearity=nonlinearity, baseline=baseline)


def state_space(filtered, basis, states, polynomials, alpha, tau, nonlinearity, baseline="constant", **_) -> StateSpace:
    """Law of paths and observations, its parameters sampled."""
    return sample_network_space(GAUSSIAN, basis, states, polynomials, filtered, alpha, tau, nonlinearity, baseline)


def model(activity, mask, **arrays):
    """Joint law of network, paths and signal; `activity=None` draws a signal."""
    sample_paths("signal", state_space(**arrays), activity, mask)


CONDITIONALS = network_conditionals(GAUSSIAN)


def initial(activity, mask, basis, states, polynomials, filtered, rank, alpha, nonlinearity, **_):
    """Start values of the sites from principal components."""
    return initial_network(
        activity, mask, basis, states, polynomials, filtered, rank, alpha, nonlinearity, counts=False
    )


def example(key: jax.Array) -> xr.Dataset:
    """A recording of 12 units in 6 trials of 40 bins of 10 ms, drawn from the model."""
    return example_recording(key, model, "signal", "fluorescence")
