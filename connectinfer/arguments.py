"""What the words of a command mean: KEY=VALUE pairs, and where output may go."""

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def key_values(name: str, texts: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE words of the option `name` as a dict.

    Raises:
        ValueError: a word without key or value, or a key given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ValueError(f"{name} takes key=value; got {text!r}.")
        if key in pairs:
            raise ValueError(f"{key!r} is given twice, as {pairs[key]!r} and as {value!r}; keep one.")
        pairs[key] = value
    return pairs


def literals(pairs: dict[str, str]) -> dict[str, Any]:
    """Numbers, True, False, None and literal lists as Python reads them; anything else stays text."""
    found: dict[str, Any] = {}
    for key, text in pairs.items():
        try:
            found[key] = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
        except (ValueError, SyntaxError):
            found[key] = text
    return found


def literal_lists(pairs: dict[str, str]) -> dict[str, list[Any]]:
    """Comma-separated values, each as `literals` reads it."""
    return {key: [literals({key: part})[key] for part in text.split(",")] for key, text in pairs.items()}


def whole_numbers(name: str, text: str) -> list[int]:
    """Whole numbers with commas between them, of the option `name`.

    Raises:
        ValueError: something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} takes whole numbers with commas between them, as in 1,2,3; got {text!r}.") from None


def check_netcdf_output(output: Path, force: bool) -> None:
    """Raise unless `output` is the name of a netCDF file that may be written.

    Raises:
        ValueError: another suffix.
        OSError: as `check_output`.
    """
    if output.suffix != ".nc":
        raise ValueError(f"The output is a netCDF file; its name must end in .nc, got {str(output)!r}.")
    check_output(output, force)


def check_output(output: Path, force: bool) -> None:
    """Raise unless `output` lies in a folder that exists, and is free or may be overwritten.

    Raises:
        FileNotFoundError: no such folder.
        FileExistsError: something of that name, without `force`.
    """
    if not output.parent.is_dir():
        raise FileNotFoundError(f"The folder {output.parent} of the output does not exist; create it first.")
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists; name another file, or give --force to overwrite it.")


def is_begun_by(output: Path, file: Path, model: str, seed: int, options: Mapping[str, Any]) -> bool:
    """Whether `output` is what an interrupted fit of this model to this file left, with this seed and these options."""
    if not output.is_file():
        return False
    import xarray as xr

    wanted = {"status": "interrupted", "source": file.name, "model": Path(model).stem, "seed": seed}
    wanted |= {"options": json.dumps(dict(options))}
    try:
        with xr.open_datatree(output, engine="h5netcdf") as written:
            return all(written.attrs.get(name) == value for name, value in wanted.items())
    except (OSError, ValueError):
        return False
