import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.special import gammaln
from scipy.stats import chisquare, poisson

from connectinfer.distributions.poisson_log_rate import PoissonLogRate

COUNTS = np.unique(np.r_[np.arange(60), np.geomspace(60, 10_000, 40).astype(int)])


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.5])
def test_the_log_probability_is_scipys_to_a_few_float32_roundings(factor):
    log_rate = np.log(factor * (COUNTS + 0.5)).astype(np.float32)
    rate = np.exp(log_rate.astype(float))
    # The three terms cancel, so the largest of them sets what float32 can resolve.
    resolution = np.finfo(np.float32).eps * np.maximum(COUNTS * np.abs(log_rate), np.maximum(rate, gammaln(COUNTS + 1)))
    error = np.abs(np.asarray(PoissonLogRate(jnp.asarray(log_rate)).log_prob(jnp.asarray(COUNTS)), float))
    error = np.abs(error - np.abs(poisson.logpmf(COUNTS, rate)))
    assert (error <= 4 * resolution + 4e-7).all()


def test_probabilities_of_all_counts_sum_to_one():
    log_rate = jnp.array([-4.0, 0.0, 2.5])
    probability = jnp.exp(PoissonLogRate(log_rate).log_prob(jnp.arange(80)[:, None]))
    np.testing.assert_allclose(probability.sum(0), 1.0, rtol=2e-6)


@pytest.mark.parametrize("dtype", [int, float])
def test_it_is_numpyros_poisson_for_counts_of_any_type(dtype):
    log_rate = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), float)
    counts = jnp.asarray(np.random.default_rng(0).poisson(2.0, (4, 3)), dtype)
    expected = dist.Poisson(jnp.exp(log_rate)).log_prob(counts.astype(int))
    np.testing.assert_allclose(PoissonLogRate(log_rate).log_prob(counts), expected, rtol=1e-5, atol=1e-6)


def test_a_thousand_log_units_below_zero_only_silence_is_possible_and_nothing_overflows():
    silent = PoissonLogRate(jnp.array(-1000.0))
    assert float(silent.log_prob(jnp.array(0))) == pytest.approx(0.0, abs=1e-6)
    assert float(silent.log_prob(jnp.array(2))) == pytest.approx(-2000 - np.log(2))


def test_its_slope_in_the_log_rate_is_count_minus_rate():
    log_rate = jnp.linspace(-5.0, 5.0, 11)
    counts = jnp.arange(11)
    slope = jax.grad(lambda x: PoissonLogRate(x).log_prob(counts).sum())(log_rate)
    np.testing.assert_allclose(slope, counts - jnp.exp(log_rate), rtol=1e-5)
    curvature = jax.jvp(jax.grad(lambda x: PoissonLogRate(x).log_prob(counts).sum()), (log_rate,), (jnp.ones(11),))[1]
    np.testing.assert_allclose(curvature, -jnp.exp(log_rate), rtol=1e-5)


@pytest.mark.parametrize("rates", [(0.01, 0.5, 55.0), (60.0, 90.0, 3000.0)], ids=["low", "high"])
def test_samples_follow_the_probabilities(rates):
    n = 20_000
    draws = np.asarray(PoissonLogRate(jnp.log(jnp.asarray(rates))).sample(jax.random.key(0), (n,)))
    assert draws.shape == (n, 3)
    for column, rate in zip(draws.T, rates, strict=True):
        edges = np.unique(poisson.ppf([0.05, 0.2, 0.4, 0.6, 0.8, 0.99], rate))
        expected = n * np.diff(np.r_[0.0, poisson.cdf(edges, rate), 1.0])
        seen = np.bincount(np.searchsorted(edges, column), minlength=len(expected))
        # Three tests at 1e-6 each.
        assert chisquare(seen, expected).pvalue > 1e-6
    np.testing.assert_allclose(PoissonLogRate(jnp.log(jnp.asarray(rates))).mean, rates, rtol=1e-6)


def test_counts_of_undefined_rates_are_marked():
    draws = PoissonLogRate(jnp.array([jnp.nan, jnp.inf, 0.0]), validate_args=False).sample(jax.random.key(0))
    assert draws[:2].tolist() == [-1, -1]
    assert draws[2] >= 0


def test_silent_units_stay_silent_and_rare_spikes_are_as_rare_as_they_should_be():
    draws = np.asarray(PoissonLogRate(jnp.array([-1000.0, -10.0])).sample(jax.random.key(1), (1_000_000,)))
    assert not draws[:, 0].any()
    # 45.4 spikes are expected; outside this range in 1e-6 of all runs.
    assert 15 < draws[:, 1].sum() < 85


def test_masked_bins_in_plates_carry_no_information():
    log_rate = jnp.zeros((2, 3))
    mask = jnp.array([[True, False, True], [True, True, False]])

    def model(counts):
        with numpyro.plate("trial", 2, dim=-2), numpyro.plate("unit", 3, dim=-1):
            numpyro.sample("counts", PoissonLogRate(log_rate).mask(mask), obs=counts)

    site = handlers.trace(model).get_trace(jnp.ones((2, 3), int))["counts"]
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]), np.where(mask, -1.0, 0.0), atol=1e-6)
