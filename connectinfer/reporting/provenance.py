"""The section of provenance: where everything came from, and how to do it again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from connectinfer.reporting.page import Code, Section, Table, Text
from connectinfer.zoo import list_models

_KNOWN = {
    "model": "model",
    "engine": "engine",
    "status": "status of the run",
    "seed": "seed",
    "options": "options",
    "options_by_name": "options kept by name only",
    "precision": "precision",
    "device": "device",
    "wall_time": "wall time of the engine (s)",
    "source": "file of the recording",
    "read": "read from it",
    "left_out": "left out of it",
    "guide": "guide",
    "elbo": "best ELBO",
    "rounds": "rounds of simulations",
    "simulations": "simulations",
    "failed_simulations": "simulations left out, having failed",
    "possible": "share of the prior that the last round drew from",
    "warmup": "warm-up draws per chain",
    "chain_method": "chains ran",
    "max_tree_depth": "largest tree depth",
}
_ELSEWHERE = {"versions", "path_sites", "observed_kind"}


def provenance_section(result: xr.DataTree) -> Section:
    """Attributes of the result, versions, and lines of Python that repeat the fit."""
    attrs = {str(name): value for name, value in result.attrs.items()}
    known = [(label, _shown(name, attrs[name])) for name, label in _KNOWN.items() if name in attrs]
    others = [(name, _shown(name, attrs[name])) for name in attrs if name not in {*_KNOWN, *_ELSEWHERE}]
    constants = result["constant_data"].attrs if "constant_data" in result.children else {}
    inputs = ", ".join(f"{name} = {_plain(value)}" for name, value in constants.items())
    rows = [*known, *([("inputs of the model", inputs)] if inputs else []), *others]
    rows.append(("versions", _versions(attrs.get("versions"))))
    absent = [label for name, label in _KNOWN.items() if name in ("seed", "options", "source") and name not in attrs]
    said = [Text(f"The result does not say: {', '.join(absent)}.")] if absent else []
    return Section(
        "provenance",
        "Provenance",
        (
            Table("How this result was made.", "ll", ("what", "value"), tuple(rows)),
            *said,
            Text(
                "To do it again. With the same versions, precision and device the numbers are the same, provided that "
                "the recording is: what was read of the file and what was cut from it is not repeated here."
            ),
            Code(_recipe(attrs)),
        ),
    )


def model_title(name: str) -> str:
    """The title of a model of the zoo; the name of any other."""
    titles = {card.name: card.title for card in list_models()}
    return titles.get(name, name)


def mapping_in(text: Any) -> dict[str, Any]:
    """The mapping that an attribute holds as JSON; empty if it holds none."""
    try:
        found = json.loads(str(text))
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _shown(name: str, value: Any) -> str:
    if name == "options":
        return ", ".join(f"{key} = {option!r}" for key, option in mapping_in(value).items()) or "none given"
    if name in ("wall_time", "elbo"):
        return f"{float(value):,.1f}"
    return str(value) or "nothing"


def _plain(value: Any) -> str:
    return f"{float(value):.6g}" if isinstance(value, float) else str(value)


def _versions(text: Any) -> str:
    return ", ".join(f"{name} {version}" for name, version in mapping_in(text or "{}").items()) or "not recorded"


def _recipe(attrs: dict[str, Any]) -> str:
    name = str(attrs.get("model", "model"))
    in_zoo = name in {card.name for card in list_models()}
    options = {"engine": str(attrs.get("engine", "")) or None}
    options |= {"seed": int(attrs["seed"])} if isinstance(attrs.get("seed"), int | np.integer) else {}
    options |= mapping_in(attrs.get("options", "{}"))
    given = "".join(f", {key}={value!r}" for key, value in options.items() if value is not None)
    source = repr(Path(str(attrs["source"])).name) if attrs.get("source") else "..."
    rest = "" if "options" in attrs else ", ..."
    return "\n".join(
        [
            "import connectinfer as ci",
            "",
            f"recording = ci.open_recording({source}, ...)  # fields and values as it was read",
            f"result = ci.fit({name if in_zoo else name + '.py'!r}, recording{given}{rest})",
            'ci.report(result, "report.html")',
        ]
    )
