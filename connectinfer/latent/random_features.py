r"""Latent dynamics with random features, read out by recorded units: prior, coordinates, and the arrays they take.

Slopes M and thresholds d of the features are fixed. They stand in a *feature frame*: coordinates x of the latent space
in which loadings have independent normal entries. Results are in *read-out coordinates*

$$z = P (C x + b - b_0) = A x + a,$$

the log rates projected on their leading principal components, so that all draws share their coordinates, although the
random features, which no rotation leaves alone, lie in them in another way in each.
"""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float

from connectinfer.distributions.gram_cholesky import gram_cholesky
from connectinfer.dynamics.observation import Poisson
from connectinfer.dynamics.random_features import RandomFeatureDynamics
from connectinfer.latent.observation_prior import POISSON
from connectinfer.latent.recording_arrays import recording_arrays
from connectinfer.latent.state_space import StateSpace

SLOPE_SD, THRESHOLD_SD = 0.7, 1.0
LOADING_SCALE, DRIFT_SCALE = (-0.7, 0.7), (0.7, 0.7)
"""Prior means and sds of the logs of the loadings' sd (0.5, 0.13 to 2) and of that of the drift (2, 0.5 to 8)."""

INPUT_LOADING_SD = 0.5


class CovariancePrior(NamedTuple):
    """Inverse-Wishart law: `excess + dim` degrees of freedom, and `scale^2` times the identity."""

    excess: int
    scale: float

    def log_density(self, root: Float[Array, "dim dim"]) -> Float[Array, ""]:
        """Of the covariance `root root^T`, with respect to the measure that no change of coordinates changes, up to a
        constant."""
        squares = (jnp.linalg.inv(root) ** 2).sum()
        return -(self.excess + len(root)) * jnp.linalg.slogdet(root)[1] - 0.5 * self.scale**2 * squares


NOISE, INITIAL = CovariancePrior(1, 0.03), CovariancePrior(4, 1.4)
"""Priors of the noise per bin (sds about 0.025, 0.01 to 0.1) and of the first bin (sds about 0.7, 0.4 to 1.3)."""


class FeatureParameters(NamedTuple):
    """Parameters in the feature frame: how units read the path out; `weight (1 + feature + input, dim)` of the
    constant, the features and the inputs; roots F of the covariances F F^T of the noise per bin and of the first bin,
    and the mean of that; sds of the loadings and of the drift."""

    loading: Float[Array, "unit dim"]
    bias: Float[Array, " unit"]
    input_loading: Float[Array, "unit input"]
    weight: Float[Array, "regressor dim"]
    noise_root: Float[Array, "dim dim"]
    initial_mean: Float[Array, " dim"]
    initial_root: Float[Array, "dim dim"]
    loading_scale: Float[Array, ""]
    drift_scale: Float[Array, ""]


def weight_spread(n_features: int, n_inputs: int) -> Float[Array, " regressor"]:
    """Prior sds of the weights of the constant, the features and the inputs, in units of `drift_scale`: whatever their
    number, features together make a drift of about that size."""
    return jnp.concatenate([jnp.ones(1), jnp.full(n_features, n_features**-0.5), jnp.ones(n_inputs)])


def dynamics_of(
    p: FeatureParameters, feature_slope: Float[Array, "feature dim"], feature_threshold: Float[Array, " feature"]
) -> RandomFeatureDynamics:
    """The dynamics in the feature frame."""
    n_features = len(feature_threshold)
    return RandomFeatureDynamics(
        feature_slope, feature_threshold, p.weight[1 : n_features + 1], p.weight[0], p.weight[n_features + 1 :]
    )


def read_out_frame(
    p: FeatureParameters, projection: Float[Array, "dim unit"], reference: Float[Array, " unit"]
) -> tuple[Float[Array, "dim dim"], Float[Array, " dim"]]:
    """A and a, by which `A x + a` are the read-out coordinates of x."""
    return projection @ p.loading, projection @ (p.bias - reference)


def sample_feature_space(
    feature_slope: Float[Array, "feature dim"],
    feature_threshold: Float[Array, " feature"],
    projection: Float[Array, "dim unit"],
    reference: Float[Array, " unit"],
    filtered: Float[Array, "trial time input"],
    alpha: float,
    tau: float,
) -> StateSpace:
    """Prior over state-space models of Poisson counts, in read-out coordinates.

    Deterministic, in read-out coordinates: `loading`, `bias`, `slope`, `threshold`, `weight`, `constant`,
    `input_weight` (with inputs), `noise_covariance`, `initial_mean`, `initial_covariance`.
    """
    p = _sample_parameters(projection.shape[::-1], len(feature_threshold), filtered.shape[-1], alpha * tau)
    matrix, origin = read_out_frame(p, projection, reference)
    dynamics = dynamics_of(p, feature_slope, feature_threshold).change_gauge(matrix, origin)
    loading = jnp.linalg.solve(matrix.T, p.loading.T).T
    bias = p.bias - loading @ origin
    noise_tril, initial_tril = (gram_cholesky((matrix @ root).T) for root in (p.noise_root, p.initial_root))
    mean = matrix @ p.initial_mean + origin
    shown = {
        "loading": loading,
        "bias": bias,
        "slope": dynamics.slope,
        "threshold": dynamics.threshold,
        "weight": dynamics.weight,
        "constant": dynamics.constant,
        "noise_covariance": noise_tril @ noise_tril.T,
        "initial_mean": mean,
        "initial_covariance": initial_tril @ initial_tril.T,
    }
    if filtered.shape[-1]:
        shown["input_weight"] = dynamics.input_weight
    for name, value in shown.items():
        numpyro.deterministic(name, value)
    return StateSpace(
        initial_mean=mean,
        initial_tril=initial_tril,
        transition=jax.tree_util.Partial(RandomFeatureDynamics.step, dynamics, alpha),
        noise_tril=noise_tril,
        inputs=filtered,
        loading=loading,
        offset=read_out_offset(p.input_loading, bias, filtered),
        observation=Poisson(),
    )


def _sample_parameters(
    read_out: tuple[int, int], n_features: int, n_inputs: int, bin_width: float
) -> FeatureParameters:
    n_units, dim = read_out
    loc, scale = POISSON.bias(bin_width)
    loading_scale = numpyro.sample("loading_scale", dist.LogNormal(*LOADING_SCALE))
    drift_scale = numpyro.sample("drift_scale", dist.LogNormal(*DRIFT_SCALE))
    spread = drift_scale * weight_spread(n_features, n_inputs)[:, None]
    law = dist.Normal(jnp.zeros((len(spread), dim)), spread).to_event(2)
    read_inputs = jnp.zeros((n_units, n_inputs))
    if n_inputs:
        read_inputs = numpyro.sample("input_loading", dist.Normal(read_inputs, INPUT_LOADING_SD).to_event(2))
    return FeatureParameters(
        loading=numpyro.sample("raw_loading", dist.Normal(jnp.zeros(read_out), loading_scale).to_event(2)),
        bias=numpyro.sample("raw_bias", dist.Normal(jnp.full(n_units, loc), scale).to_event(1)),
        input_loading=read_inputs,
        weight=numpyro.sample("raw_weight", law),
        noise_root=_sample_covariance_root("raw_noise", NOISE, dim),
        initial_mean=numpyro.sample("raw_initial_mean", dist.Normal(jnp.zeros(dim), 1.0).to_event(1)),
        initial_root=_sample_covariance_root("raw_initial", INITIAL, dim),
        loading_scale=loading_scale,
        drift_scale=drift_scale,
    )


def _sample_covariance_root(site: str, prior: CovariancePrior, dim: int) -> Float[Array, "dim dim"]:
    """A root of a covariance; the site is the Cholesky factor of its inverse."""
    tril = jnp.eye(dim) / prior.scale
    factor = numpyro.sample(site, dist.WishartCholesky(float(prior.excess + dim), scale_tril=tril))
    return jax.scipy.linalg.solve_triangular(factor, jnp.eye(dim), lower=True).T


def parameter_sites(p: FeatureParameters) -> dict[str, Array]:
    """The sites of `_sample_parameters`."""
    driven = {"input_loading": p.input_loading} if p.input_loading.shape[1] else {}
    return driven | {
        "loading_scale": p.loading_scale,
        "drift_scale": p.drift_scale,
        "raw_loading": p.loading,
        "raw_bias": p.bias,
        "raw_weight": p.weight,
        "raw_noise": gram_cholesky(jnp.linalg.inv(p.noise_root)),
        "raw_initial_mean": p.initial_mean,
        "raw_initial": gram_cholesky(jnp.linalg.inv(p.initial_root)),
    }


def read_out_offset(
    input_loading: Float[Array, "unit input"], bias: Float[Array, " unit"], filtered: Float[Array, "trial time input"]
) -> Float[Array, "..."]:
    """What log rates are where the path is zero; without inputs one number a unit."""
    return filtered @ input_loading.T + bias if filtered.shape[-1] else bias


def feature_arrays(data: xr.Dataset, *, rank: int, features: int, tau: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of `recording_arrays` that do not concern networks, and the features and read-out coordinates.

    `feature_slope (feature, dim)` and `feature_threshold (feature,)` are the same random numbers for all data;
    `projection (dim, unit)` and `reference (unit,)` such that the principal components of the log rates have unit
    variance.

    Raises:
        ValueError: those of `recording_arrays`, or fewer than one feature.
    """
    if features < 1:
        raise ValueError(f"`features` is the number of random features and must be at least 1; got {features}.")
    arrays, coords = recording_arrays(data, "counts", rank=rank, tau=tau, nonlinearity="tanh")
    states, basis = np.asarray(arrays["states"], float), np.asarray(arrays["basis"], float)
    n_units = len(basis)
    spread = np.maximum(states.std(0), 1e-3) * n_units**0.5
    counts, mask = np.asarray(arrays["activity"], float), np.asarray(arrays["mask"])
    mean = (counts * mask).sum((0, 1)) / np.maximum(mask.sum((0, 1)), 1)
    kept = {name: x for name, x in arrays.items() if name not in ("basis", "states", "polynomials", "stimulus")}
    own = {
        "projection": jnp.asarray((basis[:, :rank] / spread).T, float),
        "reference": jnp.asarray(np.log(np.maximum(mean, 1e-3)), float),
    }
    return kept | own | random_features(rank, features), coords | {"feature": np.arange(features)}


def random_features(rank: int, features: int) -> dict[str, Array]:
    """Slopes and thresholds; equal for equal arguments."""
    generator = np.random.default_rng(0)
    slope = SLOPE_SD * generator.normal(size=(features, rank))
    threshold = THRESHOLD_SD * generator.normal(size=features)
    return {"feature_slope": jnp.asarray(slope, float), "feature_threshold": jnp.asarray(threshold, float)}


def example_arrays() -> dict[str, Array]:
    """Features and read-out coordinates, of 12 units and two latent dimensions, under which data are simulated; their
    prior is the same for any coordinates."""
    coordinates = {"projection": jnp.eye(2, 12), "reference": jnp.zeros(12)}
    return random_features(2, 60) | coordinates
