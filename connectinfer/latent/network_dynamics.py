"""Gibbs sampling of a network's dynamics given the paths: output weights, origin of the latent space, and noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.nonlinearity import nonlinearity as named_nonlinearity
from connectinfer.latent.calcium import within_bin
from connectinfer.latent.conditionals import Arrays, Paths
from connectinfer.latent.low_rank_network import (
    D_SD,
    INITIAL_SCALE,
    OVERLAP_SD,
    PROCESS_NOISE,
    apply_weight_precision,
)
from connectinfer.latent.network_parameters import NetworkParameters
from connectinfer.latent.regression import draw_normal, precision_root, random_walk
from connectinfer.latent.state_space import Seen


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


class _Increments(NamedTuple):
    """The regression of increments on `features (unit, bin)`, the units' rates over K, in units of the noise per tau:
    `target (rank, bin)`, what an origin adds to it by bin, `ones`, and the root of the posterior precision of n."""

    features: Float[Array, "unit bin"]
    target: Float[Array, "rank bin"]
    ones: Float[Array, " bin"]
    root: Float[Array, "unit unit"]


def draw_dynamics(
    key: Key[Array, ""], p: NetworkParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> tuple[NetworkParameters, Float[Array, "rank rank"], Paths]:
    """Origin of the latent space and output weights together, from the regression of the increments; then the map A
    between output weights and loadings, and the sds of noise and first bin."""
    key_origin, key_n, key_linear, key_noise, key_initial = jax.random.split(key, 5)
    n_units, rank = p.n.shape
    transitions = Transitions.of(paths, seen, arrays)
    sd = p.process_noise / transitions.alpha
    features = transitions.rates(p.m, p.b, p.d) / n_units / sd
    root = precision_root(features @ features.T + apply_weight_precision(p.m, jnp.eye(n_units)))
    increments = _Increments(features, transitions.target / sd, transitions.counts / sd, root)
    origin = _draw_origin(key_origin, p, increments, paths, seen)
    paths = paths + jnp.tile(origin, paths.shape[-1] // rank)
    p = p._replace(d=p.d - p.m @ origin, intercept=p.intercept - p.loading @ origin)
    target = increments.target + origin[:, None] * increments.ones
    n = draw_normal(key_n, root, features @ target.T)
    linear = draw_normal(key_linear, precision_root(p.m.T @ p.m + jnp.eye(rank) / OVERLAP_SD**2), p.m.T @ n).T
    squares = p.process_noise**2 * ((target - n.T @ features) ** 2).sum()
    dim = paths.shape[-1]
    if (kept := p.kept(arrays)) is not None:
        within = within_bin(paths, kept).reshape(-1, rank).T
        squares = squares + (transitions.counts * (within**2).sum(0)).sum()
    noise = _draw_scale(key_noise, p.process_noise, PROCESS_NOISE, squares, dim * transitions.counts.sum())
    begun = seen.alive[:, 0]
    first = jnp.where(begun[:, None], paths[:, 0] ** 2, 0.0).sum()
    initial = _draw_scale(key_initial, p.initial_scale, INITIAL_SCALE, first, dim * begun.sum())
    return p._replace(n=n, process_noise=noise, initial_scale=initial), linear, paths


def _draw_origin(
    key: Key[Array, ""], p: NetworkParameters, increments: _Increments, paths: Paths, seen: Seen
) -> Float[Array, " rank"]:
    """By how much all paths move, with d and the intercepts such that potentials stay, output weights integrated out.

    Only the leak notices, and the priors of d and of the first bin. Given intercepts, paths would hardly move.
    """
    features, target, ones, root = increments
    columns = jnp.concatenate([ones[None], target]).T
    # The increments' precision with n integrated out: I - F (F^T F + precision)^-1 F^T.
    pulled = jax.scipy.linalg.solve_triangular(root, features @ columns, lower=True)
    gained = ones @ columns - pulled[:, 0] @ pulled
    rank = p.n.shape[1]
    first = paths[:, 0].reshape(len(paths), -1, rank)
    begun = seen.alive[:, 0, None, None] * jnp.ones_like(first) / p.initial_scale**2
    precision = gained[0] * jnp.eye(rank) + jnp.diag(begun.sum((0, 1))) + p.m.T @ p.m / D_SD**2
    moment = p.m.T @ p.d / D_SD**2 - gained[1:] - (begun * first).sum((0, 1))
    return draw_normal(key, precision_root(precision), moment[:, None])[:, 0]


def _draw_scale(
    key: Key[Array, ""], scale: Array, prior: tuple[float, float], squares: Array, count: Array
) -> Float[Array, ""]:
    """Metropolis steps of the sd of `count` normal numbers whose squares are known, with a log-normal prior."""

    def density(log_scale: Array) -> Array:
        likelihood = -count * log_scale - 0.5 * squares * jnp.exp(-2 * log_scale)
        return likelihood - 0.5 * ((log_scale - prior[0]) / prior[1]) ** 2

    step = 2.4 / jnp.sqrt(2 * count + prior[1] ** -2)
    return jnp.exp(random_walk(key, jnp.log(scale), density, step))
