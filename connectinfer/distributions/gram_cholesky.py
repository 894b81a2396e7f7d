"""Cholesky factors of Gram matrices that single precision would not find positive definite."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def gram_cholesky(root: Float[Array, "row column"]) -> Float[Array, "column column"]:
    """The Cholesky factor of `root^T root`, by QR of the root, which has full column rank.

    The condition number of the product is the square of the root's: in single precision its Cholesky decomposition
    fails when that of the root exceeds about 4,000.
    """
    factor = jnp.linalg.qr(root, mode="r")
    return (factor * jnp.sign(jnp.diagonal(factor))[:, None]).T
