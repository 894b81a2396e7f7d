"""Observations of latent dynamics: the priors of what belongs to each unit, and how Gibbs sampling moves it."""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false, reportReturnType=false

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.observation import Gaussian, NegativeBinomial, Observation, Poisson
from connectinfer.latent.regression import random_walk
from connectinfer.latent.state_space import Seen

Predictor = Float[Array, "trial time unit"]


class ObservationPrior(NamedTuple):
    """An observation, `counts` or a signal: the prior `bias(bin width in seconds)`, mean and sd, of a unit's bias;
    `sample(n_units)` its other parameters, as NumPyro sites; `begin(seen, predictor)` their start values;
    `update(key, observation, predictor, seen)` values that leave their posterior invariant; `sites(observation)`, and
    back `observation(sites)`.

    `calcium_decay`: prior mean and sd of the log of calcium's time constant (s); None where the path is seen directly.
    """

    counts: bool
    bias: Callable[[float], tuple[float | Array, float]]
    sample: Callable[[int], Observation]
    begin: Callable[[Seen, Predictor], Observation]
    update: Callable[..., Observation]
    sites: Callable[..., dict[str, Array]]
    observation: Callable[[Mapping[str, Array]], Observation]
    calcium_decay: tuple[float, float] | None = None


def _count_bias(bin_width: float) -> tuple[Array, float]:
    """About 5 spikes/s, 0.4 to 60."""
    return jnp.log(5.0 * bin_width), 1.5


_CONCENTRATION = (2.0, 1.0)
_NOISE = (math.log(0.5), 0.7)


def _sample_log_normal(site: str, law: tuple[float, float], n_units: int) -> Array:
    return numpyro.sample(site, dist.LogNormal(jnp.full(n_units, law[0]), law[1]).to_event(1))


def _update_log_normal(
    key: Key[Array, ""],
    value: Float[Array, " unit"],
    law: tuple[float, float],
    likelihood: Callable[[Array], Array],
    information: Array | float,
) -> Float[Array, " unit"]:
    """Metropolis steps of positive numbers with log-normal priors, of widths by the `information` on their logs."""

    def density(log_value: Array) -> Array:
        return likelihood(jnp.exp(log_value)) - 0.5 * ((log_value - law[0]) / law[1]) ** 2

    step = 2.4 / jnp.sqrt(information + law[1] ** -2)
    return jnp.exp(random_walk(key, jnp.log(value), density, step))


def _update_concentration(
    key: Key[Array, ""], observation: NegativeBinomial, predictor: Predictor, seen: Seen
) -> NegativeBinomial:
    def likelihood(concentration: Array) -> Array:
        law = NegativeBinomial(concentration)
        entries = law.log_kernel(seen.activity, predictor) + law.log_constant(seen.activity)
        return jnp.where(seen.mask, entries, 0.0).sum((0, 1))

    # About the information that counts of mean mu and variance mu + mu^2 / r hold on log r.
    r, mean = observation.concentration, jnp.exp(predictor)
    information = jnp.where(seen.mask, 0.5 * (mean / (mean + r)) ** 2, 0.0).sum((0, 1))
    return NegativeBinomial(_update_log_normal(key, r, _CONCENTRATION, likelihood, information))


def _update_noise(key: Key[Array, ""], observation: Gaussian, predictor: Predictor, seen: Seen) -> Gaussian:
    squares = jnp.where(seen.mask, (seen.activity - predictor) ** 2, 0.0).sum((0, 1))
    n_seen = seen.mask.sum((0, 1))

    def likelihood(noise: Array) -> Array:
        return -0.5 * squares / noise**2 - n_seen * jnp.log(noise)

    return Gaussian(_update_log_normal(key, observation.noise, _NOISE, likelihood, 2.0 * n_seen))


def _residual_noise(seen: Seen, predictor: Predictor) -> Gaussian:
    squares = jnp.where(seen.mask, (seen.activity - predictor) ** 2, 0.0).sum((0, 1))
    return Gaussian(jnp.maximum(jnp.sqrt(squares / jnp.maximum(seen.mask.sum((0, 1)), 1)), 1e-3))


POISSON = ObservationPrior(
    counts=True,
    bias=_count_bias,
    sample=lambda _: Poisson(),
    begin=lambda *_: Poisson(),
    update=lambda _, observation, *__: observation,
    sites=lambda _: {},
    observation=lambda _: Poisson(),
)
"""Poisson counts; `exp(bias)` is about 5 spikes/s (0.4 to 60) a priori."""

NEGATIVE_BINOMIAL = ObservationPrior(
    counts=True,
    bias=_count_bias,
    sample=lambda n_units: NegativeBinomial(_sample_log_normal("concentration", _CONCENTRATION, n_units)),
    begin=lambda _, predictor: NegativeBinomial(jnp.full(predictor.shape[-1], math.exp(_CONCENTRATION[0]))),
    update=_update_concentration,
    sites=lambda observation: {"concentration": observation.concentration},
    observation=lambda sites: NegativeBinomial(sites["concentration"]),
)
"""Counts with variance mean + mean^2 / concentration, the concentration 7 (1 to 50) a priori."""

GAUSSIAN = ObservationPrior(
    counts=False,
    bias=lambda _: (0.0, 1.0),
    sample=lambda n_units: Gaussian(_sample_log_normal("noise", _NOISE, n_units)),
    begin=_residual_noise,
    update=_update_noise,
    sites=lambda observation: {"noise": observation.noise},
    observation=lambda sites: Gaussian(sites["noise"]),
)
"""Signals of unit scale, with noise of sd 0.5 (0.1 to 2) a priori."""

CALCIUM_DECAY = (math.log(0.5), 0.5)
CALCIUM = GAUSSIAN._replace(calcium_decay=CALCIUM_DECAY)
"""Signals of unit scale that report the path through calcium, which decays within 0.5 s (0.19 to 1.3) a priori."""
