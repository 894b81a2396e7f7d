"""The one-line door: a model, a recording, a posterior."""

import difflib
import inspect
import json
import types
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from connectinfer.data.limits import Limit, recording_limits
from connectinfer.data.objects import as_recording
from connectinfer.data.recording import observed_kind, silent_units
from connectinfer.inference.flow_posterior import fit_flow_posterior
from connectinfer.inference.nuts import NUTS_OPTIONS, sample_nuts
from connectinfer.inference.result import Labels
from connectinfer.inference.state_space import fit_state_space
from connectinfer.inference.svi import fit_svi
from connectinfer.optimisation.progress import announce
from connectinfer.zoo import load_model, model_name

ENGINES: dict[str, Callable[..., xr.DataTree]] = {
    "state_space": fit_state_space,
    "nuts": sample_nuts,
    "svi": fit_svi,
    "flow_posterior": fit_flow_posterior,
}

_PASSED_BY_FIT = {"key", "model", "inputs", "labels", "initial", "conditionals"}


def fit(
    model: str | Path | types.ModuleType,
    data: Any,
    *,
    engine: str | None = None,
    seed: int = 0,
    **options: Any,
) -> xr.DataTree:
    """Fits a model of the zoo to data and returns the labelled posterior.

    `model` is a name of the zoo (`connectinfer.list_models()`), the path of a model file, or a module; `data` a
    recording, or what `connectinfer.as_recording` takes. `engine` is `"state_space"`, `"nuts"`, `"svi"`
    or `"flow_posterior"`; by default the model's card decides. Options that the model's `inputs` names (such as
    `rank=2`) go there, those that the engine names (`steps=`, `draws=`, ...) go there. The same seed, data and versions
    give the same result.

    Raises:
        ValueError: an unknown model, engine or option (the nearest name is proposed), data the model cannot take, or a
            model that fails its pre-flight check.
    """
    module = load_model(model)
    name, for_inputs, for_engine = assigned(module, engine, options)
    recording = as_recording(data)
    limits = recording_limits(recording)
    if options.get("show_progress", True):
        for limit in limits.values():
            announce(limit.said)
    inputs, coords = module.inputs(recording, **for_inputs)
    labels = Labels(model_name(module), module.DIMS, coords)
    brought = _brought(module, name, inputs)
    result = ENGINES[name](jax.random.key(seed), module.model, inputs, labels=labels, **brought, **for_engine)
    result.attrs |= {"seed": seed} | _origin(recording, options) | _limits(limits)
    result = _with_silent_units_marked(result, recording)
    # Whoever fits in a loop would go on with the next data set.
    if result.attrs.get("status") == "interrupted" and options.get("show_progress", True):
        announce("The fit was interrupted: its result is what there was by then.")
    return result


def _limits(limits: Mapping[str, Limit]) -> dict[str, str]:
    return {"limits": json.dumps({concern: limit._asdict() for concern, limit in limits.items()})} if limits else {}


def _with_silent_units_marked(result: xr.DataTree, recording: xr.Dataset) -> xr.DataTree:
    silent = silent_units(recording)
    if not silent.any():
        return result

    def marked(group: xr.Dataset) -> xr.Dataset:
        of_units = group.sizes.get("unit") == len(silent)
        return group.assign_coords(silent=("unit", silent)) if of_units else group

    groups = {str(name): marked(group.to_dataset()) for name, group in result.children.items()}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = result.attrs
    return tree


def assigned(
    module: types.ModuleType, engine: str | None, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The engine that fits a model, what of `options` the model's `inputs` take, and what the engine takes.

    Raises:
        ValueError: an unknown engine or option; the nearest name is proposed.
    """
    name = engine or module.CARD["engine"]
    if name not in ENGINES:
        raise ValueError(f"Unknown engine {name!r}.{nearest(name, ENGINES)} Engines: {', '.join(ENGINES)}.")
    taken = option_names(ENGINES[name]) - _PASSED_BY_FIT | (NUTS_OPTIONS if name == "nuts" else set())
    return name, *split_options(module, name, taken, options)


def _brought(module: types.ModuleType, engine: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a model file brings for an engine besides the model."""
    wanted = option_names(ENGINES[engine])
    if "conditionals" in wanted:
        check_conditionals(module)
        return {"conditionals": module.CONDITIONALS}
    return {"initial": module.initial(**inputs)} if hasattr(module, "initial") and "initial" in wanted else {}


def check_conditionals(module: types.ModuleType) -> None:
    """Raise unless Gibbs sampling knows how to move the model's parameters.

    Raises:
        ValueError: the model file has no `CONDITIONALS`.
    """
    if not hasattr(module, "CONDITIONALS"):
        raise ValueError(
            f"The engine 'state_space' is for models with latent paths: {module.__name__!r} has no `CONDITIONALS`. Use "
            "'nuts' or 'svi'."
        )


def _origin(recording: xr.Dataset, options: Mapping[str, Any]) -> dict[str, str]:
    """What was fitted and how, as attributes of the result; what does not change the numbers is left out."""
    given = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in options.items()
        if name not in ("checkpoint", "show_progress")
    }
    known = {name: str(recording.attrs[name]) for name in ("source", "read", "left_out") if name in recording.attrs}
    named = {name: getattr(value, "__name__", str(value)) for name, value in given.items() if not _is_plain(value)}
    by_name = {"options_by_name": ",".join(named)} if named else {}
    shown = {"options": json.dumps(given | named), "observed_kind": observed_kind(recording)}
    return shown | by_name | known


def _is_plain(value: Any) -> bool:
    """Whether JSON keeps the value itself: of functions and arrays only the name or the text is kept."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def split_options(
    module: types.ModuleType, engine: str, engine_names: Set[str], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`options` for the model's `inputs`, and those for an engine that takes `engine_names`.

    Raises:
        ValueError: neither takes an option; the nearest name is proposed.
    """
    model_names = option_names(module.inputs) - {"data"}
    known = sorted(model_names | engine_names)
    for option in options:
        if option not in known:
            raise ValueError(
                f"Unknown option {option!r} for {module.__name__!r} with engine {engine!r}."
                f"{nearest(option, known)} Options: {', '.join(known)}."
            )
    for_model = {name: value for name, value in options.items() if name in model_names}
    return for_model, {name: value for name, value in options.items() if name not in model_names}


def option_names(function: Callable) -> set[str]:
    """Parameters that can be given by name."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name for name, p in inspect.signature(function).parameters.items() if p.kind in kinds}


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that proposes the known name most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
