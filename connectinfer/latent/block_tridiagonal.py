r"""Gaussians with a block-tridiagonal precision: posteriors of paths, trial by trial.

The precision of a path $z_1, \dots, z_T$ has diagonal blocks $J_t$ and couplings $B_t$ between $z_t$ and $z_{t+1}$; its
information vector has blocks $h_t$. All arrays end with the axis `trial`: the small matrix operations of one bin then
run along contiguous numbers of all trials.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class BlockTridiagonal(NamedTuple):
    """Blocks `diagonal (time, dim, dim, trial)`, symmetric, and `coupling (time - 1, dim, dim, trial)`, row t and
    column t + 1, of a precision matrix for each trial."""

    diagonal: Float[Array, "time dim dim trial"]
    coupling: Float[Array, "step dim dim trial"]


class Factor(NamedTuple):
    r"""Block Cholesky factor, later bins eliminated first: $z_t$ given $z_{t-1}$ has precision $L_t L_t^\top$, with
    `root` L_t `(time, dim, dim, trial)`, lower triangular, and `gain` $L_{t+1}^{-1} B_t^\top$ `(time - 1, ...)`."""

    root: Float[Array, "time dim dim trial"]
    gain: Float[Array, "step dim dim trial"]

    @property
    def log_diagonal(self) -> Float[Array, "time trial dim"]:
        """Logarithms of the diagonal of the root."""
        return jnp.log(jnp.diagonal(self.root, axis1=1, axis2=2))

    @property
    def log_det(self) -> Float[Array, " trial"]:
        """Log determinants of the precisions."""
        return 2 * self.log_diagonal.sum((0, 2))


def factorise(matrix: BlockTridiagonal) -> Factor:
    """Block Cholesky factor by elimination from the last bin to the first."""

    def eliminate(later: Array, blocks: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        diagonal, coupling = blocks
        gain = _solve_lower(later, transpose(coupling))
        root = _cholesky(diagonal - times(transpose(gain), gain))
        return root, (root, gain)

    last = _cholesky(matrix.diagonal[-1])
    _, (roots, gains) = jax.lax.scan(eliminate, last, (matrix.diagonal[:-1], matrix.coupling), reverse=True)
    return Factor(jnp.concatenate([roots, last[None]]), gains)


def solve(
    factor: Factor, h: Float[Array, "time dim trial"], noise: Float[Array, "time dim trial"] | None = None
) -> Float[Array, "time dim trial"]:
    """The mean `J^-1 h`; with standard normal `noise`, a draw with that mean and covariance `J^-1`."""

    def reduce(later: Array, blocks: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        root, gain, own = blocks
        reduced = _solve_lower(root, own - times_vector(transpose(gain), later))
        return reduced, reduced

    last = _solve_lower(factor.root[-1], h[-1])
    _, earlier = jax.lax.scan(reduce, last, (factor.root[:-1], factor.gain, h[:-1]), reverse=True)
    reduced = jnp.concatenate([earlier, last[None]])
    if noise is not None:
        reduced = reduced + noise

    def substitute(before: Array, blocks: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        root, gain, own = blocks
        z = _solve_transposed(root, own - times_vector(gain, before))
        return z, z

    first = _solve_transposed(factor.root[0], reduced[0])
    _, later = jax.lax.scan(substitute, first, (factor.root[1:], factor.gain, reduced[1:]))
    return jnp.concatenate([first[None], later])


def standardise(factor: Factor, deviation: Float[Array, "time dim trial"]) -> Float[Array, "time dim trial"]:
    """The noise by which `solve` draws this deviation from the mean."""
    noise = times_vector(transpose(factor.root), deviation)
    return jnp.concatenate([noise[:1], noise[1:] + times_vector(factor.gain, deviation[:-1])])


# Sums of products: XLA hands batched products of small matrices to a library, and reduces over inner axes, more slowly.
def times(left: Float[Array, "*bin to mid #trial"], right: Float[Array, "*step mid from #trial"]) -> Array:
    """Products of small matrices."""
    terms = [left[..., :, k, None, :] * right[..., k, None, :, :] for k in range(left.shape[-2])]
    return sum(terms[1:], terms[0])


def times_vector(left: Float[Array, "*bin to from #trial"], right: Float[Array, "*step from #trial"]) -> Array:
    """Products of small matrices and vectors."""
    terms = [left[..., :, k, :] * right[..., k, None, :] for k in range(left.shape[-2])]
    return sum(terms[1:], terms[0])


def transpose(matrix: Float[Array, "... row column trial"]) -> Float[Array, "... column row trial"]:
    """Small matrices transposed."""
    return jnp.swapaxes(matrix, -3, -2)


def _cholesky(matrix: Float[Array, "dim dim trial"]) -> Float[Array, "dim dim trial"]:
    # Column by column for all trials: LAPACK, called for one small matrix after the other, takes ten times as long.
    columns = []
    for k in range(len(matrix)):
        column = (matrix[:, k] / jnp.sqrt(matrix[k, k])).at[:k].set(0.0)
        columns.append(column)
        matrix = matrix - column[:, None] * column[None]
    return jnp.stack(columns, axis=1)


def _solve_lower(root: Float[Array, "dim dim trial"], right: Float[Array, "dim *column trial"]) -> Array:
    """`L^-1 right`, of a matrix or a vector."""
    rows: list[Array] = []
    for k in range(len(root)):
        rows.append((right[k] - sum(root[k, j] * rows[j] for j in range(k))) / root[k, k])
    return jnp.stack(rows)


def _solve_transposed(root: Float[Array, "dim dim trial"], right: Float[Array, "dim *column trial"]) -> Array:
    """`L^-T right`, of a matrix or a vector."""
    size, rows = len(root), []
    for k in reversed(range(size)):
        rows.insert(0, (right[k] - sum(root[j, k] * rows[j - size] for j in range(k + 1, size))) / root[k, k])
    return jnp.stack(rows)
