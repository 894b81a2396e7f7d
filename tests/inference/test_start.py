import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import chi2, kstest

from connectinfer.inference.laplace import Laplace
from connectinfer.inference.start import Coordinates, chain_coordinates
from connectinfer.inference.trace import bind


def normal(depth):
    """x ~ N(0, I), of which `depth` nats are taken where the first value is negative."""
    x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    numpyro.factor("pit", jnp.where(x[0] < 0, -depth, 0.0))


def starts_of(model, chains, initial=None, seed=0, **inputs):
    bound, arrays = bind(model, inputs)
    found = chain_coordinates(jax.random.key(seed), bound, arrays, {"x": jnp.zeros((3, 2))}, initial, chains)
    return np.asarray(jax.vmap(lambda x: found.to_free(found.transform, x)["x"])(found.starts))


def test_starts_are_draws_of_the_laplace_approximation_where_it_is_exact():
    starts = starts_of(normal, 150, {"x": np.array([2.0, 1.0])}, depth=0.0)
    assert len(np.unique(starts, axis=0)) == 150
    # False-alarm rate 1e-4 for each of two values.
    assert all(kstest(column, "norm").pvalue > 1e-4 for column in starts.T)


def test_starts_that_the_posterior_excludes_are_drawn_again():
    # Half of the approximation's draws lie in the pit, and halving them does not help.
    assert (starts_of(normal, 50, {"x": np.array([1.0, 0.0])}, depth=1000.0)[:, 0] > 0).all()


def test_starts_are_halved_towards_the_mode_until_they_are_plausible():
    def steep(height):
        x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.factor("wall", -height * jnp.maximum(jnp.abs(x[0]) - 0.5, 0.0))

    free, confined = (starts_of(steep, 100, {"x": np.zeros(2)}, height=height) for height in (0.0, 1000.0))
    energy = lambda x: (x**2).sum(-1) / 2 + 1000 * np.maximum(np.abs(x[:, 0]) - 0.5, 0)  # noqa: E731
    limit = chi2.ppf(0.999, 2) / 2
    assert (energy(confined) <= limit).all()
    # Along the ray of the draw, and no further than needed.
    halvings = np.log2(np.linalg.norm(free, axis=1) / np.linalg.norm(confined, axis=1))
    np.testing.assert_allclose(halvings, halvings.round(), atol=1e-3)
    np.testing.assert_allclose(confined * 2 ** halvings[:, None], free, rtol=1e-2, atol=1e-3)
    assert (energy(2 * confined[halvings > 0.5]) > limit).all()
    assert 0 < (halvings > 0.5).sum() < 100


def test_without_initial_values_starts_are_uniform_within_two():
    starts = starts_of(normal, 200, depth=0.0)
    assert all(kstest(column, "uniform", (-2, 4)).pvalue > 1e-4 for column in starts.T)


def test_too_few_finite_starts_are_counted():
    def nowhere():
        numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.factor("wall", jnp.nan)

    with pytest.raises(ValueError, match="0 of 40 tries had a finite log density and gradient; 2 chains need"):
        starts_of(nowhere, 2)
    with pytest.raises(ValueError, match=r"and a density not far below that of the mode; 2 chains need .* elsewhere"):
        starts_of(nowhere, 2, {"x": np.zeros(2)})


@pytest.mark.parametrize("width", [1.0, 20.0])
def test_settled_coordinates_widen_where_chains_spread_beyond_the_curvature(width):
    # A ridge that turns: everywhere its curvature is one, and yet it is wide along the first axis.
    mode, scale = jnp.array([1.0, -1.0, 0.5]), jnp.diag(jnp.array([0.5, 1.0, 2.0]))
    curvature = lambda _mode, scale, _point, _arrays: scale.T @ jnp.diag(jnp.array([4.0, 1.0, 0.25])) @ scale  # noqa: E731
    approximation = Laplace(mode, scale, lambda x: x, curvature)
    to_free = lambda transform, x: transform[0] + transform[1] @ x  # noqa: E731
    before = Coordinates(jnp.zeros((4, 3)), (mode, scale), to_free, approximation)
    visited = jnp.asarray(np.random.default_rng(0).normal(size=(4, 500, 3)) * [width, 1.0, 1.0], float)
    after = before.settled(before.transform, visited, {})
    covariance = np.asarray(after.transform[1] @ after.transform[1].T)
    edge = (1 + np.sqrt(3 / 1000)) ** 2
    expected = np.array([0.25 * max(width**2 / edge, 1.0), 1.0, 4.0])
    np.testing.assert_allclose(np.diag(covariance), expected, rtol=0.1)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=0.05 * width)
    # Chains go on from where they were.
    were = np.asarray(jax.vmap(lambda x: to_free(before.transform, x))(visited[:, -1]))
    np.testing.assert_allclose(jax.vmap(lambda x: to_free(after.transform, x))(after.starts), were, atol=1e-3)


@pytest.mark.parametrize("shape", [(4, 50, 1), (1, 1, 2)], ids=["one value", "one point"])
def test_the_smallest_runs_settle(shape):
    size = shape[-1]
    bowl = Laplace(jnp.zeros(size), jnp.eye(size), lambda x: x, lambda _mode, scale, _point, _arrays: scale.T @ scale)
    visited = jnp.asarray(np.random.default_rng(0).normal(size=shape), float)
    before = Coordinates(jnp.zeros((shape[0], size)), (bowl.mode, bowl.scale), lambda _, x: x, bowl)
    after = before.settled(before.transform, visited, {})
    np.testing.assert_allclose(after.transform[1], np.eye(size), atol=0.2)
    assert np.isfinite(after.starts).all()


def test_initial_values_outside_the_support_are_named():
    def model():
        numpyro.sample("width", dist.HalfNormal(jnp.ones(2)).to_event(1))

    bound, arrays = bind(model, {})
    with pytest.raises(ValueError, match=r"values outside the support of \['width'\], or on its edge"):
        chain_coordinates(
            jax.random.key(0), bound, arrays, {"width": jnp.ones((3, 2))}, {"width": np.array([1.0, 0.0])}, 2
        )
