import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import nbinom, norm, poisson

from connectinfer.dynamics.low_rank import LowRankRNN
from connectinfer.dynamics.observation import (
    Gaussian,
    NegativeBinomial,
    Poisson,
    affine_readout,
    gaussian_log_likelihood,
    poisson_log_likelihood,
    sample_gaussian,
    sample_poisson,
    tied_readout,
)


def test_a_tied_read_out_scales_and_shifts_the_potentials_by_hand():
    network = LowRankRNN(jnp.array([[1.0], [2.0]]), jnp.ones((2, 1)), jnp.array([[0.0], [1.0]]), jnp.array([0.5, 0.0]))
    # h = (3.5, 6 + 4); gain (1, 0.1), bias (-1, 2).
    rates = tied_readout(network, jnp.array([3.0]), jnp.array([4.0]), jnp.array([1.0, 0.1]), jnp.array([-1.0, 2.0]))
    assert rates.tolist() == pytest.approx([2.5, 3.0])


def test_an_affine_read_out_of_a_batch_by_hand():
    loading = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    values = affine_readout(jnp.array([[[1.0, 2.0]], [[0.0, 1.0]]]), loading, jnp.array([0.0, 1.0, 0.0]))
    assert values.tolist() == [[[1.0, 4.0, -4.0]], [[0.0, 2.0, -2.0]]]


def test_log_likelihoods_agree_with_scipy():
    counts, log_rate = np.array([0.0, 1.0, 7.0]), np.array([-3.0, 0.4, 1.9])
    np.testing.assert_allclose(
        poisson_log_likelihood(jnp.asarray(counts, float), jnp.asarray(log_rate, float)),
        poisson.logpmf(counts, np.exp(log_rate)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        gaussian_log_likelihood(jnp.asarray(counts, float), jnp.asarray(log_rate, float), 0.7),
        norm.logpdf(counts, log_rate, 0.7),
        rtol=1e-5,
    )


def test_integer_counts_have_the_likelihood_of_the_same_floats():
    counts, log_rate = jnp.array([0, 3, 12]), jnp.array([0.1, 0.2, 2.0])
    np.testing.assert_array_equal(
        poisson_log_likelihood(counts, log_rate), poisson_log_likelihood(counts.astype(float), log_rate)
    )


@pytest.mark.parametrize(
    "likelihood", [poisson_log_likelihood, lambda *args: gaussian_log_likelihood(*args[:2], 0.5, args[2])]
)
def test_masked_entries_add_nothing_to_value_or_gradient_whatever_they_hold(likelihood):
    mask = jnp.array([True, False, False])
    data, mean = jnp.array([1.0, jnp.nan, 5.0]), jnp.array([0.3, 0.1, jnp.inf])
    values = likelihood(data, mean, mask)
    assert values[1:].tolist() == [0.0, 0.0]
    gradient = jax.grad(lambda mean: likelihood(data, mean, mask).sum())(mean)
    assert gradient[1:].tolist() == [0.0, 0.0]
    assert np.isfinite(gradient[0])


def test_samples_have_the_mean_and_variance_of_their_law(key):
    # 40 000 draws each: five standard errors.
    counts = sample_poisson(key, jnp.full(40_000, jnp.log(3.0)))
    assert counts.dtype == jnp.float32
    assert abs(float(counts.mean()) - 3) < 5 * np.sqrt(3 / 40_000)
    assert abs(float(counts.var()) - 3) < 5 * np.sqrt((3 + 2 * 9) / 40_000)
    signal = sample_gaussian(key, jnp.full((40_000, 2), 1.0), jnp.array([0.5, 0.0]))
    assert abs(float(signal[:, 0].mean()) - 1) < 5 * 0.5 / 200
    assert abs(float(signal[:, 0].std()) - 0.5) < 5 * 0.5 / np.sqrt(80_000)
    assert (signal[:, 1] == 1).all()


CONCENTRATION, NOISE = np.array([0.7, 4.0, 30.0]), np.array([0.3, 1.0, 2.0])
COUNTS, PREDICTOR = np.array([[0.0, 1.0, 7.0], [3.0, 0.0, 2.0]]), np.array([[-3.0, 0.4, 1.9], [1.0, -0.5, 0.2]])
MEAN = np.exp(PREDICTOR)


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (lambda: Poisson(), poisson.logpmf(COUNTS, MEAN)),
        (
            lambda: NegativeBinomial(jnp.asarray(CONCENTRATION, float)),
            nbinom.logpmf(COUNTS, CONCENTRATION, CONCENTRATION / (CONCENTRATION + MEAN)),
        ),
        (lambda: Gaussian(jnp.asarray(NOISE, float)), norm.logpdf(COUNTS, PREDICTOR, NOISE)),
    ],
    ids=["poisson", "negative-binomial", "gaussian"],
)
def test_observations_have_the_density_of_scipy_and_its_derivatives(observation, expected):
    law, counts, predictor = observation(), jnp.asarray(COUNTS, float), jnp.asarray(PREDICTOR, float)
    found = law.log_kernel(counts, predictor) + law.log_constant(counts)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    score, information = law.score_and_information(counts, predictor)
    slope = jax.grad(lambda x: law.log_kernel(counts, x).sum())
    np.testing.assert_allclose(score, slope(predictor), rtol=1e-4, atol=1e-5)
    curvature = jax.jvp(slope, (predictor,), (jnp.ones_like(predictor),))[1]
    np.testing.assert_allclose(information, -curvature, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("concentration", [0.02, 1.0, 50.0, 1e4, 1e9, 1e12])
def test_overdispersed_counts_keep_their_digits_and_tend_to_poisson_counts(concentration):
    counts = np.array([0.0, 1.0, 2.0, 9.0, 60.0, 400.0])[:, None]
    for mean in (0.002, 0.3, 4.0, 60.0):
        law, predictor = NegativeBinomial(jnp.full(1, concentration)), jnp.full((6, 1), np.log(mean), float)
        found = law.log_kernel(jnp.asarray(counts), predictor) + law.log_constant(jnp.asarray(counts))
        if concentration >= 1e9:
            # They differ by ((y - mean)^2 - y) / 2r.
            expected = poisson.logpmf(counts, mean) - ((counts - mean) ** 2 - counts) / (2 * concentration)
        else:
            expected = nbinom.logpmf(counts, concentration, concentration / (concentration + mean))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
