from itertools import permutations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from connectinfer.dynamics.gauge import align_loadings, procrustes, rotate
from connectinfer.dynamics.low_rank import LowRankRNN, change_gauge, connectivity

N_UNITS, RANK = 30, 3


@pytest.fixture(scope="module")
def loadings():
    """Loadings in the gauge that `align_loadings` chooses: orthogonal columns, descending, largest entry positive."""
    generator = np.random.default_rng(0)
    left, _ = np.linalg.qr(generator.normal(size=(N_UNITS, RANK)))
    columns = left * [6.0, 4.0, 2.0]
    return columns * np.sign(columns[np.abs(columns).argmax(0), np.arange(RANK)])


def rotations():
    return ortho_group(RANK, seed=np.random.default_rng(1)).rvs(8)


def signs():
    return np.array([np.diag(s) for s in np.array(np.meshgrid(*3 * [[1.0, -1.0]])).reshape(3, -1).T])


def axis_permutations():
    return np.array([np.eye(RANK)[list(order)] for order in permutations(range(RANK))])


@pytest.mark.parametrize("gauges", [rotations(), signs(), axis_permutations()], ids=["rotated", "flipped", "permuted"])
def test_planted_gauges_are_undone_exactly(loadings, gauges):
    draws = jnp.asarray(loadings @ gauges)
    found = align_loadings(draws)
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(RANK), found.shape), atol=1e-5)
    np.testing.assert_allclose(found, gauges, atol=1e-5)
    np.testing.assert_allclose(rotate(found, draws, -1), np.broadcast_to(loadings, draws.shape), atol=2e-5)


def test_noisy_draws_end_nearer_to_their_mean_than_under_the_gauges_that_were_planted(loadings):
    generator, gauges = np.random.default_rng(2), rotations()
    noisy = loadings + 0.3 * generator.normal(size=(len(gauges), N_UNITS, RANK))
    aligned = np.asarray(rotate(align_loadings(jnp.asarray(noisy @ gauges)), jnp.asarray(noisy @ gauges), -1))

    def spread(draws):
        return ((draws - draws.mean(0)) ** 2).sum()

    assert spread(aligned) < spread(noisy)
    assert np.abs(aligned.mean(0) - loadings).max() < 0.5
    norms = np.linalg.norm(aligned.mean(0), axis=0)
    assert (np.diff(norms) < 0).all()


def test_the_gauge_that_draws_come_in_does_not_matter(loadings):
    noisy = loadings + 0.3 * np.random.default_rng(2).normal(size=(8, N_UNITS, RANK))
    one, other = (jnp.asarray(noisy @ g) for g in (np.broadcast_to(np.eye(RANK), (8, RANK, RANK)), rotations()))
    np.testing.assert_allclose(
        rotate(align_loadings(one), one, -1), rotate(align_loadings(other), other, -1), atol=1e-3
    )


def test_loadings_of_rank_one_are_aligned_by_their_sign():
    m = jnp.array([[1.0], [-3.0], [2.0]])
    gauge = align_loadings(jnp.stack([m, -m, m]))
    # The largest entry is the second, and becomes positive.
    assert gauge[:, 0, 0].tolist() == pytest.approx([-1.0, 1.0, -1.0])


def test_procrustes_is_scipys(loadings):
    generator = np.random.default_rng(3)
    for _ in range(5):
        other = loadings @ ortho_group.rvs(RANK, random_state=generator) + generator.normal(size=loadings.shape)
        expected, _ = orthogonal_procrustes(other, loadings)
        np.testing.assert_allclose(procrustes(jnp.asarray(other), jnp.asarray(loadings)), expected.T, atol=1e-5)


def test_procrustes_may_reflect(loadings):
    mirror = np.diag([1.0, 1.0, -1.0])
    found = procrustes(jnp.asarray(loadings @ mirror), jnp.asarray(loadings))
    np.testing.assert_allclose(found, mirror, atol=1e-6)


def test_rotating_both_loadings_leaves_the_weights_as_they_were():
    m, n = jnp.asarray(np.random.default_rng(4).normal(size=(2, 8, N_UNITS, RANK)), float)
    gauge = jnp.asarray(rotations())
    expected = np.einsum("dir,djr->dij", m, n)
    turned = np.einsum("dir,djr->dij", rotate(gauge, m, -1), rotate(gauge, n, -1))
    np.testing.assert_allclose(turned, expected, atol=2e-5)
    network = LowRankRNN(m[0], n[0])
    moved = change_gauge(network, gauge[0])
    np.testing.assert_allclose(rotate(gauge[0], m[0], -1), moved.m, atol=1e-5)
    np.testing.assert_allclose(rotate(gauge[0], n[0], -1), moved.n, atol=1e-5)
    np.testing.assert_allclose(connectivity(moved), connectivity(network), atol=1e-5)


def test_rotate_applies_a_to_the_axis_it_is_told_and_matches_leading_axes():
    gauge = jnp.asarray(rotations()).reshape(2, 4, RANK, RANK)  # chain, draw
    paths = jnp.asarray(np.random.default_rng(5).normal(size=(2, 4, 5, 6, RANK)), float)
    overlap = jnp.ones((2, 4, RANK, RANK))
    np.testing.assert_allclose(rotate(gauge, paths, -1), np.einsum("cdrs,cdkts->cdktr", gauge, paths), atol=1e-5)
    once = rotate(gauge, overlap, 2)
    np.testing.assert_allclose(once, gauge @ overlap, atol=1e-5)
    np.testing.assert_allclose(rotate(gauge, once, 3), gauge @ overlap @ jnp.swapaxes(gauge, -1, -2), atol=1e-5)
    vector = paths[:, :, 0, 0]
    np.testing.assert_allclose(rotate(gauge, vector, -1), np.einsum("cdrs,cds->cdr", gauge, vector), atol=1e-5)
    single = gauge[0, 0]
    np.testing.assert_allclose(rotate(single, single.T, 0), np.eye(RANK), atol=1e-6)
