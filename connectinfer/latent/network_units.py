"""Gibbs sampling of a network's units given the paths, one after the other, with the output weights of many integrated
out.

Units share the drift among them: given the output weights of the others, the rate of a unit could hardly change.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from connectinfer.latent.calcium import filtered_by_calcium
from connectinfer.latent.conditionals import Arrays, Paths
from connectinfer.latent.low_rank_network import D_SD, GAIN_SD
from connectinfer.latent.network_dynamics import Transitions, WeightPrior, units_together
from connectinfer.latent.network_parameters import NetworkParameters
from connectinfer.latent.observation_prior import ObservationPrior
from connectinfer.latent.regression import CoefficientPrior, draw_normal, precision_root, propose_coefficients
from connectinfer.latent.state_space import Seen

# Units that matter much to the drift would refuse most proposals that forget where they stand; short steps alone would
# take long to get anywhere (measured on recordings).
_BOLD, _SHORTEST_STEP = 0.5, 0.3


class _Units(NamedTuple):
    """What units read out, gain m, gain b and gain d + bias, and what their rates follow from besides."""

    loading: Float[Array, "unit rank"]
    input_loading: Float[Array, "unit input"]
    intercept: Float[Array, " unit"]
    gain: Float[Array, " unit"]
    d: Float[Array, " unit"]

    @property
    def m(self) -> Float[Array, "unit rank"]:
        """Loadings of the potentials."""
        return self.loading / self.gain[:, None]

    def log_prior(self, bias: tuple[float | Array, float]) -> Float[Array, " unit"]:
        """Of the read-outs given gain and d, where these matter."""
        rest, b = self.intercept - bias[0] - self.gain * self.d, self.input_loading / self.gain[:, None]
        return -0.5 * ((rest / bias[1]) ** 2 + (b**2).sum(1)) - b.shape[1] * jnp.log(self.gain)


class _Regression(NamedTuple):
    """The regression of what all units leave of the increments on the rates of a group: `gram` of the rates, their
    `cross (some, rank)` products with the remainder, and its square, less what that was at first.

    Of n it is the deviation from the present one that is regressed: little is left, so single precision suffices.
    """

    gram: Float[Array, "some some"]
    cross: Float[Array, "some rank"]
    square: Float[Array, ""]

    def posterior(self, prior: WeightPrior) -> tuple[Float[Array, "some some"], Float[Array, "some rank"]]:
        """Root of the precision of the group's deviations, and precision times mean."""
        return precision_root(self.gram + prior.precision), self.cross - prior.pull

    def log_evidence(self, prior: WeightPrior) -> Float[Array, ""]:
        """Log density of the increments with the group's deviations integrated out, up to a constant."""
        root, moment = self.posterior(prior)
        explained = (jax.scipy.linalg.solve_triangular(root, moment, lower=True) ** 2).sum()
        log_det = jnp.log(jnp.diagonal(root)).sum()
        return prior.log_density + 0.5 * (explained - self.square) - moment.shape[1] * log_det


class _Standing(NamedTuple):
    """All units, what they leave of the increments, the regression of one group, and its log evidence."""

    units: _Units
    left: Float[Array, "rank bin"]
    regression: _Regression
    log_evidence: Float[Array, ""]


def update_units(
    key: Key[Array, ""],
    prior: ObservationPrior,
    p: NetworkParameters,
    order: Int[Array, " unit"],
    left: Float[Array, "rank bin"],
    paths: Paths,
    seen: Seen,
    arrays: Arrays,
) -> tuple[NetworkParameters, Float[Array, "rank bin"], dict[str, Array]]:
    """Unit after unit, in this order: read-outs are proposed by the regression of the activity on the paths, gain and d
    by the prior, some of them near the present ones, and accepted by what they make of the drift with the output
    weights of the unit's group integrated out; after each group, these are drawn. Units of no group, as groups have one
    size, stay as they are.

    The units leave `left` of the increments, in units of the noise per tau; also what they leave then, and shares of
    accepted moves, by name.
    """
    key_step, key_propose, key_move, key_n = jax.random.split(key, 4)
    n_units, size = len(p.n), units_together(len(p.n))
    n_groups = n_units // size
    transitions, bias = Transitions.of(paths, seen, arrays), prior.bias(arrays["alpha"] * arrays["tau"])
    per_rate = transitions.alpha / (p.process_noise * n_units)
    step = _draw_steps(key_step, n_units)
    proposed, log_ratio = _propose_read_outs(key_propose, step, p, bias, paths, seen, arrays)
    units = _Units(p.loading, p.input_loading, p.intercept, p.gain, p.d)
    units, n, step, proposed, log_ratio = jax.tree.map(lambda x: x[order], (units, p.n, step, proposed, log_ratio))

    def rates_of(units: _Units) -> Array:
        return per_rate * transitions.rates(units.m, units.input_loading / units.gain[:, None], units.d)

    def visit(carry: tuple[_Units, Array, Array], of: tuple) -> tuple[tuple[_Units, Array, Array], Array]:
        units, n, left = carry
        key_n, keys, group = of
        rates = rates_of(jax.tree.map(_part(group, size), units))
        regression = _Regression(rates @ rates.T, rates @ left.T, jnp.zeros(()))
        log_evidence = regression.log_evidence(WeightPrior.of(units.m, n, group, size))

        def move(carry: tuple[_Standing, Array], of: tuple) -> tuple[tuple[_Standing, Array], Array]:
            (now, rates), (key, local) = carry, of
            key_gain, key_d, key_accept = jax.random.split(key, 3)
            unit = _part(group + local, 1)
            old, read, n_unit, read_ratio, length = jax.tree.map(unit, (now.units, proposed, n, log_ratio, step))
            kept = jnp.sqrt(1 - length**2)
            gain = jnp.exp(kept * jnp.log(old.gain) + length * GAIN_SD * jax.random.normal(key_gain, (1,)))
            new = read._replace(gain=gain, d=kept * old.d + length * D_SD * jax.random.normal(key_d, (1,)))
            new_rates = rates_of(new)
            left, regression = _exchanged(now, rates, new_rates, local, n_unit)
            units = jax.tree.map(lambda x, part: _put(x, part, group + local), now.units, new)
            reached = regression.log_evidence(WeightPrior.of(units.m, n, group, size))
            other = _Standing(units, left, regression, reached)
            gained = (read_ratio + _left_by_proposals(new, bias) - _left_by_proposals(old, bias))[0]
            accepted = jnp.log(jax.random.uniform(key_accept)) < gained + reached - now.log_evidence
            now = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), other, now)
            standing = jnp.where(accepted, new_rates, _part(local, 1)(rates))
            return (now, _put(rates, standing, local)), accepted

        now = _Standing(units, left, regression, log_evidence)
        (now, rates), accepted = jax.lax.scan(move, (now, rates), (keys, jnp.arange(size)))
        root, moment = now.regression.posterior(WeightPrior.of(now.units.m, n, group, size))
        change = draw_normal(key_n, root, moment)
        n = _put(n, _part(group, size)(n) + change, group)
        return (now.units, n, now.left - change.T @ rates), accepted

    keys = jax.random.split(key_n, n_groups), jax.random.split(key_move, (n_groups, size))
    (units, n, left), accepted = jax.lax.scan(visit, (units, n, left), (*keys, size * jnp.arange(n_groups)))
    units, n = jax.tree.map(lambda x: x[jnp.argsort(order)], (units, n))
    return p._replace(n=n, **units._asdict()), left, {"unit_acceptance": accepted.mean()}


def _draw_steps(key: Key[Array, ""], n_units: int) -> Float[Array, " unit"]:
    """1 where nothing of a unit's present parameters is kept, and less elsewhere."""
    key_bold, key_length = jax.random.split(key)
    shorter = _SHORTEST_STEP ** jax.random.uniform(key_length, (n_units,))
    return jnp.where(jax.random.bernoulli(key_bold, _BOLD, (n_units,)), 1.0, shorter)


def _part(start: Int[Array, ""], size: int) -> Callable[[Array], Array]:
    return lambda x: jax.lax.dynamic_slice_in_dim(x, start, size)


def _put(x: Array, part: Array, start: Int[Array, ""], axis: int = 0) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, part, start, axis)


def _exchanged(
    now: _Standing, rates: Array, new: Float[Array, "1 bin"], place: Int[Array, ""], n: Float[Array, "1 rank"]
) -> tuple[Array, _Regression]:
    """What is left of the increments, and the regression, where the unit at this place of a group with these `rates`
    has `new` ones instead."""
    before, unit = now.regression, _part(place, 1)
    change = n.T @ (new - unit(rates))
    left = now.left - change
    # Differences bin by bin: the sums of squares would lose them in single precision.
    square = before.square - (change * (left + now.left)).sum()
    gained = _put(rates @ new.T, new @ new.T, place)
    cross = _put(before.cross - (gained - unit(before.gram).T) @ n, new @ left.T, place)
    return left, _Regression(_put(_put(before.gram, gained.T, place), gained, place, 1), cross, square)


def _left_by_proposals(units: _Units, bias: tuple[float | Array, float]) -> Float[Array, " unit"]:
    """What the log prior of read-outs is beyond that which proposals take it for."""
    plain = units._replace(gain=jnp.ones_like(units.gain), d=jnp.zeros_like(units.d))
    return units.log_prior(bias) - plain.log_prior(bias)


def _propose_read_outs(
    key: Key[Array, ""],
    step: Float[Array, " unit"],
    p: NetworkParameters,
    bias: tuple[float | Array, float],
    paths: Paths,
    seen: Seen,
    arrays: Arrays,
) -> tuple[_Units, Float[Array, " unit"]]:
    """All units with other read-outs, and log ratios of what these make of the activity, and of their prior at a gain
    of 1 and a d of 0: proposals that knew the present ones would not be those of the way back.
    """
    rank, ones, inputs = p.n.shape[1], jnp.ones((*paths.shape[:2], 1)), arrays["filtered"]
    if (kept := p.kept(arrays)) is not None:
        inputs = filtered_by_calcium(inputs, kept)
    # Of pairs (z, x), the read-out sees the second.
    design = jnp.concatenate([paths[..., -rank:], ones, inputs], -1)
    coefficients = jnp.concatenate([p.loading, p.intercept[:, None], p.input_loading], 1)
    mean = jnp.zeros_like(coefficients).at[:, rank].set(bias[0])
    sd = jnp.ones_like(coefficients).at[:, rank].set(bias[1])
    prior = CoefficientPrior(mean, sd)
    offset = jnp.zeros(()) if p.baseline is None else p.baseline.deviation[:, None]
    found, log_ratio = propose_coefficients(key, coefficients, design, offset, seen, p.observation, prior, step)
    return _Units(found[:, :rank], found[:, rank + 1 :], found[:, rank], p.gain, p.d), log_ratio
