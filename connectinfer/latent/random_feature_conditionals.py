"""Gibbs sampling of dynamics with random features given the paths, in the feature frame."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.distributions.gram_cholesky import gram_cholesky
from connectinfer.dynamics.observation import Poisson
from connectinfer.dynamics.random_features import RandomFeatureDynamics
from connectinfer.latent.conditionals import Arrays, Conditionals, NoiseProposal, Paths
from connectinfer.latent.observation_prior import POISSON
from connectinfer.latent.principal_path import principal_network
from connectinfer.latent.random_features import (
    DRIFT_SCALE,
    INITIAL,
    INPUT_LOADING_SD,
    LOADING_SCALE,
    NOISE,
    FeatureParameters,
    dynamics_of,
    parameter_sites,
    read_out_frame,
    read_out_offset,
    weight_spread,
)
from connectinfer.latent.regression import (
    CoefficientPrior,
    draw_covariance_root,
    draw_normal,
    precision_root,
    propose_coefficients,
    random_walk,
)
from connectinfer.latent.state_space import Seen, StateSpace

# Sds of the moves of the frame: size, shape (of the sd that loadings leave it) and origin (of its posterior's).
_SIZE_STEP, _SHAPE_STEP, _ORIGIN_STEP = 0.1, 0.7, 0.7
_FRAME_MOVES = 3


def _begin(arrays: Arrays) -> tuple[FeatureParameters, Paths]:
    names = ("activity", "mask", "filtered", "rank", "alpha", "nonlinearity")
    start = principal_network(*(arrays[name] for name in names), counts=True)
    spread = jnp.maximum(jnp.asarray(start.path.std((0, 1)), float), 1e-3)
    paths, loading = jnp.asarray(start.path, float) / spread, jnp.asarray(start.m, float) * spread
    dim, n_inputs = paths.shape[-1], arrays["filtered"].shape[-1]
    n_features = len(arrays["feature_threshold"])
    parameters = FeatureParameters(
        loading=loading,
        bias=jnp.asarray(start.bias, float),
        input_loading=jnp.zeros((len(loading), n_inputs)),
        weight=jnp.zeros((1 + n_features + n_inputs, dim)),
        noise_root=jnp.diag(start.process_noise / spread),
        initial_mean=jnp.zeros(dim),
        initial_root=jnp.diag(start.initial_scale / spread),
        loading_scale=jnp.sqrt((loading**2).mean()),
        drift_scale=jnp.exp(jnp.asarray(DRIFT_SCALE[0])),
    )
    seen = Seen.of(arrays["activity"], arrays["mask"])
    found = _regression(parameters, paths, seen, arrays)
    return parameters._replace(weight=_mean_weight(found, parameters, arrays)), paths


def initial_features(arrays: Arrays) -> dict[str, Array]:
    """Values of the model's sites from principal components of the smoothed recording."""
    return _sites(jax.random.key(0), *_begin(arrays), arrays)


def _space(p: FeatureParameters, arrays: Arrays) -> StateSpace:
    dynamics = dynamics_of(p, arrays["feature_slope"], arrays["feature_threshold"])
    return StateSpace(
        initial_mean=p.initial_mean,
        initial_tril=gram_cholesky(p.initial_root.T),
        transition=jax.tree_util.Partial(RandomFeatureDynamics.step, dynamics, arrays["alpha"]),
        noise_tril=gram_cholesky(p.noise_root.T),
        inputs=arrays["filtered"],
        loading=p.loading,
        offset=read_out_offset(p.input_loading, p.bias, arrays["filtered"]),
        observation=Poisson(),
    )


def _space_of(draw: Arrays, arrays: Arrays) -> StateSpace:
    """In read-out coordinates."""
    dim, n_inputs = draw["weight"].shape[1], arrays["filtered"].shape[-1]
    inputs = {"input_weight": jnp.zeros((0, dim)), "input_loading": jnp.zeros((len(draw["bias"]), 0))}
    own = draw if n_inputs else {**draw, **inputs}
    names = ("slope", "threshold", "weight", "constant", "input_weight")
    dynamics = RandomFeatureDynamics(*(own[name] for name in names))
    return StateSpace(
        initial_mean=draw["initial_mean"],
        initial_tril=jnp.linalg.cholesky(draw["initial_covariance"]),
        transition=jax.tree_util.Partial(RandomFeatureDynamics.step, dynamics, arrays["alpha"]),
        noise_tril=jnp.linalg.cholesky(draw["noise_covariance"]),
        inputs=arrays["filtered"],
        loading=draw["loading"],
        offset=read_out_offset(own["input_loading"], draw["bias"], arrays["filtered"]),
        observation=Poisson(),
    )


def _sites(key: Key[Array, ""], p: FeatureParameters, paths: Paths, arrays: Arrays) -> dict[str, Array]:
    del key
    matrix, origin = read_out_frame(p, arrays["projection"], arrays["reference"])
    return parameter_sites(p) | {"latent": paths @ matrix.T + origin}


def _propose_noise(key: Key[Array, ""], step: Array, p: FeatureParameters, arrays: Arrays) -> NoiseProposal:
    """Noise of another size and shape."""
    del arrays
    dim = len(p.noise_root)
    draw = jax.random.normal(key, (dim, dim))
    root = p.noise_root @ jax.scipy.linalg.expm(step * (draw + draw.T) / 2**0.5)
    log_ratio = NOISE.log_density(root) - NOISE.log_density(p.noise_root)
    return NoiseProposal(p._replace(noise_root=root), jnp.eye(dim), log_ratio)


def _update(
    key: Key[Array, ""], p: FeatureParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> tuple[FeatureParameters, Paths, dict[str, Array]]:
    keys = jax.random.split(key, 6)
    p, paths, found, moved = _move_frame(keys[0], p, paths, seen, arrays)
    p = _draw_drift(keys[1], p, found, arrays)
    p = _draw_noise(keys[2], p, paths, seen, arrays)
    p = _draw_initial(keys[3], p, paths, seen)
    p, read_out = _draw_read_out(keys[4], p, paths, seen, arrays)
    p = p._replace(loading_scale=_draw_loading_scale(keys[5], p))
    return p, paths, {"read_out_acceptance": read_out, "frame_acceptance": moved}


class _Regression(NamedTuple):
    """Increments of the paths, less what `centre` makes of their features, against these features, along the axes of
    the noise and in its units: `gram (regressor, regressor)` of the features, `moment (regressor, dim)` and `squares
    (dim,)` of the increments; `centre (regressor, dim)`, the weights along those axes; and the `axes (dim, dim)`, in
    columns, with the `sd (dim,)` of the noise per tau along each."""

    gram: Array
    moment: Array
    squares: Array
    centre: Array
    axes: Array
    sd: Array


def _regression(p: FeatureParameters, paths: Paths, seen: Seen, arrays: Arrays) -> _Regression:
    features, residual = _increments(p, paths, seen, arrays)
    axes, sd, _ = jnp.linalg.svd(p.noise_root / arrays["alpha"])
    residual = residual @ axes / sd
    moment, squares = features.T @ residual, (residual**2).sum(0)
    return _Regression(features.T @ features, moment, squares, p.weight @ axes, axes, sd)


def _increments(
    p: FeatureParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> tuple[Float[Array, "bin regressor"], Float[Array, "bin dim"]]:
    """Features of the states that transitions leave, and what the weights do not explain of (x' - (1 - alpha) x) /
    alpha; both 0 where a trial has ended."""
    alpha, dim = arrays["alpha"], paths.shape[-1]
    counts = (seen.alive[:, 1:] & seen.alive[:, :-1]).reshape(-1, 1)
    now, v = paths[:, :-1].reshape(-1, dim), arrays["filtered"][:, :-1].reshape(len(counts), -1)
    sigmoids = jnp.tanh(now @ arrays["feature_slope"].T + arrays["feature_threshold"])
    features = jnp.where(counts, jnp.concatenate([jnp.ones_like(now[:, :1]), sigmoids, v], 1), 0.0)
    target = ((paths[:, 1:] - (1 - alpha) * paths[:, :-1]) / alpha).reshape(-1, dim)
    return features, jnp.where(counts, target, 0.0) - features @ p.weight


class _Posterior(NamedTuple):
    """Of the weights less their centre along the axes of the noise: `roots` of the precisions and moments, by axis;
    and the log density of the increments with the weights integrated out."""

    roots: Float[Array, "dim regressor regressor"]
    moments: Float[Array, "dim regressor"]
    log_evidence: Float[Array, ""]


def _posterior(found: _Regression, drift_scale: Float[Array, ""], arrays: Arrays) -> _Posterior:
    spread = drift_scale * weight_spread(len(arrays["feature_threshold"]), arrays["filtered"].shape[-1])
    precision = spread**-2

    def along(moment: Array, centre: Array, sd: Array) -> tuple[Array, Array, Array]:
        root = precision_root(found.gram / sd**2 + jnp.diag(precision))
        moment = moment / sd - precision * centre
        half = jax.scipy.linalg.solve_triangular(root, moment, lower=True)
        log_det = jnp.log(jnp.diagonal(root) * spread).sum()
        return root, moment, 0.5 * ((half**2).sum() - (precision * centre**2).sum()) - log_det

    roots, moments, evidence = jax.vmap(along)(found.moment.T, found.centre.T, found.sd)
    return _Posterior(roots, moments, evidence.sum() - 0.5 * found.squares.sum())


def _mean_weight(found: _Regression, p: FeatureParameters, arrays: Arrays) -> Float[Array, "regressor dim"]:
    posterior = _posterior(found, p.drift_scale, arrays)
    change = jax.vmap(lambda root, moment: jax.scipy.linalg.cho_solve((root, True), moment))(*posterior[:2])
    return p.weight + change.T @ found.axes.T


def _draw_drift(key: Key[Array, ""], p: FeatureParameters, found: _Regression, arrays: Arrays) -> FeatureParameters:
    """The scale of the drift with the weights integrated out, and the weights."""
    key_scale, key_weight = jax.random.split(key)

    def density(log_scale: Array) -> Array:
        prior = -0.5 * ((log_scale - DRIFT_SCALE[0]) / DRIFT_SCALE[1]) ** 2
        return prior + _posterior(found, jnp.exp(log_scale), arrays).log_evidence

    scale = jnp.exp(random_walk(key_scale, jnp.log(p.drift_scale), density, 0.4, repeats=4))
    posterior = _posterior(found, scale, arrays)
    keys = jax.random.split(key_weight, len(posterior.roots))
    change = jax.vmap(lambda *of: draw_normal(*of)[:, 0])(keys, posterior.roots, posterior.moments[..., None])
    return p._replace(drift_scale=scale, weight=p.weight + change.T @ found.axes.T)


def _draw_noise(
    key: Key[Array, ""], p: FeatureParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> FeatureParameters:
    residual = arrays["alpha"] * _increments(p, paths, seen, arrays)[1]
    n_transitions = (seen.alive[:, 1:] & seen.alive[:, :-1]).sum()
    dim = len(p.noise_root)
    rate = residual.T @ residual + NOISE.scale**2 * jnp.eye(dim)
    return p._replace(noise_root=draw_covariance_root(key, rate, NOISE.excess + dim + n_transitions))


def _draw_initial(key: Key[Array, ""], p: FeatureParameters, paths: Paths, seen: Seen) -> FeatureParameters:
    key_mean, key_root = jax.random.split(key)
    begun, dim = seen.alive[:, :1], paths.shape[-1]
    precision = jnp.linalg.inv(p.initial_root @ p.initial_root.T)
    moment = precision @ jnp.where(begun, paths[:, 0], 0.0).sum(0)
    mean = draw_normal(key_mean, precision_root(jnp.eye(dim) + begun.sum() * precision), moment[:, None])[:, 0]
    residual = jnp.where(begun, paths[:, 0] - mean, 0.0)
    rate = residual.T @ residual + INITIAL.scale**2 * jnp.eye(dim)
    root = draw_covariance_root(key_root, rate, INITIAL.excess + dim + begun.sum())
    return p._replace(initial_mean=mean, initial_root=root)


def _draw_read_out(
    key: Key[Array, ""], p: FeatureParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> tuple[FeatureParameters, Float[Array, ""]]:
    """Every unit's read-out, by Metropolis steps from its regression; and the share of them accepted."""
    key_propose, key_accept = jax.random.split(key)
    dim = paths.shape[-1]
    loc, scale = POISSON.bias(arrays["alpha"] * arrays["tau"])
    design = jnp.concatenate([paths, jnp.ones((*paths.shape[:2], 1)), arrays["filtered"]], -1)
    now = jnp.concatenate([p.loading, p.bias[:, None], p.input_loading], 1)
    centre = jnp.zeros_like(now).at[:, dim].set(loc)
    spread = jnp.full_like(now, INPUT_LOADING_SD).at[:, :dim].set(p.loading_scale).at[:, dim].set(scale)
    prior = CoefficientPrior(centre, spread)
    proposed, log_ratio = propose_coefficients(key_propose, now, design, jnp.zeros(()), seen, Poisson(), prior)
    accepted = jnp.log(jax.random.uniform(key_accept, log_ratio.shape)) < log_ratio
    now = jnp.where(accepted[:, None], proposed, now)
    return p._replace(loading=now[:, :dim], bias=now[:, dim], input_loading=now[:, dim + 1 :]), accepted.mean()


def _draw_loading_scale(key: Key[Array, ""], p: FeatureParameters) -> Float[Array, ""]:
    step = 2.4 / (2 * p.loading.size + LOADING_SCALE[1] ** -2) ** 0.5
    density = lambda log_scale: _loading_density(p.loading, log_scale)  # noqa: E731
    return jnp.exp(random_walk(key, jnp.log(p.loading_scale), density, step))


def _loading_density(loading: Float[Array, "unit dim"], log_scale: Float[Array, ""]) -> Float[Array, ""]:
    prior = -0.5 * ((log_scale - LOADING_SCALE[0]) / LOADING_SCALE[1]) ** 2
    return prior - loading.size * log_scale - 0.5 * (loading**2).sum() * jnp.exp(-2 * log_scale)


def _frame_density(p: FeatureParameters, arrays: Arrays) -> Float[Array, ""]:
    """Log prior of what another frame changes, weights left out; of the covariances, and of the logs of the scales."""
    loc, scale = POISSON.bias(arrays["alpha"] * arrays["tau"])
    squares = (((p.bias - loc) / scale) ** 2).sum() + (p.initial_mean**2).sum()
    squares += ((jnp.log(p.drift_scale) - DRIFT_SCALE[0]) / DRIFT_SCALE[1]) ** 2
    covariances = NOISE.log_density(p.noise_root) + INITIAL.log_density(p.initial_root)
    return covariances + _loading_density(p.loading, jnp.log(p.loading_scale)) - 0.5 * squares


def _in_frame(
    p: FeatureParameters, paths: Paths, matrix: Float[Array, "dim dim"], origin: Float[Array, " dim"]
) -> tuple[FeatureParameters, Paths]:
    """The same read-out, noise and first bin in the frame `matrix x + origin`; the weights only say around which ones
    the drift that these features make there is to be sought."""
    size = jnp.exp(jnp.linalg.slogdet(matrix)[1] / len(matrix))
    loading = jnp.linalg.solve(matrix.T, p.loading.T).T
    moved = p._replace(
        loading=loading,
        bias=p.bias - loading @ origin,
        weight=(p.weight @ matrix.T).at[0].add(origin),
        noise_root=matrix @ p.noise_root,
        initial_mean=matrix @ p.initial_mean + origin,
        initial_root=matrix @ p.initial_root,
        loading_scale=p.loading_scale / size,
        drift_scale=p.drift_scale * size,
    )
    return moved, paths @ matrix.T + origin


def _move_frame(
    key: Key[Array, ""], p: FeatureParameters, paths: Paths, seen: Seen, arrays: Arrays
) -> tuple[FeatureParameters, Paths, _Regression, Float[Array, ""]]:
    """Other coordinates of the latent space relative to the features, weights integrated out; the regression there, and
    the share of accepted moves.

    Likelihood and law of the paths stay what they are: only the drift that the features make, and priors, differ.
    """
    n_units, dim = p.loading.shape

    def density(p: FeatureParameters, found: _Regression) -> Array:
        return _frame_density(p, arrays) + _posterior(found, p.drift_scale, arrays).log_evidence

    def move(now: tuple[Any, ...], key: Array) -> tuple[tuple[Any, ...], Array]:
        key_frame, key_accept = jax.random.split(key)
        p, paths, _, before = now
        matrix, origin = _frame_change(key_frame, n_units, dim)
        other, turned = _in_frame(p, paths, matrix, origin)
        found = _regression(other, turned, seen, arrays)
        after = density(other, found)
        # Volumes: loadings of every unit shrink as the mean of the first bin grows; those of paths and noise cancel.
        log_ratio = after - before + (1 - n_units) * jnp.linalg.slogdet(matrix)[1]
        accepted = jnp.log(jax.random.uniform(key_accept)) < log_ratio
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), (other, turned, found, after), now), accepted

    found = _regression(p, paths, seen, arrays)
    start = (p, paths, found, density(p, found))
    (p, paths, found, _), accepted = jax.lax.scan(move, start, jax.random.split(key, _FRAME_MOVES))
    return p, paths, found, accepted.mean()


def _frame_change(key: Key[Array, ""], n_units: int, dim: int) -> tuple[Float[Array, "dim dim"], Float[Array, " dim"]]:
    """A change of frame that is as likely as its inverse: the exponential of a symmetrically distributed generator."""
    key_size, key_shape, key_origin = jax.random.split(key, 3)
    shape = _SHAPE_STEP / (n_units * dim) ** 0.5 * jax.random.normal(key_shape, (dim, dim))
    size = _SIZE_STEP * jax.random.normal(key_size)
    generator = jnp.zeros((dim + 1, dim + 1))
    generator = generator.at[:dim, :dim].set(shape - (jnp.trace(shape) / dim - size) * jnp.eye(dim))
    generator = generator.at[:dim, dim].set(_ORIGIN_STEP / n_units**0.5 * jax.random.normal(key_origin, (dim,)))
    change = jax.scipy.linalg.expm(generator)
    return change[:dim, :dim], change[:dim, dim]


FEATURE_CONDITIONALS = Conditionals(_begin, _space, _update, _propose_noise, _sites, _space_of)
"""Conditionals of `sample_feature_space`: parameters and paths in the feature frame, sites in read-out coordinates."""
