"""LINT: a deterministic low-rank network trained by backpropagation to reproduce smoothed rates.

Source: Valente, Pillow & Ostojic, NeurIPS 2022 (arXiv:2110.09804). Its network has as many units as were recorded and a
connectivity of rank two; Adam minimises the squared error of its rates. There are no inputs here, so that trials differ
by where they start: the first bin of every trial is learned with the network, in test trials from held-in units alone,
because the error is only taken where the recording is seen. Counts are smoothed over 3.5 bins, units weighted by their
rates, and training starts from principal components, which the source does not do.

Advantage: no inference of paths at all. Limit: without process noise a path cannot follow what a
trial's noise does to it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from methods.network import Network, adam, begin, data_of
from methods.track import Track, milestones
from recipe import Recipe
from scipy.ndimage import gaussian_filter1d

_SMOOTHING = 3.5


def run(recipe: Recipe, track: Track, rate: float) -> None:
    """Trains with the learning rate `rate` until the track ends."""
    data = data_of(recipe)
    network, path = begin(data)
    smoothed = jnp.asarray(gaussian_filter1d(np.asarray(data.counts), _SMOOTHING, axis=1, mode="nearest"))
    weight = data.seen / ((data.counts * data.seen).sum((0, 1)) / data.seen.sum((0, 1)) + 1e-3)
    optimiser = adam(rate)
    n_bins = path.shape[1]

    def rates(parameters: tuple[Network, jax.Array]) -> jax.Array:
        network, first = parameters
        _, states = jax.lax.scan(lambda z, _: (network.step(z), z), first, None, length=n_bins)
        return jnp.exp(network.log_rate(jnp.moveaxis(states, 0, 1)))

    def loss(parameters):
        return (weight * (rates(parameters) - smoothed) ** 2).sum() / weight.sum()

    @partial(jax.jit, static_argnums=2)
    def train(parameters, state, n_steps):
        def one(carry, _):
            updates, state = optimiser.update(jax.grad(loss)(carry[0]), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(one, (parameters, state), None, length=n_steps)[0]

    predict = jax.jit(rates)
    parameters = (network, path[:, 0])
    state, done = optimiser.init(parameters), 0
    for until in milestones(10):
        for _ in range(done, until, 10):
            parameters, state = train(parameters, state, 10)
            done += 10
        jax.block_until_ready(parameters)
        if not track.add(lambda parameters=parameters: predict(parameters)):
            return
