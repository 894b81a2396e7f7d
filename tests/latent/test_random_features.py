"""The parts of dynamics with random features that have closed forms: evidence, coordinates, covariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from scipy.stats import invwishart, multivariate_normal

from connectinfer.data.recording import recording
from connectinfer.latent.random_feature_conditionals import FEATURE_CONDITIONALS, _in_frame, _posterior, _regression
from connectinfer.latent.random_features import (
    NOISE,
    feature_arrays,
    read_out_frame,
    sample_feature_space,
    weight_spread,
)
from connectinfer.latent.regression import draw_covariance_root
from connectinfer.latent.state_space import Seen, path_log_density

N_TRIALS, N_BINS, N_UNITS = 2, 6, 5


@pytest.fixture(scope="module")
def start():
    """Arrays of a small recording with an input and a trial that ends early, parameters and paths."""
    generator = np.random.default_rng(0)
    counts, mask = generator.poisson(3.0, (N_TRIALS, N_BINS, N_UNITS)), np.ones((N_TRIALS, N_BINS, N_UNITS), bool)
    mask[1, 4:] = False
    pulse = np.zeros((N_TRIALS, N_BINS, 1))
    pulse[:, 1:3] = 1.0
    arrays, _ = feature_arrays(
        recording(time=0.02 * np.arange(N_BINS), counts=counts, mask=mask, inputs=pulse), rank=2, features=3, tau=0.1
    )
    parameters, _ = FEATURE_CONDITIONALS.begin(arrays)
    root = jnp.array([[0.3, 0.1], [-0.2, 0.4]])
    parameters = parameters._replace(noise_root=root, input_loading=jnp.full((N_UNITS, 1), 0.3))
    paths = jnp.asarray(generator.normal(size=(N_TRIALS, N_BINS, 2)), float)
    return arrays, parameters, paths


def test_the_evidence_is_the_normal_density_of_the_increments_whatever_the_centre(start):
    arrays, p, paths = start
    seen = Seen.of(arrays["activity"], arrays["mask"])
    alpha, z, v = arrays["alpha"], np.asarray(paths, float), np.asarray(arrays["filtered"], float)
    lasting = np.array([[True] * 5, [True] * 3 + [False] * 2])
    now, target = z[:, :-1][lasting], ((z[:, 1:] - (1 - alpha) * z[:, :-1]) / alpha)[lasting]
    sigmoids = np.tanh(now @ np.asarray(arrays["feature_slope"]).T + np.asarray(arrays["feature_threshold"]))
    features = np.concatenate([np.ones((len(now), 1)), sigmoids, v[:, :-1][lasting]], 1)
    noise = np.asarray(p.noise_root @ p.noise_root.T, float) / alpha**2
    expected, found = [], []
    for scale, shift in ((0.5, 0.0), (2.0, 0.4)):
        spread = scale * np.asarray(weight_spread(3, 1), float)
        covariance = np.kron((features * spread**2) @ features.T, np.eye(2)) + np.kron(np.eye(len(now)), noise)
        expected.append(multivariate_normal.logpdf(target.ravel(), np.zeros(target.size), covariance))
        other = p._replace(weight=p.weight + shift)
        regression = _regression(other, paths, seen, arrays)
        found.append(float(_posterior(regression, jnp.asarray(scale), arrays).log_evidence))
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], abs=2e-3)


def test_read_out_coordinates_are_the_projected_log_rates_and_change_no_density(start):
    arrays, p, paths = start
    sites = FEATURE_CONDITIONALS.sites(jax.random.key(0), p, paths, arrays)
    names = ("feature_slope", "feature_threshold", "projection", "reference", "filtered", "alpha", "tau")
    seeded = handlers.seed(handlers.substitute(sample_feature_space, data=sites), 0)
    shown, original = seeded(**{name: arrays[name] for name in names}), FEATURE_CONDITIONALS.space(p, arrays)
    latent = sites["latent"]
    np.testing.assert_allclose(shown.predictor(latent), original.predictor(paths), rtol=1e-3, atol=1e-3)
    undriven = paths @ p.loading.T + p.bias - arrays["reference"]
    np.testing.assert_allclose(latent, undriven @ arrays["projection"].T, rtol=1e-4, atol=1e-4)
    matrix, _ = read_out_frame(p, arrays["projection"], arrays["reference"])
    seen = Seen.of(arrays["activity"], arrays["mask"])
    volume = seen.alive * float(jnp.linalg.slogdet(matrix)[1])
    there, here = path_log_density(shown, seen, latent), path_log_density(original, seen, paths)
    np.testing.assert_allclose(there + volume, here, rtol=1e-3, atol=1e-2)


def test_another_frame_leaves_read_out_and_standardised_noise_alone(start):
    _, p, paths = start
    matrix, origin = jnp.array([[1.2, 0.1], [-0.3, 0.9]]), jnp.array([0.2, -0.1])
    other, turned = _in_frame(p, paths, matrix, origin)
    np.testing.assert_allclose(
        turned @ other.loading.T + other.bias, paths @ p.loading.T + p.bias, rtol=1e-4, atol=1e-4
    )
    first = jnp.linalg.solve(p.initial_root, (paths[:, 0] - p.initial_mean).T)
    np.testing.assert_allclose(
        jnp.linalg.solve(other.initial_root, (turned[:, 0] - other.initial_mean).T), first, rtol=1e-3, atol=1e-3
    )
    # What scales with the frame has the prior that it had.
    np.testing.assert_allclose(other.loading_scale * other.drift_scale, p.loading_scale * p.drift_scale, rtol=1e-5)


def test_covariances_are_inverse_wishart():
    rate, dof = jnp.array([[2.0, 0.5], [0.5, 1.0]]), jnp.array(12.0)
    roots = jax.vmap(lambda key: draw_covariance_root(key, rate, dof))(jax.random.split(jax.random.key(0), 20_000))
    covariances = np.asarray(jnp.einsum("dij,dkj->dik", roots, roots))
    # The mean is rate / (dof - dim - 1); five standard errors, a false alarm in 1e-5 of all runs.
    error = covariances.std(0) / 20_000**0.5
    assert (np.abs(covariances.mean(0) - np.asarray(rate) / 9) < 5 * error).all()


def test_the_density_of_a_covariance_is_inverse_wishart_times_the_volume_of_its_cone():
    found, expected = [], []
    for root in (np.array([[0.1, 0.0], [0.05, 0.2]]), np.array([[0.03, 0.01], [0.0, 0.02]])):
        covariance = root @ root.T
        law = invwishart(NOISE.excess + 2, NOISE.scale**2 * np.eye(2))
        expected.append(law.logpdf(covariance) + 1.5 * np.linalg.slogdet(covariance)[1])
        found.append(float(NOISE.log_density(jnp.asarray(root, float))))
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], abs=1e-3)


def test_a_drift_needs_a_feature():
    data = recording(time=0.01, counts=np.ones((2, 5, 3), int))
    with pytest.raises(ValueError, match="must be at least 1; got 0"):
        feature_arrays(data, rank=1, features=0, tau=0.1)
