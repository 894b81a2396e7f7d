"""Fixed points of a drift and their linear stability."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Complex, Float

type Stability = Literal["stable", "saddle", "unstable", "marginal"]

MARGINAL_RATE = 1e-3
"""Eigenvalues whose real part is smaller than this (per tau) neither attract nor repel: a continuous attractor."""


class FixedPoints(eqx.Module):
    """Points of zero drift, the most stable first, with the eigenvalues of the Jacobian (per tau), the slowest to
    decay first, the norm of the remaining drift, and the stability.

    `stability` is "stable" or "unstable" if the real parts of all eigenvalues are negative or positive, "saddle" if
    both signs occur, "marginal" if one is below `MARGINAL_RATE` in size, as along a ring of fixed points.
    """

    location: Float[np.ndarray, "point rank"]
    eigenvalues: Complex[np.ndarray, "point rank"]
    residual: Float[np.ndarray, " point"]
    stability: tuple[Stability, ...]


def fixed_points(
    drift: Callable[[Array], Array],
    starts: Float[Array, "start rank"],
    *,
    tolerance: float = 1e-5,
    merge_distance: float = 1e-2,
) -> FixedPoints:
    """The distinct zeros of `drift` that Newton's and Levenberg-Marquardt's methods reach from `starts` and their mean.

    `drift` maps one state (rank,) to its velocity (rank,), per tau. Roots with a residual above `tolerance` (local
    minima of the speed) are dropped; roots closer than `merge_distance` are one. Points that no start leads to are
    missed, so cover the region with starts. A drift that is a pytree, such as `jax.tree_util.Partial(drift, network)`,
    is compiled once for all networks of one size.

    Raises:
        ValueError: if `starts` is not a non-empty matrix of finite numbers.
    """
    check_starts(starts)
    starts = jnp.concatenate([starts, starts.mean(0, keepdims=True)])
    roots, residuals = (np.asarray(x) for x in _find_roots(drift, starts, tolerance))
    kept: list[int] = []
    for i in np.argsort(residuals):
        converged = residuals[i] <= tolerance
        if converged and all(np.linalg.norm(roots[i] - roots[j]) > merge_distance for j in kept):
            kept.append(int(i))
    eigenvalues = _spectra(np.asarray(_jacobians(drift, jnp.asarray(roots[kept]))))
    order = np.argsort(np.real(eigenvalues[:, 0]), kind="stable")
    stability: tuple[Stability, ...] = tuple(_stability(row) for row in eigenvalues[order])
    return FixedPoints(roots[kept][order], eigenvalues[order], residuals[kept][order], stability)


def check_starts(starts: Array) -> None:
    """Raises ValueError unless `starts` is a non-empty (start, rank) matrix of finite numbers."""
    if starts.ndim != 2 or starts.shape[0] == 0 or not bool(jnp.isfinite(starts).all()):
        raise ValueError(f"`starts` must be a non-empty, finite (start, rank) matrix; got shape {starts.shape}.")


@eqx.filter_jit
def _find_roots(drift, starts, tolerance):
    # The first method descends the speed and favours attractors; the second also walks to saddles and repellers.
    # Tighter than asked: they judge steps and costs as well as the residual.
    solvers = (
        optx.LevenbergMarquardt(rtol=tolerance * 1e-2, atol=tolerance * 1e-2),
        optx.Newton(rtol=tolerance * 1e-2, atol=tolerance * 1e-2),
    )

    def find(solver, start):
        root = optx.root_find(lambda z, _: drift(z), solver, start, max_steps=256, throw=False).value
        return root, jnp.linalg.norm(drift(root))

    found = [jax.vmap(lambda start, solver=solver: find(solver, start))(starts) for solver in solvers]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)


@eqx.filter_jit
def _jacobians(drift, points):
    return jax.vmap(jax.jacfwd(drift))(points)


def _spectra(jacobians: np.ndarray) -> np.ndarray:
    eigenvalues = np.linalg.eigvals(jacobians).astype(complex)
    return np.take_along_axis(eigenvalues, np.argsort(-np.real(eigenvalues), axis=-1), -1)


def _stability(eigenvalues: np.ndarray) -> Stability:
    rates = np.real(eigenvalues)
    if (np.abs(rates) < MARGINAL_RATE).any():
        return "marginal"
    if (rates < 0).all():
        return "stable"
    return "unstable" if (rates > 0).all() else "saddle"
