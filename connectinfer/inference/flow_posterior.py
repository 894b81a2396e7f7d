"""Neural posterior estimation: a conditional flow learns from simulations which parameters lie behind which data.

Source: Greenberg et al., ICML 2019, arXiv:1905.07488 (neural posterior estimation); Zaheer et al., NeurIPS 2017,
arXiv:1703.06114 (summaries of exchangeable trials).
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from connectinfer.inference.amortised import (
    DataFeatures,
    FlowPosterior,
    Networks,
    Summary,
    trials_are_exchangeable,
    untrained_networks,
)
from connectinfer.inference.preflight import Preflight, check_model
from connectinfer.inference.result import Labels, build_result, check_labels
from connectinfer.inference.simulations import Simulations, possible_parameters, simulate_features
from connectinfer.inference.start import constrain, potential
from connectinfer.inference.svi import adam_with_warmup
from connectinfer.inference.trace import Site, Sites, bind, check_proper, describe_sites
from connectinfer.optimisation.checkpoint import STATE_FILE, checkpoint_folder
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.loop import Minimum, minimise
from connectinfer.optimisation.progress import timed

_MINIBATCH = 256
_VALIDATION_SHARE = 0.1
_MOST_VALUES = 200
_LEAST_SIMULATIONS = 100
_RIDGE = 1e-6


class _Trained(NamedTuple):
    """The flow of the last round that came to its end, or of the first; `simulated` are the simulations it has seen,
    `possible` the share of the prior that the last of them come from."""

    posterior: FlowPosterior
    training: Minimum
    simulated: list[Simulations]
    possible: float
    status: str


@terminations_interrupt()
def fit_flow_posterior(
    key: PRNGKeyArray,
    model: Callable,
    inputs: Mapping[str, Any],
    *,
    labels: Labels | None = None,
    simulations: int = 5000,
    rounds: int = 2,
    summary: Summary | None = None,
    steps: int = 3000,
    learning_rate: float = 1e-3,
    draws: int = 500,
    checkpoint: str | Path | None = None,
    show_progress: bool = True,
) -> xr.DataTree:
    """Posterior draws from a flow that was trained on simulations, without a gradient of the model.

    Every round simulates `simulations` data sets, the first from the prior, later ones from the part of the prior that
    the flow so far deems possible given the data, and trains anew on all of them for `steps`. `summary` turns the data
    of one simulation, by observed site, into a vector; otherwise networks learn a summary, for which trials (a leading
    plate of that name) are exchangeable where nothing but their data tells them apart. Simulations that fail
    (`connectinfer.inference.simulations`) are left out, with a warning: finite data cannot come from their parameters.
    A tenth of the others validates, and decides which state of the training is kept.
    `sample_stats` holds the log importance weights (log joint minus log flow) of the draws, the group `optimisation`
    the loss of every step of the last round, and the validation after every chunk of 100. `unlike` there is the share
    of simulations whose summaries lie farther from their centre than that of the data: near 0, the flow extrapolates.
    Ctrl-C or SIGTERM ends the first round with its best state so far, and a later one with the flow of the one before;
    `checkpoint`, a folder, keeps the training of every round.

    Raises:
        ValueError: an option out of range, labels that do not fit the model, a model that fails its pre-flight check or
            has more than 200 latent values, improper priors or factors that weight parameters, more than half of the
            simulations failed, or data too large without a `summary`.
        KeyboardInterrupt: interrupted before anything was trained.
    """
    started = time.time()
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1; got {draws}.")
    labels = labels or Labels.of(model)
    key_check, key_rounds, key_draws, key_result = jax.random.split(key, 4)
    options = _Options(simulations, rounds, steps, learning_rate, checkpoint, show_progress)
    problem, preflight = _checked(key_check, model, inputs, summary, options)
    bound, arrays = problem.bound, problem.arrays
    check_labels(problem.sites, labels)
    trained = _train_rounds(key_rounds, problem, options)
    n_drawn, failed = _count_failures(trained.simulated)
    attrs = {
        "engine": "flow_posterior",
        "status": trained.status,
        "rounds": len(trained.simulated),
        "simulations": n_drawn,
        "failed_simulations": failed,
        "possible": trained.possible,
        "wall_time": time.time() - started,
    }
    with timed("drawing from the flow and predicting", show_progress):
        samples, log_weight = _draw(key_draws, trained.posterior, bound, arrays, draws)
        stats = {"log_weight": log_weight}
        result = build_result(key_result, bound, arrays, inputs, samples, preflight.prior, stats, labels, attrs)
    of_training = {
        "latent_values": trained.posterior.shift.size,
        "unlike": _unlike(trained.posterior, trained.simulated[-1].features, arrays),
    }
    losses = {"loss": ("step", trained.training.losses), "validation": ("chunk", trained.training.scores)}
    result["optimisation"] = xr.Dataset(losses, attrs=of_training)
    return result


@terminations_interrupt()
def train_flow_posterior(
    key: PRNGKeyArray,
    model: Callable,
    inputs: Mapping[str, Any],
    *,
    simulations: int = 10_000,
    summary: Summary | None = None,
    steps: int = 5000,
    learning_rate: float = 1e-3,
    checkpoint: str | Path | None = None,
    show_progress: bool = True,
) -> FlowPosterior:
    """The posterior given any data of the shapes of `inputs`, trained once on simulations from the prior.

    Options and errors are those of `fit_flow_posterior`, which trains for the one data set in `inputs`.

    Raises:
        ValueError: as `fit_flow_posterior`; also if the training diverges.
        KeyboardInterrupt: interrupted before the end; with `checkpoint`, the same call goes on.
    """
    key_check, key_round = jax.random.split(key)
    options = _Options(simulations, 1, steps, learning_rate, checkpoint, show_progress)
    problem, _ = _checked(key_check, model, inputs, summary, options)
    trained = _train_rounds(key_round, problem, options)
    if trained.status == "interrupted":
        goes_on = "give `checkpoint` to go on later" if checkpoint is None else "the same call goes on"
        raise KeyboardInterrupt(f"Interrupted after {len(trained.training.losses)} of {steps} steps; {goes_on}.")
    if trained.status == "diverged":
        raise ValueError(f"The training diverged after {len(trained.training.losses)} steps. Lower `learning_rate`.")
    _count_failures(trained.simulated)
    return trained.posterior


class _Problem(NamedTuple):
    bound: Callable
    arrays: Mapping[str, Any]
    sites: Mapping[str, Site]
    features: DataFeatures


class _Options(NamedTuple):
    simulations: int
    rounds: int
    steps: int
    learning_rate: float
    checkpoint: str | Path | None
    show_progress: bool


def _checked(
    key: PRNGKeyArray, model: Callable, inputs: Mapping[str, Any], summary: Summary | None, options: _Options
) -> tuple[_Problem, Preflight]:
    """What a flow is to learn, once options and model are found to be possible."""
    simulations, rounds, steps, learning_rate, *_ = options
    if simulations < _LEAST_SIMULATIONS or min(rounds, steps) < 1 or not learning_rate > 0:
        raise ValueError(
            f"`simulations` must be at least {_LEAST_SIMULATIONS}, `rounds` and `steps` at least 1 and `learning_rate` "
            f"positive; got {simulations}, {rounds}, {steps} and {learning_rate}."
        )
    bound, arrays = bind(model, inputs)
    sites = describe_sites(bound, arrays)
    with timed("checking the model on draws from its prior", options.show_progress):
        preflight = check_model(key, bound, arrays)
    return _Problem(bound, arrays, sites, _features_of(bound, arrays, sites, summary)), preflight


def _count_failures(simulated: Sequence[Simulations]) -> tuple[int, int]:
    """How many simulations were drawn, and how many of them failed, of which a warning tells."""
    n_drawn = sum(each.n_drawn for each in simulated)
    failed = n_drawn - sum(len(each.free) for each in simulated)
    if failed:
        warnings.warn(f"{failed} of {n_drawn} simulations failed and are left out.", stacklevel=4)
    return n_drawn, failed


def _train_rounds(key: PRNGKeyArray, problem: _Problem, options: _Options) -> _Trained:
    """Rounds until the last, an interruption, or a part of the prior that is too small to draw from. A later round that
    does not come to its end leaves the flow of the one before."""
    first, *later = jax.random.split(key, options.rounds)
    trained = _round(first, problem, options, {}, None, 1.0)
    for key_round in later:
        if trained.status != "finished":
            break
        key_possible, key_train = jax.random.split(key_round)
        try:
            with timed("finding parameters that the data leave possible", options.show_progress):
                values, possible = possible_parameters(
                    key_possible, trained.posterior, problem.bound, problem.arrays, options.simulations
                )
            if len(next(iter(values.values()))) < options.simulations / 10:
                warnings.warn(_too_narrow(len(trained.simulated), possible), stacklevel=4)
                break
            following = _round(key_train, problem, options, values, trained, possible)
        except KeyboardInterrupt:
            return trained._replace(status="interrupted")
        trained = following if following.status == "finished" else trained._replace(status=following.status)
    return trained


def _round(
    key: PRNGKeyArray,
    problem: _Problem,
    options: _Options,
    values: Sites,
    before: _Trained | None,
    possible: float,
) -> _Trained:
    """A flow trained anew on simulations of `values`, or from the prior, and on all `before`."""
    key_simulate, key_train = jax.random.split(key)
    earlier = [] if before is None else before.simulated
    n = len(next(iter(values.values()))) if values else options.simulations
    name = f"round {len(earlier) + 1}"
    with timed(f"{name}: {n} simulations", options.show_progress):
        drawn = simulate_features(key_simulate, problem.bound, problem.arrays, problem.features, values, n)
    folder = None if options.checkpoint is None else Path(options.checkpoint) / name.replace(" ", "_")
    file = None if folder is None else checkpoint_folder(folder) / STATE_FILE
    training = {"checkpoint": file, "show_progress": options.show_progress, "name": f"flow, {name}"}
    posterior, found = _train(key_train, problem, [*earlier, drawn], options, training)
    return _Trained(posterior, found, [*earlier, drawn], possible, found.status)


def _too_narrow(rounds: int, possible: float) -> str:
    return (
        f"After {rounds} rounds, {possible:.2g} of the prior is left: too little to draw further simulations from. The "
        "flow is that of these rounds. More `simulations`, or the engine 'nuts', which needs no simulations."
    )


def _features_of(
    bound: Callable, arrays: Mapping[str, Any], sites: Mapping[str, Site], summary: Summary | None
) -> DataFeatures:
    check_proper(sites)
    n_values = sum(int(np.prod(site.shape)) for site in sites.values() if site.kind == "latent")
    if n_values > _MOST_VALUES:
        raise ValueError(
            f"The model has {n_values} latent values; a flow learns at most {_MOST_VALUES} from simulations. Use the "
            "engine 'svi', or integrate paths out."
        )
    return DataFeatures(summary, trials_are_exchangeable(bound, arrays, sites))


def _train(
    key: PRNGKeyArray,
    problem: _Problem,
    simulated: Sequence[Simulations],
    options: _Options,
    training: Mapping[str, Any],
) -> tuple[FlowPosterior, Minimum]:
    key_order, key_networks, key_steps = jax.random.split(key, 3)
    features, sites = problem.features, problem.sites
    free = jnp.concatenate([each.free for each in simulated])
    found = jnp.concatenate([each.features for each in simulated])
    low, centre, high = jnp.quantile(found.reshape(-1, found.shape[-1]), jnp.array([0.16, 0.5, 0.84]), axis=0)
    latent = {name: jnp.zeros(site.shape) for name, site in sites.items() if site.kind == "latent"}
    untrained = FlowPosterior(
        networks=untrained_networks(key_networks, free.shape[1], found.shape[-1], features.summary is not None),
        features=features,
        centre=centre,
        spread=_not_zero((high - low) / 2, found.reshape(-1, found.shape[-1]).std(0)),
        shift=free.mean(0),
        scale=_not_zero(free.std(0), 1.0),
        bound=problem.bound,
        unravel=ravel_pytree(latent)[1],
        names=tuple(latent),
    )
    order = jax.random.permutation(key_order, len(free))
    values = ((free - untrained.shift) / untrained.scale)[order]
    squashed = untrained.squashed(found)[order]
    n_held = max(int(_VALIDATION_SHARE * len(free)), 1)

    def loss(networks: Networks, key: PRNGKeyArray, data: tuple) -> Array:
        at = jax.random.randint(key, (_MINIBATCH,), n_held, len(data[0]))
        return -jax.vmap(networks.log_prob)(data[0][at], data[1][at]).mean()

    def validation(networks: Networks, data: tuple) -> Array:
        return -jax.vmap(networks.log_prob)(data[0][:n_held], data[1][:n_held]).mean()

    optimum = minimise(
        key_steps,
        loss,
        untrained.networks,
        (values, squashed),
        optimizer=adam_with_warmup(options.learning_rate, options.steps),
        steps=options.steps,
        validation=validation,
        **training,
    )
    if not len(optimum.losses):
        raise KeyboardInterrupt("Interrupted before the flow took its first steps: no draws to keep.")
    return eqx.tree_at(lambda posterior: posterior.networks, untrained, optimum.parameters), optimum


def _not_zero(spread: Array, otherwise: Any) -> Array:
    spread = jnp.where(spread > 0, spread, otherwise)
    return jnp.where(spread > 0, spread, 1.0)


def _draw(
    key: PRNGKeyArray, posterior: FlowPosterior, bound: Callable, arrays: Mapping[str, Any], draws: int
) -> tuple[Sites, np.ndarray]:
    """Draws `(1, draw, ...)` of the sites and their log importance weights."""

    def drawn(key: PRNGKeyArray, arrays: Mapping[str, Any]) -> tuple[Sites, Array]:
        free, density = posterior.sample_free(key, arrays, draws)
        sites = jax.lax.map(lambda x: constrain(bound, arrays, posterior.unravel(x)), free)
        joint = jax.lax.map(lambda x: -potential(bound, arrays, posterior.unravel(x)), free)
        return sites, joint - density

    sites, log_weight = jax.jit(drawn)(key, dict(arrays))
    return {name: x[None] for name, x in sites.items()}, np.asarray(log_weight)[None]


def _unlike(
    posterior: FlowPosterior, found: Float[Array, "simulation group feature"], arrays: Mapping[str, Any]
) -> float:
    """The share of simulations whose summaries lie farther from their centre than that of the data."""
    summaries = np.asarray(jax.jit(jax.vmap(posterior.networks.summarise))(posterior.squashed(found)), float)
    own = np.asarray(jax.jit(lambda arrays: posterior.condition(arrays))(dict(arrays)), float)
    covariance = np.atleast_2d(np.cov(summaries.T))
    # A value that no simulation changes lies far off wherever the data have another.
    precision = np.linalg.inv(covariance + _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    distance = lambda x: np.einsum("...i,ij,...j", x, precision, x)  # noqa: E731
    return float((distance(summaries - summaries.mean(0)) > distance(own - summaries.mean(0))).mean())
