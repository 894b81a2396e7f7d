"""The recipe of all parts: spikes of a known low-rank network (theory/latent_dynamics.md, section 5)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Key

from connectinfer.data.recording import recording
from connectinfer.data.splits import hold_out
from connectinfer.dynamics.low_rank import LowRankRNN, gaussian_network
from connectinfer.dynamics.simulate import simulate_bins
from connectinfer.inference.state_space import fit_state_space
from connectinfer.latent.known_network import known_network
from connectinfer.latent.recording_arrays import recording_arrays
from connectinfer.statistics.co_smoothing import bits_per_spike, mean_rates

ALPHA, TAU, PROCESS_NOISE, RATE, RADIUS = 0.1, 0.1, 0.03, 0.2, 1.5
OVERLAPS = {
    "limit cycle": [[1.6, -0.8], [0.8, 1.6]],
    "bistable": [[1.2, 0.8], [0.0, 1.6]],
    "ring": [[1.6, 0.0], [0.0, 1.6]],
}
# Conditional sd of n given m for Var n = 4 (theory/low_rank_and_max_entropy.md, section 2).
RESIDUAL_SD = {
    "limit cycle": np.sqrt([0.8, 0.8]),
    "bistable": np.sqrt([1.92, 1.44]),
    "ring": np.sqrt([1.44, 1.44]),
}
TEACHERS = ("limit cycle", "bistable", "quadstable", "ring")
_N_NEURONS = 1000
# Centres of the four populations of the quadstable network, in m and in n, and their sd in m.
_CENTRE_M, _CENTRE_N, _SD_M = 0.87, 2.31, 0.5


class Recipe(NamedTuple):
    """Simulated truth: `full` holds all spikes, `training` hides the held-out units in the test trials."""

    network: LowRankRNN
    latent: np.ndarray
    bias: np.ndarray
    full: xr.Dataset
    training: xr.Dataset
    loading: np.ndarray

    @property
    def true_log_rate(self) -> np.ndarray:
        """Log expected counts per bin."""
        return self.latent @ self.loading.T + self.bias

    @property
    def held_out(self) -> np.ndarray:
        """Entries that no fit may see."""
        return self.full["mask"].values & ~self.training["mask"].values


def simulate_recipe(
    teacher: str,
    seed: int,
    *,
    n_training: int = 60,
    n_test: int = 30,
    n_bins: int = 150,
    n_held_in: int = 100,
    n_held_out: int = 25,
) -> Recipe:
    """Spikes of `n_held_in + n_held_out` neurons of a network of 1,000."""
    key_network, key_path = jax.random.split(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    network = teacher_network(teacher, key_network)
    n_trials, n_units = n_training + n_test, n_held_in + n_held_out
    radius, angle = RADIUS * np.sqrt(rng.uniform(size=n_trials)), rng.uniform(0, 2 * np.pi, n_trials)
    start = jnp.asarray(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), float)
    latent = np.asarray(simulate_bins(key_path, network, start, n_bins, ALPHA, PROCESS_NOISE).latent, float)
    loading = np.asarray(network.m, float)[:n_units]
    drive = latent @ loading.T
    bias = np.log(RATE) - np.log(np.exp(drive).mean((0, 1)))
    full = recording(time=ALPHA * TAU * np.arange(n_bins), counts=rng.poisson(np.exp(drive + bias)))
    training = hold_out(full, trials=full["trial"].values[n_training:], units=full["unit"].values[n_held_in:])
    return Recipe(network, latent, bias, full, training, loading)


def teacher_network(teacher: str, key: Key[Array, ""]) -> LowRankRNN:
    """A network of 1,000 neurons with the dynamics of this name."""
    if teacher != "quadstable":
        return gaussian_network(key, OVERLAPS[teacher], RESIDUAL_SD[teacher], _N_NEURONS, tau=TAU)
    key_m, key_n, key_order = jax.random.split(key, 3)
    signs = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    # Any subset of neurons, such as the recorded ones, is of all populations.
    of_neuron = jax.random.permutation(key_order, jnp.repeat(signs, _N_NEURONS // 4, axis=0))
    m = _CENTRE_M * of_neuron + _SD_M * jax.random.normal(key_m, of_neuron.shape)
    # n depends on the neuron's place among the populations, not on which one it is from.
    belongs = jax.nn.softmax(-0.5 * ((m[:, None] - _CENTRE_M * signs) ** 2).sum(-1) / _SD_M**2)
    n = _CENTRE_N * belongs @ signs + jax.random.normal(key_n, m.shape)
    return LowRankRNN(m, n, tau=TAU)


def score(recipe: Recipe, rate: np.ndarray) -> float:
    """Bits per spike of expected counts on the held-out entries."""
    counts = recipe.full["counts"].values
    return bits_per_spike(rate, counts, mean_rates(counts, recipe.training["mask"].values), recipe.held_out)


def ideal_observer(recipe: Recipe, *, draws: int = 100) -> xr.DataTree:
    """The posterior of the paths given the true network and the spikes that the fit sees."""
    arrays, _ = recording_arrays(recipe.training, "counts", rank=2, tau=TAU, nonlinearity="tanh")
    known = known_network(
        recipe.network,
        jnp.asarray(recipe.loading, float),
        jnp.asarray(recipe.bias, float),
        process_noise=PROCESS_NOISE,
        initial_scale=RADIUS / 2,
        alpha=ALPHA,
    )
    options = {"conditionals": known.conditionals, "warmup": 20, "draws": draws, "chains": 2, "show_progress": False}
    return fit_state_space(jax.random.key(1), known.model, arrays, **options)
