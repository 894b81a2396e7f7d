"""Read-outs of the latent state, and the sampling and likelihood of counts and continuous signals.

Means and rates are per bin: a Poisson rate in Hz times the bin width. A `mask` is True where an entry was observed;
masked entries add exactly zero to the likelihood and to its gradient, whatever value they hold (NaN included).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key, Num

from connectinfer.dynamics.low_rank import LowRankRNN, potentials

# Below this rate no count above the limit has a chance that single precision could tell from none.
_LOW_RATE, _MOST_AT_LOW_RATE = 60.0, 160


def tied_readout(
    network: LowRankRNN,
    z: Float[Array, "*batch rank"],
    v: Float[Array, "*batch_v input"] | None = None,
    gain: ArrayLike = 1.0,
    bias: ArrayLike = 0.0,
) -> Float[Array, "*batch_out neuron"]:
    """`gain * h + bias` with the neuron's own potential `h = m z + b v + d`: what is observed also drives the network.

    `gain` and `bias` are numbers or one per neuron. For Poisson counts this is the log rate.
    """
    return jnp.asarray(gain) * potentials(network, z, v) + bias


def affine_readout(
    z: Float[Array, "*batch rank"], loading: Float[Array, "neuron rank"], bias: ArrayLike = 0.0
) -> Float[Array, "*batch neuron"]:
    """`loading z + bias`: neurons that report the latent state without taking part in the dynamics."""
    return z @ loading.T + bias


def sample_poisson(
    key: Key[Array, ""], log_rate: Float[Array, "*batch"], sample_shape: tuple[int, ...] = ()
) -> Float[Array, "*shape"]:
    """Poisson counts with mean `exp(log_rate)` per bin, as whole floats; NaN where that is infinite or undefined.

    By inversion, of one uniform number each: several times faster than `jax.random.poisson`, and compiled in a quarter
    of the time. Where rates are above 60, by the Cornish-Fisher expansion of the quantile, with Sheppard's correction
    for whole numbers: the distribution function is off by at most 2e-5.
    """
    rate, shape = jnp.exp(log_rate), sample_shape + log_rate.shape
    uniform = jax.random.uniform(key, shape, rate.dtype)
    low, high = _low_counts(uniform, jnp.minimum(rate, _LOW_RATE)), _high_counts(uniform, jnp.maximum(rate, _LOW_RATE))
    return jnp.where(jnp.isfinite(rate), jnp.where(rate < _LOW_RATE, low, high), jnp.nan)


def _low_counts(uniform: Float[Array, "*shape"], rate: Float[Array, "*batch"]) -> Float[Array, "*shape"]:
    begun = jnp.exp(-rate) * jnp.ones_like(uniform)

    def step(now: tuple[Array, ...]) -> tuple[Array, ...]:
        k, counts, chance, below = now
        # Rounded, chances may sum to less than the largest uniform number.
        counts = counts + ((uniform > below) & ((chance > 1e-9) | (k < rate)))
        chance = chance * rate / (k + 1)
        return k + 1, counts, chance, below + chance

    def goes_on(now: tuple[Array, ...]) -> Array:
        return (now[3] < uniform).any() & (now[0] < _MOST_AT_LOW_RATE)

    return jax.lax.while_loop(goes_on, step, (jnp.array(0), jnp.zeros_like(uniform), begun, begun))[1]


def _high_counts(uniform: Float[Array, "*shape"], rate: Float[Array, "*batch"]) -> Float[Array, "*shape"]:
    z, sd = jax.scipy.special.ndtri(jnp.clip(uniform, 1e-7, 1 - 1e-7)), jnp.sqrt(rate)
    return jnp.round(rate + sd * z + (z**2 - 1) / 6 - (2 * z + z**3) / (72 * sd))


def sample_gaussian(key: Key[Array, ""], mean: Float[Array, "*shape"], sd: ArrayLike) -> Float[Array, "*shape"]:
    """Signals `mean + sd * noise`, with independent standard normal noise; `sd` broadcasts against `mean`."""
    return mean + sd * jax.random.normal(key, mean.shape, mean.dtype)


def poisson_log_likelihood(
    counts: Num[Array, "..."], log_rate: Float[Array, "..."], mask: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """Log probability (nats) of each count, `count * log_rate - exp(log_rate) - log count!`; zero where masked.

    Shapes broadcast. The log factorial is computed an order of magnitude faster than by `gammaln`, which would cost
    more than everything else in a spike likelihood.
    """
    if mask is not None:
        # Both inputs are replaced: a NaN in the branch not taken would still poison the gradient.
        counts, log_rate = jnp.where(mask, counts, 0), jnp.where(mask, log_rate, 0.0)
    log_probability = counts * log_rate - jnp.exp(log_rate) - _log_factorial(counts)
    return log_probability if mask is None else jnp.where(mask, log_probability, 0.0)


def gaussian_log_likelihood(
    signal: Float[Array, "*shape"],
    mean: Float[Array, "*shape"],
    sd: ArrayLike,
    mask: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Log density (nats) of each entry under `N(mean, sd^2)`; zero where masked. `sd` broadcasts against `mean`."""
    if mask is not None:
        signal, mean = jnp.where(mask, signal, 0.0), jnp.where(mask, mean, 0.0)
    log_density = jax.scipy.stats.norm.logpdf(signal, mean, sd)
    return log_density if mask is None else jnp.where(mask, log_density, 0.0)


class Poisson(eqx.Module):
    """Counts with log rate `predictor`, in log events per bin."""

    def log_kernel(self, activity: Float[Array, "... unit"], predictor: Float[Array, "... unit"]) -> Array:
        """Log probability (nats) of every entry, up to what does not depend on the predictor."""
        return activity * predictor - jnp.exp(predictor)

    def log_constant(self, activity: Float[Array, "... unit"]) -> Array:
        """What `log_kernel` leaves out."""
        return -_log_factorial(activity)

    def score_and_information(
        self, activity: Float[Array, "... unit"], predictor: Float[Array, "... unit"]
    ) -> tuple[Array, Array]:
        """First derivative of the log likelihood with respect to the predictor, and minus the second."""
        rate = jnp.exp(predictor)
        return activity - rate, rate


class NegativeBinomial(eqx.Module):
    """Counts with log mean `predictor` and variance `mean + mean^2 / concentration`, `concentration (unit,)`."""

    concentration: Float[Array, " unit"]

    def log_kernel(self, activity: Float[Array, "... unit"], predictor: Float[Array, "... unit"]) -> Array:
        """Log probability (nats) of every entry, up to what does not depend on the predictor."""
        # Without `y log r`, which `log_constant` has: with it, rounding would swamp all else as r grows.
        excess = jax.nn.softplus(predictor - jnp.log(self.concentration))
        return activity * predictor - (activity + self.concentration) * excess

    def log_constant(self, activity: Float[Array, "... unit"]) -> Array:
        """What `log_kernel` leaves out."""
        return _log_rising(activity, self.concentration) - _log_factorial(activity)

    def score_and_information(
        self, activity: Float[Array, "... unit"], predictor: Float[Array, "... unit"]
    ) -> tuple[Array, Array]:
        """First derivative of the log likelihood with respect to the predictor, and minus the second."""
        share = jax.nn.sigmoid(predictor - jnp.log(self.concentration))
        total = activity + self.concentration
        return activity - total * share, total * share * (1 - share)


class Gaussian(eqx.Module):
    """Signals with mean `predictor` and standard deviation `noise (unit,)`."""

    noise: Float[Array, " unit"]

    def log_kernel(self, activity: Float[Array, "... unit"], predictor: Float[Array, "... unit"]) -> Array:
        """Log density (nats) of every entry, up to what does not depend on the predictor."""
        return -0.5 * ((activity - predictor) / self.noise) ** 2

    def log_constant(self, activity: Float[Array, "... unit"]) -> Array:
        """What `log_kernel` leaves out."""
        return jnp.broadcast_to(-jnp.log(self.noise) - 0.5 * jnp.log(2 * jnp.pi), activity.shape)

    def score_and_information(
        self, activity: Float[Array, "... unit"], predictor: Float[Array, "... unit"]
    ) -> tuple[Array, Array]:
        """First derivative of the log likelihood with respect to the predictor, and minus the second."""
        precision = jnp.broadcast_to(self.noise**-2, predictor.shape)
        return (activity - predictor) * precision, precision


Observation = Poisson | NegativeBinomial | Gaussian
"""Laws of an entry given its linear predictor, each log-concave in it."""


def _log_rising(count: Num[Array, "..."], start: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sum of log(1 + k / start) over k < count, which tends to zero as `start` grows."""
    # Stirling's series at start + 4, as below; differences of `lgamma` would lose every digit where `start` is large.
    y = jnp.asarray(count, float)
    x = start + 4.0
    series = (x + y - 0.5) * jnp.log1p(y / x) - y + y * jnp.log1p(4.0 / start)
    series += sum(c * ((x + y) ** -power - x**-power) for c, power in ((1 / 12, 1), (-1 / 360, 3), (1 / 1260, 5)))
    return series - sum(jnp.log1p(y / (start + k)) for k in range(4))


def _log_factorial(count: Num[Array, "..."]) -> Float[Array, "..."]:
    # Stirling's series at y + 4, brought back to y by the recurrence; truncation error below 4e-8.
    y = jnp.asarray(count, float)
    x = y + 4.0
    series = (
        (x - 0.5) * jnp.log(x) - x + 0.5 * jnp.log(2 * jnp.pi) + 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)
    )
    return series - jnp.log((y + 1) * (y + 2)) - jnp.log(y + 3)
