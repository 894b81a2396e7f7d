"""Laplace approximation: the mode of a posterior and its curvature, as a start and a metric for sampling."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

_STEPS = 300
_DIFFERENCE = 1e-2
# A flat direction of the posterior is taken to be three units wide at most, about as wide as priors are.
_LEAST_CURVATURE = 0.1


class Laplace(NamedTuple):
    """`mode` and `scale` of the normal approximation in flat unconstrained coordinates: covariance `scale scale^T`;
    `unravel` turns a flat vector into sites."""

    mode: Float[Array, " size"]
    scale: Float[Array, "size size"]
    unravel: Callable[[Array], PyTree]

    def to_sites(self, standard: Float[Array, " size"]) -> PyTree:
        """The sites at a point that is standard normal under the approximation."""
        return self.unravel(self.mode + self.scale @ standard)


def laplace(potential: Callable[[PyTree, PyTree], Array], arrays: PyTree, start: PyTree) -> Laplace:
    """The mode of `exp(-potential(sites, arrays))` found from `start` by L-BFGS, and the curvature there.

    The Hessian comes from central differences of gradients, because differential equations solved with checkpointing
    cannot be differentiated twice. Negative and small curvatures are raised to 0.1. It is an approximation to begin
    with, not a result: samplers use it to choose coordinates.
    """
    flat, unravel = ravel_pytree(start)

    def flat_potential(x: Array, arrays: PyTree) -> Array:
        return potential(unravel(x), arrays)

    mode = jax.jit(lambda x, arrays: _minimum(lambda y: flat_potential(y, arrays), x))(flat, arrays)
    gradient = jax.grad(flat_potential)
    hessian = np.asarray(jax.jit(lambda x, arrays: _hessian(lambda y: gradient(y, arrays), x))(mode, arrays), float)
    curvature, axes = np.linalg.eigh(np.nan_to_num((hessian + hessian.T) / 2))
    scale = axes / np.sqrt(np.maximum(curvature, _LEAST_CURVATURE))
    return Laplace(mode, jnp.asarray(scale, mode.dtype), unravel)


def _minimum(potential: Callable[[Array], Array], start: Array) -> Array:
    solver = optax.lbfgs(memory_size=20)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        x, state, best, lowest = carry
        value, gradient = jax.value_and_grad(potential)(x)
        better = value < lowest
        best, lowest = jnp.where(better, x, best), jnp.where(better, value, lowest)
        updates, state = solver.update(gradient, state, x, value=value, grad=gradient, value_fn=potential)
        return (optax.apply_updates(x, updates), state, best, lowest), None

    carry = (start, solver.init(start), start, jnp.array(jnp.inf, start.dtype))
    (_, _, best, _), _ = jax.lax.scan(step, carry, None, length=_STEPS)
    return best


def _hessian(gradient: Callable[[Array], Array], x: Array) -> Array:
    def column(direction: Array) -> Array:
        up, down = gradient(x + _DIFFERENCE * direction), gradient(x - _DIFFERENCE * direction)
        return (up - down) / (2 * _DIFFERENCE)

    return jax.lax.map(column, jnp.eye(x.shape[0], dtype=x.dtype))
