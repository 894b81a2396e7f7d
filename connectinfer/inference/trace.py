"""Running a model at given values of its sites: what follows from them, and how probable they are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions import Unit
from numpyro.infer.initialization import init_to_uniform

Trace = dict[str, dict[str, Any]]
Sites = dict[str, Array]


class Evaluation(NamedTuple):
    """What one draw implies: latent and deterministic sites; log prior, log likelihood and log factor by site.

    The log likelihood keeps the axes of the observation except `"time"`, over which it is summed.
    """

    sites: Sites
    log_prior: Sites
    log_likelihood: Sites
    log_factor: Sites


class Site(NamedTuple):
    """What can be said of a site without running the model: `kind` is `"latent"`, `"observed"`, `"deterministic"`,
    `"factor"` or `"param"`; `axes` names the plate of every axis, None where there is none; `law` is the type of its
    distribution, `support` where its values lie; `scaled` whether its log density is weighted."""

    kind: str
    shape: tuple[int, ...]
    axes: list[str | None]
    law: type | None
    support: Any
    scaled: bool


def bind(model: Callable, inputs: Mapping[str, Any]) -> tuple[Callable[[Mapping[str, Any]], Any], dict[str, Any]]:
    """`bound(arrays)` runs `model` on `inputs`, with `arrays` the array entries of `inputs`.

    Arrays that are arguments of compiled functions are not baked into them, where XLA would try to fold them; numbers
    and strings stay fixed.
    """
    arrays = {name: jnp.asarray(x) for name, x in inputs.items() if isinstance(x, jax.Array | np.ndarray)}
    fixed = {name: x for name, x in inputs.items() if name not in arrays}

    def bound(arrays: Mapping[str, Any]) -> Any:
        return model(**fixed, **arrays)

    return bound, arrays


class JointDraw(NamedTuple):
    """Parameters and data drawn together; `log_factor` is the sum of the model's factors there. `sound` is false if the
    model rejects the parameters by a factor of minus infinity, or the data have no finite density under their law."""

    latent: Sites
    data: Sites
    log_factor: Float[Array, ""]
    sound: Bool[Array, ""]


def trace_model(key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> Trace:
    """The trace of a bound model with `values` substituted and everything else drawn with `key`.

    Sites with an improper prior, which cannot be drawn, are uniform within 2 of zero in their unconstrained space.
    """
    seeded = handlers.seed(handlers.substitute(bound, data=dict(values)), key)
    return handlers.trace(handlers.substitute(seeded, substitute_fn=_draw_improper)).get_trace(arrays)


def describe_sites(bound: Callable, arrays: Mapping[str, Any]) -> dict[str, Site]:
    """The sites of a model, from an abstract run that computes nothing.

    Raises:
        ValueError: an observed site has fewer values than its law, so that predictions of it would have another shape.
    """
    found: dict[str, Site] = {}

    def run(key: PRNGKeyArray, arrays: Mapping[str, Any]) -> None:
        for name, site in trace_model(key, bound, arrays, {}).items():
            if site["type"] in ("sample", "deterministic", "param"):
                if _kind(site) == "observed":
                    _check_observation(site)
                support = site["fn"].support if site["type"] == "sample" else None
                scaled = site.get("scale") is not None
                found[name] = Site(_kind(site), jnp.shape(site["value"]), _axes(site), _law(site), support, scaled)

    jax.eval_shape(run, jax.random.key(0), dict(arrays))
    return found


def check_proper(sites: Mapping[str, Site]) -> None:
    """Raise unless every prior can be drawn from.

    Raises:
        ValueError: names the sites with an improper prior.
    """
    if improper := [name for name, site in sites.items() if site.law is dist.ImproperUniform]:
        raise ValueError(
            f"Nothing can be simulated from improper priors, those of {improper}. Give these sites proper ones; only "
            "fits by 'nuts' and 'svi' can do without."
        )


def latent_sites(trace: Trace) -> Trace:
    """The sites that inference has to find."""
    return {name: site for name, site in trace.items() if _kind(site) == "latent"}


def observed_sites(trace: Trace) -> Trace:
    """The sites that hold data."""
    return {name: site for name, site in trace.items() if _kind(site) == "observed"}


def bare_law(law: Any) -> Any:
    """The distribution inside what only shapes, expands or masks it."""
    while isinstance(law, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        law = law.base_dist
    return law


def evaluate(key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> Evaluation:
    """Runs the model at `values` of its latent sites; sites that are not given are drawn from their prior."""
    trace = trace_model(key, bound, arrays, values)
    latent = latent_sites(trace)
    return Evaluation(
        sites={name: site["value"] for name, site in trace.items() if _kind(site) in ("latent", "deterministic")},
        log_prior={name: jnp.sum(site["fn"].log_prob(site["value"])) for name, site in latent.items()},
        log_likelihood={name: _log_likelihood(site) for name, site in observed_sites(trace).items()},
        log_factor={n: jnp.sum(s["fn"].log_prob(s["value"])) for n, s in trace.items() if _kind(s) == "factor"},
    )


def predict(key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> Sites:
    """New observations at one draw of the latent sites, masked entries included."""
    key_trace, key_predict = jax.random.split(key)
    observed = observed_sites(trace_model(key_trace, bound, arrays, values))
    keys = jax.random.split(key_predict, max(len(observed), 1))
    drawn = {name: _like_the_data(site).sample(k) for k, (name, site) in zip(keys, observed.items(), strict=False)}
    return {name: jnp.asarray(value) for name, value in drawn.items()}


def draw_joint(key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> JointDraw:
    """Latent sites, those not in `values` drawn from their prior, and data drawn given them.

    Data are 0 where the model masks the likelihood of what was observed.
    """
    key_prior, key_data = jax.random.split(key)
    trace = trace_model(key_prior, bound, arrays, values)
    latent = {name: site["value"] for name, site in latent_sites(trace).items()}
    observed = observed_sites(trace)
    keys = jax.random.split(key_data, max(len(observed), 1))
    laws = {name: _like_the_data(site) for name, site in observed.items()}
    drawn = {name: law.sample(k) for k, (name, law) in zip(keys, laws.items(), strict=False)}
    log_factor = sum((jnp.sum(s["fn"].log_prob(s["value"])) for s in trace.values() if _kind(s) == "factor"), 0.0)
    sound = [_is_sound(jnp.asarray(law.log_prob(drawn[name])), jnp.asarray(drawn[name])) for name, law in laws.items()]
    return JointDraw(
        latent,
        {name: _seen(site, drawn[name]) for name, site in observed.items()},
        jnp.asarray(log_factor, float),
        jnp.stack([log_factor > -jnp.inf, *sound]).all(),
    )


def data_as_seen(bound: Callable, arrays: Mapping[str, Any]) -> Sites:
    """The data of the observed sites, 0 where their likelihood is masked; may be traced."""
    trace = trace_model(jax.random.key(0), bound, arrays, {})
    return {name: _seen(site, site["value"]) for name, site in observed_sites(trace).items()}


def observed_values(bound: Callable, arrays: Mapping[str, Any]) -> Sites:
    """The data that the observed sites hold."""

    def values(key: PRNGKeyArray, arrays: Mapping[str, Any]) -> Sites:
        return {name: site["value"] for name, site in observed_sites(trace_model(key, bound, arrays, {})).items()}

    # Nothing else of the trace is returned, so nothing else is compiled or run.
    return jax.jit(values)(jax.random.key(0), dict(arrays))


def expected_observations(bound: Callable, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> Sites:
    """Means of the observed sites' distributions, averaged over the draws of `values` `(draw, ...)`."""

    def means(draw: Mapping[str, Any], arrays: Mapping[str, Any]) -> Sites:
        observed = observed_sites(trace_model(jax.random.key(0), bound, arrays, draw))
        return {name: _like_the_data(site).mean for name, site in observed.items()}

    def average(values: Mapping[str, Any], arrays: Mapping[str, Any]) -> Sites:
        first = jax.tree.map(lambda x: x[0], dict(values))
        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(means, first, arrays))
        add = lambda total, draw: (jax.tree.map(jnp.add, total, means(draw, arrays)), None)  # noqa: E731
        total, _ = jax.lax.scan(add, zero, dict(values))
        return jax.tree.map(lambda x: x / len(next(iter(values.values()))), total)

    return jax.jit(average)(dict(values), dict(arrays))


def map_draws(function: Callable, keys: Key[Array, " draw"], values: Any, *arguments: Any) -> Any:
    """`function(key, values of one draw, *arguments)` for one draw after the other, compiled.

    Draws are not batched: one fills the cores for any model worth the wait, and JAX's Poisson and gamma samplers take
    tens of seconds to compile under `vmap`.
    """

    def run(keys: Array, values: Any, arguments: tuple) -> Any:
        return jax.lax.map(lambda draw: function(draw[0], draw[1], *arguments), (keys, values))

    return jax.jit(run)(keys, values, arguments)


def _like_the_data(site: Mapping[str, Any]) -> dist.Distribution:
    """The law of an observed site, repeated where one value of it stands for many observations."""
    fn, shape = site["fn"], jnp.shape(site["value"])
    return fn if fn.shape() == shape else fn.expand(shape[: len(shape) - fn.event_dim])


def _is_sound(log_density: Array, value: Array) -> Array:
    """Whether a draw can be one of its law: samplers answer laws that are not finite with values beside them."""
    overflown = jnp.issubdtype(value.dtype, jnp.integer) and (value == jnp.iinfo(value.dtype).max).any()
    return jnp.isfinite(log_density).all() & ~jnp.asarray(overflown)


def _seen(site: Mapping[str, Any], value: Any) -> Array:
    """`value`, 0 where the likelihood of the site is masked."""
    fn, shape = site["fn"], jnp.shape(site["value"])
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    masked = isinstance(fn, dist.MaskedDistribution)
    return jnp.where(jnp.broadcast_to(fn._mask, shape), value, 0) if masked else jnp.asarray(value)


def _check_observation(site: Mapping[str, Any]) -> None:
    law, shape = site["fn"].shape(), jnp.shape(site["value"])
    # Axes of the law count from the right; the data may have more.
    if len(law) > len(shape) or any(n not in (1, size) for n, size in zip(law[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"The observed site {site['name']!r} has values of shape {shape}, but its law has shape {law}. Give `obs` "
            "one value for each."
        )


def _draw_improper(site: Mapping[str, Any]) -> Any:
    undrawn = site["type"] == "sample" and not site["is_observed"] and site["value"] is None
    return init_to_uniform(site) if undrawn and _law(site) is dist.ImproperUniform else None


def _kind(site: Mapping[str, Any]) -> str:
    if site["type"] != "sample":
        return site["type"]
    if not site["is_observed"]:
        return "latent"
    return "factor" if _law(site) is Unit else "observed"


def _law(site: Mapping[str, Any]) -> type | None:
    fn = bare_law(site.get("fn"))
    return type(fn) if isinstance(fn, dist.Distribution) else None


def _axes(site: Mapping[str, Any]) -> list[str | None]:
    frames = sorted(site.get("cond_indep_stack", ()), key=lambda frame: frame.dim)
    n_axes = jnp.ndim(site["value"])
    if site["type"] != "sample":
        # What is an event of a deterministic value is not known; its plates come first, unless it is a summary.
        sizes = [frame.size for frame in frames]
        plates = [frame.name for frame in frames] if list(jnp.shape(site["value"])[: len(sizes)]) == sizes else []
        return [*plates, *[None] * (n_axes - len(plates))]
    axes: list[str | None] = [None] * n_axes
    for frame in frames:
        axes[n_axes - site["fn"].event_dim + frame.dim] = frame.name
    return axes


def _log_likelihood(site: Mapping[str, Any]) -> Array:
    log_prob, axes = site["fn"].log_prob(site["value"]), _axes(site)
    return log_prob.sum(axis=axes.index("time")) if "time" in axes else log_prob
