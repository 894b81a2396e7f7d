"""Loadings in a fixed rotation of the latent space."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int
from numpyro.distributions.transforms import PowerTransform


class AnchoredLoadings(NamedTuple):
    """`loading (unit, latent_dim)`; the anchors' `block (latent_dim, latent_dim)`, lower triangular with positive
    diagonal; and `relative (unit, latent_dim)`, with `loading = relative @ block`."""

    loading: Float[Array, "unit latent_dim"]
    block: Float[Array, "latent_dim latent_dim"]
    relative: Float[Array, "unit latent_dim"]


def sample_anchored_loadings(
    name: str, order: Int[Array, " unit"], rank: int, scale: Float[Array, " unit"]
) -> AnchoredLoadings:
    r"""Normal loadings, rotated so that the first `rank` units of `order`, the anchors, have a triangular block.

    An isotropic prior $c_i \sim N(0, s_i^2 I)$ (`scale`) with isotropic process noise leaves every rotation of the
    latent space equally likely. Write the block of the anchors as $L Q$ with $L$ lower triangular, its diagonal
    positive, and $Q$ orthogonal; rotating by $Q^\top$ picks one representative of each orbit. Under the normal prior
    the entries of $L$ are independent, $L_{kk} \sim s_k \chi_{D-k}$ (k from 0) and $N(0, s_k^2)$ below the diagonal of
    row k, so every quantity that does not depend on the rotation keeps its prior. Source: Bartlett decomposition of
    the rows divided by their scales.

    The other units are sampled relative to the block, $\tilde c_i = c_i L^{-1}$: rescaling or shearing the latent space
    moves $L$ and leaves them alone.
    Sites: `{name}_diagonal (latent_dim)`, `{name}_below (below)`, `{name}_relative (free_unit, latent_dim)`; the last
    two only where they have entries.
    """
    scale = scale[order]
    # The root of a gamma variable is a scaled chi variable; its support, unlike a scaled one's, is fixed.
    squared = dist.Gamma((rank - jnp.arange(rank, dtype=float)) / 2, 0.5 / scale[:rank] ** 2)
    chi = dist.TransformedDistribution(squared, PowerTransform(0.5))
    block = jnp.diag(numpyro.sample(f"{name}_diagonal", chi.to_event(1)))
    if rank > 1:
        row, column = jnp.tril_indices(rank, -1)
        below = numpyro.sample(f"{name}_below", dist.Normal(jnp.zeros(len(row)), scale[row]).to_event(1))
        block = block.at[row, column].set(below)
    relative = jnp.eye(rank)
    if rank < len(order):
        spread = scale[rank:, None, None] * _factor_of_inverse_square(block)
        law = dist.MultivariateNormal(jnp.zeros((len(order) - rank, rank)), scale_tril=spread)
        relative = jnp.concatenate([relative, numpyro.sample(f"{name}_relative", law.to_event(1))])
    relative = jnp.zeros((len(order), rank)).at[order].set(relative)
    return AnchoredLoadings(relative @ block, block, relative)


def _factor_of_inverse_square(block: Float[Array, "latent_dim latent_dim"]) -> Float[Array, "latent_dim latent_dim"]:
    """The Cholesky factor of `L^-T L^-1`, the covariance of `c L^-1` for standard normal c."""
    # By QR: the Cholesky decomposition of the square fails in single precision when an anchor's loading is small.
    inverse = jax.scipy.linalg.solve_triangular(block, jnp.eye(len(block)), lower=True)
    factor = jnp.linalg.qr(inverse, mode="r")
    return (factor * jnp.sign(jnp.diagonal(factor))[:, None]).T
