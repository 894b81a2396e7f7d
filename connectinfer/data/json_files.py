"""JSON, gzipped or not: its objects as nested names, its lists of objects as records or tables."""

import json
import zlib
from pathlib import Path
from typing import Any

from connectinfer._typing import FilePath
from connectinfer.data.columns import as_column, column_names
from connectinfer.data.compressed import open_bytes
from connectinfer.data.field_tree import DEEPEST
from connectinfer.data.naming import naming


def read_json(path: FilePath) -> dict[str, Any]:
    """The fields of a JSON file by name.

    An object becomes a dict, a list of objects inside it a list of dicts, a list of numbers, truth values or text an
    array. A file that is a list of objects is a table: one column per name, with "" or NaN where an object lacks it,
    and a list where its values are lists. Any other list is one field, called by the file's stem.

    Raises:
        ValueError: if the file is damaged, not JSON, or nested deeper than `DEEPEST`.
    """
    return json_fields(path, parse_json(path))


def json_fields(path: FilePath, parsed: Any) -> dict[str, Any]:
    """The fields as `read_json` gives them, of a file that `parse_json` has read.

    Raises:
        ValueError: for columns that cannot be; the file is named.
    """
    file = Path(path)
    with naming(file):
        if isinstance(parsed, dict):
            return _branch(parsed)
        if _is_records(parsed):
            return _columns(parsed)
        return {file.name.split(".")[0]: _branch(parsed)}


def parse_json(path: FilePath) -> Any:
    """What the file holds, in Python's own types.

    Raises:
        ValueError: as `read_json`.
    """
    file = Path(path)
    try:
        with open_bytes(file) as stream:
            parsed = json.load(stream)
    except RecursionError as error:
        raise ValueError(f"{file.name} nests lists and objects too deeply to be data.") from error
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file.name} cannot be read as JSON ({type(error).__name__}: {error}). It is damaged or of another format."
        ) from error
    if _depth(parsed) > DEEPEST:
        raise ValueError(f"{file.name} nests lists and objects more than {DEEPEST} deep, too deeply to be data.")
    return parsed


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _depth(value: Any) -> int:
    """How deeply lists and objects nest, counted level by level and at most one beyond `DEEPEST`."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        depth += 1
        inside = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [each for group in inside for each in group if isinstance(each, dict | list)]
    return depth


def _branch(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {each: _branch(inside, each) for each, inside in value.items()}
    if not isinstance(value, list):
        return value
    if _is_records(value):
        return [_branch(each) for each in value]
    column = as_column(value, name) if value else None
    if column is not None:
        return column
    inside = [_branch(each) for each in value]
    # A list that begins with an object would pass for a list of records.
    return tuple(inside) if inside and isinstance(inside[0], dict) else inside


def _columns(records: list[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in column_names(records, "objects"):
        values = [record.get(name) for record in records]
        column = as_column(values, name)
        columns[name] = _branch(values) if column is None else column
    return columns
