"""Laplace approximation: the mode of a posterior and its curvature, as a start and a metric for sampling."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

_STEPS = 300
_FIRST_SCALE = 0.1
# Columns of a Hessian at a time: small differential equations fill no core by themselves.
_BATCH = 16
# In units of the present scale: wide enough for single precision.
_DIFFERENCE = 0.1
# A flat direction of the posterior is taken to be three units wide at most, about as wide as priors are.
_LEAST_CURVATURE = 0.1
# In standard coordinates: one flat point must not pull a logarithm to minus infinity.
_LEAST_OF_A_POINT = 0.05


class Laplace(NamedTuple):
    """`mode` and `scale` of the normal approximation in flat unconstrained coordinates: covariance `scale scale^T`;
    `unravel` turns a flat vector into sites, `hessian` is the compiled curvature at a point of these coordinates."""

    mode: Float[Array, " size"]
    scale: Float[Array, "size size"]
    unravel: Callable[[Array], PyTree]
    hessian: Callable[[Array, Array, Array, PyTree], Array]

    def recurved(self, standard: Float[Array, "point size"], arrays: PyTree) -> "Laplace":
        """The same centre with the inverse of the mean, over points in standard coordinates, of the Hessian.

        Modes of hierarchical posteriors are untypical, and so is the curvature there; what a sampler's step size has to
        suit is the curvature where the posterior's mass is. Of curvatures the size counts. The mean is geometric, by
        logarithms of matrices: one point at the edge of another regime, where the curvature is thousands of times
        larger, would make up an arithmetic mean alone.
        """
        logarithms = []
        for point in standard:
            hessian = np.asarray(self.hessian(self.mode, self.scale, point, arrays), float)
            # Differences may leave the region where the density is finite.
            if np.isfinite(hessian).all():
                curvature, axes = np.linalg.eigh((hessian + hessian.T) / 2)
                logarithms.append((axes * np.log(np.maximum(np.abs(curvature), _LEAST_OF_A_POINT))) @ axes.T)
        if not logarithms:
            return self
        size, axes = np.linalg.eigh(np.mean(logarithms, 0))
        return self._replace(scale=_inverse_root((axes * np.exp(size)) @ axes.T, self.scale))


def laplace(potential: Callable[[PyTree, PyTree], Array], arrays: PyTree, start: PyTree) -> Laplace:
    """The mode of `exp(-potential(sites, arrays))` found from `start` by L-BFGS, and the curvature there.

    The Hessian comes from central differences of gradients, because differential equations solved with checkpointing
    cannot be differentiated twice. Negative and small curvatures are raised to 0.1; where a difference leaves the
    region of finite density, the scale is 0.1 in every direction. It is an approximation to begin with, not a result:
    samplers use it to choose coordinates.
    """
    flat, unravel = ravel_pytree(start)

    def flat_potential(x: Array, arrays: PyTree) -> Array:
        return potential(unravel(x), arrays)

    mode = jax.jit(lambda x, arrays: _minimum(lambda y: flat_potential(y, arrays), x))(flat, arrays)
    hessian = jax.jit(partial(_hessian, flat_potential))
    isotropic = _FIRST_SCALE * jnp.eye(flat.size, dtype=flat.dtype)
    curvature = np.asarray(hessian(mode, isotropic, jnp.zeros_like(flat), arrays))
    scale = _inverse_root(curvature, isotropic) if np.isfinite(curvature).all() else isotropic
    return Laplace(mode, scale, unravel, hessian)


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


def _hessian(potential: Callable, mode: Array, scale: Array, standard: Array, arrays: PyTree) -> Array:
    """The Hessian with respect to standard coordinates at a point of them, not made symmetric."""
    gradient = jax.grad(lambda u: potential(mode + scale @ u, arrays))

    def column(direction: Array) -> Array:
        up, down = gradient(standard + _DIFFERENCE * direction), gradient(standard - _DIFFERENCE * direction)
        return (up - down) / (2 * _DIFFERENCE)

    return jax.lax.map(column, jnp.eye(len(mode), dtype=mode.dtype), batch_size=_BATCH)


def _inverse_root(hessian: np.ndarray, scale: Array) -> Array:
    """A root of the inverse of a Hessian that is given in the coordinates of `scale`."""
    # The least curvature is meant in the sites' coordinates, where a prior has about unit width.
    inverse = np.linalg.inv(np.asarray(scale, float))
    of_sites = inverse.T @ np.asarray(hessian, float) @ inverse
    curvature, axes = np.linalg.eigh((of_sites + of_sites.T) / 2)
    return jnp.asarray(axes / np.sqrt(np.maximum(curvature, _LEAST_CURVATURE)), scale.dtype)
