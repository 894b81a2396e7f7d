"""The low-rank network that peers learn: the model of `low_rank_rnn_poisson`, without priors, and where they start."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float
from recipe import ALPHA, Recipe

from connectinfer.latent.principal_path import principal_network


class Network(NamedTuple):
    """Parameters: loadings m, output weights n `(unit, rank)`, biases d, read-out gain (log) and bias `(unit,)`, sd of
    the noise per bin and of the first bin (logs)."""

    m: Array
    n: Array
    d: Array
    log_gain: Array
    bias: Array
    log_noise: Array
    log_initial: Array

    def step(self, z: Float[Array, "*batch rank"]) -> Float[Array, "*batch rank"]:
        """The mean of the next bin."""
        return (1 - ALPHA) * z + ALPHA * jnp.tanh(z @ self.m.T + self.d) @ self.n / len(self.m)

    @property
    def loading(self) -> Float[Array, "unit rank"]:
        """By which log rates are read out."""
        return jnp.exp(self.log_gain)[:, None] * self.m

    @property
    def intercept(self) -> Float[Array, " unit"]:
        """Of the log rates."""
        return jnp.exp(self.log_gain) * self.d + self.bias

    def log_rate(self, z: Float[Array, "*batch rank"]) -> Float[Array, "*batch unit"]:
        """Log expected counts per bin, bounded so that a path that escapes does not overflow."""
        return jnp.minimum(z @ self.loading.T + self.intercept, 6.0)


class Data(NamedTuple):
    """What a method is given: counts with zeros where `seen` is False, `(trial, time, unit)`; which trials are whole
    and which units are seen in all trials."""

    counts: Float[Array, "trial time unit"]
    seen: Bool[Array, "trial time unit"]
    training: np.ndarray
    held_in: np.ndarray


def data_of(recipe: Recipe) -> Data:
    """From the recipe's training part."""
    counts, seen = recipe.training["counts"].values.astype(np.float32), recipe.training["mask"].values
    return Data(jnp.asarray(counts), jnp.asarray(seen), seen.all((1, 2)), seen.all((0, 1)))


def begin(data: Data, rank: int = 2) -> tuple[Network, Float[Array, "trial time rank"]]:
    """The network and paths from principal components from which our own fits start: a gift to the peers."""
    start = principal_network(
        np.asarray(data.counts),
        np.asarray(data.seen),
        np.zeros((*data.counts.shape[:2], 0)),
        rank,
        ALPHA,
        "tanh",
        counts=True,
    )
    zeros = np.zeros(len(start.m))
    parameters = Network(
        m=start.m,
        n=start.m @ start.linear.T + start.residual,
        d=zeros,
        log_gain=zeros,
        bias=start.bias,
        log_noise=np.log(start.process_noise),
        log_initial=np.log(start.initial_scale),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), parameters), jnp.asarray(start.path, jnp.float32)


def begin_anywhere(data: Data, rank: int = 2) -> Network:
    """A network of random weights, of the size that they have where training starts in the source of the SMC (Pals et
    al., 2024), and at the mean rates, which are a gift."""
    generator = np.random.default_rng(0)
    n_units = data.counts.shape[-1]
    seen = np.asarray(data.seen)
    rates = np.where(seen, np.asarray(data.counts), 0.0).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
    parameters = Network(
        m=generator.uniform(-1, 1, (n_units, rank)) / rank**0.5,
        n=generator.uniform(-1, 1, (n_units, rank)) * n_units**0.5 / ALPHA,
        d=np.zeros(n_units),
        log_gain=np.zeros(n_units),
        bias=np.log(np.maximum(rates, 1e-3)),
        log_noise=np.full((), np.log(0.1)),
        log_initial=np.full((), np.log(0.1)),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), parameters)


def adam(rate: float) -> optax.GradientTransformation:
    """Adam with clipped gradients; steps with gradients that are not finite are left out."""
    return optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate)), 100)


def batches(n_trials: int, size: int):
    """Trials of one step after the other, without end: every epoch in a new order."""
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(n_trials)
        yield from (order[i : i + size] for i in range(0, n_trials - size + 1, size))


def whole(rate: Any, recipe: Recipe, trials: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Rates `(some trials, time, some units)` at their place among ones."""
    full = np.ones(recipe.full["counts"].shape)
    full[np.ix_(trials, np.arange(full.shape[1]), units)] = rate
    return full
