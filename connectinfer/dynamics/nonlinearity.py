"""The rate functions `phi` of the network models, by name."""

from collections.abc import Callable
from difflib import get_close_matches

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def power_law(potential: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Rectified square `max(h, 0)^2`, the supralinear transfer function of cortical models.

    Source: Ahmadian, Rubin & Miller, Neural Computation 25, 1994 (2013).
    """
    return jnp.square(jax.nn.relu(potential))


NONLINEARITIES: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "erf": jax.scipy.special.erf,
    "power_law": power_law,
}


def nonlinearity(name: str) -> Callable[[Array], Array]:
    """The elementwise function called `name`.

    Raises:
        ValueError: if `name` is not in `NONLINEARITIES`; names the nearest one.
    """
    if name not in NONLINEARITIES:
        near = get_close_matches(name, NONLINEARITIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown nonlinearity {name!r}; choose one of {', '.join(NONLINEARITIES)}.{hint}")
    return NONLINEARITIES[name]
