from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from moments import assert_moments
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.dynamics.low_rank import LowRankRNN, latent_step

A = np.array([[0.9, 0.3], [-0.2, 0.7]])
B = np.array([[0.5], [-1.0]])
SIGMA, S0 = 0.3, 0.8
N_TRIALS, N_BINS = 3, 5


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def linear(matrices, z, v):
    return z @ matrices["a"].T + v @ matrices["b"].T


def linear_path(inputs):
    matrices = {"a": jnp.asarray(A, float), "b": jnp.asarray(B, float)}
    return LatentPath(jax.tree_util.Partial(linear, matrices), SIGMA * jnp.eye(2), S0 * jnp.eye(2), inputs)


def network_path(inputs):
    network = LowRankRNN(normal(3, (20, 2)), normal(4, (20, 2)), normal(5, (20, 1)))
    return LatentPath(jax.tree_util.Partial(latent_step, network, 0.1), SIGMA * jnp.eye(2), S0 * jnp.eye(2), inputs)


@jax.jit
def score(path, values):
    return path.log_prob(values)


@partial(jax.jit, static_argnums=2)
def sample(key, path, shape=()):
    return path.sample(key, shape)


@pytest.fixture(scope="module")
def inputs():
    return normal(1, (N_TRIALS, N_BINS, 1))


@pytest.fixture(scope="module")
def values():
    return normal(2, (N_TRIALS, N_BINS, 2))


def summed_normals(path, values):
    """One normal at a time, trial by trial and bin by bin."""
    total = []
    for z, v in zip(values, path.inputs, strict=True):
        log_prob = dist.Normal(0.0, path.initial_tril[0, 0]).log_prob(z[0]).sum()
        for t in range(1, N_BINS):
            log_prob += dist.Normal(path.transition(z[t - 1], v[t - 1]), path.noise_tril[0, 0]).log_prob(z[t]).sum()
        total.append(float(log_prob))
    return total


@pytest.mark.parametrize("build", [linear_path, network_path])
def test_the_log_density_is_the_sum_over_bins_of_the_transitions_normals(build, inputs, values):
    path = build(inputs)
    assert path.batch_shape == (N_TRIALS,)
    assert path.event_shape == (N_BINS, 2)
    np.testing.assert_allclose(score(path, values), summed_normals(path, values), rtol=1e-5)


def linear_moments(inputs):
    """Mean `(time * 2,)` and covariance of one trial's path, from the recursions of the linear system."""
    mean, marginal = [np.zeros(2)], [S0**2 * np.eye(2)]
    for v in np.asarray(inputs)[:-1]:
        mean.append(A @ mean[-1] + B @ v)
        marginal.append(A @ marginal[-1] @ A.T + SIGMA**2 * np.eye(2))
    covariance = np.zeros((N_BINS, 2, N_BINS, 2))
    for s in range(N_BINS):
        for t in range(s, N_BINS):
            covariance[t, :, s] = np.linalg.matrix_power(A, t - s) @ marginal[s]
            covariance[s, :, t] = covariance[t, :, s].T
    return np.concatenate(mean), covariance.reshape(N_BINS * 2, N_BINS * 2)


def test_samples_of_a_linear_system_have_the_moments_of_its_recursion(inputs):
    draws = sample(jax.random.key(0), linear_path(inputs), (20_000,))
    assert draws.shape == (20_000, N_TRIALS, N_BINS, 2)
    for trial in range(N_TRIALS):
        assert_moments(draws[:, trial].reshape(len(draws), -1), *linear_moments(inputs[trial]))
    # Trials are independent: the correlations between two of them have a standard error of 0.007.
    cross = np.corrcoef(draws[:, 0].reshape(len(draws), -1).T, draws[:, 1].reshape(len(draws), -1).T)[:10, 10:]
    assert np.abs(cross).max() < 0.04


def test_the_log_density_of_a_linear_system_is_that_of_the_joint_normal(inputs, values):
    mean, covariance = linear_moments(inputs[0])
    expected = multivariate_normal(mean, covariance).logpdf(np.asarray(values[0], float).reshape(-1))
    assert score(linear_path(inputs[0]), values[0]) == pytest.approx(float(expected), rel=1e-4)


def test_a_batch_of_draws_is_scored_as_a_loop_would(inputs):
    path = network_path(inputs)
    draws = sample(jax.random.key(0), path, (4, 2))
    scores = score(path, draws)
    assert scores.shape == (4, 2, N_TRIALS)
    np.testing.assert_allclose(scores[3, 1], score(path, draws[3, 1]), rtol=1e-5)
    np.testing.assert_allclose(scores[..., 2], score(network_path(inputs[2]), draws[:, :, 2]), rtol=1e-5)


def test_paths_without_inputs_take_their_shape_from_an_empty_axis():
    network = LowRankRNN(normal(3, (20, 1)), normal(4, (20, 1)))
    transition = jax.tree_util.Partial(latent_step, network, 0.1)
    path = LatentPath(transition, SIGMA * jnp.eye(1), S0 * jnp.eye(1), jnp.zeros((4, 6, 0)))
    draws = sample(jax.random.key(0), path)
    assert draws.shape == (4, 6, 1)
    assert score(path, draws).shape == (4,)


def test_a_single_bin_has_the_law_of_the_first():
    path = linear_path(jnp.zeros((1, 1)))
    z = jnp.array([[0.3, -0.4]])
    assert sample(jax.random.key(0), path).shape == (1, 2)
    assert score(path, z) == pytest.approx(float(dist.Normal(0.0, S0).log_prob(z).sum()), rel=1e-6)


@pytest.mark.parametrize("wrap", ["to_event", "plate", "expanded"])
def test_events_plates_and_expansion_give_one_density(wrap, inputs, values):
    shared = jnp.broadcast_to(inputs[0], inputs.shape)

    def model():
        if wrap == "to_event":
            numpyro.sample("z", network_path(shared).to_event(1))
        else:
            with numpyro.plate("trial", N_TRIALS, dim=-1):
                numpyro.sample("z", network_path(shared if wrap == "plate" else inputs[0]))

    trace = handlers.trace(handlers.seed(model, 0)).get_trace()
    assert trace["z"]["value"].shape == (N_TRIALS, N_BINS, 2)
    assert len(np.unique(trace["z"]["value"][:, -1, 0])) == N_TRIALS
    density, _ = log_density(model, (), {}, {"z": values})
    assert float(density) == pytest.approx(sum(summed_normals(network_path(shared), values)), rel=1e-5)


def test_a_path_passes_through_jit_and_vmap_as_a_pytree(inputs, values):
    path = network_path(inputs)
    scales = jnp.array([0.1, 0.3])

    def with_scale(scale):
        return LatentPath(path.transition, scale * jnp.eye(2), scale * jnp.eye(2), inputs)

    paths = jax.jit(jax.vmap(with_scale))(scales)
    swept = jax.vmap(score, in_axes=(0, None))(paths, values)
    np.testing.assert_allclose(swept[1], with_scale(scales[1]).log_prob(values), rtol=1e-5)


def test_gradients_reach_network_noise_and_inputs(inputs):
    path = network_path(inputs)
    draws = sample(jax.random.key(0), path)

    @jax.jit
    @jax.value_and_grad
    def value_and_slopes(leaves):
        noise, initial, inputs = leaves
        return LatentPath(path.transition, noise, initial, inputs).log_prob(draws).sum()

    h = 1e-2
    (up, _), (down, _) = (
        value_and_slopes((path.noise_tril + step * jnp.eye(2), path.initial_tril, inputs)) for step in (h, -h)
    )
    _, (noise_slope, _, input_slope) = value_and_slopes((path.noise_tril, path.initial_tril, inputs))
    assert float(jnp.trace(noise_slope)) == pytest.approx(float(up - down) / (2 * h), rel=0.02)
    assert float(jnp.abs(input_slope[:, :-1]).min()) > 0
    assert float(jnp.abs(input_slope[:, -1]).max()) == 0  # the last bin's input moves no recorded bin


@pytest.mark.parametrize("wrong", ["noise_tril", "initial_tril"])
def test_a_scale_that_is_not_positive_is_refused_when_validating(wrong, inputs):
    scales = {"noise_tril": 0.1 * jnp.eye(2), "initial_tril": 0.1 * jnp.eye(2)} | {wrong: -0.1 * jnp.eye(2)}
    with pytest.raises(ValueError, match=f"invalid {wrong} parameter"):
        LatentPath(network_path(inputs).transition, inputs=inputs, validate_args=True, **scales)


def test_full_covariances_and_a_mean_give_multivariate_normals(inputs, values):
    noise, initial, mean = (
        np.array([[0.3, 0.0], [0.1, 0.2]]),
        np.array([[0.5, 0.0], [-0.4, 0.9]]),
        np.array([0.2, -1.0]),
    )
    moved = linear_path(inputs)
    path = LatentPath(
        moved.transition, *(jnp.asarray(x, float) for x in (noise, initial)), inputs, jnp.asarray(mean, float)
    )
    z, v = (np.asarray(x[1], float) for x in (values, inputs))
    expected = multivariate_normal(mean, initial @ initial.T).logpdf(z[0])
    expected += sum(
        multivariate_normal(z[t] @ A.T + v[t] @ B.T, noise @ noise.T).logpdf(z[t + 1]) for t in range(N_BINS - 1)
    )
    assert float(score(path, values)[1]) == pytest.approx(expected, rel=1e-5)
    drawn = np.asarray(sample(jax.random.key(3), path, (4000,)))[:, 0, 0]
    # 4,000 draws: five standard errors.
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * np.sqrt(np.diag(initial @ initial.T) / 4000).max())
    np.testing.assert_allclose(np.cov(drawn.T), initial @ initial.T, atol=0.12)
