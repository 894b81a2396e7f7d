"""Poisson counts given their log rate."""

# NumPyro declares these class attributes as properties and lists, and assigns constraints and tuples itself.
# pyright: reportAssignmentType=false

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray
from numpyro.distributions import constraints

from connectinfer.dynamics.observation import poisson_log_likelihood

# Below this rate no count above the limit has a chance that single precision could tell from none.
_LOW_RATE, _MOST_AT_LOW_RATE = 60.0, 160


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
        """Draws counts."""
        rate, shape = jnp.exp(self.log_rate), sample_shape + self.batch_shape
        low, is_low = _low_counts(key, jnp.minimum(rate, _LOW_RATE), shape), rate < _LOW_RATE
        any_counts = lambda: jnp.where(is_low, low, jax.random.poisson(key, rate, shape, low.dtype))  # noqa: E731
        return jax.lax.cond(is_low.all(), lambda: low, any_counts)

    def log_prob(self, value: Num[Array, "*shape"]) -> Float[Array, "*scored"]:
        """Log probability of counts, whose shape is broadcast against that of `log_rate`."""
        return poisson_log_likelihood(jnp.asarray(value), self.log_rate)

    @property
    def mean(self) -> Float[Array, "*batch"]:
        """Expected counts."""
        return jnp.exp(self.log_rate)


def _low_counts(key: PRNGKeyArray, rate: Float[Array, "*batch"], shape: tuple[int, ...]) -> Int[Array, "*shape"]:
    """Counts by inversion, of one uniform number each: several times faster than `jax.random.poisson`."""
    uniform = jax.random.uniform(key, shape, rate.dtype)
    begun = jnp.exp(-rate) * jnp.ones(shape, rate.dtype)

    def step(now: tuple[Array, ...]) -> tuple[Array, ...]:
        k, counts, chance, below = now
        # Rounded, chances may sum to less than the largest uniform number.
        counts = counts + ((uniform > below) & ((chance > 1e-9) | (k < rate)))
        chance = chance * rate / (k + 1)
        return k + 1, counts, chance, below + chance

    def goes_on(now: tuple[Array, ...]) -> Array:
        return (now[3] < uniform).any() & (now[0] < _MOST_AT_LOW_RATE)

    first = (jnp.array(0), jnp.zeros(shape, int), begun, begun)
    return jax.lax.while_loop(goes_on, step, first)[1]
