"""Gibbs sampling of a low-rank network given the paths: every parameter from its conditional law, or by Metropolis."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.low_rank import LowRankRNN
from connectinfer.dynamics.nonlinearity import nonlinearity as named_nonlinearity
from connectinfer.dynamics.observation import Observation
from connectinfer.latent.conditionals import Arrays, Conditionals, NoiseProposal, Paths
from connectinfer.latent.low_rank_network import (
    D_SD,
    GAIN_SD,
    INITIAL_SCALE,
    OVERLAP_SD,
    PROCESS_NOISE,
    ReadOutNetwork,
    apply_weight_precision,
    draw_output_sites,
    drift_probes,
    loading_sites,
    reference_rotation,
)
from connectinfer.latent.observation_prior import ObservationPrior
from connectinfer.latent.principal_path import principal_network
from connectinfer.latent.regression import (
    CoefficientPrior,
    draw_normal,
    precision_root,
    propose_coefficients,
    random_walk,
)
from connectinfer.latent.state_space import Seen, StateSpace


class NetworkParameters(NamedTuple):
    """A network in the coordinates of its read-out: `loading` = gain m, `input_loading` = gain b, `intercept` =
    gain d + bias; gain, d and output weights n; sds of the noise per bin and of the first bin; and what else belongs to
    the observation."""

    loading: Float[Array, "unit rank"]
    input_loading: Float[Array, "unit input"]
    intercept: Float[Array, " unit"]
    gain: Float[Array, " unit"]
    d: Float[Array, " unit"]
    n: Float[Array, "unit rank"]
    process_noise: Float[Array, ""]
    initial_scale: Float[Array, ""]
    observation: Observation

    @property
    def m(self) -> Float[Array, "unit rank"]:
        """Loadings of the potentials."""
        return self.loading / self.gain[:, None]


def network_conditionals(prior: ObservationPrior) -> Conditionals:
    """Conditionals of the models whose parameters `sample_network` samples, observed as `prior` says."""

    def begin(arrays: Arrays) -> tuple[NetworkParameters, Paths]:
        return _begin(prior, arrays)

    def update(
        key: Key[Array, ""], parameters: NetworkParameters, paths: Paths, seen: Seen, arrays: Arrays
    ) -> tuple[NetworkParameters, Paths, dict[str, Array]]:
        return _update(key, prior, parameters, paths, seen, arrays)

    def sites(key: Key[Array, ""], parameters: NetworkParameters, paths: Paths, arrays: Arrays) -> dict[str, Array]:
        return _sites(key, parameters, paths, arrays) | prior.sites(parameters.observation)

    def parameters(draw: Arrays) -> NetworkParameters:
        return _parameters(prior, draw)

    return Conditionals(begin, _space, update, _propose_noise, sites, parameters)


def _begin(prior: ObservationPrior, arrays: Arrays) -> tuple[NetworkParameters, Paths]:
    names = ("activity", "mask", "rank", "alpha", "nonlinearity")
    start = principal_network(*(arrays[name] for name in names), counts=prior.counts)
    m, n_units = jnp.asarray(start.m, float), len(start.m)
    path, bias = jnp.asarray(start.path, float), jnp.asarray(start.bias, float)
    seen = Seen.of(arrays["activity"], arrays["mask"])
    parameters = NetworkParameters(
        loading=m,
        input_loading=jnp.zeros((n_units, arrays["filtered"].shape[-1])),
        intercept=bias,
        gain=jnp.ones(n_units),
        d=jnp.zeros(n_units),
        n=m @ jnp.asarray(start.linear, float).T + jnp.asarray(start.residual, float),
        process_noise=jnp.asarray(start.process_noise, float),
        initial_scale=jnp.asarray(start.initial_scale, float),
        observation=prior.begin(seen, path @ m.T + bias),
    )
    return parameters, path


def _space(p: NetworkParameters, arrays: Arrays) -> StateSpace:
    gain = p.gain[:, None]
    network = LowRankRNN(p.m, p.n, p.input_loading / gain, p.d, arrays["tau"], arrays["nonlinearity"])
    units = ReadOutNetwork(network, p.gain, p.intercept - p.gain * p.d)
    return units.state_space(p.process_noise, p.initial_scale, arrays["filtered"], arrays["alpha"], p.observation)


def _parameters(prior: ObservationPrior, draw: Arrays) -> NetworkParameters:
    gain, m = draw["gain"], draw["m"]
    return NetworkParameters(
        loading=gain[:, None] * m,
        input_loading=gain[:, None] * draw["b"] if "b" in draw else jnp.zeros((len(m), 0)),
        intercept=gain * draw["d"] + draw["bias"],
        gain=gain,
        d=draw["d"],
        n=draw["n"],
        process_noise=draw["process_noise"],
        initial_scale=draw["initial_scale"],
        observation=prior.observation(draw),
    )


def _update(
    key: Key[Array, ""], prior: ObservationPrior, p: NetworkParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> tuple[NetworkParameters, Paths, dict[str, Array]]:
    keys = jax.random.split(key, 5)
    p, linear, paths = _draw_dynamics(keys[0], p, paths, seen, arrays)
    transitions = _transitions(paths, seen, arrays)
    p = p._replace(initial_scale=_draw_initial_scale(keys[1], p.initial_scale, paths, seen))
    p, accepted = _update_units(keys[2], prior, p, linear, transitions, paths, seen, arrays)
    predictor = _space(p, arrays).predictor(paths)
    p = p._replace(observation=prior.update(keys[3], p.observation, predictor, seen))
    p, scale = _rescale(keys[4], p)
    return p, scale * paths, accepted


class _Transitions(NamedTuple):
    """States z, v `(bin, rank + input)` that a transition leaves, its `target` (z' - (1 - alpha) z) / alpha
    `(bin, rank)`, and whether the trial lasts that long, as 1 or 0 `(bin, 1)`; targets are 0 where it does not."""

    state: Float[Array, "bin state"]
    target: Float[Array, "bin rank"]
    counts: Float[Array, "bin 1"]
    alpha: float
    nonlinearity: str

    def rates(self, slope: Float[Array, "... state"], d: Float[Array, "..."]) -> Array:
        """Rates of units in the states, 0 where transitions do not count; `slope` holds m and b."""
        return named_nonlinearity(self.nonlinearity)(self.state @ slope.T + d) * (
            self.counts if d.ndim else self.counts[:, 0]
        )


def _transitions(paths: Paths, seen: Seen, arrays: Arrays) -> _Transitions:
    alpha, rank = arrays["alpha"], paths.shape[-1]
    state = jnp.concatenate([paths, arrays["filtered"]], -1)[:, :-1].reshape(-1, rank + arrays["filtered"].shape[-1])
    counts = (seen.alive[:, 1:] & seen.alive[:, :-1]).reshape(-1, 1).astype(paths.dtype)
    target = ((paths[:, 1:] - (1 - alpha) * paths[:, :-1]) / alpha).reshape(-1, rank) * counts
    return _Transitions(state, target, counts, alpha, arrays["nonlinearity"])


def _draw_dynamics(
    key: Key[Array, ""], p: NetworkParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> tuple[NetworkParameters, Float[Array, "rank rank"], Paths]:
    """Origin of the latent space and output weights together, from the regression of the increments; then the map A
    between output weights and loadings, and the noise."""
    key_origin, key_n, key_linear, key_noise = jax.random.split(key, 4)
    n_units, rank = p.n.shape
    transitions = _transitions(paths, seen, arrays)
    slope = jnp.concatenate([p.loading, p.input_loading], 1) / p.gain[:, None]
    # In units of the noise per tau.
    sd = p.process_noise / transitions.alpha
    features, target = transitions.rates(slope, p.d) / n_units / sd, transitions.target / sd
    root = precision_root(features.T @ features + apply_weight_precision(p.m, jnp.eye(n_units)))
    origin = _draw_origin(key_origin, p, root, features, target, transitions.counts / sd, paths, seen)
    paths = paths + origin
    p = p._replace(d=p.d - p.m @ origin, intercept=p.intercept - p.loading @ origin)
    target = target + origin * transitions.counts / sd
    n = draw_normal(key_n, root, features.T @ target)
    linear = draw_normal(key_linear, precision_root(p.m.T @ p.m + jnp.eye(rank) / OVERLAP_SD**2), p.m.T @ n).T
    squares = p.process_noise**2 * ((target - features @ n) ** 2).sum()
    noise = _draw_scale(key_noise, p.process_noise, PROCESS_NOISE, squares, rank * transitions.counts.sum())
    return p._replace(n=n, process_noise=noise), linear, paths


def _draw_origin(
    key: Key[Array, ""],
    p: NetworkParameters,
    root: Float[Array, "unit unit"],
    features: Float[Array, "bin unit"],
    target: Float[Array, "bin rank"],
    ones: Float[Array, "bin 1"],
    paths: Paths,
    seen: Seen,
) -> Float[Array, " rank"]:
    """By how much all paths move, with d and the intercepts such that potentials stay, output weights integrated out.

    Only the leak notices, and the priors of d and of the first bin. Given intercepts, paths would hardly move.
    """
    # The increments' precision with n integrated out: I - F (F^T F + precision)^-1 F^T.
    pulled = jax.scipy.linalg.solve_triangular(root, features.T @ jnp.concatenate([ones, target], 1), lower=True)
    gained = ones.T @ jnp.concatenate([ones, target], 1) - pulled[:, :1].T @ pulled
    begun = seen.alive[:, :1] / p.initial_scale**2
    precision = (gained[0, 0] + begun.sum()) * jnp.eye(p.n.shape[1]) + p.m.T @ p.m / D_SD**2
    moment = p.m.T @ p.d / D_SD**2 - gained[0, 1:] - (begun * paths[:, 0]).sum(0)
    return draw_normal(key, precision_root(precision), moment[:, None])[:, 0]


def _draw_initial_scale(
    key: Key[Array, ""], initial_scale: Float[Array, ""], paths: Paths, seen: Seen
) -> Float[Array, ""]:
    begun = seen.alive[:, 0]
    squares = jnp.where(begun[:, None], paths[:, 0] ** 2, 0.0).sum()
    return _draw_scale(key, initial_scale, INITIAL_SCALE, squares, paths.shape[-1] * begun.sum())


def _draw_scale(
    key: Key[Array, ""], scale: Array, prior: tuple[float, float], squares: Array, count: Array
) -> Float[Array, ""]:
    """Metropolis steps of the sd of `count` normal numbers whose squares are known, with a log-normal prior."""

    def density(log_scale: Array) -> Array:
        likelihood = -count * log_scale - 0.5 * squares * jnp.exp(-2 * log_scale)
        return likelihood - 0.5 * ((log_scale - prior[0]) / prior[1]) ** 2

    step = 2.4 / jnp.sqrt(2 * count + prior[1] ** -2)
    return jnp.exp(random_walk(key, jnp.log(scale), density, step))


class _Unit(NamedTuple):
    """What a unit reads out, coefficients of (path, 1, input), and what its rate follows from besides: gain and d."""

    coefficients: Array
    gain: Array
    d: Array


class _Contribution(NamedTuple):
    """A unit, its `rate (bin,)` over K in units of the noise, and the precision and moment of its n given the rest."""

    unit: _Unit
    rate: Array
    precision: Array
    moment: Array

    def log_evidence(self, centre: Array) -> Array:
        """Log density of the increments with n, of prior mean `centre`, integrated out, up to a constant."""
        squares = (self.moment**2).sum() / self.precision - (centre**2).sum()
        return 0.5 * (squares - len(centre) * jnp.log(self.precision))


def _update_units(
    key: Key[Array, ""],
    prior: ObservationPrior,
    p: NetworkParameters,
    linear: Float[Array, "rank rank"],
    transitions: _Transitions,
    paths: Paths,
    seen: Seen,
    arrays: Arrays,
) -> tuple[NetworkParameters, dict[str, Array]]:
    """Unit after unit: its read-out proposed by the regression of its activity on the paths, its gain and d by their
    priors, each accepted by what it makes of the drift with the unit's own n integrated out; then that n."""
    key_propose, key_units = jax.random.split(key)
    n_units, rank = p.n.shape
    bias_loc, bias_scale = prior.bias(arrays["alpha"] * arrays["tau"])
    design = jnp.concatenate([paths, jnp.ones((*paths.shape[:2], 1)), arrays["filtered"]], -1)
    coefficients = jnp.concatenate([p.loading, p.intercept[:, None], p.input_loading], 1)
    centre = jnp.zeros_like(coefficients).at[:, rank].set(bias_loc + p.gain * p.d)
    spread = jnp.ones_like(coefficients).at[:, rank].set(bias_scale).at[:, rank + 1 :].set(p.gain[:, None])
    proposed, log_ratio = propose_coefficients(
        key_propose, coefficients, design, seen, p.observation, CoefficientPrior(centre, spread)
    )
    per_rate = transitions.alpha / (p.process_noise * n_units)

    def log_prior(unit: _Unit) -> Array:
        """Of the coefficients given gain and d, where these matter."""
        bias = unit.coefficients[rank] - bias_loc - unit.gain * unit.d
        b = unit.coefficients[rank + 1 :] / unit.gain
        return -0.5 * ((bias / bias_scale) ** 2 + (b**2).sum()) - len(b) * jnp.log(unit.gain)

    def contribution(unit: _Unit, partial: Array) -> tuple[_Contribution, Array]:
        slope = jnp.delete(unit.coefficients, rank, assume_unique_indices=True) / unit.gain
        rate = per_rate * transitions.rates(slope, unit.d)
        mean = linear @ slope[:rank]
        found = _Contribution(unit, rate, 1 + (rate**2).sum(), mean + rate @ partial)
        return found, found.log_evidence(mean)

    def accept(
        key: Key[Array, ""], now: tuple[_Contribution, Array], unit: _Unit, partial: Array, log_ratio: Array
    ) -> tuple[tuple[_Contribution, Array], Array]:
        other = contribution(unit, partial)
        accepted = jnp.log(jax.random.uniform(key)) < log_ratio + other[1] - now[1]
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), other, now), accepted

    def move(residual: Array, of: tuple[Array, _Unit, Array, Array, Array]) -> tuple[Array, tuple[Any, ...]]:
        key, unit, n, proposed, log_ratio = of
        key_read_out, key_gain, key_d, key_features, key_n = jax.random.split(key, 5)
        slope = jnp.delete(unit.coefficients, rank, assume_unique_indices=True) / unit.gain
        partial = residual + per_rate * transitions.rates(slope, unit.d)[:, None] * n
        now = contribution(unit, partial)
        now, read_out = accept(key_read_out, now, unit._replace(coefficients=proposed), partial, log_ratio)
        unit = now[0].unit
        gain = jnp.exp(GAIN_SD * jax.random.normal(key_gain))
        other = unit._replace(gain=gain, d=D_SD * jax.random.normal(key_d))
        (now, _), features = accept(key_features, now, other, partial, log_prior(other) - log_prior(unit))
        noise = jax.random.normal(key_n, n.shape)
        n = now.moment / now.precision + noise / jnp.sqrt(now.precision)
        return partial - now.rate[:, None] * n, (now.unit, n, read_out, features)

    sd = p.process_noise / transitions.alpha
    slope = jnp.concatenate([p.loading, p.input_loading], 1) / p.gain[:, None]
    residual = (transitions.target - transitions.rates(slope, p.d) @ p.n / n_units) / sd
    each = jax.random.split(key_units, n_units), _Unit(coefficients, p.gain, p.d), p.n, proposed, log_ratio
    _, (units, n, read_out, features) = jax.lax.scan(move, residual, each)
    p = p._replace(
        loading=units.coefficients[:, :rank],
        intercept=units.coefficients[:, rank],
        input_loading=units.coefficients[:, rank + 1 :],
        gain=units.gain,
        d=units.d,
        n=n,
    )
    return p, {"read_out_acceptance": read_out.mean(), "feature_acceptance": features.mean()}


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


def _propose_noise(key: Key[Array, ""], step: Array, p: NetworkParameters, arrays: Arrays) -> NoiseProposal:
    """Noise of another size and, in the present gauge, of another shape: in the gauge where it is isotropic again."""
    del arrays
    key_size, key_shape = jax.random.split(key)
    rank = p.n.shape[1]
    draw = step * jax.random.normal(key_shape, (rank, rank))
    shape = (draw + draw.T) / 2**0.5
    gauge = jax.scipy.linalg.expm(shape - jnp.trace(shape) / rank * jnp.eye(rank))
    other = p._replace(
        loading=jnp.linalg.solve(gauge.T, p.loading.T).T,
        n=p.n @ gauge.T,
        process_noise=p.process_noise * jnp.exp(step * jax.random.normal(key_size)),
    )
    return NoiseProposal(other, gauge, _gauge_prior(other) - _gauge_prior(p))


def _sites(key: Key[Array, ""], p: NetworkParameters, paths: Paths, arrays: Arrays) -> dict[str, Array]:
    basis, nonlinearity = arrays["basis"], arrays["nonlinearity"]
    turn = reference_rotation(basis, p.loading)
    loading, m, n = p.loading @ turn, p.m @ turn, p.n @ turn
    sites = loading_sites(basis, loading)
    alignment = jnp.tril(basis[:, : n.shape[1]].T @ loading / len(n) ** 0.5)
    slope = jnp.linalg.solve(alignment.T, m.T).T
    probes = drift_probes(nonlinearity, slope, p.d, arrays["states"], arrays["polynomials"])
    driven = {"input_loading": p.input_loading} if p.input_loading.shape[1] else {}
    own = {"gain": p.gain, "d": p.d, "intercept": p.intercept, "latent": paths @ turn}
    scales = {"process_noise": p.process_noise, "initial_scale": p.initial_scale}
    return sites | own | scales | driven | draw_output_sites(key, n, m, probes, alignment)
