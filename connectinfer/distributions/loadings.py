"""Loadings in a fixed rotation of the latent space."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import PowerTransform

from connectinfer.distributions.gram_cholesky import gram_cholesky


class AlignedLoadings(NamedTuple):
    """`loading (unit, latent_dim)`; its `alignment (latent_dim, latent_dim)` to the reference, lower triangular with
    positive diagonal; and `relative (unit, latent_dim)`, with `loading = relative @ alignment`."""

    loading: Float[Array, "unit latent_dim"]
    alignment: Float[Array, "latent_dim latent_dim"]
    relative: Float[Array, "unit latent_dim"]


def sample_aligned_loadings(name: str, basis: Float[Array, "unit unit"], rank: int) -> AlignedLoadings:
    r"""Standard normal loadings, rotated so that their projection on a reference is triangular.

    `basis` is an orthogonal matrix whose first `rank` columns U, the reference, span the space of the units where
    loadings are expected (leading principal components); the others V complete it.

    The prior $c_i \sim N(0, I)$ with isotropic process noise leaves every rotation of the latent space equally likely.
    Write the projection $U^\top c / \sqrt K$ as $L Q$ with $L$ lower triangular, its diagonal positive, and $Q$
    orthogonal; rotating by $Q^\top$ picks one representative of each orbit. The entries of $L$ are then independent,
    $\sqrt K L_{kk} \sim \chi_{D-k}$ (k from 0) and $\sqrt K L_{kl} \sim N(0, 1)$ below the diagonal, so every quantity
    that does not depend on the rotation keeps its prior. Source: Bartlett decomposition.

    What remains is sampled relative to $L$: $c = \sqrt K (U + V B) L$. Rescaling or shearing the latent space moves $L$
    and leaves $B$ alone, and all units together, rather than a few of them, fix the scale of the latent space.
    Sites: `{name}_diagonal (latent_dim)`, `{name}_below (below)`, `{name}_relative (unit - latent_dim, latent_dim)`;
    the last two only where they have entries.
    """
    n_units = len(basis)
    # The root of a gamma variable is a scaled chi variable; its support, unlike a scaled one's, is fixed.
    squared = dist.Gamma((rank - jnp.arange(rank, dtype=float)) / 2, n_units / 2)
    chi = dist.TransformedDistribution(squared, PowerTransform(0.5))
    alignment = jnp.diag(numpyro.sample(f"{name}_diagonal", chi.to_event(1)))
    if rank > 1:
        row, column = jnp.tril_indices(rank, -1)
        law = dist.Normal(jnp.zeros(len(row)), n_units**-0.5)
        alignment = alignment.at[row, column].set(numpyro.sample(f"{name}_below", law.to_event(1)))
    relative = basis[:, :rank]
    if rank < n_units:
        inverse = jax.scipy.linalg.solve_triangular(alignment, jnp.eye(rank), lower=True)
        spread = n_units**-0.5 * gram_cholesky(inverse)
        law = dist.MultivariateNormal(jnp.zeros((n_units - rank, rank)), scale_tril=spread)
        relative = relative + basis[:, rank:] @ numpyro.sample(f"{name}_relative", law.to_event(1))
    relative = n_units**0.5 * relative
    return AlignedLoadings(relative @ alignment, alignment, relative)
