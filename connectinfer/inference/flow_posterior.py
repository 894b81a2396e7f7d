"""Neural posterior estimation: a conditional flow learns from simulations which parameters lie behind which data.

Source: Greenberg et al., ICML 2019, arXiv:1905.07488 (neural posterior estimation); Deistler et al., NeurIPS 2022,
arXiv:2210.04815 (truncated rounds); Zaheer et al., NeurIPS 2017, arXiv:1703.06114 (summaries of exchangeable trials).
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer.util import unconstrain_fn

from connectinfer.inference.amortised import DataFeatures, FlowPosterior, Networks, Summary, untrained_networks
from connectinfer.inference.preflight import check_model
from connectinfer.inference.result import Labels, build_result, check_labels
from connectinfer.inference.start import constrain, potential
from connectinfer.inference.svi import adam_with_warmup
from connectinfer.inference.trace import Site, Sites, bind, describe_sites, draw_joint, evaluate
from connectinfer.optimisation.checkpoint import STATE_FILE, checkpoint_folder
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.loop import Minimum, minimise
from connectinfer.optimisation.progress import timed

_MINIBATCH = 256
_VALIDATION_SHARE = 0.1
_MOST_VALUES = 200
_MOST_BYTES = 2e9
# Later rounds leave out parameters less probable than all but this share of the flow's own draws.
_TRUNCATED = 1e-4
_OWN_DRAWS = 10_000
_MOST_CANDIDATES = 200
_BATCH = 100
_LEAST_SIMULATIONS = 100


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
    plate of that name) are exchangeable. Simulations that are not finite are left out, with a warning. A tenth of them
    validates, and decides which state of the training is kept.
    `sample_stats` holds the log importance weights (log joint minus log flow) of the draws, the group `optimisation`
    the losses of the last round. `unlike` there is the share of simulations whose summaries lie farther from their
    centre than that of the data: near 0, the flow extrapolates. Ctrl-C or SIGTERM ends the training of a round, and
    draws are from the best state so far; `checkpoint`, a folder, keeps the training of every round.

    Raises:
        ValueError: an option out of range, labels that do not fit the model, a model that fails its pre-flight check or
            has more than 200 latent values, more than half of the simulations failed, data too large without a
            `summary`, or a later round that finds too few parameters.
        KeyboardInterrupt: interrupted before anything was trained.
    """
    started = time.time()
    labels = labels or Labels.of(model)
    _check_options(simulations, rounds, steps, learning_rate, draws)
    key_check, key_rounds, key_draws, key_result = jax.random.split(key, 4)
    bound, arrays = bind(model, inputs)
    sites = describe_sites(bound, arrays)
    check_labels(sites, labels)
    with timed("checking the model on draws from its prior", show_progress):
        preflight = check_model(key_check, bound, arrays)
    features = _features_of(sites, summary)
    posterior, found, simulated, possible, values, n_drawn = None, None, [], 1.0, {}, 0
    for index, key_round in enumerate(jax.random.split(key_rounds, rounds)):
        key_possible, key_simulate, key_train = jax.random.split(key_round, 3)
        n = simulations
        if posterior is not None:
            with timed("finding parameters that the data leave possible", show_progress):
                values, possible = _possible(key_possible, posterior, bound, arrays, simulations)
            n = len(next(iter(values.values())))
            if n < simulations / 10:
                warnings.warn(_too_narrow(index, possible), stacklevel=3)
                break
        named, n_drawn = f"round {index + 1}", n_drawn + n
        with timed(f"{named}: {n} simulations", show_progress):
            simulated.append(_simulate(key_simulate, bound, arrays, features, values, n))
        file = None if checkpoint is None else checkpoint_folder(Path(checkpoint) / f"round_{index + 1}") / STATE_FILE
        training = {"steps": steps, "checkpoint": file, "show_progress": show_progress, "name": f"flow, {named}"}
        posterior, found = _train(key_train, bound, sites, features, simulated, learning_rate, training)
        if found.status != "finished":
            break
    assert posterior is not None
    assert found is not None
    attrs = {
        "engine": "flow_posterior",
        "status": found.status,
        "rounds": len(simulated),
        "simulations": n_drawn,
        "failed_simulations": n_drawn - sum(len(free) for free, _ in simulated),
        "possible": possible,
        "wall_time": time.time() - started,
    }
    with timed("drawing from the flow and predicting", show_progress):
        samples, log_weight = _draw(key_draws, posterior, bound, arrays, draws)
        stats = {"log_weight": log_weight}
        result = build_result(key_result, bound, arrays, inputs, samples, preflight.prior, stats, labels, attrs)
    of_training = {
        "latent_values": posterior.shift.size,
        "validation_loss": found.best_loss,
        "unlike": _unlike(posterior, simulated[-1][1], arrays),
    }
    result["optimisation"] = xr.Dataset({"loss": ("step", found.losses)}, attrs=of_training)
    return result


def train_flow_posterior(
    key: PRNGKeyArray,
    model: Callable,
    inputs: Mapping[str, Any],
    *,
    simulations: int = 10_000,
    summary: Summary | None = None,
    steps: int = 5000,
    learning_rate: float = 1e-3,
    show_progress: bool = True,
) -> FlowPosterior:
    """The posterior given any data of the shapes of `inputs`, trained once on simulations from the prior.

    Options and errors are those of `fit_flow_posterior`, which trains for the one data set in `inputs`.
    """
    _check_options(simulations, 1, steps, learning_rate, 1)
    key_simulate, key_train = jax.random.split(key)
    bound, arrays = bind(model, inputs)
    sites = describe_sites(bound, arrays)
    features = _features_of(sites, summary)
    with timed(f"{simulations} simulations", show_progress):
        simulated = _simulate(key_simulate, bound, arrays, features, {}, simulations)
    training = {"steps": steps, "show_progress": show_progress, "name": "flow"}
    return _train(key_train, bound, sites, features, [simulated], learning_rate, training)[0]


def _too_narrow(rounds: int, possible: float) -> str:
    return (
        f"After {rounds} rounds, {possible:.2g} of the prior is left: too little to draw further simulations from. The "
        "flow is that of these rounds. More `simulations`, or the engine 'nuts', which needs no simulations."
    )


def _check_options(simulations: int, rounds: int, steps: int, learning_rate: float, draws: int) -> None:
    if simulations < _LEAST_SIMULATIONS or min(rounds, steps, draws) < 1 or not learning_rate > 0:
        raise ValueError(
            f"`simulations` must be at least {_LEAST_SIMULATIONS}, `rounds`, `steps` and `draws` at least 1 and "
            f"`learning_rate` positive; got {simulations}, {rounds}, {steps}, {draws} and {learning_rate}."
        )


def _features_of(sites: Mapping[str, Site], summary: Summary | None) -> DataFeatures:
    n_values = sum(int(np.prod(site.shape)) for site in sites.values() if site.kind == "latent")
    if n_values > _MOST_VALUES:
        raise ValueError(
            f"The model has {n_values} latent values; a flow learns at most {_MOST_VALUES} from simulations. Use the "
            "engine 'svi', or integrate paths out."
        )
    observed = [site for site in sites.values() if site.kind == "observed"]
    return DataFeatures(summary, all(site.axes[:1] == ["trial"] for site in observed))


def _simulate(
    key: PRNGKeyArray,
    bound: Callable,
    arrays: Mapping[str, Any],
    features: DataFeatures,
    values: Sites,
    n: int,
) -> tuple[Float[Array, "simulation value"], Float[Array, "simulation group feature"]]:
    """Unconstrained sites and features of `n` simulations, of sites `values` `(simulation, ...)` or from the prior;
    what is not finite is left out."""

    def simulated(key: PRNGKeyArray, values: Sites, arrays: Mapping[str, Any]) -> tuple[Array, Array]:
        latent, data = draw_joint(key, bound, arrays, values)
        return ravel_pytree(unconstrain_fn(bound, (arrays,), {}, latent))[0], features(data)

    shape = jax.eval_shape(simulated, key, jax.tree.map(lambda x: x[0], values), dict(arrays))[1].shape
    if (size := n * int(np.prod(shape)) * 4) > _MOST_BYTES:
        raise ValueError(
            f"{n} simulations of {shape[0]} x {shape[1]} values take {size / 1e9:.1f} GB. Give a `summary` of the data "
            "(rates, correlations), or fewer `simulations`."
        )
    free, found = _map_batches(simulated, jax.random.split(key, n), values, dict(arrays))
    finite = np.asarray(jnp.isfinite(free).all(1) & jnp.isfinite(found).all((1, 2)))
    said = f"{(~finite).sum()} of {n} simulations are not finite"
    if finite.mean() < 0.5:
        raise ValueError(f"{said}. Narrow the priors: the posterior of a simulator that mostly fails means little.")
    if not finite.all():
        warnings.warn(f"{said} and are left out: the posterior is that given a simulation that succeeds.", stacklevel=4)
    return free[finite], found[finite]


def _possible(
    key: PRNGKeyArray, posterior: FlowPosterior, bound: Callable, arrays: Mapping[str, Any], n: int
) -> tuple[Sites, float]:
    """At most `n` draws from the part of the prior that `posterior` deems possible given the data, and the share of the
    prior that this is."""
    key_own, key_prior = jax.random.split(key)
    density = jax.jit(lambda free, arrays: posterior.log_prob(free, arrays))
    _, own = jax.jit(lambda key, arrays: posterior.sample_free(key, arrays, _OWN_DRAWS))(key_own, dict(arrays))
    least = jnp.quantile(own, _TRUNCATED)

    def drawn(key: PRNGKeyArray, _: Sites, arrays: Mapping[str, Any]) -> tuple[Sites, Array]:
        latent = evaluate(key, bound, arrays, {}).sites
        free = unconstrain_fn(bound, (arrays,), {}, {name: latent[name] for name in posterior.names})
        return {name: latent[name] for name in posterior.names}, ravel_pytree(free)[0]

    kept, accepted, candidates = [], 0, 0
    for batch in jax.random.split(key_prior, _MOST_CANDIDATES):
        latent, free = _map_batches(drawn, jax.random.split(batch, n), {}, dict(arrays))
        at = np.flatnonzero(np.asarray(density(free, dict(arrays)) > least))
        kept.append(jax.tree.map(lambda x, at=at: np.asarray(x)[at], latent))
        accepted, candidates = accepted + len(at), candidates + n
        if accepted >= n:
            break
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:n]), *kept), accepted / candidates


def _map_batches(function: Callable, keys: Array, values: Sites, arrays: dict[str, Any]) -> Any:
    """`function(key, values, arrays)` of every key, some hundred at a time."""
    run = jax.jit(
        lambda keys, values, arrays: jax.lax.map(
            lambda case: function(case[0], case[1], arrays), (keys, values), batch_size=_BATCH
        )
    )
    return run(keys, values, arrays)


def _train(
    key: PRNGKeyArray,
    bound: Callable,
    sites: Mapping[str, Site],
    features: DataFeatures,
    collected: Sequence[tuple[Array, Array]],
    learning_rate: float,
    training: Mapping[str, Any],
) -> tuple[FlowPosterior, Minimum]:
    key_order, key_networks, key_steps = jax.random.split(key, 3)
    free, found = (jnp.concatenate(each) for each in zip(*collected, strict=True))
    low, centre, high = jnp.quantile(found.reshape(-1, found.shape[-1]), jnp.array([0.16, 0.5, 0.84]), axis=0)
    latent = {name: jnp.zeros(site.shape) for name, site in sites.items() if site.kind == "latent"}
    untrained = FlowPosterior(
        networks=untrained_networks(key_networks, free.shape[1], found.shape[-1], features.summary is not None),
        features=features,
        centre=centre,
        spread=_not_zero((high - low) / 2, found.reshape(-1, found.shape[-1]).std(0)),
        shift=free.mean(0),
        scale=_not_zero(free.std(0), 1.0),
        bound=bound,
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
        optimizer=adam_with_warmup(learning_rate, training["steps"]),
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
    precision = np.linalg.pinv(np.atleast_2d(np.cov(summaries.T)))
    distance = lambda x: np.einsum("...i,ij,...j", x, precision, x)  # noqa: E731
    return float((distance(summaries - summaries.mean(0)) > distance(own - summaries.mean(0))).mean())
