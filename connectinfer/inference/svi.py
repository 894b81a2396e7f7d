"""Stochastic variational inference."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import PRNGKeyArray
from numpyro import handlers

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.inference.guides import build_guide, guide_constructor, guide_parameters
from connectinfer.inference.integrated_paths import add_paths_to_all, path_sites, without
from connectinfer.inference.preflight import check_model
from connectinfer.inference.result import Labels, build_result, check_labels
from connectinfer.inference.start import central_start, constrain
from connectinfer.inference.trace import Site, Sites, bind, describe_sites, latent_sites, map_draws
from connectinfer.latent.path_model import integrate_paths as paths_integrated
from connectinfer.optimisation.checkpoint import STATE_FILE, checkpoint_folder
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.loop import LossFunction, Minimum, minimise
from connectinfer.optimisation.progress import timed

_DRAWS_OF_MOVEMENT = 200


@terminations_interrupt()
def fit_svi(
    key: PRNGKeyArray,
    model: Callable,
    inputs: Mapping[str, Any],
    *,
    labels: Labels | None = None,
    initial: Mapping[str, Any] | None = None,
    integrate_paths: bool = False,
    guide: str | Callable = "normal",
    steps: int = 2000,
    learning_rate: float = 0.01,
    particles: int = 1,
    draws: int = 500,
    checkpoint: str | Path | None = None,
    show_progress: bool = True,
) -> xr.DataTree:
    """Posterior draws from a variational approximation fitted by gradient descent on the negative ELBO.

    Latent paths are approximated by Gauss-Markov chains, the other sites by `guide` (see
    `connectinfer.inference.guides.guide_constructor`). With `integrate_paths`, the guide is one of the parameters
    alone, under Laplace's approximation of the likelihood with the paths integrated out; the paths of every draw are
    then drawn given its parameters, by Metropolis moves whose chance `sample_stats` holds. The model's paths must come
    from `latent.path_model.sample_paths`. Adam with gradient clipping; the learning rate rises over the
    first tenth of `steps` and falls to zero as a cosine. `initial` holds start values of sites, `particles` the draws
    per gradient. `sample_stats` holds the log importance weights (log joint minus log guide) of the draws, the group
    `optimisation` the loss of every step, and how far the sites `moved` in its second half, in posterior sds.
    Ctrl-C or SIGTERM ends the descent and returns draws from the best state so far. With `checkpoint`, a folder, the
    state is saved every hundred steps: the same call goes on where the run ended, however it ended, and takes the same
    steps bit for bit.

    Raises:
        ValueError: an unknown guide, an option out of range, a checkpoint of other work, no paths to integrate out,
            labels or start values that do not fit the model, a site whose support depends on other sites, or a model
            that fails its pre-flight check.
        OSError: the checkpoint cannot be written; what was saved before is intact.
        KeyboardInterrupt: interrupted before the first steps were taken.
    """
    started = time.time()
    constructor = guide_constructor(guide)
    check_options(steps, learning_rate, particles, draws)
    labels = labels or Labels.of(model)
    key_check, key_init, key_run, key_draws, key_result, key_moved, key_paths = jax.random.split(key, 7)
    bound, arrays = bind(model, inputs)
    moved_in = paths_integrated(bound) if integrate_paths else bound
    sites = describe_sites(moved_in, arrays)
    check_labels(describe_sites(bound, arrays), labels)
    with timed("checking the model on draws from its prior", show_progress):
        preflight = check_model(key_check, bound, arrays)
    prior = {name: preflight.prior[name] for name, site in sites.items() if site.kind == "latent"}
    given = without(path_sites(bound, arrays), initial or {}) if integrate_paths else dict(initial or {})
    start = constrain(moved_in, arrays, central_start(moved_in, arrays, prior, given))
    guide_function = build_guide(constructor, sites, start)
    parameters, constrain_parameters = guide_parameters(key_init, guide_function, arrays)

    loss = negative_elbo(moved_in, guide_function, constrain_parameters, particles)
    named = guide if isinstance(guide, str) else getattr(guide, "__name__", "custom")
    fixed = {name: repr(x) for name, x in inputs.items() if name not in arrays}
    optimum = minimise(
        key_run,
        loss,
        parameters,
        arrays,
        optimizer=adam_with_warmup(learning_rate, steps),
        steps=steps,
        name="SVI",
        checkpoint=None if checkpoint is None else checkpoint_folder(checkpoint) / STATE_FILE,
        work={"model": labels.model, "inputs": fixed, "guide": named, "rate": learning_rate, "particles": particles},
        show_progress=show_progress,
    )
    if optimum.status == "interrupted" and not len(optimum.losses):
        raise KeyboardInterrupt("Interrupted before the first steps were taken: no draws to keep.")
    attrs = {
        "status": optimum.status,
        "elbo": -optimum.best_loss,
        "engine": "svi",
        "guide": named,
        "wall_time": time.time() - started,
        "path_sites": ",".join(n for n, s in sites.items() if s.law is LatentPath),
    }
    with timed("drawing from the guide and predicting", show_progress):
        values, log_weight = map_draws(
            lambda k, _, parameters, arrays: draw_from_guide(k, parameters, moved_in, guide_function, arrays),
            jax.random.split(key_draws, draws),
            {},
            constrain_parameters(optimum.parameters),
            arrays,
        )
        samples, stats = {n: v[None] for n, v in values.items()}, {"log_weight": np.asarray(log_weight)[None]}
        if integrate_paths:
            samples, more = add_paths_to_all(key_paths, bound, arrays, samples)
            stats |= more
        result = build_result(key_result, bound, arrays, inputs, samples, preflight.prior, stats, labels, attrs)
        moved = _moved(key_moved, sites, guide_function, constrain_parameters, arrays, optimum)
    found = {"loss": ("step", optimum.losses), "moved": ("site", list(moved.values()))}
    n_values = sum(int(np.prod(x.shape[1:])) for x in values.values())
    result["optimisation"] = xr.Dataset(found, {"site": list(moved)}, {"latent_values": n_values})
    return result


def _moved(
    key: PRNGKeyArray,
    sites: Mapping[str, Site],
    guide: Callable,
    constrain_parameters: Callable,
    arrays: Mapping[str, Any],
    optimum: Minimum,
) -> dict[str, float]:
    """How far the guide's means went in the second half of the run, by latent site without paths: the root mean square
    over its values, in their sds at the end."""
    latent = {name: site for name, site in sites.items() if site.kind == "latent" and np.prod(site.shape) > 0}
    names = [name for name, site in latent.items() if site.law is not LatentPath]

    def draw(key: PRNGKeyArray, parameters: Mapping[str, Any], arrays: Mapping[str, Any]) -> Sites:
        guided = handlers.seed(handlers.substitute(guide, data=constrain_parameters(parameters)), key)
        trace = handlers.trace(guided).get_trace(arrays)
        return {name: trace[name]["value"] for name in names}

    draws = jax.jit(lambda keys, parameters, arrays: jax.lax.map(lambda k: draw(k, parameters, arrays), keys))
    # The same random numbers for both, so that chance takes no part in the difference.
    keys = jax.random.split(key, _DRAWS_OF_MOVEMENT)
    before, after = (draws(keys, parameters, dict(arrays)) for parameters in (optimum.halfway, optimum.last))
    shifts = jax.tree.map(lambda a, b: (b.mean(0) - a.mean(0)) / b.std(0), before, after)
    return {name: float(jnp.sqrt((shift**2).mean())) for name, shift in shifts.items()}


def check_options(steps: int, learning_rate: float, particles: int, draws: int) -> None:
    """Raise unless a descent of this kind is possible.

    Raises:
        ValueError: an option out of range.
    """
    if min(steps, particles, draws) < 1 or not learning_rate > 0:
        raise ValueError(
            "`steps`, `particles` and `draws` must be at least 1 and `learning_rate` positive; "
            f"got {steps}, {particles}, {draws} and {learning_rate}."
        )


def adam_with_warmup(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with gradient clipping; the rate rises over the first tenth of `steps` and falls to zero as a cosine."""
    schedule = optax.warmup_cosine_decay_schedule(learning_rate / 10, learning_rate, max(steps // 10, 1), max(steps, 2))
    return optax.chain(optax.clip_by_global_norm(1e4), optax.adam(schedule))


def negative_elbo(bound: Callable, guide: Callable, constrain_parameters: Callable, particles: int) -> LossFunction:
    """The mean over `particles` draws of log guide minus log joint, of the guide's unconstrained parameters."""

    def loss(parameters: Any, key: PRNGKeyArray, arrays: Any) -> jax.Array:
        constrained = constrain_parameters(parameters)
        weights = [draw_from_guide(k, constrained, bound, guide, arrays)[1] for k in jax.random.split(key, particles)]
        return -sum(weights, jnp.zeros(())) / particles

    return loss


def draw_from_guide(
    key: PRNGKeyArray, parameters: Mapping[str, Any], bound: Callable, guide: Callable, arrays: Mapping[str, Any]
) -> tuple[Sites, jax.Array]:
    """One draw of the latent sites from the guide, and its log importance weight (log joint minus log guide)."""
    key_guide, key_model = jax.random.split(key)
    guided = handlers.seed(handlers.substitute(guide, data=dict(parameters)), key_guide)
    guide_trace = handlers.trace(guided).get_trace(arrays)
    replayed = handlers.replay(handlers.seed(bound, key_model), guide_trace)
    model_trace = handlers.trace(replayed).get_trace(arrays)
    values = {name: site["value"] for name, site in latent_sites(model_trace).items()}
    return values, _log_density(model_trace) - _log_density(guide_trace)


def _log_density(trace: Mapping[str, Any]) -> jax.Array:
    terms = []
    for site in trace.values():
        if site["type"] == "sample":
            # What a flow computed while it drew: some flows cannot be inverted.
            known = [site["intermediates"]] if site.get("intermediates") else []
            terms.append(jnp.sum(site["fn"].log_prob(site["value"], *known)))
    return sum(terms, jnp.zeros(()))
