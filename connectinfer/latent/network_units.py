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


class _Offers(NamedTuple):
    """What proposals would add to the rates of a group, as products: `with_rates (some, some)` with the rates before
    any was accepted, and `with_each_other (some, some)`."""

    with_rates: Float[Array, "some some"]
    with_each_other: Float[Array, "some some"]


class _Standing(NamedTuple):
    """All units, the regression of one group and its log evidence; 1 where a proposal was `accepted (some,)`, and
    products of what proposals would add to the rates, `with_left (some, rank)`, with what is left of the increments."""

    units: _Units
    regression: _Regression
    log_evidence: Float[Array, ""]
    accepted: Float[Array, " some"]
    with_left: Float[Array, "some rank"]


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
    key_step, key_propose, key_other, key_accept, key_n = jax.random.split(key, 5)
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
        key_n, key_other, key_accept, start = of
        group = _part(start, size)
        old, read, n_group, read_ratio, length = jax.tree.map(group, (units, proposed, n, log_ratio, step))
        new = _with_other_gain_and_d(key_other, old, read, length)
        ratio = read_ratio + _left_by_proposals(new, bias) - _left_by_proposals(old, bias)
        rates = rates_of(old)
        # All products at once: unit after unit they would wait for memory.
        added = rates_of(new) - rates
        # A proposal that is not finite, which is refused, would be part of every sum.
        added = jnp.where(jnp.isfinite(added).all(1, keepdims=True), added, 0.0)
        offers = _Offers(added @ rates.T, added @ added.T)

        def move(now: _Standing, of: tuple) -> tuple[_Standing, None]:
            threshold, place = of
            regression, with_left = _exchanged(now, offers, place, n_group[place])
            units = jax.tree.map(lambda x, y: _put(x, _part(place, 1)(y), start + place), now.units, new)
            reached = regression.log_evidence(WeightPrior.of(units.m, n, start, size))
            other = _Standing(units, regression, reached, now.accepted.at[place].set(1.0), with_left)
            accepted = threshold < ratio[place] + reached - now.log_evidence
            return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), other, now), None

        regression = _Regression(rates @ rates.T, rates @ left.T, jnp.zeros(()))
        log_evidence = regression.log_evidence(WeightPrior.of(units.m, n, start, size))
        now = _Standing(units, regression, log_evidence, jnp.zeros(size), added @ left.T)
        thresholds = jnp.log(jax.random.uniform(key_accept, (size,)))
        now, _ = jax.lax.scan(move, now, (thresholds, jnp.arange(size)))
        root, moment = now.regression.posterior(WeightPrior.of(now.units.m, n, start, size))
        change = draw_normal(key_n, root, moment)
        gained = now.accepted[:, None] * added
        left = left - n_group.T @ gained - change.T @ (rates + gained)
        return (now.units, _put(n, n_group + change, start), left), now.accepted

    keys = (jax.random.split(one, n_groups) for one in (key_n, key_other, key_accept))
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


def _with_other_gain_and_d(key: Key[Array, ""], old: _Units, read: _Units, length: Float[Array, " unit"]) -> _Units:
    """Units that `read` what is proposed, with gain and d from their prior, near the old ones where steps are short."""
    kept, noise = jnp.sqrt(1 - length**2), length * jax.random.normal(key, (2, len(length)))
    gain = jnp.exp(kept * jnp.log(old.gain) + GAIN_SD * noise[0])
    return read._replace(gain=gain, d=kept * old.d + D_SD * noise[1])


def _exchanged(
    now: _Standing, offers: _Offers, place: Int[Array, ""], n: Float[Array, " rank"]
) -> tuple[_Regression, Float[Array, "some rank"]]:
    """The regression, and what proposals would add times what is left, where that of the unit at this place, whose
    output weights are `n`, is accepted."""
    before, among = now.regression, offers.with_each_other[place]
    square = among[place]
    # Of what it adds with the rates as they are now.
    product = offers.with_rates[place] + now.accepted * among
    row = (before.gram[place] + product).at[place].add(product[place] + square)
    gram = before.gram.at[place].set(row).at[:, place].set(row)
    cross = (before.cross - jnp.outer(product, n)).at[place].add(now.with_left[place] - square * n)
    # Relative to what was left at first: the sum of its squares would lose the difference in single precision.
    change = square * (n**2).sum() - 2 * (n * now.with_left[place]).sum()
    return _Regression(gram, cross, before.square + change), now.with_left - jnp.outer(among, n)


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
