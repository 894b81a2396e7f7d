"""Gibbs sampling of a low-rank network given the paths: every parameter from its conditional law, or by Metropolis."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.latent.conditionals import Arrays, Conditionals, NoiseProposal, Paths
from connectinfer.latent.low_rank_network import INITIAL_SCALE, OVERLAP_SD, PROCESS_NOISE, apply_weight_precision
from connectinfer.latent.network_dynamics import draw_origin, draw_scales
from connectinfer.latent.network_parameters import (
    NetworkParameters,
    begin_network,
    network_of_draw,
    network_sites,
    network_space,
)
from connectinfer.latent.network_units import update_units
from connectinfer.latent.observation_prior import ObservationPrior
from connectinfer.latent.regression import random_walk
from connectinfer.latent.slow_baseline import update_slow_baseline
from connectinfer.latent.state_space import Seen


def network_conditionals(prior: ObservationPrior) -> Conditionals:
    """Conditionals of the models whose parameters `sample_network_space` samples, observed as `prior` says."""

    def update(
        key: Key[Array, ""], p: NetworkParameters, paths: Paths, seen: Seen, arrays: Arrays
    ) -> tuple[NetworkParameters, Paths, dict[str, Array]]:
        key_order, key_origin, key_units, key_scales, key_observation, key_slow, key_gauge = jax.random.split(key, 7)
        order = jax.random.permutation(key_order, len(p.n))
        p, paths, left = draw_origin(key_origin, p, order, paths, seen, arrays)
        p, left, shares = update_units(key_units, prior, p, order, left, paths, seen, arrays)
        p = draw_scales(key_scales, p, left, paths, seen, arrays)
        predictor = network_space(p, arrays).predictor(paths)
        p = p._replace(observation=prior.update(key_observation, p.observation, predictor, seen))
        if p.baseline is not None:
            p, more = _update_baseline(key_slow, prior, p, predictor, seen, arrays)
            shares |= more
        p, scale = _rescale(key_gauge, p)
        return p, scale * paths, shares

    return Conditionals(
        begin=lambda arrays: begin_network(prior, arrays),
        space=network_space,
        update=update,
        propose_noise=lambda key, step, p, _: _propose_noise(key, step, prior, p),
        sites=lambda key, p, paths, arrays: network_sites(key, prior, p, paths, arrays),
        space_of=lambda draw, arrays: network_space(network_of_draw(prior, draw), arrays),
    )


def _update_baseline(
    key: Key[Array, ""],
    prior: ObservationPrior,
    p: NetworkParameters,
    predictor: Float[Array, "trial time unit"],
    seen: Seen,
    arrays: Arrays,
) -> tuple[NetworkParameters, dict[str, Array]]:
    assert p.baseline is not None
    loc, scale = prior.bias(arrays["alpha"] * arrays["tau"])
    of_paths = predictor - p.intercept - p.baseline.deviation[:, None]
    law = (loc + p.gain * p.d, scale)
    baseline, intercept, shares = update_slow_baseline(key, p.baseline, p.intercept, law, of_paths, seen, p.observation)
    return p._replace(baseline=baseline, intercept=intercept), shares


def _gauge_prior(p: NetworkParameters) -> Array:
    """Log prior of what a gauge changes."""
    m, rank = p.m, p.n.shape[1]
    log_det = rank * jnp.linalg.slogdet(jnp.eye(rank) + OVERLAP_SD**2 * m.T @ m)[1]
    squares = (p.loading**2).sum() + (p.n * apply_weight_precision(m, p.n)).sum() + log_det
    squares += ((jnp.log(p.process_noise) - PROCESS_NOISE[0]) / PROCESS_NOISE[1]) ** 2
    return -0.5 * (squares + ((jnp.log(p.initial_scale) - INITIAL_SCALE[0]) / INITIAL_SCALE[1]) ** 2)


def _rescale(key: Key[Array, ""], p: NetworkParameters) -> tuple[NetworkParameters, Float[Array, ""]]:
    """The network in units of another size, and by what paths have to be multiplied: the likelihood does not change."""

    def rescaled(log_scale: Array) -> NetworkParameters:
        scale = jnp.exp(log_scale)
        return p._replace(
            loading=p.loading / scale,
            n=p.n * scale,
            process_noise=p.process_noise * scale,
            initial_scale=p.initial_scale * scale,
        )

    # What loadings lose in volume, output weights gain; paths and their law go together.
    step = 1.7 / (2 * p.n.size) ** 0.5
    log_scale = random_walk(key, jnp.zeros(()), lambda s: _gauge_prior(rescaled(s)), step)
    return rescaled(log_scale), jnp.exp(log_scale)


def _propose_noise(key: Key[Array, ""], step: Array, prior: ObservationPrior, p: NetworkParameters) -> NoiseProposal:
    """Noise of another size and, in the present gauge, of another shape: in the gauge where it is isotropic again; and
    calcium with another decay, which paths and it determine as narrowly as they do the noise."""
    key_size, key_shape, key_decay = jax.random.split(key, 3)
    rank = p.n.shape[1]
    draw = step * jax.random.normal(key_shape, (rank, rank))
    shape = (draw + draw.T) / 2**0.5
    gauge = jax.scipy.linalg.expm(shape - jnp.trace(shape) / rank * jnp.eye(rank))
    other = p._replace(
        loading=jnp.linalg.solve(gauge.T, p.loading.T).T,
        n=p.n @ gauge.T,
        process_noise=p.process_noise * jnp.exp(step * jax.random.normal(key_size)),
    )
    log_ratio = _gauge_prior(other) - _gauge_prior(p)
    if prior.calcium_decay is None or p.calcium_decay is None:
        return NoiseProposal(other, gauge, log_ratio)
    loc, scale = prior.calcium_decay
    before = jnp.log(p.calcium_decay)
    after = before + step * jax.random.normal(key_decay)
    log_ratio += 0.5 * (((before - loc) / scale) ** 2 - ((after - loc) / scale) ** 2)
    return NoiseProposal(other._replace(calcium_decay=jnp.exp(after)), jnp.kron(jnp.eye(2), gauge), log_ratio)
