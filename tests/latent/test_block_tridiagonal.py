import jax
import jax.numpy as jnp
import numpy as np
import pytest

from connectinfer.latent.block_tridiagonal import (
    BlockTridiagonal,
    factorise,
    solve,
    standardise,
    times,
    times_vector,
    transpose,
)

N_TIME, N_TRIALS = 5, 2
solved = jax.jit(solve)


class Case:
    """A random precision for each trial, dense `(trial, time * dim, time * dim)` and in blocks."""

    def __init__(self, dim):
        generator = np.random.default_rng(dim)
        size = N_TIME * dim
        root = np.zeros((N_TRIALS, size, size))
        for t in range(N_TIME):
            own, before = slice(t * dim, (t + 1) * dim), slice((t - 1) * dim, t * dim)
            root[:, own, own] = generator.normal(size=(N_TRIALS, dim, dim)) + 3 * np.eye(dim)
            if t:
                root[:, own, before] = generator.normal(size=(N_TRIALS, dim, dim))
        self.dim, self.dense = dim, root @ root.transpose(0, 2, 1)
        self.h = generator.normal(size=(N_TIME, dim, N_TRIALS))
        block = lambda t, s: self.dense[:, t * dim : (t + 1) * dim, s * dim : (s + 1) * dim].transpose(1, 2, 0)  # noqa: E731
        diagonal = np.stack([block(t, t) for t in range(N_TIME)])
        coupling = np.stack([block(t, t + 1) for t in range(N_TIME - 1)])
        self.matrix = BlockTridiagonal(jnp.asarray(diagonal, float), jnp.asarray(coupling, float))
        self.factor = jax.jit(factorise)(self.matrix)

    def flat(self, x):
        return np.asarray(x, float).transpose(2, 0, 1).reshape(N_TRIALS, -1)


@pytest.fixture(scope="module", params=[1, 2, 3])
def case(request):
    return Case(request.param)


def test_solutions_are_those_of_the_dense_matrix(case):
    found = solved(case.factor, jnp.asarray(case.h, float))
    expected = np.linalg.solve(case.dense, case.flat(case.h)[..., None])[..., 0]
    np.testing.assert_allclose(case.flat(found), expected, rtol=1e-3, atol=1e-4)


def test_log_determinants_are_those_of_the_dense_matrix(case):
    np.testing.assert_allclose(case.factor.log_det, np.linalg.slogdet(case.dense)[1], rtol=1e-5)


def test_noise_becomes_deviations_with_the_covariance_of_the_dense_inverse(case):
    size = N_TIME * case.dim
    units = jnp.eye(size).reshape(size, N_TIME, case.dim, 1).repeat(N_TRIALS, 3)
    columns = jax.jit(jax.vmap(lambda e: solve(case.factor, jnp.zeros_like(e), e)))(units)
    root = np.stack([case.flat(column) for column in columns], -1)
    np.testing.assert_allclose(root @ root.transpose(0, 2, 1), np.linalg.inv(case.dense), rtol=1e-3, atol=1e-5)


def test_a_draw_is_the_mean_plus_its_deviation_and_gives_its_noise_back(case):
    noise = jnp.asarray(np.random.default_rng(9).normal(size=case.h.shape), float)
    h = jnp.asarray(case.h, float)
    mean, draw = solved(case.factor, h), solved(case.factor, h, noise)
    np.testing.assert_allclose(draw - mean, solved(case.factor, jnp.zeros_like(h), noise), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(jax.jit(standardise)(case.factor, draw - mean), noise, rtol=1e-3, atol=1e-3)


def test_small_products_are_those_of_matmul():
    generator = np.random.default_rng(0)
    left, right = (jnp.asarray(generator.normal(size=(4, 3, 3, 2)), float) for _ in range(2))
    vector = jnp.asarray(generator.normal(size=(4, 3, 2)), float)
    np.testing.assert_allclose(times(left, right), np.einsum("tijr,tjkr->tikr", left, right), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        times_vector(left, vector), np.einsum("tijr,tjr->tir", left, vector), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(transpose(left), np.asarray(left).swapaxes(1, 2))
