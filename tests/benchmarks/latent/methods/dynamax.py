"""dynamax, in its two uses for spikes: the conditional-moments filter on the same low-rank network, and a linear model.

*Low-rank network* (`run`): `GeneralizedGaussianSSM`, whose filter linearises network and Poisson read-out once per bin.
dynamax learns no parameters of such models, so Adam follows the gradient of the filter's log likelihood in batches of
trials, from principal components on. Each bin costs the solution of a system of as many equations as units, and its
gradient several; that is what makes it slow. Test paths come from the smoother of a model of the held-in units alone.

*Linear model* (`run_linear`): `LinearGaussianSSM.fit_em` on the square roots of the counts, the library's fastest way
to a latent path; a Poisson regression of the counts on the smoothed paths then reads them out.

Advantage: of the linear model, EM, which needs no learning rate. It has no limit cycles and no two stable states, so
it says nothing about dynamics like these.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from dynamax.generalized_gaussian_ssm.inference import (
    EKFIntegrals,
    conditional_moments_gaussian_filter,
    conditional_moments_gaussian_smoother,
)
from dynamax.generalized_gaussian_ssm.models import ParamsGGSSM
from dynamax.linear_gaussian_ssm import LinearGaussianSSM
from dynamax.linear_gaussian_ssm.inference import lgssm_smoother
from methods.network import Data, Network, adam, batches, begin, data_of, whole
from methods.track import Track, milestones
from recipe import Recipe

from connectinfer.latent.principal_path import poisson_regression

_BATCH, _EM_STEPS = 4, 5


def run(recipe: Recipe, track: Track, rate: float) -> None:
    """Trains the low-rank network with the learning rate `rate` until the track ends."""
    data = data_of(recipe)
    network, _ = begin(data)
    optimiser = adam(rate)
    all_units = np.arange(data.counts.shape[-1])

    def loss(network, counts):
        each = jax.vmap(lambda y: _filter(network, all_units, y).marginal_loglik)(counts)
        return -each.sum() / counts.size

    @jax.jit
    def train(network, state, counts):
        updates, state = optimiser.update(jax.grad(loss)(network, counts), state, network)
        return optax.apply_updates(network, updates), state

    predict = jax.jit(lambda network: _predict(network, data))
    state, done, order = optimiser.init(network), 0, batches(int(data.training.sum()), _BATCH)
    test, seen = np.flatnonzero(~data.training), data.counts[data.training]
    for until in milestones(2):
        while done < until:
            network, state = train(network, state, seen[next(order)])
            done += 1
        jax.block_until_ready(network)
        if not track.add(lambda network=network: whole(predict(network), recipe, test, all_units)):
            return


def run_linear(recipe: Recipe, track: Track) -> None:
    """Steps of EM on square roots of counts until the track ends."""
    data = data_of(recipe)
    _, path = begin(data)
    roots = jnp.sqrt(data.counts + 0.25)
    roots -= roots[data.training].mean((0, 1))
    model = LinearGaussianSSM(path.shape[-1], roots.shape[-1], has_dynamics_bias=False, has_emissions_bias=False)
    seen, states = roots[data.training], path[data.training].reshape(-1, path.shape[-1])
    reading = jnp.linalg.lstsq(states, seen.reshape(len(states), -1))[0].T
    left = (seen.reshape(len(states), -1) - states @ reading.T).var(0)
    parameters, properties = model.initialize(
        jax.random.key(0),
        dynamics_weights=0.95 * jnp.eye(path.shape[-1]),
        dynamics_covariance=0.05 * jnp.diag(states.var(0)),
        emission_weights=reading,
        emission_covariance=jnp.diag(left),
    )
    test, units = np.flatnonzero(~data.training), np.arange(roots.shape[-1])
    while track.add(lambda parameters=parameters: whole(_read_out(parameters, roots, data), recipe, test, units)):
        parameters, _ = model.fit_em(parameters, properties, seen, num_iters=_EM_STEPS, verbose=False)


def _model(network: Network, units: np.ndarray):
    log_rate = lambda z: network.log_rate(z)[units]  # noqa: E731
    eye = jnp.eye(network.m.shape[1])
    return ParamsGGSSM(
        initial_mean=jnp.zeros(len(eye)),
        initial_covariance=jnp.exp(2 * network.log_initial) * eye,
        dynamics_function=network.step,
        dynamics_covariance=jnp.exp(2 * network.log_noise) * eye,
        emission_mean_function=lambda z: jnp.exp(log_rate(z)),
        emission_cov_function=lambda z: jnp.diag(jnp.exp(log_rate(z))),
    )


def _filter(network: Network, units: np.ndarray, counts):
    return conditional_moments_gaussian_filter(_model(network, units), EKFIntegrals(), counts)


def _predict(network: Network, data: Data):
    """Expected counts `(test trial, time, unit)` under the Gaussian posterior of the smoother."""
    units = np.flatnonzero(data.held_in)
    smooth = partial(conditional_moments_gaussian_smoother, _model(network, units), EKFIntegrals())
    found = jax.vmap(smooth)(data.counts[~data.training][..., units])
    spread = jnp.einsum("ia,ktab,ib->kti", network.loading, found.smoothed_covariances, network.loading)
    return jnp.exp(network.log_rate(found.smoothed_means) + spread / 2)


def _read_out(parameters, roots, data: Data) -> np.ndarray:
    """Expected counts `(test trial, time, unit)`: a Poisson regression on the paths of the training trials."""
    units = np.flatnonzero(data.held_in)
    design = np.asarray(_linear_paths(parameters, roots[data.training]))
    with_constant = lambda x: np.concatenate([x, np.ones((*x.shape[:-1], 1))], -1)  # noqa: E731
    counts = np.asarray(data.counts[data.training], float)
    weights = poisson_regression(with_constant(design), counts, np.ones(counts.shape, bool))
    emissions = parameters.emissions._replace(
        weights=parameters.emissions.weights[units],
        bias=jnp.zeros(len(units)),
        cov=parameters.emissions.cov[np.ix_(units, units)],
        input_weights=jnp.zeros((len(units), 0)),
    )
    test = np.asarray(_linear_paths(parameters._replace(emissions=emissions), roots[~data.training][..., units]))
    return np.exp(with_constant(test) @ weights.T)


@jax.jit
def _linear_paths(parameters, roots):
    return jax.vmap(lambda y: lgssm_smoother(parameters, y).smoothed_means)(roots)
