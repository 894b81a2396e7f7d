import jax.numpy as jnp
import numpy as np
import pytest

from connectinfer.dynamics.fixed_points import FixedPoints
from connectinfer.dynamics.limit_cycles import LimitCycle
from connectinfer.dynamics.phase_portrait import PhasePortrait, vector_field
from connectinfer.plots.dynamics import plot_fixed_points, plot_flow, plot_limit_cycles
from connectinfer.plots.phase_portraits import to_field, to_fixed_points, to_limit_cycles


def portrait(locations, stability, n_cycles):
    location = np.array(locations, float).reshape(-1, 2)
    found = FixedPoints(location, np.zeros(location.shape, complex), np.zeros(len(location)), tuple(stability))
    phase = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    orbit = np.stack([np.cos(phase), np.sin(phase)], -1)
    return PhasePortrait(found, (LimitCycle(orbit, 6.0, np.array([1.0, 0.5 + 0j])),) * n_cycles, 0.1)


PORTRAITS = [
    portrait([[0, 0], [1, 1]], ["stable", "saddle"], 1),
    portrait([], [], 0),
    portrait([[2, 0]], ["stable"], 1),
]


def test_a_field_keeps_the_drift_at_its_place():
    field = to_field(vector_field(lambda z: jnp.array([z[0] + 10 * z[1], 0.0]), jnp.zeros(2), jnp.array([1.0, 2.0]), 3))
    assert field["drift"].sel(x=0.5, y=2.0).values.tolist() == [20.5, 0.0]
    plot_flow(field)


def test_fixed_points_remember_their_draw():
    points = to_fixed_points([each.fixed_points for each in PORTRAITS])
    assert points["position"].values.tolist() == [[0, 0], [1, 1], [2, 0]]
    assert points["stability"].values.tolist() == ["stable", "saddle", "stable"]
    assert points["draw"].values.tolist() == [0, 0, 2]
    plot_fixed_points(points, truth=to_fixed_points([PORTRAITS[1].fixed_points]))


def test_limit_cycles_have_their_period_in_seconds():
    cycles = to_limit_cycles(PORTRAITS)
    assert dict(cycles.sizes) == {"limit_cycle": 2, "phase": 8, "latent_dim": 2}
    assert cycles["draw"].values.tolist() == [0, 2]
    np.testing.assert_allclose(cycles["period"], 0.6)
    plot_limit_cycles(cycles, truth=to_limit_cycles(PORTRAITS[1:2]))


def test_a_field_in_three_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"two latent dimensions; got points of shape \(2, 2, 2, 3\)"):
        to_field(vector_field(lambda z: -z, jnp.zeros(3), jnp.ones(3), 2))


@pytest.mark.parametrize("convert", [to_fixed_points, to_limit_cycles])
def test_an_empty_list_is_refused(convert):
    with pytest.raises(ValueError, match="the list is empty; pass one entry per posterior draw"):
        convert([])
