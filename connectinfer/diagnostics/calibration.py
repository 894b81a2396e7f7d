"""Simulation-based calibration: is the posterior of an engine what the model says it is?

Parameters drawn from the prior, data simulated from them, and the posterior given these data: the rank of the true
value among the posterior's draws is uniform, whatever the model, if the engine is right. The engines here are the cores
of those that fit (`connectinfer.inference.replicates`), vmapped over data sets: guide, loss and descent of `svi`, flow
and training of `flow_posterior`. `nuts` is NumPyro's NUTS with a dense mass matrix, in one chain and in the model's own
coordinates; `sample_nuts` runs several chains in coordinates that the Laplace approximation whitens. What is judged is
that the model and this kernel fit together, not the whitening.

Source: Talts et al., arXiv:1804.06788 (ranks); Säilynoja, Bürkner & Vehtari, Statistics and Computing 32, 32 (2022)
(simultaneous bands of the empirical distribution); Modrák et al., Bayesian Analysis 20, 461 (2025) (the log likelihood
as a quantity that notices what parameters do not).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from scipy.stats import binom

from connectinfer.data.objects import as_recording
from connectinfer.data.recording import observed_kind
from connectinfer.diagnostics.coverage import Coverage, pooled_coverage
from connectinfer.diagnostics.verdict import FAIL, NOT_CERTIFIED, PASS, Diagnosis, Verdict
from connectinfer.inference.fit import check_conditionals, nearest, option_names, split_options
from connectinfer.inference.flow_posterior import train_flow_posterior
from connectinfer.inference.preflight import FAILED_SOLVES
from connectinfer.inference.replicates import (
    Posterior,
    Replicates,
    check_draws,
    fit_replicates,
    flow_posterior,
    gibbs_posterior,
    nuts_posterior,
    simulate_replicates,
    svi_posterior,
)
from connectinfer.inference.result import LATENT_AXES
from connectinfer.inference.start import central_start, constrain
from connectinfer.inference.trace import Site, Sites, bind, describe_sites, evaluate
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.zoo import load_model, model_name

ENGINES: dict[str, tuple[Callable[..., Any], ...]] = {
    "nuts": (nuts_posterior,),
    "svi": (svi_posterior,),
    "state_space": (gibbs_posterior,),
    "flow_posterior": (train_flow_posterior, flow_posterior),
}
"""The functions whose options an engine takes."""

_NO_OPTIONS = {"key", "model", "inputs", "bound", "arrays", "trained", "conditionals", "fixed", "show_progress"}

# Of a path or a matrix, so many entries say whether it is calibrated.
_MOST_ENTRIES = 6
_JOINT_LEVEL = 0.99
_BAND_SIMULATIONS = 20_000
# Bands of fewer ranks hold even those of posteriors that are far too narrow.
_LEAST_DATA_SETS = 100


@terminations_interrupt()
def calibrate(
    model: str | Path | ModuleType,
    data: Any,
    *,
    engine: str | None = None,
    seed: int = 0,
    data_sets: int = 500,
    batch: int = 50,
    show_progress: bool = True,
    **options: Any,
) -> xr.DataTree:
    """Fits `data_sets` data sets drawn from a model's prior, of the size of `data`, and ranks the truth in each.

    `model`, `data`, `engine` and `options` are as in `connectinfer.fit`; options of the engine are those of
    `connectinfer.inference.replicates`. Of `data` only sizes, mask and inputs matter. `batch` fits run as one program:
    more are faster as long as memory and cores allow. Fits start at the model's start values, or at draws from the
    prior; the flow of `flow_posterior` is trained once for all data sets. Inputs that a model file names in `GAUGE` fix
    coordinates only: `nuts` and `svi` get them anew from every data set. Sites with a latent axis are ranked by size,
    which no gauge changes.

    The group `prior_sbc` holds the share of posterior draws below the truth, between 0 and 1, with dims `chain` (one)
    and `draw` (the data set), for up to six values of every site and for the log likelihood; `arviz.plot_ecdf_pit`
    draws it and `judge_calibration` judges it. Fits with draws that are NaN are NaN there, too, and counted in the
    attribute `failed_fits`. Ctrl-C returns the data sets whose fits were finished, which are as good as any others of
    their number, with status "interrupted".

    Raises:
        ValueError: an unknown model, engine or option, an option or size out of range, or a model whose data are not
            one of its inputs.
        KeyboardInterrupt: interrupted before the first batch of fits was finished.
    """
    started = time.time()
    if min(data_sets, batch) < 1:
        raise ValueError(f"`data_sets` and `batch` must be at least 1; got {data_sets} and {batch}.")
    module = load_model(model)
    name, for_inputs, for_engine = _chosen_engine(module, engine, options)
    recording = as_recording(data)
    inputs, _ = module.inputs(recording, **for_inputs)
    bound, arrays = bind(module.model, inputs)
    sites = describe_sites(bound, arrays)
    key_data, key_start, key_fit, key_train = jax.random.split(jax.random.key(seed), 4)
    posterior = _posterior(key_train, name, module, inputs, for_engine, show_progress)
    # A flow is trained in one set of coordinates.
    prepare = dict if name == "flow_posterior" else partial(_prepared, module, recording, for_inputs)
    replicates = simulate_replicates(key_data, bound, arrays, data_sets, prepare)
    starts = (_begun if name == "state_space" else _starts)(key_start, module, inputs, replicates)
    summary = _summary(bound, sites, module.DIMS)
    draws, stats = fit_replicates(
        key_fit,
        posterior,
        summary,
        arrays,
        replicates,
        starts,
        batch=min(batch, data_sets),
        show_progress=show_progress,
    )
    below = _shares_below(draws, _truth(summary, arrays, replicates), np.random.default_rng(seed))
    tree = xr.DataTree.from_dict({"prior_sbc": _pit_dataset(below)})
    n_fitted, failed = len(below["log_likelihood"]), np.any([np.isnan(x).any(-1) for x in below.values()], axis=0)
    tree.attrs = {
        "model": model_name(module),
        "engine": name,
        "seed": seed,
        "status": "finished" if n_fitted == data_sets else "interrupted",
        "failed_fits": int(failed.sum()),
        "wall_time": time.time() - started,
    } | {f"share_{n}": float(x.mean()) for n, x in stats.items() if x.dtype == bool}
    return tree


def judge_calibration(calibration: xr.DataTree) -> Diagnosis:
    """One verdict per site on what `calibrate` found.

    All empirical distributions lie inside their bands in 99 of 100 calibrations of an exact engine: the level of each
    is raised with their number. Ranks of fewer than 100 data sets can fail but not pass: their bands are so wide that
    they prove nothing.
    """
    pit = calibration["prior_sbc"].to_dataset().isel(chain=0)
    n_all = sum(int(np.prod(x.shape[1:])) for x in pit.data_vars.values())
    found = [_fits(int(calibration.attrs["failed_fits"]), pit.sizes["draw"], calibration.attrs.get("status"))]
    for name, values in pit.data_vars.items():
        columns = values.values.reshape(pit.sizes["draw"], -1)
        found.append(_uniformity(f"calibration of {name}", columns[np.isfinite(columns).all(1)], n_all))
    return Diagnosis(tuple(found))


def calibration_coverage(calibration: xr.DataTree, level: float) -> Coverage:
    """Coverage of the central intervals of all ranked values but the log likelihood, clustered by data set."""
    pit = calibration["prior_sbc"].to_dataset().isel(chain=0).drop_vars("log_likelihood")
    columns = np.concatenate([x.values.reshape(pit.sizes["draw"], -1) for x in pit.data_vars.values()], axis=1)
    columns = columns[np.isfinite(columns).all(1)]
    return pooled_coverage(np.abs(2 * columns - 1) < level, level)


@cache
def ecdf_band(n: int, level: float) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Lower and upper limit, at 1/n, 2/n, ..., (n-1)/n, between which the whole empirical distribution of `n` uniform
    values lies with probability `level`: binomial limits of one probability at all points, found from 20,000 samples.
    """
    points, rng = np.arange(1, n) / n, np.random.default_rng(0)
    below = binom.cdf(np.arange(-1, n + 1)[:, None], n, points)
    rarest = []
    for _ in range(_BAND_SIMULATIONS // 1000):
        bins = rng.integers(0, n, (1000, n)) + n * np.arange(1000)[:, None]
        counts = np.bincount(bins.ravel(), minlength=1000 * n).reshape(1000, n).cumsum(1)[:, :-1]
        at = np.arange(n - 1)
        rarest.append(np.minimum(below[counts + 1, at], 1 - below[counts, at]).min(1))
    tail = np.quantile(np.concatenate(rarest), 1 - level, method="lower")
    return binom.ppf(tail, n, points) / n, binom.ppf(1 - tail, n, points) / n


def _chosen_engine(
    module: ModuleType, engine: str | None, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The name of the engine, and the options of the model's `inputs` and of the engine."""
    name = engine or module.CARD["engine"]
    if name not in ENGINES:
        raise ValueError(f"Unknown engine {name!r}.{nearest(name, ENGINES)} Engines: {', '.join(ENGINES)}.")
    taken = set[str]().union(*map(option_names, ENGINES[name])) - _NO_OPTIONS
    return name, *split_options(module, name, taken, options)


def _posterior(
    key: PRNGKeyArray,
    engine: str,
    module: ModuleType,
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    show_progress: bool,
) -> Posterior:
    bound, arrays = bind(module.model, inputs)
    if engine == "state_space":
        check_conditionals(module)
        return gibbs_posterior(module.CONDITIONALS, {n: x for n, x in inputs.items() if n not in arrays}, **options)
    if engine == "nuts":
        return nuts_posterior(bound, **options)
    if engine == "svi":
        return svi_posterior(bound, arrays, **options)
    draws = {name: value for name, value in options.items() if name in option_names(flow_posterior)}
    training = {name: value for name, value in options.items() if name not in draws}
    # Before the training, which takes minutes.
    check_draws(draws.get("draws", 1))
    trained = train_flow_posterior(key, module.model, inputs, show_progress=show_progress, **training)
    return flow_posterior(trained, **draws)


def _prepared(
    module: ModuleType, recording: xr.Dataset, options: Mapping[str, Any], held: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The inputs that hold simulated data, and those that fix coordinates as the data suggest."""
    gauge = getattr(module, "GAUGE", ())
    if not gauge:
        return held
    kind = observed_kind(recording)
    (values,) = held.values()
    simulated = recording.assign({kind: (recording[kind].dims, values.astype(recording[kind].dtype))})
    inputs, _ = module.inputs(simulated, **options)
    return held | {name: np.asarray(inputs[name]) for name in gauge}


def _begun(key: PRNGKeyArray, module: ModuleType, inputs: Mapping[str, Any], replicates: Replicates) -> PyTree:
    """Parameters and paths where Gibbs sampling begins, of every data set."""
    del key
    n = len(next(iter(replicates.arrays.values())))
    own = [{**inputs, **{name: x[i] for name, x in replicates.arrays.items()}} for i in range(n)]
    return jax.tree.map(lambda *each: jnp.stack(each), *[module.CONDITIONALS.begin(case) for case in own])


def _starts(key: PRNGKeyArray, module: ModuleType, inputs: Mapping[str, Any], replicates: Replicates) -> Sites:
    """Draws from the prior for every data set or, where the model has start values, these; the prior's centre for sites
    that it does not name."""
    bound, arrays = bind(module.model, inputs)
    n = len(next(iter(replicates.arrays.values())))
    # Draws that have nothing to do with the data: what is known before them.
    apart = simulate_replicates(key, bound, arrays, n).truth
    if not hasattr(module, "initial"):
        return apart
    centre = constrain(bound, arrays, central_start(bound, arrays, apart, {}))
    own = [{**inputs, **{name: x[i] for name, x in replicates.arrays.items()}} for i in range(n)]
    each = [{**centre, **module.initial(**case)} for case in own]
    return {name: jnp.stack([jnp.asarray(start[name], float) for start in each]) for name in centre}


def _truth(
    summary: Callable[[Mapping[str, Any], Sites], dict[str, Array]], arrays: Mapping[str, Any], replicates: Replicates
) -> dict[str, Array]:
    """`summary` of the sites that every data set was drawn from, `(data_set, value)`."""

    def of_all(cases: tuple[Mapping[str, Any], Sites], arrays: Mapping[str, Any]) -> dict[str, Array]:
        return jax.lax.map(lambda case: summary({**arrays, **case[0]}, case[1]), cases)

    return jax.jit(of_all)((replicates.data, replicates.truth), dict(arrays))


def _summary(
    bound: Callable, sites: Mapping[str, Site], dims: Mapping[str, Any]
) -> Callable[[Mapping[str, Any], Sites], dict[str, Array]]:
    """What is ranked: evenly chosen values of the sites that a result shows, and the log likelihood."""
    shown = [
        name
        for name, site in sites.items()
        if site.kind in ("latent", "deterministic")
        and dims.get(name, []) is not None
        and name != FAILED_SOLVES
        and np.prod(site.shape) > 0
    ]

    def summary(arrays: Mapping[str, Any], draw: Sites) -> dict[str, Array]:
        found = evaluate(jax.random.key(0), bound, arrays, draw)
        ranked = {name: _evenly(_without_gauge(found.sites[name], dims.get(name, []))) for name in shown}
        total = sum((x.sum() for x in found.log_likelihood.values()), jnp.zeros(()))
        return ranked | {"log_likelihood": total[None]}

    return summary


def _without_gauge(values: Array, dims: Sequence[str]) -> Array:
    """The size of vectors of latent space, and the trace of a map of it: what no rotation changes."""
    latent = [dim in LATENT_AXES for dim in dims]
    if not any(latent):
        return values
    axes = tuple(range(values.ndim - len(dims), values.ndim))
    turned = [axis for axis, is_latent in zip(axes, latent, strict=True) if is_latent]
    return (
        jnp.trace(values, axis1=turned[0], axis2=turned[1])
        if len(turned) == 2
        else jnp.linalg.norm(values, axis=turned[0])
    )


def _evenly(values: Array) -> Array:
    flat = values.reshape(-1)
    return flat[np.unique(np.linspace(0, flat.size - 1, _MOST_ENTRIES).astype(int))]


def _shares_below(
    draws: Mapping[str, np.ndarray], truth: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Where the truth falls among the draws `(data_set, draw, value)`: uniform if it is one more of them.

    A share of ranks, spread evenly within each, so that few draws make no steps. NaN where a draw is NaN; infinite
    values, as the log likelihood of a draw that the data rule out, have their rank like any other.
    """
    shares = {}
    for name, drawn in draws.items():
        # Interrupted, fits are those of the first data sets.
        true = np.asarray(truth[name])[: len(drawn), None]
        below, ties = (drawn < true).sum(1), (drawn == true).sum(1)
        rank = below + rng.integers(0, ties + 1)
        share = (rank + rng.uniform(size=rank.shape)) / (drawn.shape[1] + 1)
        shares[name] = np.where(np.isnan(drawn).any(1), np.nan, share)
    return shares


def _pit_dataset(shares: Mapping[str, np.ndarray]) -> xr.Dataset:
    single = {name: (("chain", "draw"), x.T) for name, x in shares.items() if x.shape[1] == 1}
    several = {name: (("chain", "draw", f"{name}_value"), x[None]) for name, x in shares.items() if x.shape[1] > 1}
    dataset = xr.Dataset({name: (single | several)[name] for name in sorted(shares, key="log_likelihood".__eq__)})
    return dataset.assign_coords({str(name): np.arange(size) for name, size in dataset.sizes.items()})


def _fits(failed: int, data_sets: int, status: str | None) -> Verdict:
    threshold = "none that failed"
    ended = " The run was interrupted there." if status == "interrupted" else ""
    if not failed:
        return Verdict("fits", PASS, 0.0, threshold, f"All {data_sets} fits gave draws.{ended}")
    if data_sets - failed < 2:
        few = "No fit" if failed == data_sets else f"Only one of {data_sets} fits"
        said = f"{few} gave draws that are numbers: there are no ranks to judge. Narrow the priors."
        return Verdict("fits", FAIL, float(failed), threshold, said + ended)
    said = (
        f"{failed} of {data_sets} fits gave draws that are NaN and are left out of the ranks: what is said here "
        "holds for the other data sets. Narrow the priors."
    )
    return Verdict("fits", NOT_CERTIFIED, float(failed), threshold, said + ended)


def _uniformity(concern: str, columns: np.ndarray, n_all: int) -> Verdict:
    """What the ranks `(data_set, value)`, some of `n_all` values, say of a site."""
    n, asked = len(columns), f"at least {_LEAST_DATA_SETS} data sets"
    too_few = Verdict(concern, NOT_CERTIFIED, float(n), asked, "Too few data sets to tell; use 500.")
    if n < 2:
        return too_few
    lower, upper = ecdf_band(n, 1 - (1 - _JOINT_LEVEL) / n_all)
    excess = [_excess(column, lower, upper) for column in columns.T]
    worst = int(np.argmax(excess))
    threshold = f"0: inside the band ({_JOINT_LEVEL:.0%} for all {n_all} values)"
    if excess[worst] > 0:
        return Verdict(concern, FAIL, excess[worst], threshold, _shape(columns[:, worst]))
    return too_few if n < _LEAST_DATA_SETS else Verdict(concern, PASS, excess[worst], threshold, "Ranks are uniform.")


def _excess(column: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """How far the empirical distribution leaves its band; 0 or less inside."""
    points = np.arange(1, len(column)) / len(column)
    distribution = np.searchsorted(np.sort(column), points, side="right") / len(column)
    return float(np.max(np.maximum(lower - distribution, distribution - upper)))


def _shape(column: np.ndarray) -> str:
    """What non-uniform ranks say of the posterior."""
    shift, spread = column.mean() - 0.5, column.var() * 12
    found = []
    if abs(shift) > 3 / np.sqrt(12 * len(column)):
        found.append("draws are too small" if shift > 0 else "draws are too large")
    # A uniform value's squared deviation from the middle has variance 1/180, and mean 1/12.
    if abs(spread - 1) > 3 * np.sqrt(0.8 / len(column)):
        found.append("intervals are too narrow" if spread > 1 else "intervals are too wide")
    return f"These are not draws from the posterior of the model: {' and '.join(found) or 'their shape is another'}."
