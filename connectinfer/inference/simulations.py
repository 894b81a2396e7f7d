"""What a flow learns from: parameters drawn from the prior, or from a part of it, and features of data simulated there.

Source: Deistler et al., NeurIPS 2022, arXiv:2210.04815 (the part of the prior that a posterior so far deems possible).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer.util import unconstrain_fn

from connectinfer.inference.amortised import DataFeatures, FlowPosterior
from connectinfer.inference.trace import Sites, draw_joint, evaluate

_MOST_BYTES = 2e9
# Parameters less probable than all but this share of the flow's own draws are left out.
_TRUNCATED = 1e-4
_OWN_DRAWS = 10_000
_MOST_CANDIDATES = 200
_BATCH = 100


class Simulations(NamedTuple):
    """Unconstrained sites and features of the simulations that succeeded, among `n_drawn`."""

    free: Float[Array, "simulation value"]
    features: Float[Array, "simulation group feature"]
    n_drawn: int


def simulate_features(
    key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], features: DataFeatures, values: Sites, n: int
) -> Simulations:
    """`n` simulations of sites `values` `(simulation, ...)`, or from the prior; those that fail are left out.

    A simulation fails where the model rejects its parameters by a factor of minus infinity, or where its data have no
    finite density under the law that they were drawn from (as counts of a rate that is not a number).

    Raises:
        ValueError: more than half of them fail, they take more than 2 GB, or the model weights its parameters by a
            factor.
    """

    def simulated(key: PRNGKeyArray, values: Sites, arrays: Mapping[str, Any]) -> tuple[Array, Array, Array, Array]:
        drawn = draw_joint(key, bound, arrays, values)
        free = ravel_pytree(unconstrain_fn(bound, (arrays,), {}, drawn.latent))[0]
        return free, features(drawn.data), drawn.sound, drawn.log_factor

    shape = jax.eval_shape(simulated, key, jax.tree.map(lambda x: x[0], values), dict(arrays))[1].shape
    if (size := n * int(np.prod(shape)) * 4) > _MOST_BYTES:
        raise ValueError(
            f"{n} simulations of {shape[0]} x {shape[1]} values take {size / 1e9:.1f} GB. Give a `summary` of the data "
            "(rates, correlations), or fewer `simulations`."
        )
    free, found, sound, log_factor = _in_batches(simulated)(jax.random.split(key, n), values, dict(arrays))
    check_unweighted(log_factor)
    good = np.asarray(sound & jnp.isfinite(free).all(1) & jnp.isfinite(found).all((1, 2)))
    if good.mean() < 0.5:
        raise ValueError(
            f"{(~good).sum()} of {n} simulations failed. Narrow the priors: a simulator that mostly fails leaves "
            "little to learn from."
        )
    return Simulations(free[good], found[good], n)


def check_unweighted(log_factor: Array) -> None:
    """Raise if a factor does more than reject: draws from the prior do not know of it.

    Raises:
        ValueError: a log factor is neither 0 nor minus infinity.
    """
    weights = np.asarray(log_factor)
    weights = weights[np.isfinite(weights) & (weights != 0)]
    if weights.size:
        raise ValueError(
            f"The model weights its parameters by `numpyro.factor` (log weights such as {weights[0]:.3g}), of which "
            "simulations know nothing. Write the weight as a prior; only fits by 'nuts' and 'svi' can do without."
        )


def possible_parameters(
    key: PRNGKeyArray, posterior: FlowPosterior, bound: Callable, arrays: Mapping[str, Any], n: int
) -> tuple[Sites, float]:
    """At most `n` draws from the part of the prior that `posterior` deems possible given the data, and the share of the
    prior that this is."""
    key_own, key_prior = jax.random.split(key)
    density = jax.jit(lambda free, arrays: posterior.log_prob(free, arrays))
    _, own = jax.jit(lambda key, arrays: posterior.sample_free(key, arrays, _OWN_DRAWS))(key_own, dict(arrays))
    least = jnp.quantile(own, _TRUNCATED)

    def drawn(key: PRNGKeyArray, _: Sites, arrays: Mapping[str, Any]) -> tuple[Sites, Array]:
        latent = evaluate(key, bound, arrays, {}).sites
        free = unconstrain_fn(bound, (arrays,), {}, {name: latent[name] for name in posterior.names})
        return {name: latent[name] for name in posterior.names}, ravel_pytree(free)[0]

    from_prior = _in_batches(drawn)
    kept, accepted, candidates = [], 0, 0
    for batch in jax.random.split(key_prior, _MOST_CANDIDATES):
        latent, free = from_prior(jax.random.split(batch, n), {}, dict(arrays))
        at = np.flatnonzero(np.asarray(density(free, dict(arrays)) > least))
        kept.append(jax.tree.map(lambda x, at=at: np.asarray(x)[at], latent))
        accepted, candidates = accepted + len(at), candidates + n
        if accepted >= n:
            break
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:n]), *kept), accepted / candidates


def _in_batches(function: Callable) -> Callable[[Array, Sites, dict[str, Any]], Any]:
    """`function(key, values, arrays)` of every key, some hundred at a time, compiled once."""
    return jax.jit(
        lambda keys, values, arrays: jax.lax.map(
            lambda case: function(case[0], case[1], arrays), (keys, values), batch_size=_BATCH
        )
    )
