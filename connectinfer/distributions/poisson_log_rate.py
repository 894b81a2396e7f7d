"""Poisson counts given their log rate."""

# NumPyro declares these class attributes as properties and lists, and assigns constraints and tuples itself.
# pyright: reportAssignmentType=false

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Num, PRNGKeyArray
from numpyro.distributions import constraints


class PoissonLogRate(dist.Distribution):
    """Counts with mean `exp(log_rate)`, in log events per bin.

    The same law as `numpyro.distributions.Poisson(exp(log_rate))`; the log density takes the log rate as it is, and
    computes the log factorial of the data an order of magnitude faster than `gammaln`, which would cost more than
    everything else in a spike likelihood.
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Float[Array, "*batch"], *, validate_args: bool | None = None):
        self.log_rate = jnp.asarray(log_rate)
        super().__init__(jnp.shape(log_rate), (), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Num[Array, "*shape"]:
        """Draws counts."""
        return jax.random.poisson(key, jnp.exp(self.log_rate), sample_shape + self.batch_shape)

    def log_prob(self, value: Num[Array, "*shape"]) -> Float[Array, "*scored"]:
        """Log probability of counts, whose shape is broadcast against that of `log_rate`."""
        return value * self.log_rate - jnp.exp(self.log_rate) - _log_factorial(value)

    @property
    def mean(self) -> Float[Array, "*batch"]:
        """Expected counts."""
        return jnp.exp(self.log_rate)


def _log_factorial(count: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    # Stirling's series at y + 4, brought back to y by the recurrence; truncation error below 4e-8.
    y = jnp.asarray(count, float)
    x = y + 4.0
    series = (
        (x - 0.5) * jnp.log(x) - x + 0.5 * jnp.log(2 * jnp.pi) + 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)
    )
    return series - jnp.log((y + 1) * (y + 2)) - jnp.log(y + 3)
