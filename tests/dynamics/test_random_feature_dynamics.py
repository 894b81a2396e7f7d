import jax.numpy as jnp
import numpy as np

from connectinfer.dynamics.random_features import RandomFeatureDynamics

DYNAMICS = RandomFeatureDynamics(
    slope=jnp.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]]),
    threshold=jnp.array([0.0, 1.0, -0.5]),
    weight=jnp.array([[2.0, 0.0], [0.0, -1.0], [0.5, 1.0]]),
    constant=jnp.array([0.1, 0.2]),
    input_weight=jnp.array([[3.0, -2.0]]),
)


def test_the_drift_is_the_weighted_sum_of_the_features_less_the_leak():
    z, v = jnp.array([1.0, 2.0]), jnp.array([0.5])
    first = 2 * np.tanh(1) + 0.5 * np.tanh(3.5) + 0.1
    second = -np.tanh(-0.5) + np.tanh(3.5) + 0.2
    np.testing.assert_allclose(DYNAMICS.drift(z), [first - 1, second - 2], rtol=1e-6)
    np.testing.assert_allclose(DYNAMICS.recurrent_drift(z, v), [first + 1.5, second - 1], rtol=1e-6)
    np.testing.assert_allclose(
        DYNAMICS.step(0.1, z, v), [0.9 + 0.1 * (first + 1.5), 1.8 + 0.1 * (second - 1)], rtol=1e-6
    )


def test_another_gauge_steps_to_the_image_of_the_same_state():
    matrix, origin = jnp.array([[2.0, 1.0], [0.5, -1.0]]), jnp.array([0.3, -0.7])
    z, v = jnp.array([[0.4, -0.2], [1.5, 0.8]]), jnp.array([[0.5], [0.0]])
    there = DYNAMICS.change_gauge(matrix, origin).step(0.2, z @ matrix.T + origin, v)
    np.testing.assert_allclose(there, DYNAMICS.step(0.2, z, v) @ matrix.T + origin, rtol=1e-5, atol=1e-6)
