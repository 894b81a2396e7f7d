"""Prior law of a latent path: a nonlinear Gaussian Markov chain."""

# NumPyro declares these class attributes as properties and lists, and assigns constraints and tuples itself.
# pyright: reportAssignmentType=false

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints


class LatentPath(dist.Distribution):
    r"""$z_1 \sim N(\mu_0, L_0 L_0^\top)$, $z_{t+1} \sim N(g(z_t, v_t), L L^\top)$.

    `transition(z, v)` is a pytree callable that maps `(..., dim)` and `(..., input)` to the next mean;
    `inputs (*batch, time, input)` are the filtered inputs v (size 0 without inputs) and fix batch and length.
    `noise_tril` L is the Cholesky factor of the noise covariance per bin, `initial_tril` L_0 and `initial_mean` mu_0
    (zero by default) are those of the first bin. Values: `(*batch, time, dim)`.
    """

    arg_constraints = {  # noqa: RUF012
        "noise_tril": constraints.lower_cholesky,
        "initial_tril": constraints.lower_cholesky,
        "initial_mean": constraints.real_vector,
    }
    support = constraints.independent(constraints.real, 2)
    reparametrized_params = ("noise_tril", "initial_tril", "initial_mean", "inputs")
    pytree_data_fields = ("transition", "noise_tril", "initial_tril", "initial_mean", "inputs")

    def __init__(
        self,
        transition: Callable,
        noise_tril: Float[Array, "dim dim"],
        initial_tril: Float[Array, "dim dim"],
        inputs: Float[Array, "*batch time input"],
        initial_mean: Float[Array, " dim"] | None = None,
        *,
        validate_args: bool | None = None,
    ):
        self.transition = transition
        self.noise_tril = noise_tril
        self.initial_tril = initial_tril
        self.initial_mean = jnp.zeros(jnp.shape(noise_tril)[-1]) if initial_mean is None else initial_mean
        self.inputs = inputs
        *batch, n_time, _ = jnp.shape(inputs)
        super().__init__(tuple(batch), (n_time, jnp.shape(noise_tril)[-1]), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*shape time dim"]:
        """Draws paths bin by bin."""
        shape = (*sample_shape, *self.batch_shape)
        noise = jax.random.normal(key, (self.event_shape[0], *shape, self.event_shape[1]))
        inputs = jnp.moveaxis(jnp.broadcast_to(self.inputs, (*shape, *self.inputs.shape[-2:])), -2, 0)
        first = self.initial_mean + noise[0] @ self.initial_tril.T

        def step(z: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            v, eps = now
            z = self.transition(z, v) + eps @ self.noise_tril.T
            return z, z

        _, later = jax.lax.scan(step, first, (inputs[:-1], noise[1:]))
        return jnp.moveaxis(jnp.concatenate([first[None], later]), 0, -2)

    def log_prob(self, value: Float[Array, "*shape time dim"]) -> Float[Array, "*scored"]:
        """Log density of whole paths, all transitions at once; batch axes are broadcast against those of `inputs`."""
        residual = value[..., 1:, :] - self.transition(value[..., :-1, :], self.inputs[..., :-1, :])
        first = centred_normal(self.initial_tril, value[..., 0, :] - self.initial_mean)
        return first + centred_normal(self.noise_tril, residual).sum(-1)


def centred_normal(tril: Float[Array, "dim dim"], x: Float[Array, "*shape dim"]) -> Float[Array, "*shape"]:
    """Log density of `x` under a normal law with mean 0 and covariance `tril tril^T`."""
    standard = x @ jnp.linalg.inv(tril).T
    log_det = jnp.log(jnp.diagonal(tril)).sum()
    return -0.5 * (standard**2).sum(-1) - log_det - 0.5 * x.shape[-1] * jnp.log(2 * jnp.pi)
