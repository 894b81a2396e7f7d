"""Calcium: its kernel by hand, its noise within bins against walks on a fine grid, and the laws of pairs of paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from connectinfer.dynamics.observation import Gaussian
from connectinfer.latent.calcium import (
    WITHIN_BIN,
    calcium_space,
    filtered_by_calcium,
    kept_share,
    pairs_behind,
    within_bin,
)
from connectinfer.latent.state_space import StateSpace

KEPT = jnp.array(0.6)
NOISE = jnp.array([[0.3, 0.0], [0.1, 0.2]])


def linear_space(initial_mean=(0.5, -1.0)):
    return StateSpace(
        initial_mean=jnp.array(initial_mean),
        initial_tril=0.4 * jnp.eye(2),
        transition=jax.tree_util.Partial(lambda z, v: 0.9 * z + v),
        noise_tril=NOISE,
        inputs=jnp.zeros((3, 12, 2)).at[1, 4:].set(0.3),
        loading=jnp.array([[1.0, 2.0], [0.5, 0.0], [0.0, -1.0]]),
        offset=jnp.array(0.2),
        observation=Gaussian(jnp.ones(3)),
    )


def test_after_its_time_constant_a_share_of_one_over_e_is_left():
    assert float(kept_share(jnp.array(0.5), 0.5)) == pytest.approx(np.exp(-1))
    assert float(kept_share(jnp.array(0.5), 0.1)) ** 5 == pytest.approx(np.exp(-1))


def test_calcium_of_a_step_counted_by_hand():
    step = jnp.array([0.0, 1.0, 1.0, 1.0])[None, :, None]
    np.testing.assert_allclose(filtered_by_calcium(step, jnp.array(0.5))[0, :, 0], [0.0, 0.25, 0.625, 0.8125])


def test_calcium_of_what_never_changes_is_the_same():
    constant = jnp.full((2, 5, 3), 1.7)
    np.testing.assert_allclose(filtered_by_calcium(constant, KEPT), constant, rtol=1e-6)


def test_the_mean_of_a_walk_within_a_bin_deviates_as_said():
    n_walks, n_steps = 4000, 400
    walks = np.random.default_rng(0).normal(scale=n_steps**-0.5, size=(n_walks, n_steps)).cumsum(1)
    # Each end counts half.
    mean = (walks.sum(1) - walks[:, -1] / 2) / n_steps
    deviation = mean - walks[:, -1] / 2
    # Known to 1 / sqrt(2 * 4000) = 1.1 %; the bound is crossed by chance in 1 run of 15,000.
    assert deviation.std() == pytest.approx(WITHIN_BIN, rel=0.045)


def test_the_space_of_pairs_steps_as_the_path_and_its_calcium_do(key):
    space, (first, second, start) = linear_space(), jax.random.split(key, 3)
    walk, within = jax.random.normal(first, (3, 11, 2)), jax.random.normal(second, (3, 11, 2))
    pairs = calcium_space(space, KEPT)
    state, paths = jax.random.normal(start, (3, 4)), []
    for t in range(12):
        paths.append(state)
        if t < 11:
            noise = jnp.concatenate([walk[:, t], within[:, t]], -1) @ pairs.noise_tril.T
            state = pairs.transition(state, space.inputs[:, t]) + noise
    paths = jnp.stack(paths, 1)
    z, x = jnp.split(paths, 2, -1)

    expected = 0.9 * z[:, :-1] + space.inputs[:, :-1] + walk @ NOISE.T
    np.testing.assert_allclose(z[:, 1:], expected, atol=1e-5)
    smooth = KEPT * x[:, :-1] + (1 - KEPT) * (z[:, 1:] + z[:, :-1]) / 2
    np.testing.assert_allclose(x[:, 1:], smooth + (1 - KEPT) * WITHIN_BIN * within @ NOISE.T, atol=1e-5)
    # What was drawn within bins is found again.
    np.testing.assert_allclose(within_bin(paths, KEPT), within @ NOISE.T, atol=1e-4)


def test_units_see_calcium_and_not_the_path(key):
    space = linear_space()
    pairs, paths = calcium_space(space, KEPT), jax.random.normal(key, (3, 12, 4))
    np.testing.assert_allclose(pairs.predictor(paths), space.predictor(paths[..., 2:]), rtol=1e-6)
    np.testing.assert_array_equal(pairs.initial_mean, [0.5, -1.0, 0.5, -1.0])
    covariance = pairs.initial_tril @ pairs.initial_tril.T
    np.testing.assert_allclose(covariance, 0.16 * np.eye(4), rtol=1e-6)


def test_paths_behind_smooth_calcium_explain_it_without_noise_within_bins():
    phase = jnp.linspace(0, 2 * jnp.pi, 200)
    x = jnp.stack([jnp.sin(phase), jnp.cos(phase)], -1)[None]
    paths = pairs_behind(x, KEPT)
    np.testing.assert_allclose(within_bin(paths, KEPT), 0.0, atol=1e-4)
    # Calcium lags, so the path is ahead; the first bins remember that it was at rest before.
    np.testing.assert_allclose(paths[:, 20:-1, 2:], x[:, 20:-1], atol=2e-3)
    assert (paths[0, 20:40, 0] > x[0, 20:40, 0]).all()
