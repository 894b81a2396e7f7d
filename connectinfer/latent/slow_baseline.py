"""Baselines of units that wander from trial to trial: arousal, drift of the electrode, waning signals."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.observation import Observation
from connectinfer.latent.path_moves import approximate_paths, free_bins, move_paths
from connectinfer.latent.regression import random_walk
from connectinfer.latent.state_space import Seen, StateSpace

SCALE, TIMESCALE = (math.log(0.2), 0.7), (math.log(10.0), 1.0)
"""Prior means and sds of the logs of the deviations' sd (0.2, 0.05 to 0.8), and of the trials that they last (10, 1.4
to 70)."""

_SMALLEST_STEP, _LARGEST_STEP = 0.003, 0.3

Predictor = Float[Array, "trial time unit"]


class SlowBaseline(NamedTuple):
    """What the linear predictor of a unit has in addition in all bins of a trial, `deviation (trial, unit)`: for each
    unit a stationary process over trials, of sd `scale`, whose correlation over k trials is exp(-k / timescale)."""

    deviation: Float[Array, "trial unit"]
    scale: Float[Array, ""]
    timescale: Float[Array, ""]


def begin_slow_baseline(n_trials: int, n_units: int) -> SlowBaseline:
    """No deviations, and a law that may hold."""
    return SlowBaseline(jnp.zeros((n_trials, n_units)), *(jnp.exp(jnp.asarray(x[0])) for x in (SCALE, TIMESCALE)))


def sample_slow_baseline(n_trials: int, n_units: int) -> SlowBaseline:
    """Sites `baseline_scale`, `baseline_timescale` (trials), both log-normal, and `baseline_innovation (trial, unit)`,
    standard normal; deterministic: `baseline`, the deviations."""
    scale = jnp.asarray(numpyro.sample("baseline_scale", dist.LogNormal(*SCALE)))
    timescale = jnp.asarray(numpyro.sample("baseline_timescale", dist.LogNormal(*TIMESCALE)))
    law = dist.Normal(jnp.zeros((n_trials, n_units)), 1.0).to_event(2)
    innovation = jnp.asarray(numpyro.sample("baseline_innovation", law))
    baseline = _follow(innovation, scale, timescale)
    numpyro.deterministic("baseline", baseline.deviation)
    return baseline


def slow_baseline_sites(baseline: SlowBaseline) -> dict[str, Array]:
    """The values of the sites of `sample_slow_baseline`."""
    return {
        "baseline_scale": baseline.scale,
        "baseline_timescale": baseline.timescale,
        "baseline_innovation": _innovation(baseline),
    }


def update_slow_baseline(
    key: Key[Array, ""],
    baseline: SlowBaseline,
    intercept: Float[Array, " unit"],
    intercept_prior: tuple[Float[Array, " unit"], float],
    predictor: Predictor,
    seen: Seen,
    observation: Observation,
) -> tuple[SlowBaseline, Float[Array, " unit"], dict[str, Array]]:
    """The baseline, and intercepts `(unit,)` with a normal prior of this mean and sd, after moves that leave their
    posterior invariant where `predictor` is due to the paths alone; and shares of accepted moves by name."""
    key_deviation, key_level, key_law, key_together = jax.random.split(key, 4)
    fixed = predictor + intercept
    baseline, accepted = _move_deviations(key_deviation, baseline, fixed, seen, observation)
    baseline = _move_together(key_together, baseline, fixed, seen, observation)
    level = _draw_level(key_level, baseline, intercept, intercept_prior)
    baseline = baseline._replace(deviation=baseline.deviation - level)
    return _move_law(key_law, baseline), intercept + level, {"baseline_acceptance": accepted}


def _memory(timescale: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Correlation of neighbouring trials, and what the sd of a trial is given the one before, relative to that
    without."""
    return jnp.exp(-1 / timescale), jnp.sqrt(-jnp.expm1(-2 / timescale))


def _follow(innovation: Float[Array, "trial unit"], scale: Array, timescale: Array) -> SlowBaseline:
    """The baseline with these innovations."""
    memory, fresh = _memory(timescale)

    def follow(before: Array, innovation: Array) -> tuple[Array, Array]:
        now = memory * before + fresh * innovation
        return now, now

    _, later = jax.lax.scan(follow, innovation[0], innovation[1:])
    return SlowBaseline(scale * jnp.concatenate([innovation[:1], later]), scale, timescale)


def _innovation(baseline: SlowBaseline) -> Float[Array, "trial unit"]:
    """What every trial has that does not follow from the one before, in units of its sd."""
    memory, fresh = _memory(baseline.timescale)
    standard = baseline.deviation / baseline.scale
    return jnp.concatenate([standard[:1], (standard[1:] - memory * standard[:-1]) / fresh])


def _move_deviations(
    key: Key[Array, ""], baseline: SlowBaseline, fixed: Predictor, seen: Seen, observation: Observation
) -> tuple[SlowBaseline, Float[Array, ""]]:
    """The deviations of every unit are the path of a state-space model: its trials are the units, its bins the trials,
    and its units the bins of a trial."""
    key_free, key_move = jax.random.split(key)
    memory, fresh = _memory(baseline.timescale)
    n_trials, n_bins, n_units = fixed.shape
    by_unit = lambda x: jnp.moveaxis(x, -1, 0)  # noqa: E731
    space = StateSpace(
        initial_mean=jnp.zeros(1),
        initial_tril=baseline.scale * jnp.eye(1),
        transition=jax.tree_util.Partial(_fade, memory),
        noise_tril=baseline.scale * fresh * jnp.eye(1),
        inputs=jnp.zeros((n_units, n_trials, 0)),
        loading=jnp.ones((n_bins, 1)),
        offset=by_unit(fixed),
        # Of one unit each, what belongs to it.
        observation=jax.tree.map(lambda x: x[:, None, None], observation),
    )
    by_trial = Seen(by_unit(seen.activity), by_unit(seen.mask), jnp.ones((n_units, n_trials), bool))
    paths, free = baseline.deviation.T[..., None], free_bins(key_free, n_trials)
    found = approximate_paths(space, by_trial, jnp.zeros_like(paths), paths, free)
    draw, chances = move_paths(key_move, found, paths, space, by_trial, free, False)
    return baseline._replace(deviation=draw.paths[..., 0].T), jnp.nanmean(chances)


def _fade(memory: Array, z: Array, v: Array) -> Array:
    del v
    return memory * z


def _move_together(
    key: Key[Array, ""], baseline: SlowBaseline, fixed: Predictor, seen: Seen, observation: Observation
) -> SlowBaseline:
    """A Metropolis step of scale and timescale in which deviations go with them, their innovations staying what they
    are: given deviations that data hardly determine, they would hardly move. Steps are of random size, as data may
    determine them well."""
    key_range, key_step, key_accept = jax.random.split(key, 3)
    bounds = jnp.log(jnp.array([_SMALLEST_STEP, _LARGEST_STEP]))
    size = jnp.exp(jax.random.uniform(key_range, (2,), minval=bounds[0], maxval=bounds[1]))
    factor = jnp.exp(size * jax.random.normal(key_step, (2,)))
    other = _follow(_innovation(baseline), factor[0] * baseline.scale, factor[1] * baseline.timescale)
    old, new = (observation.log_kernel(seen.activity, fixed + x.deviation[:, None]) for x in (baseline, other))
    # Differences entry by entry: sums would lose them in single precision.
    gained = jnp.where(seen.mask, new - old, 0.0).sum() + _log_law_prior(other) - _log_law_prior(baseline)
    accepted = jnp.log(jax.random.uniform(key_accept)) < gained
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), other, baseline)


def _log_law_prior(baseline: SlowBaseline) -> Array:
    return _log_prior(jnp.log(baseline.scale), SCALE) + _log_prior(jnp.log(baseline.timescale), TIMESCALE)


def _draw_level(
    key: Key[Array, ""],
    baseline: SlowBaseline,
    intercept: Float[Array, " unit"],
    prior: tuple[Float[Array, " unit"], float],
) -> Float[Array, " unit"]:
    """What intercepts gain of all deviations of a unit: the predictor does not tell one from the other."""
    memory, fresh = _memory(baseline.timescale)
    x, leap = baseline.deviation / baseline.scale, (1 - memory) / fresh
    steps = (x[1:] - memory * x[:-1]) / fresh
    precision = (1 + (len(x) - 1) * leap**2) / baseline.scale**2 + prior[1] ** -2
    moment = (x[0] + leap * steps.sum(0)) / baseline.scale + (prior[0] - intercept) / prior[1] ** 2
    return moment / precision + jax.random.normal(key, intercept.shape) / jnp.sqrt(precision)


def _move_law(key: Key[Array, ""], baseline: SlowBaseline) -> SlowBaseline:
    """Metropolis steps of scale and timescale given the deviations: of either alone, and of both such that the steps
    from trial to trial keep their size, which is what deviations tell best."""
    key_scale, key_timescale, key_both, key_step = jax.random.split(key, 4)

    def density(log_scale: Array, log_timescale: Array) -> Array:
        memory, fresh = _memory(jnp.exp(log_timescale))
        x = baseline.deviation * jnp.exp(-log_scale)
        squares = (x[0] ** 2).sum() + (((x[1:] - memory * x[:-1]) / fresh) ** 2).sum()
        log_det = x.size * log_scale + x[1:].size * jnp.log(fresh)
        return _log_prior(log_scale, SCALE) + _log_prior(log_timescale, TIMESCALE) - 0.5 * squares - log_det

    log_scale, log_timescale = jnp.log(baseline.scale), jnp.log(baseline.timescale)
    step = 2.4 / (2 * baseline.deviation.size + SCALE[1] ** -2) ** 0.5
    log_scale = random_walk(key_scale, log_scale, lambda x: density(x, log_timescale), step)
    bounds = jnp.log(jnp.array([step, TIMESCALE[1]]))
    step = jnp.exp(jax.random.uniform(key_step, (2,), minval=bounds[0], maxval=bounds[1]))
    log_timescale = random_walk(key_timescale, log_timescale, lambda x: density(log_scale, x), step[0])
    both = random_walk(key_both, jnp.zeros(()), lambda x: density(log_scale + x, log_timescale + 2 * x), step[1])
    return baseline._replace(scale=jnp.exp(log_scale + both), timescale=jnp.exp(log_timescale + 2 * both))


def _log_prior(value: Array, law: tuple[float, float]) -> Array:
    return -0.5 * ((value - law[0]) / law[1]) ** 2
