"""Recovery of planted dynamics by the engine of each model of latent dynamics."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.dynamics.low_rank import LowRankRNN, gaussian_network, recurrent_drift
from connectinfer.dynamics.simulate import simulate, simulate_bins
from connectinfer.inference.fit import fit
from connectinfer.statistics.latent_recovery import affine_alignment, latent_r2

TAU, BIN_WIDTH, RATE, NOISE_SD = 0.1, 0.01, 0.3, 0.5
LIMIT_CYCLE = [[1.6, -0.8], [0.8, 1.6]]


class Planted(NamedTuple):
    network: LowRankRNN
    latent: np.ndarray
    data: xr.Dataset


def plant(kind: str, *, n_units: int, n_trials: int, n_bins: int, process_noise: float) -> Planted:
    """A limit-cycle network and what it shows, as `kind` of recording; an exact ODE without process noise."""
    keys = jax.random.split(jax.random.key(0), 3)
    rng = np.random.default_rng(0)
    network = gaussian_network(keys[0], LIMIT_CYCLE, 0.5, n_units, tau=TAU)
    start = jax.random.normal(keys[1], (n_trials, 2))
    time = BIN_WIDTH * np.arange(n_bins)
    path = (
        simulate_bins(keys[2], network, start, n_bins, BIN_WIDTH / TAU, process_noise)
        if process_noise
        else simulate(network, start, time)
    )
    latent = np.asarray(path.latent, float)
    drive = latent @ np.asarray(network.m, float).T
    if kind == "counts":
        bias = np.log(RATE) - np.log(np.exp(drive).mean((0, 1)))
        return Planted(network, latent, recording(time=time, counts=rng.poisson(np.exp(drive + bias))))
    return Planted(network, latent, recording(time=time, rates=drive + NOISE_SD * rng.normal(size=drive.shape)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind", "size", "options"),
    [
        (
            "low_rank_rnn_ode",
            "counts",
            {"n_units": 20, "n_trials": 10, "n_bins": 60, "process_noise": 0.0},
            {"warmup": 150, "draws": 100, "chains": 2},
        ),
        (
            "low_rank_rnn_poisson",
            "counts",
            {"n_units": 50, "n_trials": 30, "n_bins": 100, "process_noise": 0.03},
            {"draws": 100},
        ),
        (
            "random_feature_dynamics_poisson",
            "counts",
            {"n_units": 50, "n_trials": 30, "n_bins": 100, "process_noise": 0.03},
            {"draws": 100},
        ),
        (
            "low_rank_rnn_gaussian",
            "rates",
            {"n_units": 50, "n_trials": 30, "n_bins": 100, "process_noise": 0.03},
            {"draws": 100},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_paths_and_drift_of_a_planted_network_are_recovered(model, kind, size, options):
    planted = plant(kind, **size)
    result = fit(model, planted.data, rank=2, tau=TAU, show_progress=False, **options)
    path = result["posterior"]["latent"].mean(("chain", "draw")).values
    group = result["drift"].to_dataset()
    # What a linear change of the latent coordinates does to the recurrent drift, in the coordinates of the truth.
    matrix, offset = affine_alignment(path, planted.latent)
    there = group["latent"].values @ matrix.T + offset
    true = np.asarray(recurrent_drift(planted.network, jnp.asarray(there, float)))
    found = group["recurrent_drift"].mean(("chain", "draw")).values @ matrix.T + offset
    weight = group["occupancy"].values[:, None]
    centred = true - (weight * true).sum(0) / weight.sum()
    drift_r2 = 1 - (weight * (found - true) ** 2).sum() / (weight * centred**2).sum()
    assert latent_r2(path, planted.latent) >= 0.95
    assert drift_r2 >= 0.95
