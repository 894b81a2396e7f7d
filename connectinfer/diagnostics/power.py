"""Would so many trials and neurons suffice? Recordings simulated from a fit, and what fits to them would say."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from connectinfer.data.recording import observed_kind, recording
from connectinfer.diagnostics.invariants import invariants
from connectinfer.dynamics.low_rank import LowRankRNN
from connectinfer.dynamics.observation import sample_gaussian, sample_poisson, tied_readout
from connectinfer.dynamics.simulate import simulate, simulate_bins
from connectinfer.inference.fit import fit, option_names
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.progress import progress_bar
from connectinfer.zoo import list_models, load_model, model_name

_QUANTILES = (0.05, 0.5, 0.95)
_MOST_TRIES = 20


@terminations_interrupt()
def power(
    result: xr.DataTree,
    data: xr.Dataset,
    *,
    trials: Sequence[int],
    units: Sequence[int],
    replicates: int = 5,
    quantity: Callable[[xr.DataTree], xr.DataArray] | None = None,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """How well a quantity would be known from recordings of other sizes, if the fit of a low-rank model were the truth.

    For every number of `trials` and of `units`, `replicates` times: a posterior draw becomes the truth, a recording of
    that size is simulated from it (`simulate_fitted`), and the model is fitted to it as `result` was: with its engine
    and options, changed by `options`, which are those of `connectinfer.fit` (`model`, `engine` and `show_progress`
    included). Under another engine, only the model's options are taken over. In a folder `checkpoint`, every refit
    keeps its state in a folder of its own. `quantity` takes a tree with a group `posterior` to draws
    `(chain, draw, item)`; by default the real parts of the eigenvalues of the overlap, which decide how fast activity
    decays or grows.

    Returns, with dims `n_trials`, `n_units`, `replicate` and that of the items: `width` of the 90 % interval, `error`
    of the median, and `covered`, whether the interval holds the truth. The mean of `covered` says whether the widths
    can be believed; of few replicates it is uncertain itself. Refits that diverged are NaN, and a warning tells. Ctrl-C
    returns what was finished, the rest is NaN, and the attribute `status` is "interrupted".

    Raises:
        ValueError: a result that is not of a low-rank model, an impossible size, a model or option that the result
            keeps by name only, or a refit that is refused; those that were finished before are kept by `checkpoint`
            only.
        KeyboardInterrupt: interrupted before the first refit was finished.
    """
    n_trials, n_units = (list(dict.fromkeys(sizes)) for sizes in (trials, units))
    if not (n_trials and n_units) or min([*n_trials, *n_units, replicates]) < 1:
        raise ValueError(f"Trials, units and replicates must be at least 1; got {trials}, {units} and {replicates}.")
    settings = _settings(result, options)
    designs = [_Design(t, u, r) for t in n_trials for u in n_units for r in range(replicates)]
    keys = jax.random.split(jax.random.key(seed), len(designs))
    found: dict[_Design, xr.Dataset] = {}
    show_progress = settings.pop("show_progress", True)
    with progress_bar("refits", len(designs), show_progress) as advance, suppress(KeyboardInterrupt):
        for design, key in zip(designs, keys, strict=True):
            try:
                found[design] = _refit(key, design, result, data, quantity or _eigenvalues, settings | {"seed": seed})
            except ValueError as error:
                raise ValueError(f"With {design}: {error}") from error
            advance(1, str(design))
    if not found:
        raise KeyboardInterrupt("Interrupted before the first refit was finished: nothing to keep.")
    status = "finished" if len(found) == len(designs) else "interrupted"
    wanted = {"n_trials": n_trials, "n_units": n_units, "replicate": range(replicates)}
    return _by_design(found).reindex(wanted).assign_attrs(status=status, model=model_name(settings["model"]))


def simulate_fitted(
    key: PRNGKeyArray, truth: xr.DataTree, data: xr.Dataset, *, n_trials: int, n_units: int
) -> xr.Dataset:
    """A recording of a fitted low-rank network: `truth` holds one posterior draw, `data` the recording it came from.

    Trials are drawn with replacement from those of `data`, with their inputs and lengths; each has a new path. Units
    are drawn from those of the fit, without replacement as long as there are enough: they are what is recorded, the
    dynamics are those of all. Units that would be silent are drawn again.

    Raises:
        ValueError: not a low-rank model of this recording, or units that stay silent.
    """
    posterior = truth["posterior"].to_dataset().isel(chain=0, draw=0)
    if missing := {"m", "n", "d", "gain", "bias", "initial_scale"} - set(posterior.data_vars):
        raise ValueError(f"Only fits of low-rank networks can be simulated from; this one lacks {sorted(missing)}.")
    if others := {"concentration", "calcium_decay", "baseline_scale"} & set(posterior.data_vars):
        raise ValueError(
            f"This fit has {sorted(others)}, and only Poisson counts and Gaussian signals with constant baselines are "
            "simulated here: others would vary less than yours. Fit `low_rank_rnn_poisson` or `low_rank_rnn_gaussian`."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    key_path, *key_tries = jax.random.split(key, _MOST_TRIES + 1)
    chosen = data.isel(trial=rng.integers(0, data.sizes["trial"], n_trials))
    mean = np.asarray(_new_means(key_path, posterior, truth["constant_data"].attrs, chosen))
    kind, seen = observed_kind(data), chosen["mask"].values.any(-1, keepdims=True)
    for attempt in key_tries:
        of = rng.choice(mean.shape[-1], n_units, replace=n_units > mean.shape[-1])
        expected = jnp.asarray(mean[..., of])
        noise = None if kind == "counts" else jnp.asarray(posterior["noise"].values[of])
        drawn = sample_poisson(attempt, expected) if noise is None else sample_gaussian(attempt, expected, noise)
        values = np.where(seen, np.asarray(drawn), 0.0)
        if values.any((0, 1)).all():
            return recording(
                **{kind: values.astype(int) if noise is None else values},
                time=data["time"].values,
                mask=np.broadcast_to(seen, values.shape),
                inputs=_inputs(chosen),
            )
    raise ValueError(
        f"In {_MOST_TRIES} tries, some of {n_units} units stayed silent in {n_trials} trials. Ask for more trials."
    )


class _Design(NamedTuple):
    """The size of a recording that is simulated, and which one of its kind it is."""

    n_trials: int
    n_units: int
    replicate: int

    def __str__(self) -> str:
        return f"{self.n_trials} trials, {self.n_units} units"


def _settings(result: xr.DataTree, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `fit` was given for `result`, changed by `options`."""
    model, engine = str(result.attrs["model"]), result.attrs.get("engine")
    if "model" not in options and model not in {card.name for card in list_models()}:
        raise ValueError(
            f"The result keeps the name {model!r} of its model, which is not in the zoo, and not its file. Give the "
            f"file, too: `model='{model}.py'`."
        )
    stored = json.loads(result.attrs.get("options", "{}"))
    if options.get("engine", engine) != engine:
        stored = {n: x for n, x in stored.items() if n in option_names(load_model(options.get("model", model)).inputs)}
    for name in result.attrs.get("options_by_name", "").split(","):
        if name in stored and name not in options:
            raise ValueError(
                f"The result keeps the option {name!r} of its fit only as the text {stored[name]!r}, because it was a "
                f"function or an array. Give it again: `{name}=...`."
            )
    return {"model": model, "engine": engine, **stored, **options}


def _refit(
    key: PRNGKeyArray,
    design: _Design,
    result: xr.DataTree,
    data: xr.Dataset,
    quantity: Callable[[xr.DataTree], xr.DataArray],
    settings: Mapping[str, Any],
) -> xr.Dataset:
    key_draw, key_simulate = jax.random.split(key)
    truth = _one_draw(key_draw, result)
    simulated = simulate_fitted(key_simulate, truth, data, n_trials=design.n_trials, n_units=design.n_units)
    own = dict(settings)
    if own.get("checkpoint") is not None:
        # The state of one refit is that of other work to the next.
        own["checkpoint"] = Path(own["checkpoint"]) / "{}_trials_{}_units_{}".format(*design)
    again = fit(data=simulated, show_progress=False, **own)
    # What an engine returns when interrupted is a worse fit than the others.
    if again.attrs["status"] == "interrupted":
        raise KeyboardInterrupt
    scored = _scored(quantity(again), quantity(truth))
    if again.attrs["status"] == "diverged":
        warnings.warn(f"The refit with {design} diverged and is left out.", stacklevel=4)
        return scored.where(False)
    return scored


def _by_design(found: Mapping[_Design, xr.Dataset]) -> xr.Dataset:
    index = [xr.DataArray(np.array(values), dims="design") for values in zip(*found, strict=True)]
    stacked = xr.concat(list(found.values()), "design").assign_coords(dict(zip(_Design._fields, index, strict=True)))
    return stacked.set_index(design=_Design._fields).unstack("design")


def _new_means(key: PRNGKeyArray, posterior: xr.Dataset, constants: Mapping[Any, Any], chosen: xr.Dataset) -> jax.Array:
    """Log rates, or means of signals, `(trial, time, unit)` of all units of the fit along new paths."""
    key_start, key_path = jax.random.split(key)
    network = LowRankRNN(
        jnp.asarray(posterior["m"].values),
        jnp.asarray(posterior["n"].values),
        jnp.asarray(posterior["b"].values) if "b" in posterior else None,
        jnp.asarray(posterior["d"].values),
        tau=float(constants["tau"]),
        nonlinearity=str(constants["nonlinearity"]),
    )
    inputs = jnp.asarray(chosen["inputs"].values, float) if "inputs" in chosen else None
    size = chosen.sizes["trial"], posterior.sizes["latent_dim"]
    start = float(posterior["initial_scale"]) * jax.random.normal(key_start, size)
    time = chosen["time"].values - chosen["time"].values[0]
    if "process_noise" in posterior:
        noise = float(posterior["process_noise"])
        path = simulate_bins(key_path, network, start, time.size, float(constants["alpha"]), noise, inputs)
    else:
        path = simulate(network, start, time, inputs=inputs)
    gain, bias = (jnp.asarray(posterior[name].values) for name in ("gain", "bias"))
    return tied_readout(network, path.latent, path.filtered_inputs, gain, bias)


def _inputs(chosen: xr.Dataset) -> dict[str, np.ndarray] | None:
    if "inputs" not in chosen:
        return None
    return {str(name): chosen["inputs"].values[..., i] for i, name in enumerate(chosen["input"].values)}


def _one_draw(key: PRNGKeyArray, result: xr.DataTree) -> xr.DataTree:
    posterior = result["posterior"].to_dataset()
    at = jax.random.randint(key, (), 0, posterior.sizes["chain"] * posterior.sizes["draw"])
    chain, draw = divmod(int(at), posterior.sizes["draw"])
    one = posterior.isel(chain=[chain], draw=[draw])
    return xr.DataTree.from_dict({"posterior": one, "constant_data": result["constant_data"].to_dataset()})


def _eigenvalues(tree: xr.DataTree) -> xr.DataArray:
    return invariants(tree)["eigenvalue_real"]


def _scored(draws: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    true = truth.isel(chain=0, draw=0, drop=True)
    low, middle, high = (draws.quantile(q, ("chain", "draw")).drop_vars("quantile") for q in _QUANTILES)
    covered = ((low <= true) & (true <= high)).astype(float)
    return xr.Dataset({"width": high - low, "error": middle - true, "covered": covered})
