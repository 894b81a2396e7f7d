"""Poisson counts given their log rate."""

# NumPyro declares these class attributes as properties and lists, and assigns constraints and tuples itself.
# pyright: reportAssignmentType=false

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Num, PRNGKeyArray
from numpyro.distributions import constraints

from connectinfer.dynamics.observation import poisson_log_likelihood, sample_poisson


class PoissonLogRate(dist.Distribution):
    """Counts with mean `exp(log_rate)`, in log events per bin.

    The same law as `numpyro.distributions.Poisson(exp(log_rate))`, with the density of `poisson_log_likelihood`.
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Float[Array, "*batch"], *, validate_args: bool | None = None):
        self.log_rate = jnp.asarray(log_rate)
        super().__init__(jnp.shape(log_rate), (), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Num[Array, "*shape"]:
        """Draws counts, -1 where the rate is infinite or undefined."""
        counts = sample_poisson(key, self.log_rate, sample_shape)
        return jnp.where(jnp.isnan(counts), -1, counts).astype(int)

    def log_prob(self, value: Num[Array, "*shape"]) -> Float[Array, "*scored"]:
        """Log probability of counts, whose shape is broadcast against that of `log_rate`."""
        return poisson_log_likelihood(jnp.asarray(value), self.log_rate)

    @property
    def mean(self) -> Float[Array, "*batch"]:
        """Expected counts."""
        return jnp.exp(self.log_rate)
