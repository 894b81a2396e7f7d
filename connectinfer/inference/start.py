"""Where inference starts: values of the latent sites in the unconstrained space in which samplers move."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from connectinfer.inference.trace import Sites

_JITTER = 0.1
_RADIUS = 2.0
_TRIES = 20


def constrain(bound: Callable, arrays: Mapping[str, Any], free: Sites) -> Sites:
    """Values of the latent sites from their unconstrained values."""
    return constrain_fn(bound, (arrays,), {}, free)


def potential(bound: Callable, arrays: Mapping[str, Any], free: Sites) -> Array:
    """Minus the log joint density in the unconstrained space."""
    return potential_energy(bound, (arrays,), {}, free)


def central_start(bound: Callable, arrays: Mapping[str, Any], prior: Sites, initial: Mapping[str, Any]) -> Sites:
    """Unconstrained start: `initial` (constrained values) for the sites it names, the prior median for the others.

    `prior` holds prior draws `(draw, ...)` of the latent sites.

    Raises:
        ValueError: `initial` names a site that is not latent, or has another shape.
    """
    for name, value in initial.items():
        if name not in prior or np.shape(value) != prior[name].shape[1:]:
            found = (
                prior[name].shape[1:] if name in prior else f"not a latent site; those are {', '.join(sorted(prior))}"
            )
            raise ValueError(f"`initial[{name!r}]` has shape {np.shape(value)}; the model's site: {found}.")
    fixed = {name: jnp.asarray(value, float) for name, value in initial.items()}
    drawn = {name: value for name, value in prior.items() if name not in fixed}

    def unconstrain(draw: Sites, fixed: Sites, arrays: Mapping[str, Any]) -> Sites:
        return unconstrain_fn(bound, (arrays,), {}, draw | fixed)

    def median(drawn: Sites, fixed: Sites, arrays: Mapping[str, Any]) -> Sites:
        free = jax.vmap(unconstrain, in_axes=(0, None, None), axis_size=next(iter(prior.values())).shape[0])(
            drawn, fixed, arrays
        )
        return {name: jnp.median(value, axis=0) for name, value in free.items()}

    return jax.jit(median)(drawn, fixed, dict(arrays))


def chain_starts(
    key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], centre: Sites, chains: int, *, spread: bool
) -> Sites:
    """One unconstrained start a chain, `(chain, ...)`, where log density and gradient are finite.

    With `spread`, uniform within 2 of zero (only the shapes of `centre` matter); otherwise `centre` plus normal noise
    of sd 0.1.

    Raises:
        ValueError: no finite start in 20 tries for some chain.
    """

    def propose(key: PRNGKeyArray) -> Sites:
        keys = jax.random.split(key, len(centre))
        return {
            name: jax.random.uniform(k, x.shape, x.dtype, -_RADIUS, _RADIUS)
            if spread
            else x + _JITTER * jax.random.normal(k, x.shape, x.dtype)
            for k, (name, x) in zip(keys, centre.items(), strict=True)
        }

    def attempt(key: PRNGKeyArray, arrays: Mapping[str, Any]) -> tuple[Sites, Array]:
        free = propose(key)
        value, gradient = jax.value_and_grad(lambda z: potential(bound, arrays, z))(free)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)]).all()
        return free, jnp.isfinite(value) & finite

    run = jax.jit(lambda keys, arrays: jax.lax.map(lambda k: attempt(k, arrays), keys))
    starts: list[Sites] = []
    for batch in jax.random.split(key, _TRIES):
        found, valid = run(jax.random.split(batch, chains), dict(arrays))
        starts += [{name: x[i] for name, x in found.items()} for i in np.flatnonzero(np.asarray(valid))]
        if len(starts) >= chains:
            return jax.tree.map(lambda *values: jnp.stack(values), *starts[:chains])
    raise ValueError(
        f"No start with a finite log density and gradient in {_TRIES * chains} tries ({len(starts)} of {chains} chains "
        "started). Narrow the priors, or pass start values with `initial=`."
    )
