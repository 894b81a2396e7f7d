"""Recovery of one planted network from sessions that saw different units of it, never together."""

from contextlib import nullcontext
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.data.stitching import stitch
from connectinfer.dynamics.low_rank import LowRankRNN, filter_inputs, gaussian_network, recurrent_drift
from connectinfer.dynamics.simulate import simulate_bins
from connectinfer.inference.fit import fit
from connectinfer.latent.principal_path import principal_network
from connectinfer.latent.recording_arrays import recording_arrays
from connectinfer.statistics.latent_recovery import affine_alignment, latent_r2

N_SESSIONS, N_UNITS, N_TRIALS, N_BINS = 3, 20, 12, 80
TAU, BIN_WIDTH, NOISE_SD, PROCESS_NOISE = 0.1, 0.01, 0.5, 0.03
LIMIT_CYCLE = [[1.6, -0.8], [0.8, 1.6]]


class Planted(NamedTuple):
    network: LowRankRNN
    latent: np.ndarray
    data: xr.Dataset


def plant(pulses: bool) -> Planted:
    """Signals of three sessions of a limit-cycle network, with a pulse at a random time of every trial or without."""
    keys, rng = jax.random.split(jax.random.key(0), 3), np.random.default_rng(0)
    n_trials = N_SESSIONS * N_TRIALS
    network = gaussian_network(keys[0], LIMIT_CYCLE, 0.5, N_SESSIONS * N_UNITS, n_inputs=1, tau=TAU)
    # The pulse drives both latent dimensions.
    network = LowRankRNN(network.m, network.n + network.b, network.b, tau=TAU)
    inputs = np.zeros((n_trials, N_BINS, 1))
    for trial, onset in zip(inputs, rng.integers(10, 60, n_trials), strict=True):
        trial[onset : onset + 15] = 2.0 * pulses
    alpha, initial = BIN_WIDTH / TAU, jax.random.normal(keys[1], (n_trials, 2))
    path = simulate_bins(keys[2], network, initial, N_BINS, alpha, PROCESS_NOISE, jnp.asarray(inputs))
    filtered = np.asarray(filter_inputs(jnp.asarray(inputs), alpha), float)
    drive = np.asarray(path.latent, float) @ np.asarray(network.m).T + filtered @ np.asarray(network.b).T
    rates = drive + NOISE_SD * rng.normal(size=drive.shape)
    sessions = {}
    for i in range(N_SESSIONS):
        trials, units = (slice(i * n, (i + 1) * n) for n in (N_TRIALS, N_UNITS))
        given = {"inputs": inputs[trials]} if pulses else {}
        sessions[f"s{i}"] = recording(time=BIN_WIDTH * np.arange(N_BINS), rates=rates[trials, :, units], **given)
    return Planted(network, np.asarray(path.latent, float), stitch(sessions))


def start_of(data: xr.Dataset) -> np.ndarray:
    """The path at which fits of `data` start."""
    arrays, _ = recording_arrays(data, "rates", rank=2, tau=TAU, nonlinearity="tanh")
    names = ("activity", "mask", "filtered", "rank", "alpha", "nonlinearity")
    return principal_network(*(arrays[name] for name in names), counts=False).path


def of_each_session(path: np.ndarray, truth: np.ndarray) -> list[float]:
    """R2 of every session's path by itself, in whatever frame."""
    parts = (np.split(each, N_SESSIONS) for each in (path, truth))
    return [latent_r2(*pair) for pair in zip(*parts, strict=True)]


def test_inputs_that_sessions_share_bring_their_starts_into_one_frame():
    planted = plant(pulses=True)
    path = start_of(planted.data)
    assert min(of_each_session(path, planted.latent)) >= 0.85
    assert latent_r2(path, planted.latent) >= 0.8


def test_sessions_that_share_nothing_are_warned_of_by_name():
    with pytest.warns(UserWarning, match=r"session s0. Dimensions that they fix: \{'session s1': 0, 'session s2': 0\}"):
        start_of(plant(pulses=False).data)


@pytest.mark.slow
@pytest.mark.parametrize("pulses", [True, False])
def test_a_joint_fit_recovers_the_drift_and_with_shared_inputs_one_frame_of_all_sessions(pulses):
    planted = plant(pulses)
    # Without inputs a change of all signs leaves the dynamics alone: the frames of sessions are not known, nor claimed.
    with nullcontext() if pulses else pytest.warns(UserWarning, match="do not compare latent coordinates"):
        result = fit("low_rank_rnn_gaussian", planted.data, rank=2, tau=TAU, draws=100, show_progress=False)
    path = result["posterior"]["latent"].mean(("chain", "draw")).values
    group = result["drift"].to_dataset()
    matrix, offset = affine_alignment(path[:N_TRIALS], planted.latent[:N_TRIALS])
    there = group["latent"].values @ matrix.T + offset
    inputs = [jnp.asarray(group["input"].values)] if pulses else []
    network = planted.network if pulses else LowRankRNN(planted.network.m, planted.network.n, tau=TAU)
    true = np.asarray(recurrent_drift(network, jnp.asarray(there), *inputs))
    weight = group["occupancy"].values[:, None]
    centred = true - (weight * true).sum(0) / weight.sum()
    for chain in range(result["posterior"].sizes["chain"]):
        own = result["posterior"]["latent"][chain].mean("draw").values
        found = group["recurrent_drift"][chain].mean("draw").values @ matrix.T + offset
        assert min(of_each_session(own, planted.latent)) >= 0.98
        assert latent_r2(own, planted.latent) >= 0.98 or not pulses
        assert 1 - (weight * (found - true) ** 2).sum() / (weight * centred**2).sum() >= 0.97
