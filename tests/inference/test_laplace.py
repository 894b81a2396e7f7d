import jax.numpy as jnp
import numpy as np
import pytest
from conjugate import DESIGN, INPUTS, NOISE, exact_posterior, linear_model

from connectinfer.inference.laplace import laplace
from connectinfer.inference.start import potential
from connectinfer.inference.trace import bind


@pytest.fixture(scope="module")
def approximation():
    bound, arrays = bind(linear_model, INPUTS)
    return laplace(lambda free, arrays: potential(bound, arrays, free), arrays, {"beta": jnp.array([3.0, -2.0])})


def test_mode_and_covariance_of_a_gaussian_posterior_are_exact(approximation):
    mean, covariance = exact_posterior()
    np.testing.assert_allclose(approximation.mode, mean, atol=1e-4)
    np.testing.assert_allclose(approximation.scale @ approximation.scale.T, covariance, rtol=2e-3, atol=1e-4)


def test_standard_normal_points_map_to_sites(approximation):
    point = jnp.array([1.0, -2.0])
    sites = approximation.to_sites(point)
    np.testing.assert_allclose(sites["beta"], approximation.mode + approximation.scale @ point, rtol=1e-5)


def test_the_potential_is_a_unit_bowl_in_standard_coordinates(approximation):
    precision = DESIGN.T @ DESIGN / NOISE**2 + np.eye(2)
    scale = np.asarray(approximation.scale, float)
    np.testing.assert_allclose(scale.T @ precision @ scale, np.eye(2), atol=5e-3)


def test_flat_and_inverted_directions_get_a_width_of_the_root_of_ten():
    def saddle(x, _):
        return 2.0 * x["a"] ** 2 - jnp.cos(x["c"]) * 0.01 + 0.0 * x["b"]

    start = {"a": jnp.array(1.0), "b": jnp.array(0.5), "c": jnp.array(jnp.pi)}
    found = laplace(saddle, {}, start)
    widths = np.sqrt(np.diag(found.scale @ found.scale.T))
    np.testing.assert_allclose(widths, [0.5, np.sqrt(10), np.sqrt(10)], rtol=1e-3)


def test_the_best_point_is_kept_when_the_potential_is_not_finite_beyond_a_wall():
    def wall(x, _):
        return jnp.where(x < 2.0, (x - 1.0) ** 2, jnp.nan)

    found = laplace(wall, {}, jnp.array(1.9))
    np.testing.assert_allclose(found.mode, [1.0], atol=1e-3)
    assert np.isfinite(found.scale).all()
