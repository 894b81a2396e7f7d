import jax.numpy as jnp
import numpy as np
import pytest

from connectinfer.distributions.gram_cholesky import gram_cholesky


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (7, 3)])
def test_equals_the_cholesky_factor_of_the_product(shape):
    root = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(gram_cholesky(jnp.asarray(root)), np.linalg.cholesky(root.T @ root), atol=1e-5)


def test_holds_where_the_product_is_not_positive_definite_in_single_precision():
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    root = np.float32(rng.normal(size=(8, 3)) * [1.0, 1e-2, 3e-5] @ rotation)
    assert np.isnan(jnp.linalg.cholesky(jnp.asarray(root).T @ jnp.asarray(root))).any()
    exact = np.linalg.cholesky(root.T.astype(float) @ root.astype(float))
    np.testing.assert_allclose(gram_cholesky(jnp.asarray(root)), exact, atol=1e-5, rtol=0.05)
