"""Latent dynamics of any form, a sum of random features, observed through spike counts.

Generative story:
    features   psi(x, v) = [1, tanh(M x + d), v], with M and d fixed random numbers
    drift      weights W ~ N(0, f^2) of the constant and the inputs, N(0, f^2 / features) of the others
    path       x_1 ~ N(mu, V),  x_{t+1} = (1 - alpha) x_t + alpha W psi(x_t, v_t) + eps_t,  eps ~ N(0, Q)
    read-out   c_i ~ N(0, s^2 I), exp(b_i) about 5 spikes/s (0.4 to 60) a priori
    counts     y_ti ~ Poisson(exp(c_i . x_t + e_i . v_t + b_i))
    scales     f about 2, s about 0.5; V and Q inverse-Wishart  (priors: connectinfer.latent.random_features)

Symbols: path x (trial, time, latent_dim); feature slopes M (feature, latent_dim) and thresholds d (feature); W (1 +
feature + input, latent_dim); read-out loadings c (unit, latent_dim), e (unit, input) and biases b (unit, log spikes per
bin); f (drift_scale), s (loading_scale); alpha = bin width / tau; v, the inputs after `tau dv/dt = -v + u`. Results are
in read-out coordinates z = A x + a, the log rates projected on their leading principal components, of unit variance:
`latent`, `loading`, `bias`, and a drift -z + constant + weight^T tanh(slope z + threshold) + input_weight^T v.

Source: random features, Rahimi & Recht, NeurIPS 20 (2007); as the drift of a latent path, in the manner of Gaussian
processes, Duncker et al., ICML 2019, arXiv:1902.04420, equations 1-4.
Differs from the source: a finite basis makes the drift linear in its weights, and everything has a prior. The features
lie in coordinates of their own, which are inferred: what the data determine does not depend on the projection.
"""

from typing import Any

import jax
import xarray as xr

from connectinfer.latent.path_model import sample_paths
from connectinfer.latent.random_feature_conditionals import FEATURE_CONDITIONALS, initial_features
from connectinfer.latent.random_features import example_arrays, feature_arrays, sample_feature_space
from connectinfer.latent.recording_arrays import example_recording
from connectinfer.latent.state_space import StateSpace

CARD = {"system": "latent dynamics", "engine": "state_space", "minutes": 5}

DIMS = {
    "loading": ["unit", "latent_dim"],
    "bias": ["unit"],
    "input_loading": ["unit", "input"],
    "slope": ["feature", "latent_dim"],
    "threshold": ["feature"],
    "weight": ["feature", "latent_dim"],
    "constant": ["latent_dim"],
    "input_weight": ["input", "latent_dim"],
    "noise_covariance": ["latent_dim", "latent_from"],
    "initial_mean": ["latent_dim"],
    "initial_covariance": ["latent_dim", "latent_from"],
    "latent": ["trial", "time", "latent_dim"],
} | dict.fromkeys(("raw_loading", "raw_bias", "raw_weight", "raw_noise", "raw_initial_mean", "raw_initial"))

GAUGE = ("projection", "reference")


def inputs(
    data: xr.Dataset, *, rank: int = 2, tau: float = 0.1, features: int = 60
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and coordinates from a recording of counts; `tau` in seconds, `features` the number of random ones."""
    return feature_arrays(data, rank=rank, features=features, tau=tau)


def state_space(feature_slope, feature_threshold, projection, reference, filtered, alpha, tau, **_) -> StateSpace:
    """Law of paths and observations, its parameters sampled."""
    return sample_feature_space(feature_slope, feature_threshold, projection, reference, filtered, alpha, tau)


def model(activity, mask, **arrays):
    """Joint law of dynamics, paths and counts; `activity=None` draws counts."""
    sample_paths("counts", state_space(**arrays), activity, mask)


CONDITIONALS = FEATURE_CONDITIONALS


def initial(**arrays):
    """Start values of the sites from principal components."""
    return initial_features(arrays)


def example(key: jax.Array) -> xr.Dataset:
    """A recording of 12 units in 6 trials of 40 bins of 10 ms, drawn from the model."""
    return example_recording(key, lambda **arrays: model(**arrays | example_arrays()), "counts", "counts")
