import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from moments import assert_moments
from numpyro import handlers
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal

from connectinfer.distributions.gauss_markov import GaussMarkov

N_TRIALS, N_BINS, DIM = 3, 5, 2


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


@pytest.fixture(scope="module")
def chain():
    generator = np.random.default_rng(0)
    loc = generator.normal(size=(N_TRIALS, N_BINS, DIM))
    below = np.tril(0.5 * generator.normal(size=(N_TRIALS, N_BINS, DIM, DIM)), -1)
    diagonal = np.exp(0.3 * generator.normal(size=(N_TRIALS, N_BINS, DIM)))
    propagator = 0.6 * generator.normal(size=(N_TRIALS, N_BINS - 1, DIM, DIM))
    scale_tril = below + diagonal[..., None] * np.eye(DIM)
    return GaussMarkov(*(jnp.asarray(x, float) for x in (loc, scale_tril, propagator)), validate_args=True)


@jax.jit
def score(chain, values):
    return chain.log_prob(values)


def only(chain, trial):
    return GaussMarkov(chain.loc[trial], chain.scale_tril[trial], chain.propagator[trial])


def dense(chain, trial):
    """Mean and covariance of one trial's path as a flat vector: delta = (I - shifted A)^-1 L eps."""
    step = np.zeros((N_BINS * DIM, N_BINS * DIM))
    step[DIM:, :-DIM] = block_diag(*np.asarray(chain.propagator[trial], float))
    factor = np.linalg.solve(np.eye(len(step)) - step, block_diag(*np.asarray(chain.scale_tril[trial], float)))
    return np.asarray(chain.loc[trial], float).reshape(-1), factor @ factor.T


def test_the_log_density_is_that_of_the_dense_normal(chain):
    values = normal(1, (4, N_TRIALS, N_BINS, DIM))
    scores = score(chain, values)
    assert scores.shape == (4, N_TRIALS)
    for trial in range(N_TRIALS):
        expected = multivariate_normal(*dense(chain, trial)).logpdf(np.asarray(values[:, trial], float).reshape(4, -1))
        np.testing.assert_allclose(scores[:, trial], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def draws(chain):
    return jax.jit(lambda key: chain.sample(key, (20_000,)))(jax.random.key(2))


def test_samples_have_the_mean_and_covariance_of_the_dense_normal(chain, draws):
    assert draws.shape == (20_000, N_TRIALS, N_BINS, DIM)
    for trial in range(N_TRIALS):
        assert_moments(draws[:, trial].reshape(len(draws), -1), *dense(chain, trial))
    np.testing.assert_array_equal(chain.mean, chain.loc)


def test_the_mean_log_density_of_its_own_samples_is_minus_the_entropy(chain, draws):
    scores = np.asarray(score(chain, draws))
    for trial in range(N_TRIALS):
        entropy = multivariate_normal(*dense(chain, trial)).entropy()
        # -log q - H = (chi2_k - k) / 2, so its mean has sd sqrt(k / 2 / draws); beyond 5 sd in 6e-7 of runs.
        assert abs(-scores[:, trial].mean() - entropy) < 5 * np.sqrt(N_BINS * DIM / 2 / len(draws))


def test_a_batch_equals_a_loop(chain):
    values = normal(1, (N_TRIALS, N_BINS, DIM))
    looped = [score(only(chain, trial), values[trial]) for trial in range(N_TRIALS)]
    np.testing.assert_allclose(score(chain, values), jnp.stack(looped), rtol=1e-5)


def test_without_propagation_the_bins_are_independent_normals():
    loc, sd = jnp.arange(6.0).reshape(3, 2), jnp.array([0.5, 2.0])
    chain = GaussMarkov(loc, jnp.broadcast_to(jnp.diag(sd), (3, 2, 2)), jnp.zeros((2, 2, 2)))
    expected = numpyro.distributions.Normal(loc, sd).log_prob(loc + 1).sum()
    assert float(chain.log_prob(loc + 1)) == pytest.approx(float(expected), rel=1e-6)


def test_a_path_of_one_bin_is_a_normal():
    chain = GaussMarkov(jnp.zeros((1, 2)), 2 * jnp.eye(2)[None], jnp.zeros((0, 2, 2)))
    assert chain.sample(jax.random.key(0), (7,)).shape == (7, 1, 2)
    assert float(chain.log_prob(jnp.zeros((1, 2)))) == pytest.approx(-np.log(2 * np.pi * 4), rel=1e-6)


def test_it_can_be_an_event_of_a_guide_and_passes_gradients(chain):
    def guide(loc):
        numpyro.sample("z", GaussMarkov(loc, chain.scale_tril, chain.propagator).to_event(1))

    def value(loc):
        return handlers.trace(handlers.seed(guide, 0)).get_trace(loc)["z"]["value"]

    trace = handlers.trace(handlers.seed(guide, 0)).get_trace(chain.loc)
    assert trace["z"]["value"].shape == (N_TRIALS, N_BINS, DIM)
    assert trace["z"]["fn"].log_prob(trace["z"]["value"]).shape == ()
    # Draws move with their mean, one for one.
    np.testing.assert_allclose(jax.grad(lambda loc: value(loc).sum())(chain.loc), 1.0, rtol=1e-6)


def test_coefficients_outside_their_domain_are_refused_when_validating(chain):
    with pytest.raises(ValueError, match="invalid scale_tril parameter"):
        GaussMarkov(chain.loc, -chain.scale_tril, chain.propagator, validate_args=True)
