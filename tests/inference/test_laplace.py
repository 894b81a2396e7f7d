import jax.numpy as jnp
import numpy as np
import pytest
from conjugate import DESIGN, INPUTS, NOISE, exact_posterior, linear_model
from scipy.linalg import expm, logm

from connectinfer.inference.laplace import laplace
from connectinfer.inference.start import potential
from connectinfer.inference.trace import bind

POINTS = 16
# Of an exponential that couples two of three values, and of one that is alone.
COUPLING = np.array([[1.0, 1.0, 0.0], [1.0, -0.5, 0.0], [0.0, 0.0, 0.7]])


def exponentials(x, arrays):
    """A unit bowl around zero plus exponentials, as of Poisson counts with log rates `COUPLING @ x`."""
    return (x**2).sum() / 2 + arrays["weight"] * jnp.exp(jnp.asarray(COUPLING, float) @ x).sum()


def curvature_of_exponentials(x, weight):
    return np.eye(3) + weight * COUPLING.T @ np.diag(np.exp(COUPLING @ x)) @ COUPLING


def covariance(approximation):
    scale = np.asarray(approximation.scale, float)
    return scale @ scale.T


def points(size, seed=0):
    return np.random.default_rng(seed).normal(size=(POINTS, size))


@pytest.fixture(scope="module")
def gaussian():
    """The approximation of a Gaussian posterior, and the arrays of its model."""
    bound, arrays = bind(linear_model, INPUTS)
    density = lambda free, arrays: potential(bound, arrays, free)  # noqa: E731
    return laplace(density, arrays, {"beta": jnp.array([3.0, -2.0])}), arrays


@pytest.fixture
def approximation(gaussian):
    return gaussian[0]


def test_mode_and_covariance_of_a_gaussian_posterior_are_exact(approximation):
    mean, covariance = exact_posterior()
    np.testing.assert_allclose(approximation.mode, mean, atol=1e-4)
    np.testing.assert_allclose(approximation.scale @ approximation.scale.T, covariance, rtol=2e-3, atol=1e-4)


def test_the_mode_unravels_into_sites(approximation):
    sites = approximation.unravel(approximation.mode)
    np.testing.assert_array_equal(sites["beta"], approximation.mode)


@pytest.mark.parametrize("centre", [0.0, -3.0])
def test_a_gaussian_posterior_has_the_same_curvature_at_all_points(gaussian, centre):
    approximation, arrays = gaussian
    found = approximation.recurved(jnp.asarray(centre + points(2), float), arrays)
    np.testing.assert_allclose(covariance(found), exact_posterior()[1], rtol=2e-3, atol=1e-4)
    np.testing.assert_array_equal(found.mode, approximation.mode)


def geometric_mean(curvatures):
    """By logarithms of matrices, from another library."""
    return expm(np.mean([logm(x) for x in curvatures], 0))


def test_the_curvature_is_that_at_the_mode_and_then_its_geometric_mean_over_the_points():
    arrays = {"weight": jnp.array(1.0)}
    found = laplace(exponentials, arrays, jnp.zeros(3))
    mode, scale = np.asarray(found.mode, float), np.asarray(found.scale, float)
    np.testing.assert_allclose(mode + COUPLING.T @ np.exp(COUPLING @ mode), 0, atol=1e-3)
    at_mode = curvature_of_exponentials(mode, 1.0)
    np.testing.assert_allclose(covariance(found), np.linalg.inv(at_mode), atol=2e-3)
    standard = points(3)
    # Of the arrays that it is given, and in the coordinates that it has found.
    for weight in (1.0, 2.0):
        visited = mode + standard @ scale.T
        mean = geometric_mean([scale.T @ curvature_of_exponentials(x, weight) @ scale for x in visited])
        again = found.recurved(jnp.asarray(standard, float), {"weight": jnp.array(weight)})
        np.testing.assert_allclose(covariance(again), scale @ np.linalg.inv(mean) @ scale.T, atol=3e-3)
        assert np.abs(covariance(again) - np.linalg.inv(at_mode)).max() > 0.03


def test_a_cubic_term_counts_at_the_points_and_not_at_the_mode():
    # Differences of a cubic's gradient are exact: f = 2 x^2 + x^4 / 4 has f'' = 4 + 3 x^2, here at x = 1 / 2 and -1.
    def quartic(x, _):
        return (2 * x**2 + x**4 / 4).sum()

    found = laplace(quartic, {}, jnp.array([0.3]))
    np.testing.assert_allclose(found.mode, [0.0], atol=1e-3)
    np.testing.assert_allclose(covariance(found), [[1 / 4]], rtol=1e-3)
    standard = jnp.array([[1.0]] * (POINTS // 2) + [[-2.0]] * (POINTS // 2)) / jnp.sign(found.scale)
    # Differences over a tenth of the scale, 1 / 20, add 1 / 400 to each.
    expected = np.sqrt((4 + 3 * 0.5**2 + 1 / 400) * (4 + 3 * 1.0**2 + 1 / 400))
    np.testing.assert_allclose(covariance(found.recurved(standard, {})), [[1 / expected]], rtol=1e-3)


def test_points_where_the_density_is_not_finite_are_left_out():
    def wall(x, _):
        return (2 * x**2 + 0 * jnp.sqrt(1 - x)).sum()

    found = laplace(wall, {}, jnp.array([0.3]))
    standard = jnp.array([[1.0]] * (POINTS - 2) + [[8.0]] * 2) * jnp.sign(found.scale)
    np.testing.assert_allclose(covariance(found.recurved(standard, {})), [[1 / 4]], rtol=1e-3)
    nowhere = found.recurved(jnp.full((POINTS, 1), 8.0) * jnp.sign(found.scale), {})
    np.testing.assert_array_equal(nowhere.scale, found.scale)


def test_the_potential_is_a_unit_bowl_in_standard_coordinates(approximation):
    precision = DESIGN.T @ DESIGN / NOISE**2 + np.eye(2)
    scale = np.asarray(approximation.scale, float)
    np.testing.assert_allclose(scale.T @ precision @ scale, np.eye(2), atol=5e-3)


def test_flat_and_inverted_directions_get_a_width_of_the_root_of_ten():
    def saddle(x, _):
        return 2.0 * x["a"] ** 2 - jnp.cos(x["c"]) * 0.01 + 0.0 * x["b"] + jnp.cos(x["d"])

    # The gradient along d is zero at the start, so the search stays on the crest.
    start = {"a": jnp.array(1.0), "b": jnp.array(0.5), "c": jnp.array(jnp.pi), "d": jnp.array(0.0)}
    found = laplace(saddle, {}, start)
    widths = np.sqrt(np.diag(covariance(found)))
    np.testing.assert_allclose(widths, [0.5, *[np.sqrt(10)] * 3], rtol=1e-3)


def test_negative_curvatures_count_by_their_size_where_chains_were():
    # Curvatures 4; -2 in a direction of its own; nothing.
    axes = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0], float)

    def ridge(x, arrays):
        return (jnp.asarray(arrays["curvature"]) * (axes.T @ x) ** 2).sum() / 2

    found = laplace(ridge, {"curvature": jnp.array([4.0, 1.0, 0.0])}, jnp.zeros(3))
    expected = axes @ jnp.diag(jnp.array([1 / 4, 1.0, 10.0])) @ axes.T
    np.testing.assert_allclose(covariance(found), expected, atol=5e-3)
    found = found.recurved(jnp.asarray(points(3), float), {"curvature": jnp.array([4.0, -2.0, 0.05])})
    expected = axes @ jnp.diag(jnp.array([1 / 4, 1 / 2, 10.0])) @ axes.T
    np.testing.assert_allclose(covariance(found), expected, atol=5e-3)


def test_the_best_point_is_kept_when_the_potential_is_not_finite_beyond_a_wall():
    def wall(x, _):
        return jnp.where(x < 2.0, (x - 1.0) ** 2, jnp.nan)

    found = laplace(wall, {}, jnp.array(1.9))
    np.testing.assert_allclose(found.mode, [1.0], atol=1e-3)
    assert np.isfinite(found.scale).all()


def test_without_a_finite_curvature_the_scale_is_narrow_in_every_direction():
    def needle(x, _):
        return -jnp.sqrt(1e-6 - (x**2).sum())

    found = laplace(needle, {}, jnp.zeros(2))
    np.testing.assert_allclose(found.scale, 0.1 * np.eye(2), rtol=1e-6)
