"""Variational sequential Monte Carlo with 64 particles, on the same low-rank network.

Source: Pals et al., NeurIPS 2024 (arXiv:2406.16749), of which this is an implementation of our own in JAX: the log of
the particle filter's estimate of the likelihood is a bound that Adam raises. Particles are proposed from the product of
the transition and a Gaussian that a convolutional encoder reads from the held-in counts (kernels of 21, 11 and 1 bins,
64 channels, as in the source's example for spikes), or from the transition alone ("bootstrap"); they are resampled in
every bin, systematically, without gradients through the choice. Batches of 16 trials as in the source; training starts
from random weights as there, or from the principal components from which our own fits start.
Test paths are drawn by backward simulation through a filter of 256 particles (Godsill et al., JASA 2004).

Advantage: no Gaussian approximation of the paths, so any observation and any noise could take the place of these.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from methods.network import Network, adam, batches, begin, begin_anywhere, data_of, whole
from methods.track import Track, milestones
from recipe import Recipe

_PARTICLES, _TEST_PARTICLES, _DRAWS, _BATCH = 64, 256, 32, 16
_KERNELS, _CHANNELS = (21, 11, 1), 64

Encoder = list[tuple[Array, Array]]


class Passed(NamedTuple):
    """A filter's particles `(time, particle, rank)` before resampling, their log weights, and the log likelihood."""

    particles: Array
    log_weights: Array
    log_likelihood: Array


def run(recipe: Recipe, track: Track, rate: float, encoded: bool, principal: bool) -> None:
    """Trains with the learning rate `rate` until the track ends."""
    data = data_of(recipe)
    network, path = begin(data)
    network = network if principal else begin_anywhere(data)
    scale = path.std((0, 1)) if principal else jnp.ones(network.m.shape[1])
    encoder = first_encoder(jax.random.key(0), int(data.held_in.sum()), 2 * len(scale)) if encoded else []
    guide = partial(encode if encoded else no_guide, data.held_in, scale)
    optimiser = adam(rate)

    def bound(parameters, key, counts, seen):
        network, encoder = parameters
        one = lambda key, y, o: filtered(key, network, guide(encoder, y), y, o, _PARTICLES).log_likelihood  # noqa: E731
        return -jax.vmap(one)(jax.random.split(key, len(counts)), counts, seen).sum() / seen.sum()

    @jax.jit
    def train(parameters, state, key, counts, seen):
        updates, state = optimiser.update(jax.grad(bound)(parameters, key, counts, seen), state, parameters)
        return optax.apply_updates(parameters, updates), state

    @jax.jit
    def predict(parameters, key, counts, seen):
        network, encoder = parameters
        one = lambda key, y, o: smoothed_rate(key, network, guide(encoder, y), y, o)  # noqa: E731
        return jax.lax.map(lambda given: one(*given), (jax.random.split(key, len(counts)), counts, seen))

    test, units = np.flatnonzero(~data.training), np.arange(data.counts.shape[-1])
    parameters, key, done = (network, encoder), jax.random.key(1), 0
    state, order = optimiser.init(parameters), batches(len(data.counts), _BATCH)
    for until in milestones():
        while done < until:
            trials = next(order)
            key, key_step = jax.random.split(key)
            parameters, state = train(parameters, state, key_step, data.counts[trials], data.seen[trials])
            done += 1
        jax.block_until_ready(parameters)
        rates = partial(predict, parameters, jax.random.key(2), data.counts[test], data.seen[test])
        if not track.add(lambda rates=rates: whole(rates(), recipe, test, units)):
            return


def first_encoder(key: Key[Array, ""], n_in: int, n_out: int) -> Encoder:
    """Kernels `(bin, in, out)` and biases of a convolutional network whose Gaussians are wide at first."""
    sizes = [n_in] + [_CHANNELS] * (len(_KERNELS) - 1) + [n_out]
    keys = jax.random.split(key, len(_KERNELS))
    layers = [
        (jax.random.normal(k, (width, a, b)) / (width * a) ** 0.5, jnp.zeros(b))
        for k, width, a, b in zip(keys, _KERNELS, sizes[:-1], sizes[1:], strict=True)
    ]
    kernel, bias = layers[-1]
    return [*layers[:-1], (0.1 * kernel, bias.at[n_out // 2 :].set(2.0))]


def encode(
    held_in: np.ndarray, scale: Array, encoder: Encoder, counts: Float[Array, "time unit"]
) -> tuple[Float[Array, "time rank"], Float[Array, "time rank"]]:
    """Mean and precision of the encoder's Gaussian in every bin; `scale` is the paths' at the start."""
    x = counts[:, held_in][None]
    for i, (kernel, bias) in enumerate(encoder):
        x = jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")) + bias
        x = jax.nn.gelu(x) if i < len(encoder) - 1 else x
    mean, log_sd = jnp.split(x[0], 2, axis=-1)
    return scale * mean, jnp.exp(-2 * jnp.clip(log_sd, -5.0, 5.0)) / scale**2


def no_guide(held_in: np.ndarray, scale: Array, encoder: Encoder, counts: Array) -> tuple[Array, Array]:
    """Of no precision: particles come from the transition alone."""
    del held_in, encoder
    zeros = jnp.zeros((len(counts), len(scale)))
    return zeros, zeros


def filtered(
    key: Key[Array, ""], network: Network, guide: tuple[Array, Array], counts: Array, seen: Array, n_particles: int
) -> Passed:
    """The particle filter of one trial."""
    n_bins, rank = guide[0].shape
    keys = jax.random.split(key, (n_bins, 2))
    noise = jnp.exp(network.log_noise)

    def one(carry: tuple[Array, Array], given: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        mean, sd = carry
        keys, guide_mean, guide_precision, y, o = given
        precision = 1 / sd**2 + guide_precision
        centre = (mean / sd**2 + guide_mean * guide_precision) / precision
        z = centre + jax.random.normal(keys[0], (n_particles, rank)) / jnp.sqrt(precision)
        log_rate = network.log_rate(z)
        log_weight = ((y * log_rate - jnp.exp(log_rate)) * o).sum(-1)
        log_weight += (_log_normal(z, mean, 1 / sd**2) - _log_normal(z, centre, precision)).sum(-1)
        chosen = _systematic(keys[1], log_weight)
        gain = jax.nn.logsumexp(log_weight) - jnp.log(n_particles)
        return (network.step(z[chosen]), noise), (z, log_weight, gain)

    first = jnp.zeros((n_particles, rank)), jnp.exp(network.log_initial)
    _, (particles, log_weights, gains) = jax.lax.scan(one, first, (keys, *guide, counts, seen))
    return Passed(particles, log_weights, gains.sum())


def smoothed_rate(
    key: Key[Array, ""], network: Network, guide: tuple[Array, Array], counts: Array, seen: Array
) -> Float[Array, "time unit"]:
    """Expected counts of all units of a trial, averaged over paths drawn by backward simulation."""
    key_filter, key_back = jax.random.split(key)
    passed = filtered(key_filter, network, guide, counts, seen, _TEST_PARTICLES)
    precision = jnp.exp(-2 * network.log_noise)

    def one(later: tuple[Array, Array], given: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        key, z, log_weight = given
        following, matters = later
        match = _log_normal(following[:, None], network.step(z), precision).sum(-1)
        chosen = jax.random.categorical(key, log_weight + matters * match)
        return (z[chosen], jnp.ones(())), z[chosen]

    keys = jax.random.split(key_back, len(counts))
    last = jnp.zeros((_DRAWS, passed.particles.shape[-1])), jnp.zeros(())
    _, paths = jax.lax.scan(one, last, (keys, passed.particles, passed.log_weights), reverse=True)
    return jnp.exp(network.log_rate(paths)).mean(1)


def _log_normal(z: Array, mean: Array, precision: Array) -> Array:
    return 0.5 * (jnp.log(precision) - precision * (z - mean) ** 2)


def _systematic(key: Key[Array, ""], log_weight: Float[Array, " particle"]) -> Array:
    """Which particles go on."""
    n = len(log_weight)
    cumulative = jnp.cumsum(jax.nn.softmax(jax.lax.stop_gradient(log_weight)))
    points = (jnp.arange(n) + jax.random.uniform(key)) / n
    return jnp.minimum(jnp.searchsorted(cumulative, points), n - 1)
