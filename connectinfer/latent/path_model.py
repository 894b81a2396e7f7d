"""State-space models as NumPyro models: with the paths as sites, or integrated out."""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.distributions.poisson_log_rate import PoissonLogRate
from connectinfer.dynamics.observation import Gaussian, NegativeBinomial, Observation
from connectinfer.latent.state_space import Seen, StateSpace, log_marginal

_NEWTON_STEPS = 8


def sample_paths(
    site: str,
    space: StateSpace,
    activity: Float[Array, "trial time unit"] | None,
    mask: Bool[Array, "trial time unit"],
    path_site: str = "latent",
) -> Float[Array, "trial time dim"]:
    """Samples the paths, as `path_site`, and what is observed of them, as `site`; without `activity` it is drawn."""
    path = LatentPath(space.transition, space.noise_tril, space.initial_tril, space.inputs, space.initial_mean)
    latent = jnp.asarray(numpyro.sample(path_site, path.to_event(1)))
    law = observation_law(space.observation, space.predictor(latent))
    n_trials, n_bins, n_units = mask.shape
    with (
        numpyro.plate("trial", n_trials, dim=-3),
        numpyro.plate("time", n_bins, dim=-2),
        numpyro.plate("unit", n_units, dim=-1),
    ):
        numpyro.sample(site, law.mask(mask), obs=activity)
    return latent


def observation_law(observation: Observation, predictor: Float[Array, "*batch unit"]) -> dist.Distribution:
    """The law of an observation as a NumPyro distribution."""
    if isinstance(observation, NegativeBinomial):
        return dist.NegativeBinomial2(jnp.exp(predictor), observation.concentration)
    if isinstance(observation, Gaussian):
        return dist.Normal(predictor, observation.noise)
    return PoissonLogRate(predictor)


def integrate_paths(state_space: Callable[..., StateSpace]) -> Callable[..., None]:
    """The model whose parameters are those of `state_space`, with the paths integrated out by Laplace's approximation.

    The log marginal likelihood is the factor `"paths"`: `sample_nuts` and `fit_svi` take the model as any other, and
    move in its parameters alone.
    """

    def model(activity: Float[Array, "trial time unit"], mask: Bool[Array, "trial time unit"], **arrays: Any) -> None:
        space = state_space(mask=mask, **arrays)
        start = jnp.zeros((*mask.shape[:2], len(space.initial_mean)))
        marginal = log_marginal(space, Seen.of(activity, mask), start, steps=_NEWTON_STEPS)
        numpyro.factor("paths", marginal.sum())

    return model
