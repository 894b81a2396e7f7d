import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_teachers import BISTABLE, LIMIT_CYCLE, RING, infinite_drift

from connectinfer.dynamics.limit_cycles import limit_cycles
from connectinfer.dynamics.low_rank import drift, gaussian_network
from connectinfer.dynamics.simulate import simulate


def test_the_limit_cycle_teacher_turns_at_half_a_radian_per_tau(grid):
    (cycle,) = limit_cycles(infinite_drift(LIMIT_CYCLE), grid[::5])
    assert cycle.radius == pytest.approx(0.94813, abs=1e-4)
    assert cycle.period == pytest.approx(4 * np.pi, rel=1e-5)
    np.testing.assert_allclose(np.linalg.norm(cycle.orbit, axis=1), 0.94813, atol=1e-4)
    # Radially the cycle attracts at 0.57721 per tau, as the ring of the same gain: exp(-0.57721 * 12.566).
    np.testing.assert_allclose(cycle.multipliers, [1, np.exp(-0.57721 * 4 * np.pi)], atol=1e-4)
    assert cycle.stable


@pytest.mark.parametrize("overlap", [BISTABLE, RING])
def test_teachers_without_a_cycle_have_none(grid, overlap):
    assert limit_cycles(infinite_drift(overlap), grid[::5]) == ()


def test_the_van_der_pol_oscillator_has_its_published_period():
    # Period 6.6632868593 at mu = 1 (Andersen & Geer, SIAM J. Appl. Math. 42, 678, 1982).
    def field(z):
        return jnp.array([z[1], (1 - z[0] ** 2) * z[1] - z[0]])

    (cycle,) = limit_cycles(field, jnp.array([[0.1, 0.0], [3.0, 3.0]]), settle=50.0)
    assert cycle.period == pytest.approx(6.6632868593, rel=1e-5)
    assert np.abs(cycle.orbit[:, 0]).max() == pytest.approx(2.00862, abs=1e-2)
    # Liouville: the product of the multipliers is exp of the divergence 1 - x^2 integrated over the period.
    divergence = cycle.period * np.mean(1 - cycle.orbit[:, 0] ** 2)
    assert np.real(np.prod(cycle.multipliers)) == pytest.approx(np.exp(divergence), rel=0.02)


@pytest.mark.slow
def test_nested_cycles_in_three_dimensions_are_told_apart_and_repelling_ones_left_out():
    # In the plane the radius obeys r' = r (1 - r^2) (4 - r^2) (9 - r^2) / 50: attracting at 1 and 3, repelling at 2.
    def field(z):
        square = z[0] ** 2 + z[1] ** 2
        growth = (1 - square) * (4 - square) * (9 - square) / 50
        return jnp.array([growth * z[0] - 2 * z[1], growth * z[1] + 2 * z[0], -z[2]])

    starts = jnp.array([[0.5, 0.0, 1.0], [1.5, 0.0, 0.0], [0.0, -2.5, 2.0], [0.0, 3.2, 0.0]])
    cycles = limit_cycles(field, starts, settle=40.0, longest_period=10.0)
    assert sorted(cycle.radius for cycle in cycles) == pytest.approx([1, 3], abs=1e-3)
    assert [cycle.period for cycle in cycles] == pytest.approx([np.pi, np.pi], rel=1e-4)
    inner = min(cycles, key=lambda cycle: cycle.radius)
    # d r'/dr = -2 * 3 * 8 / 50 at r = 1, and the third dimension decays at rate 1.
    np.testing.assert_allclose(inner.multipliers, [1, np.exp(-0.96 * np.pi), np.exp(-np.pi)], atol=1e-3)


@pytest.mark.slow
def test_the_cycle_of_a_sampled_network_is_the_path_it_settles_to(key):
    network = gaussian_network(key, LIMIT_CYCLE, 0.9, n_neurons=300)
    (cycle,) = limit_cycles(jax.tree_util.Partial(drift, network), jnp.array([[1.0, 0.0], [0.0, -2.0]]))
    settled = simulate(network, jnp.array([1.0, 1.0]), np.linspace(0.0, 20.0, 401)).latent[300:]
    distance = np.linalg.norm(settled[:, None] - cycle.orbit, axis=-1).min(1)
    assert distance.max() < 0.02


def test_diverging_paths_are_counted_in_a_warning():
    with pytest.warns(UserWarning, match="1 of 2 paths diverged or took too many steps"):
        found = limit_cycles(lambda z: -z + z**3, jnp.array([[0.5], [1.5]]))
    assert found == ()
