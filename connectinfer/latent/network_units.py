"""Gibbs sampling of a network's units given the paths, one after the other, each with its own output weights
integrated out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from connectinfer.latent.calcium import filtered_by_calcium
from connectinfer.latent.conditionals import Arrays, Paths
from connectinfer.latent.low_rank_network import D_SD, GAIN_SD
from connectinfer.latent.network_dynamics import Transitions
from connectinfer.latent.network_parameters import NetworkParameters
from connectinfer.latent.observation_prior import ObservationPrior
from connectinfer.latent.regression import CoefficientPrior, propose_coefficients
from connectinfer.latent.state_space import Seen


class _Unit(NamedTuple):
    """What one unit reads out, gain m, gain b and gain d + bias, and what its rate follows from besides."""

    loading: Float[Array, " rank"]
    input_loading: Float[Array, " input"]
    intercept: Float[Array, ""]
    gain: Float[Array, ""]
    d: Float[Array, ""]


class _Candidate(NamedTuple):
    """A unit, its `rate (bin,)` over K in units of the noise, the precision and moment of its n given all others, and
    the log density of the increments with that n integrated out, up to a constant."""

    unit: _Unit
    rate: Float[Array, " bin"]
    precision: Float[Array, ""]
    moment: Float[Array, " rank"]
    log_evidence: Float[Array, ""]


class _Surroundings(NamedTuple):
    """What a unit's moves depend on besides it: the transitions, the map A of the prior of n, and the biases' prior."""

    transitions: Transitions
    per_rate: Float[Array, ""]
    linear: Float[Array, "rank rank"]
    bias: tuple[float | Array, float]

    def rate(self, unit: _Unit) -> Float[Array, " bin"]:
        """The unit's rate over K, in units of the noise."""
        return self.per_rate * self.transitions.rates(unit.loading / unit.gain, unit.input_loading / unit.gain, unit.d)

    def candidate(self, unit: _Unit, rate: Float[Array, " bin"], partial: Float[Array, "rank bin"]) -> _Candidate:
        """The unit with what follows from its rate and from the increments that all others leave."""
        mean = self.linear @ unit.loading / unit.gain
        precision, moment = 1 + rate @ rate, mean + partial @ rate
        squares = (moment**2).sum() / precision - (mean**2).sum()
        return _Candidate(unit, rate, precision, moment, 0.5 * (squares - len(mean) * jnp.log(precision)))

    def log_prior(self, unit: _Unit) -> Float[Array, ""]:
        """Of the read-out given gain and d, where these matter."""
        loc, scale = self.bias
        bias, b = unit.intercept - loc - unit.gain * unit.d, unit.input_loading / unit.gain
        return -0.5 * ((bias / scale) ** 2 + (b**2).sum()) - len(b) * jnp.log(unit.gain)


def update_units(
    key: Key[Array, ""],
    prior: ObservationPrior,
    p: NetworkParameters,
    linear: Float[Array, "rank rank"],
    paths: Paths,
    seen: Seen,
    arrays: Arrays,
) -> tuple[NetworkParameters, dict[str, Array]]:
    """Unit after unit: its read-out proposed by the regression of its activity on the paths, its gain and d by their
    priors, each accepted by what it makes of the drift with the unit's own n integrated out; then that n.

    `linear` is the map A of n = A m + e. Also shares of accepted moves, by name.
    """
    key_propose, key_units = jax.random.split(key)
    transitions, n_units = Transitions.of(paths, seen, arrays), len(p.n)
    bias = prior.bias(arrays["alpha"] * arrays["tau"])
    around = _Surroundings(transitions, transitions.alpha / (p.process_noise * n_units), linear, bias)
    units = _Unit(p.loading, p.input_loading, p.intercept, p.gain, p.d)
    proposed, log_ratio = _propose_read_outs(key_propose, p, bias, paths, seen, arrays)

    def visit(residual: Array, of: tuple) -> tuple[Array, tuple]:
        key, unit, n, proposed, log_ratio = of
        key_move, key_n = jax.random.split(key)
        rate = around.rate(unit)
        partial = residual + n[:, None] * rate
        found, accepted = _move_unit(
            key_move, around, around.candidate(unit, rate, partial), proposed, log_ratio, partial
        )
        noise = jax.random.normal(key_n, n.shape)
        n = found.moment / found.precision + noise / jnp.sqrt(found.precision)
        return partial - n[:, None] * found.rate, (found.unit, n, accepted)

    rates = transitions.rates(p.m, p.b, p.d) / n_units
    residual = (transitions.target - p.n.T @ rates) * transitions.alpha / p.process_noise
    each = jax.random.split(key_units, n_units), units, p.n, proposed, log_ratio
    _, (moved, n, accepted) = jax.lax.scan(visit, residual, each)
    shares = dict(zip(("read_out_acceptance", "feature_acceptance"), accepted.mean(0), strict=True))
    return p._replace(n=n, **moved._asdict()), shares


def _propose_read_outs(
    key: Key[Array, ""],
    p: NetworkParameters,
    bias: tuple[float | Array, float],
    paths: Paths,
    seen: Seen,
    arrays: Arrays,
) -> tuple[_Unit, Float[Array, " unit"]]:
    """All units with other read-outs, and log ratios of what these make of the activity."""
    rank, ones, inputs = p.n.shape[1], jnp.ones((*paths.shape[:2], 1)), arrays["filtered"]
    if (kept := p.kept(arrays)) is not None:
        inputs = filtered_by_calcium(inputs, kept)
    # Of pairs (z, x), the read-out sees the second.
    design = jnp.concatenate([paths[..., -rank:], ones, inputs], -1)
    coefficients = jnp.concatenate([p.loading, p.intercept[:, None], p.input_loading], 1)
    mean = jnp.zeros_like(coefficients).at[:, rank].set(bias[0] + p.gain * p.d)
    sd = jnp.ones_like(coefficients).at[:, rank].set(bias[1]).at[:, rank + 1 :].set(p.gain[:, None])
    prior = CoefficientPrior(mean, sd)
    found, log_ratio = propose_coefficients(key, coefficients, design, seen, p.observation, prior)
    return _Unit(found[:, :rank], found[:, rank + 1 :], found[:, rank], p.gain, p.d), log_ratio


def _move_unit(
    key: Key[Array, ""],
    around: _Surroundings,
    now: _Candidate,
    proposed: _Unit,
    log_ratio: Float[Array, ""],
    partial: Float[Array, "rank bin"],
) -> tuple[_Candidate, Bool[Array, " move"]]:
    """A unit after a move of its read-out and one of its gain and d, and which of these were accepted."""
    key_read_out, key_gain, key_d, key_features = jax.random.split(key, 4)
    other = around.candidate(proposed, around.rate(proposed), partial)
    now, read_out = _accept(key_read_out, other, now, log_ratio)
    gain = jnp.exp(GAIN_SD * jax.random.normal(key_gain))
    unit = now.unit._replace(gain=gain, d=D_SD * jax.random.normal(key_d))
    other = around.candidate(unit, around.rate(unit), partial)
    now, features = _accept(key_features, other, now, around.log_prior(unit) - around.log_prior(now.unit))
    return now, jnp.stack([read_out, features])


def _accept(
    key: Key[Array, ""], other: _Candidate, now: _Candidate, log_ratio: Float[Array, ""]
) -> tuple[_Candidate, Bool[Array, ""]]:
    accepted = jnp.log(jax.random.uniform(key)) < log_ratio + other.log_evidence - now.log_evidence
    return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), other, now), accepted
