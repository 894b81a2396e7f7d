import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gaussian_teachers import BISTABLE, LIMIT_CYCLE, infinite_drift
from numpyro.infer.util import log_density

from connectinfer.dynamics.low_rank import (
    LowRankRNN,
    change_gauge,
    connectivity,
    drift,
    filter_inputs,
    gaussian_network,
    latent_step,
    network_drift,
    overlap,
    potentials,
    recurrent_drift,
)


def example_network(key, nonlinearity="tanh", n_neurons=12):
    m_key, n_key, b_key, d_key = jax.random.split(key, 4)
    return LowRankRNN(
        jax.random.normal(m_key, (n_neurons, 2)),
        jax.random.normal(n_key, (n_neurons, 2)),
        jax.random.normal(b_key, (n_neurons, 3)),
        jax.random.normal(d_key, (n_neurons,)),
        nonlinearity=nonlinearity,
    )


def test_the_drift_of_a_hand_counted_network():
    network = LowRankRNN(
        m=jnp.array([[1.0], [2.0]]),
        n=jnp.array([[3.0], [5.0]]),
        b=jnp.array([[1.0], [0.0]]),
        d=jnp.array([0.0, -1.0]),
        nonlinearity="relu",
    )
    # h = (2 + 1, 4 - 1) = (3, 3); recurrent = (3 * 3 + 5 * 3) / 2 = 12.
    z, v = jnp.array([2.0]), jnp.array([1.0])
    assert potentials(network, z, v).tolist() == [3.0, 3.0]
    assert recurrent_drift(network, z, v).tolist() == [12.0]
    assert drift(network, z, v).tolist() == [10.0]
    assert latent_step(network, 0.1, z, v).tolist() == pytest.approx([3.0])
    assert connectivity(network).tolist() == [[1.5, 2.5], [3.0, 5.0]]
    assert overlap(network).tolist() == [[6.5]]


@pytest.mark.parametrize("name", ["tanh", "softplus", "power_law"])
def test_the_full_network_moves_as_the_image_of_its_latent_dynamics(key, name):
    network = example_network(key, name)
    z, v, u = (jax.random.normal(k, (5, size)) for k, size in zip(jax.random.split(key, 3), (2, 3, 3), strict=True))
    moved = drift(network, z, v) @ network.m.T + (u - v) @ network.b.T
    np.testing.assert_allclose(network_drift(network, potentials(network, z, v), u), moved, atol=3e-5)


def test_the_recurrent_input_of_the_full_network_is_connectivity_times_rates(key):
    network, h = example_network(key), jax.random.normal(key, (12,))
    expected = connectivity(network) @ jnp.tanh(h) - h + network.d
    np.testing.assert_allclose(network_drift(network, h), expected, atol=1e-5)


def test_batches_of_states_equal_a_loop_and_no_input_equals_zero_input(key):
    network = example_network(key)
    z, v = jax.random.normal(key, (4, 1, 2)), jax.random.normal(key, (3, 3))
    batch = drift(network, z, v)
    assert batch.shape == (4, 3, 2)
    for i in range(4):
        for j in range(3):
            np.testing.assert_allclose(batch[i, j], drift(network, z[i, 0], v[j]), atol=1e-6)
    np.testing.assert_array_equal(drift(network, z), drift(network, z, jnp.zeros(3)))


@pytest.mark.parametrize("matrix", [LIMIT_CYCLE, BISTABLE])
def test_a_large_gaussian_network_has_the_drift_of_the_infinite_one(key, matrix):
    # 400 000 neurons: the drift's standard error is about sd(n tanh) / sqrt(K) < 0.004; 5 of them are allowed.
    network = gaussian_network(key, matrix, 0.5, n_neurons=400_000)
    points = jnp.array([[0.5, 0.0], [-0.3, 1.2], [2.0, -2.0]])
    expected = jax.vmap(infinite_drift(matrix))(points)
    np.testing.assert_allclose(drift(network, points), expected, atol=0.02)
    np.testing.assert_allclose(overlap(network), matrix, atol=0.02)


def test_the_residual_of_n_has_the_asked_standard_deviation_in_each_dimension(key):
    network = gaussian_network(key, BISTABLE, jnp.array([0.5, 2.0]), n_neurons=100_000, n_inputs=2, tau=0.02)
    residual = network.n - network.m @ jnp.array(BISTABLE).T
    np.testing.assert_allclose(residual.std(0), [0.5, 2.0], rtol=0.02)
    assert network.b.shape == (100_000, 2)
    assert network.tau == 0.02


def test_a_change_of_gauge_transforms_the_drift_and_keeps_the_weights(key):
    network, A = example_network(key), jnp.array([[2.0, 1.0], [-0.5, 1.5]])
    z, v = jax.random.normal(key, (6, 2)), jax.random.normal(key, (6, 3))
    changed = change_gauge(network, A)
    np.testing.assert_allclose(drift(changed, z @ A.T, v), drift(network, z, v) @ A.T, atol=1e-5)
    np.testing.assert_allclose(connectivity(changed), connectivity(network), atol=1e-6)


def test_filtered_inputs_follow_the_recursion_by_hand_and_reach_a_constant_input():
    v = filter_inputs(jnp.array([[1.0], [0.0], [2.0], [0.0]]), 0.5)
    assert v[:, 0].tolist() == [0.0, 0.5, 0.25, 1.125]
    u = jnp.ones((2, 3, 200, 1))
    assert filter_inputs(u, 0.1).shape == u.shape
    assert float(filter_inputs(u, 0.1)[1, 2, -1, 0]) == pytest.approx(1.0, abs=1e-6)


def test_a_network_is_built_from_sampled_loadings_inside_a_numpyro_model():
    def model(z):
        m = numpyro.sample("m", dist.Normal().expand((4, 2)).to_event(2))
        tau = numpyro.sample("tau", dist.LogNormal(-2.0, 0.1))
        network = LowRankRNN(m, 2 * m, tau=tau)
        numpyro.factor("fit", -jnp.sum((drift(network, z) / network.tau) ** 2))

    def density(m, tau):
        return log_density(model, (jnp.ones((3, 2)),), {}, {"m": m, "tau": tau})[0]

    gradients = jax.jit(jax.vmap(jax.grad(density, (0, 1))))(jnp.ones((5, 4, 2)), jnp.full(5, 0.1))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": jnp.ones((4, 1))}, r"`m` and `n` need one shape .*got m \(4, 2\) and n \(4, 1\)"),
        ({"b": jnp.ones((3, 1))}, r"`b` must have shape \(neuron, input\) with 4 neurons.*got \(3, 1\)"),
        ({"d": jnp.ones(3)}, r"`d` must have shape \(neuron,\) with 4 neurons.*got \(3,\)"),
        ({"tau": -0.1}, r"`tau` is a time constant in seconds and must be positive; got -0.1"),
        ({"nonlinearity": "sofplus"}, r"Did you mean 'softplus'\?"),
    ],
)
def test_an_impossible_network_is_refused_with_the_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        LowRankRNN(**({"m": jnp.ones((4, 2)), "n": jnp.ones((4, 2))} | arguments))


def test_states_and_inputs_of_the_wrong_size_are_refused(key):
    network = example_network(key)
    with pytest.raises(ValueError, match=r"must be the rank, 2; got shape \(5, 3\)"):
        drift(network, jnp.ones((5, 3)))
    with pytest.raises(ValueError, match=r"must be the network's 3 inputs; got \(2,\)"):
        drift(network, jnp.ones((5, 2)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"square \(rank, rank\) matrix; got shape \(2, 3\)"):
        gaussian_network(key, jnp.ones((2, 3)), 1.0)
