"""Loadings in a fixed rotation of the latent space."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int
from numpyro.distributions.transforms import PowerTransform


def sample_anchored_loadings(name: str, order: Int[Array, " unit"], rank: int) -> Float[Array, "unit latent_dim"]:
    r"""Standard normal loadings, rotated so that the first `rank` units of `order` have a lower triangular block.

    An isotropic prior $m_i \sim N(0, I)$ with isotropic process noise leaves every rotation of the latent space
    equally likely. Write the block of these anchor units as $L Q$ with $L$ lower triangular, its diagonal positive,
    and $Q$ orthogonal; rotating by $Q^\top$ picks one representative of each orbit. Under the normal prior the
    entries of $L$ are independent, $L_{kk} \sim \chi_{D-k}$ (k from 0) and standard normal below the diagonal, so
    every quantity that does not depend on the rotation keeps its prior. Source: Bartlett decomposition.

    Sites: `{name}_diagonal (latent_dim)`, `{name}_below (below)`, `{name}_free (free_unit, latent_dim)` and the
    deterministic `{name} (unit, latent_dim)`.
    """
    chi_squared = dist.Chi2(rank - jnp.arange(rank, dtype=float))
    chi = dist.TransformedDistribution(chi_squared, PowerTransform(0.5))
    block = jnp.diag(numpyro.sample(f"{name}_diagonal", chi.to_event(1)))
    if rank > 1:
        n_below = rank * (rank - 1) // 2
        below = numpyro.sample(f"{name}_below", dist.Normal(jnp.zeros(n_below), 1.0).to_event(1))
        block = block.at[jnp.tril_indices(rank, -1)].set(below)
    free = numpyro.sample(f"{name}_free", dist.Normal(jnp.zeros((len(order) - rank, rank)), 1.0).to_event(2))
    return numpyro.deterministic(name, jnp.zeros((len(order), rank)).at[order].set(jnp.concatenate([block, free])))
