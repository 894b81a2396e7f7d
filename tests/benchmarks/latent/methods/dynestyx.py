"""dynestyx, in its two uses for spikes: a particle filter's likelihood, and variational inference of paths.

Its table of filters offers two for observations that are not Gaussian. The likelihood of the extended Kalman filter
cannot be learned from: it leaves out the value of the observations' log density where that is expanded (a trial of the
limit cycle, at the network from which peers start: +39; by 20,000 particles: -9154), and its gradient in the scales of
the noise is not a number.

*Particle filter* (`run`): Adam follows the gradient of the bootstrap filter's likelihood (64 particles, new ones in
every step, batches of four trials; gradients stop at resampling, as the library advises). Test paths come from the
extended Kalman smoother, which needs no likelihood, through a model of the held-in units alone.

*Variational inference* (`run_variational`): Adam raises the evidence lower bound of `dynestyx.log_prob`, of all trials
at once and with one draw of the paths a step, independent Gaussians in every bin. Bins are scored in parallel, which
makes a step short.
"""

from functools import partial

import dynestyx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from dynestyx.inference.configs.filter import PFConfig
from dynestyx.inference.configs.smoother import EKFSmootherConfig
from methods.network import Data, Network, adam, batches, begin, data_of, whole
from methods.track import Track, milestones
from recipe import Recipe

_PARTICLES, _BATCH = 64, 4


def run(recipe: Recipe, track: Track, rate: float) -> None:
    """Trains by the particle filter with the learning rate `rate` until the track ends."""
    data = data_of(recipe)
    network, _ = begin(data)
    optimiser = adam(rate)
    all_units = np.arange(data.counts.shape[-1])

    def loss(network, key, counts):
        keys = jax.random.split(key, len(counts))
        return -jax.vmap(partial(_log_likelihood, network, all_units))(keys, counts).sum() / counts.size

    @jax.jit
    def train(network, state, key, counts):
        updates, state = optimiser.update(jax.grad(loss)(network, key, counts), state, network)
        return optax.apply_updates(network, updates), state

    predict = jax.jit(lambda network: _smoothed_rate(network, data))
    state, done, order = optimiser.init(network), 0, batches(int(data.training.sum()), _BATCH)
    test, seen, key = np.flatnonzero(~data.training), data.counts[data.training], jax.random.key(0)
    for until in milestones(2):
        while done < until:
            network, state = train(network, state, jax.random.fold_in(key, done), seen[next(order)])
            done += 1
        jax.block_until_ready(network)
        if not track.add(lambda network=network: whole(predict(network), recipe, test, all_units)):
            return


def run_variational(recipe: Recipe, track: Track, rate: float) -> None:
    """Raises the lower bound with the learning rate `rate` until the track ends."""
    data = data_of(recipe)
    network, path = begin(data)
    optimiser = adam(rate)
    groups = [(np.flatnonzero(data.training), np.arange(data.counts.shape[-1]))]
    groups.append((np.flatnonzero(~data.training), np.flatnonzero(data.held_in)))

    def loss(parameters, key):
        network, mean, log_sd = parameters
        drawn = mean + jnp.exp(log_sd) * jax.random.normal(key, mean.shape)
        total = log_sd.sum()
        for trials, units in groups:
            total += jax.vmap(partial(_log_prob, network, units))(
                drawn[trials], data.counts[np.ix_(trials, range(mean.shape[1]), units)]
            ).sum()
        return -total / data.seen.sum()

    @jax.jit
    def train(parameters, state, key):
        updates, state = optimiser.update(jax.grad(loss)(parameters, key), state, parameters)
        return optax.apply_updates(parameters, updates), state

    @jax.jit
    def predict(parameters):
        network, mean, log_sd = parameters
        return jnp.exp(network.log_rate(mean) + jnp.exp(2 * log_sd) @ (network.loading**2).T / 2)

    parameters = (network, path, jnp.full(path.shape, jnp.log(0.1)))
    state, done, key = optimiser.init(parameters), 0, jax.random.key(0)
    for until in milestones(10):
        while done < until:
            parameters, state = train(parameters, state, jax.random.fold_in(key, done))
            done += 1
        jax.block_until_ready(parameters)
        if not track.add(lambda parameters=parameters: predict(parameters)):
            return


def _model(network: Network, units: np.ndarray) -> dynestyx.DynamicalModel:
    eye = jnp.eye(network.m.shape[1])
    return dynestyx.DynamicalModel(
        initial_condition=dist.MultivariateNormal(jnp.zeros(len(eye)), jnp.exp(2 * network.log_initial) * eye),
        state_evolution=lambda x, u, t_now, t_next: dist.MultivariateNormal(  # noqa: ARG005
            network.step(x), jnp.exp(2 * network.log_noise) * eye
        ),
        observation_model=lambda x, u, t: dist.Poisson(jnp.exp(network.log_rate(x)[units])).to_event(1),  # noqa: ARG005
    )


def _log_likelihood(network: Network, units: np.ndarray, key, counts):
    times = jnp.arange(float(len(counts)))
    with dynestyx.Filter(PFConfig(n_particles=_PARTICLES, crn_seed=key)):
        return dynestyx.condition("filter", _model(network, units), obs_times=times, obs_values=counts).marginal_loglik


def _log_prob(network: Network, units: np.ndarray, path, counts):
    times = jnp.arange(float(len(counts)))
    return dynestyx.log_prob(
        _model(network, units), state_path_params=path, state_path_param_times=times, obs_times=times, obs_values=counts
    )


def _smoothed_rate(network: Network, data: Data):
    """Expected counts `(test trial, time, unit)` under the Gaussian posterior of the smoother."""
    units = np.flatnonzero(data.held_in)

    def one(counts):
        times = jnp.arange(float(len(counts)))
        with dynestyx.Smoother(EKFSmootherConfig()):
            found = dynestyx.condition("smoother", _model(network, units), obs_times=times, obs_values=counts).states
        half = jnp.einsum("ia,kab->kib", network.loading, found.chol_cov)
        return jnp.exp(network.log_rate(found.mean) + (half**2).sum(-1) / 2)

    return jax.vmap(one)(data.counts[~data.training][..., units])
