r"""Paths seen through calcium: what an indicator reports is the path, filtered by its decay.

$$x_{t+1} = \gamma x_t + (1 - \gamma) \frac{z_t + z_{t+1}}{2} + \frac{1 - \gamma}{\sqrt{12}} L \eta_t$$

The last term is what the path does within a bin: a random walk between two known ends deviates from their mean by
$1/\sqrt{12}$ of its step. All units share the decay, so that one filtered path serves all of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from connectinfer.latent.state_space import StateSpace

WITHIN_BIN = 12**-0.5
"""Standard deviation of the mean of a random walk within a bin whose ends are known, relative to that of its step."""


def kept_share(decay: Float[Array, ""], bin_width: float) -> Float[Array, ""]:
    """The share gamma of calcium that is left after a bin; `decay` is the time constant, in the unit of `bin_width`."""
    return jnp.exp(-bin_width / decay)


def filtered_by_calcium(
    x: Float[Array, "trial time column"], kept: Float[Array, ""]
) -> Float[Array, "trial time column"]:
    """`x` as calcium reports it; the first bin counts as having lasted long."""

    def step(before: Array, pair: Array) -> tuple[Array, Array]:
        now = kept * before + (1 - kept) * pair
        return now, now

    pairs = jnp.moveaxis((x[:, 1:] + x[:, :-1]) / 2, 1, 0)
    _, later = jax.lax.scan(step, x[:, 0], pairs)
    return jnp.concatenate([x[:, :1], jnp.moveaxis(later, 0, 1)], 1)


def pairs_behind(x: Float[Array, "trial time dim"], kept: Float[Array, ""]) -> Float[Array, "trial time both"]:
    """Paths (z, x) of `calcium_space` whose calcium is about a smooth `x`, and whose noise within bins is 0."""
    slope = jnp.asarray(jnp.gradient(x, axis=1))
    z = x - slope / jnp.log(kept)
    return jnp.concatenate([z, filtered_by_calcium(z, kept)], -1)


def within_bin(paths: Float[Array, "trial time both"], kept: Float[Array, ""]) -> Float[Array, "trial step dim"]:
    """What the path did within bins, eta of every step times the noise L, from `paths` of `calcium_space`."""
    z, x = jnp.split(paths, 2, -1)
    expected = kept * x[:, :-1] + (1 - kept) * (z[:, 1:] + z[:, :-1]) / 2
    return (x[:, 1:] - expected) / ((1 - kept) * WITHIN_BIN)


def calcium_space(space: StateSpace, kept: Float[Array, ""]) -> StateSpace:
    """A state space of paths (z, x) `(trial, time, 2 dim)` in which units see x instead of z; `space` is that of z.

    The offset is taken as it is. The first x is drawn as the first z is, and apart from it.
    """
    zero, noise, initial = jnp.zeros_like(space.noise_tril), space.noise_tril, space.initial_tril
    return StateSpace(
        initial_mean=jnp.tile(space.initial_mean, 2),
        initial_tril=jnp.block([[initial, zero], [zero, initial]]),
        transition=jax.tree_util.Partial(_step, space.transition, kept),
        noise_tril=jnp.block([[noise, zero], [(1 - kept) / 2 * noise, (1 - kept) * WITHIN_BIN * noise]]),
        inputs=space.inputs,
        loading=jnp.concatenate([jnp.zeros_like(space.loading), space.loading], 1),
        offset=space.offset,
        observation=space.observation,
    )


def _step(transition, kept: Array, state: Float[Array, "*batch both"], v: Float[Array, "*batch input"]) -> Array:
    z, x = jnp.split(state, 2, -1)
    following = transition(z, v)
    return jnp.concatenate([following, kept * x + (1 - kept) * (z + following) / 2], -1)
