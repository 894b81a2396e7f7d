"""Gibbs sampling of a network's dynamics given the paths: origin of the latent space, and noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from connectinfer.dynamics.nonlinearity import nonlinearity as named_nonlinearity
from connectinfer.latent.calcium import within_bin
from connectinfer.latent.conditionals import Arrays, Paths
from connectinfer.latent.low_rank_network import (
    D_SD,
    INITIAL_SCALE,
    OVERLAP_SD,
    PROCESS_NOISE,
)
from connectinfer.latent.network_parameters import NetworkParameters
from connectinfer.latent.regression import draw_normal, precision_root, random_walk
from connectinfer.latent.state_space import Seen

# The output weights of all units at once would cost the square of their number.
_UNITS_TOGETHER = 128


class Transitions(NamedTuple):
    """States z, v `(rank + input, bin)` that a transition leaves, its `target` (z' - (1 - alpha) z) / alpha
    `(rank, bin)`, and whether the trial lasts that long, as 1 or 0 `(bin,)`; targets are 0 where it does not."""

    state: Float[Array, "state bin"]
    target: Float[Array, "rank bin"]
    counts: Float[Array, " bin"]
    alpha: float
    nonlinearity: str

    @classmethod
    def of(cls, paths: Paths, seen: Seen, arrays: Arrays) -> "Transitions":
        """Those of all trials, one after the other."""
        alpha, z = arrays["alpha"], paths[..., : arrays["rank"]]
        state = jnp.concatenate([z, arrays["filtered"]], -1)[:, :-1]
        counts = (seen.alive[:, 1:] & seen.alive[:, :-1]).ravel().astype(paths.dtype)
        target = (z[:, 1:] - (1 - alpha) * z[:, :-1]) / alpha
        by_bin = lambda x: x.reshape(-1, x.shape[-1]).T  # noqa: E731
        return cls(by_bin(state), by_bin(target) * counts, counts, alpha, arrays["nonlinearity"])

    def rates(self, m: Array, b: Array, d: Array) -> Array:
        """Rates `(*unit, bin)` of one unit or of many in the states, 0 where transitions do not count."""
        slope = jnp.concatenate([m, b], -1)
        # A product of two or three columns: summed one by one it runs along the bins.
        h = sum((slope[..., k, None] * self.state[k] for k in range(len(self.state))), d[..., None])
        return named_nonlinearity(self.nonlinearity)(h) * self.counts


def units_together(n_units: int) -> int:
    """How many units have their output weights integrated out together: groups of about the same size."""
    return n_units // -(-n_units // _UNITS_TOGETHER)


class WeightPrior(NamedTuple):
    """The prior of output weights, n_ir = N(0, 1) + (m A)_ir with A_rs = N(0, 1.5^2) integrated out, seen from a group
    of units: the group's `precision (some, some)`, its rows `pull (some, rank)` of precision times n, and the log
    density of all n up to a constant."""

    precision: Float[Array, "some some"]
    pull: Float[Array, "some rank"]
    log_density: Float[Array, ""]

    @classmethod
    def of(
        cls, m: Float[Array, "unit rank"], n: Float[Array, "unit rank"], start: int | Int[Array, ""], size: int
    ) -> "WeightPrior":
        """Of `size` units from `start` on."""
        rank = m.shape[1]
        root = jnp.linalg.cholesky(m.T @ m + jnp.eye(rank) / OVERLAP_SD**2)
        half = jax.scipy.linalg.solve_triangular(root, m.T, lower=True)
        explained, own = half @ n, jax.lax.dynamic_slice_in_dim(half, start, size, 1)
        log_density = 0.5 * ((explained**2).sum() - (n**2).sum()) - rank * jnp.log(jnp.diagonal(root)).sum()
        pull = jax.lax.dynamic_slice_in_dim(n, start, size) - own.T @ explained
        return cls(jnp.eye(size) - own.T @ own, pull, log_density)


def draw_origin(
    key: Key[Array, ""],
    p: NetworkParameters,
    order: Int[Array, " unit"],
    paths: Paths,
    seen: Seen,
    arrays: Arrays,
) -> tuple[NetworkParameters, Paths, Float[Array, "rank bin"]]:
    """All paths moved, with d and the intercepts such that potentials stay; the output weights of the first group of
    units in this order are integrated out.

    Only the leak notices, and the priors of d and of the first bin. Given intercepts, paths would hardly move. Also
    what the network leaves of the increments, in units of the noise per tau.
    """
    rank, size = p.n.shape[1], units_together(len(p.n))
    transitions = Transitions.of(paths, seen, arrays)
    sd = p.process_noise / transitions.alpha
    features = transitions.rates(p.m, p.b, p.d) / len(p.n) / sd
    left = transitions.target / sd - p.n.T @ features
    features = features[order[:size]]
    prior = WeightPrior.of(p.m[order], p.n[order], 0, size)
    root = precision_root(features @ features.T + prior.precision)
    ones = transitions.counts / sd
    columns = jnp.concatenate([ones[None], left]).T
    # Integrated out is how n deviates from what it is, which its prior pulls back.
    moment = (features @ columns).at[:, 1:].add(-prior.pull)
    pulled = jax.scipy.linalg.solve_triangular(root, moment, lower=True)
    gained = ones @ columns - pulled[:, 0] @ pulled
    first = paths[:, 0].reshape(len(paths), -1, rank)
    begun = seen.alive[:, 0, None, None] * jnp.ones_like(first) / p.initial_scale**2
    precision = gained[0] * jnp.eye(rank) + jnp.diag(begun.sum((0, 1))) + p.m.T @ p.m / D_SD**2
    moment = p.m.T @ p.d / D_SD**2 - gained[1:] - (begun * first).sum((0, 1))
    origin = draw_normal(key, precision_root(precision), moment[:, None])[:, 0]
    p = p._replace(d=p.d - p.m @ origin, intercept=p.intercept - p.loading @ origin)
    return p, paths + jnp.tile(origin, paths.shape[-1] // rank), left + origin[:, None] * ones


def draw_scales(
    key: Key[Array, ""],
    p: NetworkParameters,
    left: Float[Array, "rank bin"],
    paths: Paths,
    seen: Seen,
    arrays: Arrays,
) -> NetworkParameters:
    """Sds of the noise and of the first bin; the network leaves `left` of the increments."""
    key_noise, key_initial = jax.random.split(key)
    dim, rank = paths.shape[-1], p.n.shape[1]
    counts = (seen.alive[:, 1:] & seen.alive[:, :-1]).ravel().astype(paths.dtype)
    squares = p.process_noise**2 * (left**2).sum()
    if (kept := p.kept(arrays)) is not None:
        within = within_bin(paths, kept).reshape(-1, rank).T
        squares = squares + (counts * (within**2).sum(0)).sum()
    noise = _draw_scale(key_noise, p.process_noise, PROCESS_NOISE, squares, dim * counts.sum())
    begun = seen.alive[:, 0]
    first = jnp.where(begun[:, None], paths[:, 0] ** 2, 0.0).sum()
    initial = _draw_scale(key_initial, p.initial_scale, INITIAL_SCALE, first, dim * begun.sum())
    return p._replace(process_noise=noise, initial_scale=initial)


def _draw_scale(
    key: Key[Array, ""], scale: Array, prior: tuple[float, float], squares: Array, count: Array
) -> Float[Array, ""]:
    """Metropolis steps of the sd of `count` normal numbers whose squares are known, with a log-normal prior."""

    now = jnp.log(scale)

    def density(log_scale: Array) -> Array:
        # Less that of the present scale: of long recordings, single precision would lose the difference.
        change = log_scale - now
        likelihood = -count * change - 0.5 * squares * jnp.exp(-2 * now) * jnp.expm1(-2 * change)
        return likelihood - 0.5 * ((log_scale - prior[0]) / prior[1]) ** 2

    step = 2.4 / jnp.sqrt(2 * count + prior[1] ** -2)
    return jnp.exp(random_walk(key, now, density, step))
