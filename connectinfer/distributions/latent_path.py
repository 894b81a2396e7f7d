"""Prior law of a latent path: a nonlinear Gaussian Markov chain."""

# NumPyro declares these class attributes as properties and lists, and assigns constraints and tuples itself.
# pyright: reportAssignmentType=false

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray, Scalar
from numpyro.distributions import constraints


class LatentPath(dist.Distribution):
    r"""$z_1 \sim N(0, s_0^2 I)$, $z_{t+1} \sim N(g(z_t, v_t), \sigma^2 I)$.

    `transition(z, v)` is a pytree callable that maps `(..., latent_dim)` and `(..., input)` to the next mean;
    `inputs (*batch, time, input)` are the filtered inputs v (size 0 without inputs) and fix batch and length.
    `process_noise` is the sd per bin, `initial_scale` that of the first bin. Values: `(*batch, time, latent_dim)`.
    """

    arg_constraints = {"process_noise": constraints.positive, "initial_scale": constraints.positive}  # noqa: RUF012
    support = constraints.independent(constraints.real, 2)
    reparametrized_params = ("process_noise", "initial_scale", "inputs")
    pytree_data_fields = ("transition", "process_noise", "initial_scale", "inputs")
    pytree_aux_fields = ("latent_dim",)

    def __init__(
        self,
        transition: Callable,
        process_noise: Float[Array, ""],
        initial_scale: Float[Array, ""],
        inputs: Float[Array, "*batch time input"],
        latent_dim: int,
        *,
        validate_args: bool | None = None,
    ):
        self.transition = transition
        self.process_noise = process_noise
        self.initial_scale = initial_scale
        self.inputs = inputs
        self.latent_dim = latent_dim
        *batch, n_time, _ = jnp.shape(inputs)
        super().__init__(tuple(batch), (n_time, latent_dim), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*shape time latent_dim"]:
        """Draws paths bin by bin."""
        shape = (*sample_shape, *self.batch_shape)
        noise = jax.random.normal(key, (self.event_shape[0], *shape, self.latent_dim))
        inputs = jnp.moveaxis(jnp.broadcast_to(self.inputs, (*shape, *self.inputs.shape[-2:])), -2, 0)
        first = self.initial_scale * noise[0]

        def step(z: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            v, eps = now
            z = self.transition(z, v) + self.process_noise * eps
            return z, z

        _, later = jax.lax.scan(step, first, (inputs[:-1], noise[1:]))
        return jnp.moveaxis(jnp.concatenate([first[None], later]), 0, -2)

    def log_prob(self, value: Float[Array, "*shape time latent_dim"]) -> Float[Array, "*scored"]:
        """Log density of whole paths, all transitions at once; batch axes are broadcast against those of `inputs`."""
        residual = value[..., 1:, :] - self.transition(value[..., :-1, :], self.inputs[..., :-1, :])
        return _isotropic(value[..., 0, :], self.initial_scale).sum(-1) + _isotropic(residual, self.process_noise).sum(
            (-2, -1)
        )


def _isotropic(x: Array, scale: Scalar) -> Array:
    return -0.5 * (x / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)
