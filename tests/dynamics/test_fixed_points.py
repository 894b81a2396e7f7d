import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_teachers import BISTABLE, RING, infinite_drift

from connectinfer.dynamics.fixed_points import fixed_points


def test_the_bistable_teacher_has_its_five_fixed_points(grid):
    found = fixed_points(infinite_drift(BISTABLE), grid)
    assert found.stability == ("stable", "stable", "saddle", "saddle", "unstable")
    attractor = 0.94813 * np.array([2, 1]) / np.sqrt(5)
    order = np.argsort(found.location[:2, 0])
    np.testing.assert_allclose(found.location[:2][order], [-attractor, attractor], atol=2e-5)
    order = np.argsort(found.location[2:4, 0])
    np.testing.assert_allclose(found.location[2:4][order], [[-0.48628, 0], [0.48628, 0]], atol=2e-5)
    np.testing.assert_allclose(found.location[4], [0, 0], atol=1e-6)
    # At the origin the Jacobian is A - I; across the attractor's radius it is 1.2 / 1.6 - 1.
    np.testing.assert_allclose(found.eigenvalues[4], [0.6, 0.2], atol=1e-5)
    np.testing.assert_allclose(found.eigenvalues[:2, 0], [-0.25, -0.25], atol=1e-4)
    assert found.residual.max() < 1e-5


def test_a_ring_is_a_continuum_of_marginal_points_around_an_unstable_one(grid):
    found = fixed_points(infinite_drift(RING), grid)
    radii = np.linalg.norm(found.location, axis=1)
    ring = [kind == "marginal" for kind in found.stability]
    np.testing.assert_allclose(radii[ring], 0.94813, atol=1e-4)
    assert sum(ring) > 10
    assert [kind for kind in found.stability if kind != "marginal"] == ["unstable"]


def test_a_linear_drift_of_any_rank_has_the_eigenvalues_of_its_matrix(key):
    matrix = jnp.diag(jnp.array([-1.0, -0.5, 0.3, -2.0])).at[0, 1].set(5.0)
    shift = jnp.array([1.0, 2.0, 3.0, 4.0])
    found = fixed_points(lambda z: matrix @ (z - shift), jax.random.normal(key, (3, 4)))
    np.testing.assert_allclose(found.location, shift[None], atol=1e-4)
    np.testing.assert_allclose(found.eigenvalues, [[0.3, -0.5, -1.0, -2.0]], atol=1e-5)
    assert found.stability == ("saddle",)


def test_a_place_of_slow_motion_without_a_zero_is_not_a_fixed_point():
    found = fixed_points(lambda z: jnp.square(z) + 0.01, jnp.linspace(-1, 1, 5)[:, None])
    assert found.location.shape == (0, 1)
    assert found.stability == ()


@pytest.mark.parametrize("starts", [jnp.ones((0, 2)), jnp.full((3, 2), jnp.nan)])
def test_unusable_starts_are_refused(starts):
    with pytest.raises(ValueError, match=r"non-empty, finite \(start, rank\) matrix; got shape"):
        fixed_points(lambda z: -z, starts)
