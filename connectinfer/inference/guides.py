"""Variational guides: what the posterior is approximated by."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import flowjax.bijections
import flowjax.distributions
import flowjax.flows
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray, PyTree
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import autoguide
from numpyro.infer.initialization import init_to_value

from connectinfer.distributions.gauss_markov import GaussMarkov
from connectinfer.distributions.latent_path import LatentPath
from connectinfer.inference.trace import Site, Sites

Guide = Callable[..., Any]


def build_guide(constructor: Callable[..., Guide], sites: Mapping[str, Site], start: Sites) -> Guide:
    """A guide for the latent `sites` of a model, beginning at the constrained values `start`.

    `constructor` is what `guide_constructor` returns. Latent paths always get a Gauss-Markov chain of their own,
    because no flat family can follow thousands of correlated bins.

    Raises:
        ValueError: the support of a site is computed in the model, from other sites or by `jax.numpy`.
    """
    paths = {name: site.shape for name, site in sites.items() if site.law is LatentPath}
    parameters = {name: site for name, site in sites.items() if site.kind == "latent" and name not in paths}
    if moving := [name for name, site in parameters.items() if _depends_on_values(site.support)]:
        raise ValueError(
            f"Guides need supports that are plain numbers; those of {moving} are computed in the model. Write the "
            "bounds as Python or NumPy numbers or, if they depend on other sites, use the engine 'nuts'."
        )

    def supports() -> None:
        # A guide only needs to know where sites live: no likelihood is traced or compiled for that.
        for name, site in parameters.items():
            event_dim = max(site.support.event_dim, len(site.shape))
            support = constraints.independent(site.support, event_dim - site.support.event_dim)
            numpyro.sample(name, dist.ImproperUniform(support, (), site.shape))

    parameter_guide = constructor(supports, init_to_value(values={name: start[name] for name in parameters}))

    def guide(_arrays: Any) -> None:
        parameter_guide()
        for name, shape in paths.items():
            _sample_path(name, shape, start[name])

    return guide


def guide_parameters(key: PRNGKeyArray, guide: Guide, arrays: Mapping[str, Any]) -> tuple[dict[str, PyTree], Callable]:
    """Start values of a guide's parameters, unconstrained, and the map that constrains them."""
    trace = handlers.trace(handlers.seed(guide, key)).get_trace(arrays)
    sites = {name: site for name, site in trace.items() if site["type"] == "param"}
    transforms = {n: dist.biject_to(s["kwargs"].get("constraint", constraints.real)) for n, s in sites.items()}
    free = {n: jax.tree.map(transforms[n].inv, s["value"]) for n, s in sites.items()}
    return free, lambda values: {name: jax.tree.map(transforms[name], value) for name, value in values.items()}


GUIDES: dict[str, Callable[..., Guide]] = {
    "normal": lambda model, start: autoguide.AutoNormal(model, init_loc_fn=start, init_scale=0.05),
    "low_rank": lambda model, start: autoguide.AutoLowRankMultivariateNormal(
        model, init_loc_fn=start, init_scale=0.05, rank=None
    ),
    "bnaf": lambda model, start: autoguide.AutoBNAFNormal(model, init_loc_fn=start),
    "flow": lambda model, start: AutoFlow(model, masked_autoregressive, init_loc_fn=start),
}


def guide_constructor(kind: str | Callable) -> Callable[..., Guide]:
    """What makes a guide of the parameters from `(model, start)`.

    `kind` names the family: `"normal"` (AutoNormal), `"low_rank"` (AutoLowRankMultivariateNormal), `"bnaf"`
    (AutoBNAFNormal), or `"flow"` (flowjax masked autoregressive flow); a callable
    `(key, base_dist) -> flowjax distribution` brings another flowjax flow.

    Raises:
        ValueError: `kind` is unknown.
    """
    if callable(kind):
        return lambda model, start: AutoFlow(model, kind, init_loc_fn=start)
    if kind not in GUIDES:
        near = get_close_matches(kind, GUIDES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Unknown guide {kind!r}.{hint} Guides: {', '.join(sorted(GUIDES))}, or a constructor of a flowjax flow."
        )
    return GUIDES[kind]


def _depends_on_values(support: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(support))


def masked_autoregressive(key: jax.Array, base_dist: Any) -> Any:
    """A masked autoregressive flow with rational-quadratic splines, width 32, four layers."""
    return flowjax.flows.masked_autoregressive_flow(
        key,
        base_dist=base_dist,
        flow_layers=4,
        nn_width=32,
        transformer=flowjax.bijections.RationalQuadraticSpline(knots=8, interval=4),
        invert=False,
    )


class AutoFlow(autoguide.AutoContinuous):
    """A flowjax flow over all unconstrained sites, shifted to the start values and scaled down to begin with.

    `constructor(key, base_dist)` returns a flowjax distribution of the base's shape.
    """

    def __init__(self, model: Callable, constructor: Callable, **options: Any):
        self._constructor = constructor
        super().__init__(model, **options)

    def _get_posterior(self) -> dist.Distribution:
        base = flowjax.distributions.Normal(jnp.zeros(self.latent_dim), jnp.ones(self.latent_dim))
        # The architecture is fixed by this key; the weights that are trained live in the parameter store.
        flow = self._constructor(jax.random.key(0), base)
        flow = register_params(f"{self.prefix}_flow", flow)
        loc = numpyro.param(f"{self.prefix}_loc", self._init_latent)
        scale = numpyro.param(
            f"{self.prefix}_scale", jnp.full(self.latent_dim, 0.1), constraint=constraints.softplus_positive
        )
        # NumPyro types parameters as ArrayLike | None; here they are arrays.
        affine = dist.transforms.AffineTransform(loc, scale)  # pyright: ignore[reportArgumentType]
        return dist.TransformedDistribution(distribution_to_numpyro(flow), affine)


def _sample_path(name: str, shape: tuple[int, ...], start: Array) -> None:
    *batch, n_time, dim = shape
    posterior = GaussMarkov(
        numpyro.param(f"{name}_loc", start),
        numpyro.param(
            f"{name}_scale_tril",
            jnp.broadcast_to(0.05 * jnp.eye(dim), (*batch, n_time, dim, dim)),
            constraint=constraints.scaled_unit_lower_cholesky,
        ),
        numpyro.param(f"{name}_propagator", jnp.broadcast_to(0.8 * jnp.eye(dim), (*batch, n_time - 1, dim, dim))),
    )
    numpyro.sample(name, posterior.to_event(len(batch)))
