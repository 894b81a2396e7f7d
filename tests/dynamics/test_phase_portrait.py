import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_teachers import BISTABLE, LIMIT_CYCLE, RING, infinite_drift

from connectinfer.dynamics.phase_portrait import phase_portrait, vector_field


@pytest.mark.slow
def test_the_portrait_of_a_limit_cycle_reads_in_seconds(grid):
    text = str(phase_portrait(infinite_drift(LIMIT_CYCLE), grid[::5], tau=0.1))
    assert "2-dimensional drift, tau = 0.1 s" in text
    assert "Fixed points: 1 (1 unstable)" in text
    # Around the origin A - I = 0.6 +- 0.8i per tau.
    assert "grows within 0.167 s, turns at 1.27 Hz" in text
    assert "Attracting limit cycles: 1" in text
    assert "radius 0.948" in text
    assert "period 1.26 s (0.796 Hz)" in text


def test_the_portrait_of_a_bistable_network_lists_attractors_first(grid):
    portrait = phase_portrait(infinite_drift(BISTABLE), grid[::5], tau=0.1)
    lines = str(portrait).splitlines()
    assert "2 stable, 2 saddle, 1 unstable" in lines[1]
    assert lines[2].split()[0] == "stable"
    assert "decays within 0.4 s" in lines[2]
    assert portrait.limit_cycles == ()


def test_a_continuous_attractor_is_printed_in_part(grid):
    text = str(phase_portrait(infinite_drift(RING), grid, tau=0.1))
    assert text.count("neither grows nor decays") == 12
    assert "more" in text


def test_a_vector_field_holds_the_drift_at_ij_indexed_grid_points():
    field = vector_field(lambda z: jnp.array([z[1], -z[0]]), jnp.array([0.0, -1.0]), jnp.array([2.0, 1.0]), 3)
    assert field.points.shape == field.velocity.shape == (3, 3, 2)
    assert field.points[2, 0].tolist() == [2.0, -1.0]
    np.testing.assert_allclose(field.velocity[2, 0], [-1.0, -2.0])
    assert vector_field(lambda z: -z, jnp.zeros(3), jnp.ones(3), 2).velocity.shape == (2, 2, 2, 3)


def test_impossible_arguments_are_refused_with_the_values():
    with pytest.raises(ValueError, match=r"`tau` is a time constant in seconds and must be positive; got 0"):
        phase_portrait(lambda z: -z, jnp.ones((2, 2)), tau=0.0)
    with pytest.raises(ValueError, match=r"`upper` must lie above `lower`.*got \[0. 0.\] and \[1. 0.\]"):
        vector_field(lambda z: -z, jnp.zeros(2), jnp.array([1.0, 0.0]))
