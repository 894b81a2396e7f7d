"""A flowjax distribution as a NumPyro distribution through which gradients reach the condition."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, Key
from numpyro.distributions import constraints


class ConditionalFlow(dist.Distribution):
    """The law of `flow` given `condition`, `(*batch, *flow.cond_shape)`; values are `(*batch, *flow.shape)`, real.

    flowjax's own adapter stops gradients at the condition, so that a network which computes it (the encoder of an
    amortised guide, say) would silently never be trained.

    Raises:
        ValueError: a flow without a condition, or a condition of another shape.
    """

    pytree_data_fields = ("flow", "condition")

    def __init__(self, flow: AbstractDistribution, condition: Float[Array, "*batch_condition"]):
        expected, shape = flow.cond_shape, jnp.shape(condition)
        if expected is None:
            raise ValueError("The flow takes no condition; build it with `cond_dim`, or use flowjax's own adapter.")
        n_batch = len(shape) - len(expected)
        if n_batch < 0 or shape[n_batch:] != expected:
            raise ValueError(f"`condition` must end with the axes {expected} that the flow was built for; got {shape}.")
        self.flow, self.condition = flow, condition
        super().__init__(batch_shape=shape[:n_batch], event_shape=flow.shape)

    @property
    def support(self) -> Any:
        """Real vectors: constrain values outside."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Float[Array, "*sample_batch_event"]:
        """Draws `(*sample_shape, *batch, *event)`."""
        return self.flow.sample(key, sample_shape, self.condition)

    def log_prob(self, value: Float[Array, "*batch_event"]) -> Float[Array, "*batch"]:
        """Log density of values, batched like the condition."""
        return jnp.asarray(self.flow.log_prob(value, self.condition))
