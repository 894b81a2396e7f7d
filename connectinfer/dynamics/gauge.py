"""The gauge of latent dynamics: rotations, reflections and permutations of the latent axes that change nothing.

With `z -> A z`, `m -> m A^-1` and `n -> n A^T` every rate, weight and drift stays what it was. Under an isotropic prior
and isotropic noise the orthogonal A are exact symmetries of the posterior, signs and permutations among them, so
draws must be brought to one gauge before they are averaged or compared.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ITERATIONS = 20


def align_loadings(loadings: Float[Array, "draw unit rank"]) -> Float[Array, "draw rank rank"]:
    """Orthogonal A of each draw that bring the loadings `m A^T` of all draws as close to their mean as possible.

    Axes come in descending order of the mean's column norms, and signs such that the largest entry of each column of
    the mean is positive.
    Source: generalised Procrustes analysis, Gower, Psychometrika 40, 33 (1975).
    """

    def refine(reference: Array, _: None) -> tuple[Array, None]:
        gauge = jax.vmap(lambda m: procrustes(m, reference))(loadings)
        return jnp.einsum("dur,dsr->us", loadings, gauge) / loadings.shape[0], None

    mean, _ = jax.lax.scan(refine, loadings[-1], None, length=_ITERATIONS)
    reference = mean @ _principal_axes(mean).T
    return jax.vmap(lambda m: procrustes(m, reference))(loadings)


def procrustes(loadings: Float[Array, "unit rank"], reference: Float[Array, "unit rank"]) -> Float[Array, "rank rank"]:
    """The orthogonal A that brings `loadings @ A.T` closest to `reference` in least squares."""
    left, _, right = jnp.linalg.svd(reference.T @ loadings, full_matrices=False)
    return left @ right


def rotate(gauge: Float[Array, "*draw rank rank"], values: Array, axis: int) -> Array:
    """`values` with A applied along `axis`; leading axes of `values` match those of `gauge` (..., rank, rank)."""
    moved = jnp.moveaxis(values, axis, -1)
    n_draw_axes = gauge.ndim - 2
    flat = moved.reshape(*moved.shape[:n_draw_axes], -1, moved.shape[-1])
    return jnp.moveaxis((flat @ jnp.swapaxes(gauge, -1, -2)).reshape(moved.shape), -1, axis)


def _principal_axes(mean: Float[Array, "unit rank"]) -> Float[Array, "rank rank"]:
    _, _, axes = jnp.linalg.svd(mean, full_matrices=False)
    columns = mean @ axes.T
    largest = jnp.take_along_axis(columns, jnp.abs(columns).argmax(0)[None], 0)[0]
    return axes * jnp.where(largest < 0, -1.0, 1.0)[:, None]
