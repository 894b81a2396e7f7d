"""Low-rank recurrent network without process noise, observed through spike counts: an exact latent ODE.

Generative story:
    network    m, n, b, d of the recorded units      (priors: connectinfer.latent.low_rank_network.sample_network)
    path       z(0) ~ N(0, s0^2 I) for every trial,  tau dz/dt = -z + (1/K) sum_i n_i phi(h_i),
               h_i = m_i . z + b_i . v + d_i          (Tsit5, steps of at most tau / 5)
    counts     y_ti ~ Poisson(exp(gain_i h_ti + bias_i)), with exp(bias_i) about 5 spikes/s (0.4 to 60) a priori

Symbols: latent z (trial, time, latent_dim), determined by its first bin; loadings m, n (unit, latent_dim); input
loadings b (unit, input); potential bias d (unit); gain, bias (unit; bias in log spikes per bin); s0 (initial_scale); v,
the inputs after `tau dv/dt = -v + u`, constant within bins.

Source: Mastrogiuseppe & Ostojic, Neuron 99, 609 (2018), doi:10.1016/j.neuron.2018.07.003, equations 1-5.
Differs from the source: as `low_rank_rnn_poisson`, without its process noise and without time discretisation. Few
parameters and no approximation of paths: the reference that approximate fits are held against.
"""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

from connectinfer.distributions.poisson_log_rate import PoissonLogRate
from connectinfer.dynamics.simulate import simulate
from connectinfer.latent.low_rank_network import (
    NETWORK_COORDINATES,
    NETWORK_GAUGE,
    initial_network,
    sample_network,
)
from connectinfer.latent.recording_arrays import example_recording, recording_arrays

CARD = {"system": "latent dynamics", "engine": "nuts", "minutes": 15}

DIMS = {
    "m": ["unit", "latent_dim"],
    "n": ["unit", "latent_dim"],
    "b": ["unit", "input"],
    "d": ["unit"],
    "gain": ["unit"],
    "bias": ["unit"],
    "overlap": ["latent_dim", "latent_from"],
    "latent": ["trial", "time", "latent_dim"],
    "failed_solves": ["trial"],
} | dict.fromkeys((*NETWORK_COORDINATES, "initial_drive"))

GAUGE = NETWORK_GAUGE


def inputs(
    data: xr.Dataset, *, rank: int = 2, tau: float = 0.1, nonlinearity: str = "tanh"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and coordinates from a recording of counts; `tau` in seconds."""
    return recording_arrays(data, "counts", rank=rank, tau=tau, nonlinearity=nonlinearity)


def model(activity, mask, stimulus, basis, states, polynomials, rank, alpha, tau, nonlinearity, **_):
    """Joint law of network, initial states and counts; `activity=None` draws counts."""
    n_trials, n_bins, n_units = mask.shape
    units, alignment = sample_network(
        basis,
        states,
        polynomials,
        stimulus.shape[-1],
        tau,
        nonlinearity,
        bias_loc=jnp.log(5.0 * alpha * tau),
        bias_scale=1.5,
    )
    s0 = numpyro.sample("initial_scale", dist.LogNormal(0.0, 0.5))
    # Sampled in the coordinates of the reference, which data determine.
    law = dist.MultivariateNormal(jnp.zeros((n_trials, rank)), scale_tril=s0 * alignment)
    drive = numpyro.sample("initial_drive", law.to_event(1))
    start = jax.scipy.linalg.solve_triangular(alignment, drive.T, lower=True).T
    time = alpha * tau * np.arange(n_bins)
    path = simulate(units.network, start, time, inputs=stimulus if stimulus.shape[-1] else None)
    numpyro.deterministic("failed_solves", path.failed)
    # A failed solve rejects the draw; its path must not reach the likelihood, where NaN would spread to gradients.
    numpyro.factor("solved", jnp.where(path.failed.any(), -jnp.inf, 0.0))
    latent = numpyro.deterministic("latent", jnp.where(path.failed[:, None, None], 0.0, path.latent))
    log_rate = units.read_out(latent, path.filtered_inputs)
    with (
        numpyro.plate("trial", n_trials, dim=-3),
        numpyro.plate("time", n_bins, dim=-2),
        numpyro.plate("unit", n_units, dim=-1),
    ):
        numpyro.sample("counts", PoissonLogRate(log_rate).mask(mask), obs=activity)


def initial(activity, mask, basis, states, polynomials, filtered, rank, alpha, nonlinearity, **_):
    """Start values of the sites from principal components."""
    values = initial_network(
        activity, mask, basis, states, polynomials, filtered, rank, alpha, nonlinearity, counts=True
    )
    alignment = np.diag(values["loading_diagonal"])
    alignment[np.tril_indices(rank, -1)] = values.get("loading_below", [])
    values["initial_drive"] = values.pop("latent")[:, 0] @ alignment.T
    del values["process_noise"]
    return values


def example(key: jax.Array) -> xr.Dataset:
    """A recording of 12 units in 6 trials of 40 bins of 10 ms, drawn from the model."""
    return example_recording(key, model, "counts", "counts")
