"""A posterior given any data: a conditional flow whose condition is a summary of the data."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import flowjax.bijections
import flowjax.distributions
import flowjax.flows
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from connectinfer.inference.start import constrain
from connectinfer.inference.trace import Site, Sites, data_as_seen, observed_values

Summary = Callable[[Sites], Array]
"""From the data of one simulation, by observed site, to a vector."""

_WIDTH, _LAYERS = 64, 5


class DataFeatures(eqx.Module):
    """What is made of data before a network sees them: a given summary, or all values, by trial if `by_trial`."""

    summary: Summary | None = eqx.field(static=True)
    by_trial: bool = eqx.field(static=True)

    def __call__(self, data: Sites) -> Float[Array, "group feature"]:
        """One row a trial, or one for all data."""
        if self.summary is not None:
            return jnp.asarray(self.summary(data), float).reshape(1, -1)
        arrays = [jnp.asarray(x, float) for x in data.values()]
        return jnp.concatenate([x.reshape(len(x) if self.by_trial else 1, -1) for x in arrays], axis=1)


class Networks(eqx.Module):
    """What is trained: the flow, and the networks that summarise features (None where a summary is given).

    Features of every trial pass one network, their mean another: the order of trials does not matter.
    """

    flow: flowjax.distributions.AbstractDistribution
    each: eqx.nn.MLP | None
    pooled: eqx.nn.MLP | None

    def summarise(self, features: Float[Array, "group feature"]) -> Float[Array, " summary"]:
        """The condition of the flow."""
        if self.each is None or self.pooled is None:
            return features[0]
        return self.pooled(jax.vmap(self.each)(features).mean(0))

    def log_prob(self, value: Float[Array, " value"], features: Float[Array, "group feature"]) -> Float[Array, ""]:
        """Log density of standardised values."""
        return jnp.asarray(self.flow.log_prob(value, self.summarise(features)))


class FlowPosterior(eqx.Module):
    """The posterior of a model's latent sites given any data of the shapes that it was trained on.

    `shift` and `scale` standardise the unconstrained sites `names`, `centre` and `spread` the features.
    """

    networks: Networks
    features: DataFeatures
    centre: Float[Array, " feature"]
    spread: Float[Array, " feature"]
    shift: Float[Array, " value"]
    scale: Float[Array, " value"]
    bound: Callable = eqx.field(static=True)
    unravel: Callable[[Array], Sites] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def sample(self, key: PRNGKeyArray, arrays: Mapping[str, Any], draws: int) -> Sites:
        """Draws `(draw, ...)` of the latent sites given the data among `arrays`, the model's array inputs."""
        free, _ = self.sample_free(key, arrays, draws)
        return jax.lax.map(lambda x: constrain(self.bound, arrays, self.unravel(x)), free)

    def sample_free(
        self, key: PRNGKeyArray, arrays: Mapping[str, Any], draws: int
    ) -> tuple[Float[Array, "draw value"], Float[Array, " draw"]]:
        """Draws in the unconstrained space, flattened, and their log density there."""
        drawn, density = self.networks.flow.sample_and_log_prob(key, (draws,), self.condition(arrays))
        return self.shift + self.scale * drawn, density - jnp.log(self.scale).sum()

    def log_prob(self, free: Float[Array, "draw value"], arrays: Mapping[str, Any]) -> Float[Array, " draw"]:
        """Log density of points of the unconstrained space given the data among `arrays`."""
        density = self.networks.flow.log_prob((free - self.shift) / self.scale, self.condition(arrays))
        return jnp.asarray(density) - jnp.log(self.scale).sum()

    def condition(self, arrays: Mapping[str, Any]) -> Float[Array, " summary"]:
        """The summary of the data among `arrays`."""
        return self.networks.summarise(self.squashed(self.features(data_as_seen(self.bound, arrays))))

    def squashed(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature"]:
        """Standardised; far values as their logarithm, because heavy-tailed priors simulate some that would drown the
        others."""
        return jnp.arcsinh((features - self.centre) / self.spread)


def trials_are_exchangeable(bound: Callable, arrays: Mapping[str, Any], sites: Mapping[str, Site]) -> bool:
    """Whether observed sites have a leading plate `trial`, and nothing but the data tells one trial from another.

    A latent site or an input with as many rows as there are trials may hold something of each: then the order matters,
    unless the rows of the input are all the same.
    """
    observed = observed_values(bound, arrays)
    if any(sites[name].axes[:1] != ["trial"] for name in observed):
        return False
    n_trials = {len(data) for data in observed.values()}
    holds_data = lambda x: any(x.shape == y.shape and bool((x == y).all()) for y in observed.values())  # noqa: E731
    given = [x for x in arrays.values() if x.shape and len(x) in n_trials and not holds_data(x)]
    latent = [site.shape for site in sites.values() if site.kind == "latent" and site.shape]
    return not any(shape[0] in n_trials for shape in latent) and all(bool((x == x[0]).all()) for x in given)


def untrained_networks(key: PRNGKeyArray, n_values: int, n_features: int, summary_given: bool) -> Networks:
    """A masked autoregressive flow with rational-quadratic splines over `n_values`, and networks of width 64."""
    key_flow, key_each, key_pooled = jax.random.split(key, 3)
    n_summary = n_features if summary_given else max(16, 2 * n_values)
    flow = flowjax.flows.masked_autoregressive_flow(
        key_flow,
        base_dist=flowjax.distributions.Normal(jnp.zeros(n_values), jnp.ones(n_values)),
        transformer=flowjax.bijections.RationalQuadraticSpline(knots=8, interval=5),
        cond_dim=n_summary,
        flow_layers=_LAYERS,
        nn_width=_WIDTH,
    )
    if summary_given:
        return Networks(flow, None, None)
    each = eqx.nn.MLP(n_features, _WIDTH, _WIDTH, 1, activation=jax.nn.silu, key=key_each)
    pooled = eqx.nn.MLP(_WIDTH, n_summary, _WIDTH, 1, activation=jax.nn.silu, key=key_pooled)
    return Networks(flow, each, pooled)
