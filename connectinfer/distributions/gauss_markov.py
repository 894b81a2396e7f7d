"""Gaussian Markov chains with free coefficients: the variational family of latent paths."""

# NumPyro declares these class attributes as properties and lists, and assigns constraints and tuples itself.
# pyright: reportAssignmentType=false

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints


class GaussMarkov(dist.Distribution):
    r"""$z_t = \mu_t + \delta_t$, $\delta_1 = L_1 \epsilon_1$, $\delta_{t+1} = A_t \delta_t + L_{t+1} \epsilon_{t+1}$.

    A Gaussian whose precision is block-tridiagonal: the posterior of a path under linear dynamics and Gaussian
    observations is of this form. `loc (*batch, time, dim)`, `scale_tril (*batch, time, dim, dim)` lower triangular
    with positive diagonal, `propagator (*batch, time - 1, dim, dim)`. Source: Archer et al. 2015, arXiv 1511.07367.
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.independent(constraints.real, 2),
        "scale_tril": constraints.independent(constraints.lower_cholesky, 1),
        "propagator": constraints.independent(constraints.real, 3),
    }
    support = constraints.independent(constraints.real, 2)
    reparametrized_params = ("loc", "scale_tril", "propagator")

    def __init__(
        self,
        loc: Float[Array, "*batch time dim"],
        scale_tril: Float[Array, "*batch time dim dim"],
        propagator: Float[Array, "*batch step dim dim"],
        *,
        validate_args: bool | None = None,
    ):
        self.loc, self.scale_tril, self.propagator = loc, scale_tril, propagator
        super().__init__(jnp.shape(loc)[:-2], jnp.shape(loc)[-2:], validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*shape time dim"]:
        """Draws whole paths."""
        noise = jax.random.normal(key, (*sample_shape, *jnp.shape(self.loc)), self.loc.dtype)
        kicks = jnp.moveaxis(_times(self.scale_tril, noise), -2, 0)
        propagator = jnp.moveaxis(self.propagator, -3, 0)

        def step(deviation: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            matrix, kick = now
            deviation = _times(matrix, deviation) + kick
            return deviation, deviation

        _, later = jax.lax.scan(step, kicks[0], (propagator, kicks[1:]))
        return self.loc + jnp.moveaxis(jnp.concatenate([kicks[:1], later]), 0, -2)

    def log_prob(self, value: Float[Array, "*shape time dim"]) -> Float[Array, "*scored"]:
        """Log density of whole paths, whose batch axes are broadcast against those of `loc`."""
        deviation = value - self.loc
        innovation = jnp.concatenate(
            [deviation[..., :1, :], deviation[..., 1:, :] - _times(self.propagator, deviation[..., :-1, :])], axis=-2
        )
        tril = jnp.broadcast_to(self.scale_tril, (*innovation.shape, innovation.shape[-1]))
        standard = jax.scipy.linalg.solve_triangular(tril, innovation[..., None], lower=True)[..., 0]
        log_det = jnp.log(jnp.diagonal(self.scale_tril, axis1=-2, axis2=-1)).sum((-2, -1))
        size = self.event_shape[0] * self.event_shape[1]
        return -0.5 * (standard**2).sum((-2, -1)) - log_det - 0.5 * size * jnp.log(2 * jnp.pi)

    @property
    def mean(self) -> Float[Array, "*batch time dim"]:
        """Mean path."""
        return self.loc


def _times(matrix: Array, vector: Array) -> Array:
    # For the two or three latent dimensions of use, sums of products are faster on CPU than batched matrix products.
    return (matrix * vector[..., None, :]).sum(-1)
