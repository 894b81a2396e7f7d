"""A fit applied to other trials: their latent paths, how probable they are, and what they let expect."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key, PyTree

from connectinfer.data.identifiers import listing
from connectinfer.data.recording import TIME_TOLERANCE, check_recording, observed_kind
from connectinfer.inference.path_gibbs import draw_paths
from connectinfer.latent.conditionals import Arrays, Conditionals, Paths
from connectinfer.latent.path_model import observation_law
from connectinfer.latent.recording_arrays import trial_arrays
from connectinfer.latent.state_space import Seen, StateSpace, find_mode, log_marginal_at, path_posterior
from connectinfer.zoo import load_model, model_name

# Of a random walk, whose posterior has one mode; the noise of its steps leaves room for the drift.
_FIRST_STEPS, _WIDENED = 8, 3.0
_MOVES = 2


def infer_paths(
    result: xr.DataTree,
    data: xr.Dataset,
    *,
    draws: int = 100,
    seed: int = 0,
    model: str | Path | ModuleType | None = None,
) -> xr.DataTree:
    """The latent paths of other trials of the units that `result`, a fit with latent paths, was fitted to.

    `data` is a recording of the same units, with any mask: units or bins that are hidden are predicted from the others,
    what follows the last observed bin of a trial by the dynamics. About `draws` posterior draws are used, evenly chosen
    from every chain; nothing is learned from `data`. `model` is the file of a model that is not in the zoo.

    Returns groups as those of a fit: `posterior` with one draw of the paths for each draw, `latent (chain, draw, trial,
    time, latent_dim)`, in the coordinates of `result`; `log_likelihood (chain, draw, trial)`, in nats, the paths
    integrated out by Laplace's approximation, NaN where Newton's method did not find their mode; `expected (trial,
    time, unit)`, the posterior mean of every entry, hidden ones included; `observed_data`, `constant_data`.
    `sample_stats` holds `path_acceptance (chain, draw, trial)`, the chance of a proposal from that approximation (paths
    make two such Metropolis moves): where it is low the likelihood is off, where it is high it may still miss other
    modes. `newton_decrement (chain, draw, trial)` is below 0.1 where the mode was found.

    Raises:
        ValueError: a model without `CONDITIONALS`, or a fit with slow baselines; other units, inputs or bin width,
            another kind of recording, or what is none; `draws` below 1.
    """
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1; got {draws}.")
    module = load_model(model or str(result.attrs["model"]))
    slow = "baseline_scale" in result["posterior"].data_vars
    check_other_trials(module, {"baseline": "slow"} if slow else {})
    numbers = _numbers(result)
    recording = _same_units(result, data, numbers)
    arrays = trial_arrays(recording, numbers["alpha"])
    chosen = _evenly(result["posterior"].to_dataset(), draws)
    n_chains, n_draws = chosen.sizes["chain"], chosen.sizes["draw"]
    flat = {
        str(name): jnp.asarray(x.values.reshape(n_chains * n_draws, *x.shape[2:]), float)
        for name, x in chosen.transpose("chain", "draw", ...).items()
        if not {"trial", "time"} & set(x.dims)
    }
    keys = jax.random.split(jax.random.key(seed), n_chains * n_draws)
    found, expected = _infer(module.CONDITIONALS, tuple(numbers.items()), keys, flat, arrays)
    by_chain = jax.tree.map(lambda x: np.asarray(x).reshape(n_chains, n_draws, *x.shape[1:]), found)
    return _labelled(result, recording, chosen, by_chain, np.asarray(expected), draws, seed)


class _Found(NamedTuple):
    """What one draw of the parameters says of the trials."""

    latent: Paths
    log_marginal: Float[Array, " trial"]
    acceptance: Float[Array, " trial"]
    decrement: Float[Array, " trial"]


def check_other_trials(model: str | Path | ModuleType, options: Mapping[str, Any]) -> None:
    """Refuses models, and `options` of a fit, whose fits cannot be applied to other trials.

    Raises:
        ValueError: the file of the model has no `CONDITIONALS`, or baselines are slow.
    """
    if not hasattr(load_model(model), "CONDITIONALS"):
        raise ValueError(
            f"Paths of other trials need a model whose file has `CONDITIONALS`; {model_name(model)!r} has none. Hide "
            "what is to be predicted (`hold_out`), and fit."
        )
    if options.get("baseline") == "slow":
        raise ValueError(
            "Slow baselines are known of the fit's own trials alone, so it cannot be applied to others. Hide what is "
            'to be predicted (`hold_out`), and fit; or use `baseline="constant"`.'
        )


@partial(jax.jit, static_argnums=(0, 1))
def _infer(
    conditionals: Conditionals,
    numbers: tuple[tuple[str, Any], ...],
    keys: Key[Array, " draw"],
    draws: Mapping[str, Array],
    arrays: Arrays,
) -> tuple[_Found, Float[Array, "trial time unit"]]:
    """For one draw after the other what it says, and the mean of what all expect."""
    seen = Seen.of(arrays["activity"], arrays["mask"])

    def one(total: Array, given: tuple[Array, Mapping[str, Array]]) -> tuple[Array, _Found]:
        key, draw = given
        space = conditionals.space_of(draw, dict(numbers) | dict(arrays))
        found = find_mode(space, seen, _start(space, seen))
        # Away from the mode the approximation may be anything, and one large value would rule the mean over draws.
        marginal = jnp.where(found.converged, log_marginal_at(space, seen, found.posterior), jnp.nan)
        latent, acceptance = draw_paths(key, space, seen, found.posterior, _MOVES)
        mean = observation_law(space.observation, space.predictor(latent)).mean
        return total + mean, _Found(latent, marginal, acceptance, found.decrement)

    total, found = jax.lax.scan(one, jnp.zeros(seen.activity.shape), (keys, draws))
    return found, total / len(keys)


def _start(space: StateSpace, seen: Seen) -> Paths:
    """The mode of paths of a random walk with the same observations."""
    walk = eqx.tree_at(
        lambda s: (s.transition, s.noise_tril), space, (jax.tree_util.Partial(_stay), _WIDENED * space.noise_tril)
    )
    zeros = jnp.zeros((*seen.alive.shape, len(space.initial_mean))) + space.initial_mean
    return path_posterior(walk, seen, zeros, steps=_FIRST_STEPS).mode


def _stay(z: Array, v: Array) -> Array:
    del v
    return z


def _numbers(result: xr.DataTree) -> dict[str, Any]:
    """The numbers and names that the model was given, besides arrays."""
    stored = result["constant_data"].attrs
    if "alpha" not in stored or "tau" not in stored:
        raise ValueError(
            f"The result, of model {result.attrs.get('model')!r}, does not say its `alpha` and `tau`; give one that "
            "`fit` returned for a model of latent dynamics."
        )
    return {str(name): x.item() if isinstance(x, np.generic) else x for name, x in stored.items()}


def _same_units(result: xr.DataTree, recording: xr.Dataset, numbers: Mapping[str, Any]) -> xr.Dataset:
    """The recording with its units in the order of the result."""
    check_recording(recording)
    kind, fitted_kind = observed_kind(recording), str(result.attrs.get("observed_kind", observed_kind(recording)))
    if kind != fitted_kind:
        raise ValueError(f"The fit is of {fitted_kind}; got a recording of {kind}.")
    bin_width = numbers["alpha"] * numbers["tau"]
    if abs(recording.attrs["bin_width"] - bin_width) > TIME_TOLERANCE * bin_width:
        raise ValueError(
            f"The fit has bins of {bin_width:g} s, the recording bins of {recording.attrs['bin_width']:g} s. Bin it as "
            "the one that was fitted."
        )
    constant = result["constant_data"].to_dataset()
    units, fitted = recording["unit"].values, constant["unit"].values
    if set(units.tolist()) != set(fitted.tolist()):
        strange, absent = units[~np.isin(units, fitted)], fitted[~np.isin(fitted, units)]
        what = [f"{x.size} {name}: {listing(x)}" for name, x in (("unknown", strange), ("missing", absent)) if x.size]
        raise ValueError(
            f"The recording must hold the units of the fit; {', '.join(what)}. Select them with `.sel(unit=...)`; what "
            "units did that were not recorded are masked entries."
        )
    inputs, fitted_inputs = (
        data["input"].values.tolist() if "input" in data.coords else [] for data in (recording, constant)
    )
    if inputs != fitted_inputs:
        raise ValueError(f"The fit has the inputs {fitted_inputs}, the recording {inputs}. They must agree.")
    return recording.sel(unit=fitted)


def _evenly(posterior: xr.Dataset, draws: int) -> xr.Dataset:
    wanted = max(draws // posterior.sizes["chain"], 1)
    return posterior.isel(draw=np.unique(np.linspace(0, posterior.sizes["draw"] - 1, wanted).astype(int)))


def _labelled(
    result: xr.DataTree,
    recording: xr.Dataset,
    chosen: xr.Dataset,
    found: PyTree,
    expected: np.ndarray,
    draws: int,
    seed: int,
) -> xr.DataTree:
    site = str(next(iter(result["expected"].data_vars)))
    sampled, entries = ("chain", "draw", "trial"), ("trial", "time", "unit")
    plain = {str(name): recording[name].values for name in recording.dims if name in recording.coords}
    by_draw = {name: chosen[name].values for name in ("chain", "draw")}

    def group(used: tuple[str, ...], **variables: Any) -> xr.Dataset:
        return xr.Dataset(variables, {name: x for name, x in (plain | by_draw).items() if name in used})

    latent_dims = (*sampled, "time", "latent_dim")
    # What a path is seen through, such as calcium, follows it.
    latent = found.latent[..., : chosen.sizes["latent_dim"]]
    tree = xr.DataTree.from_dict(
        {
            "posterior": group(latent_dims, latent=(latent_dims, latent)).assign_coords(
                latent_dim=chosen["latent_dim"].values
            ),
            "sample_stats": group(
                sampled, path_acceptance=(sampled, found.acceptance), newton_decrement=(sampled, found.decrement)
            ),
            "log_likelihood": group(sampled, **{site: (sampled, found.log_marginal)}),
            "expected": group(entries, **{site: (entries, expected)}),
            "observed_data": group(entries, **{site: (entries, recording[observed_kind(recording)].values)}),
            "constant_data": group(entries, mask=(entries, recording["mask"].values)),
        }
    )
    kept = ("model", "options", "observed_kind", "versions", "precision", "device")
    tree.attrs = {name: result.attrs[name] for name in kept if name in result.attrs}
    tree.attrs |= {"engine": "infer_paths", "paths": json.dumps({"draws": draws, "seed": seed})}
    return tree
