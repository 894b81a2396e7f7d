"""Writes node and edge populations as SONATA lays them out, in the groups and number formats they were read with."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from connectinfer.data.sonata.tables import Piece, as_text, merge_pieces
from connectinfer.data.sonata.types import columns_by_row

# The formats of what did not come from a file.
DTYPES = {"node_id": "<u8", "source_node_id": "<u8", "target_node_id": "<u8"}
MAGIC, VERSION = 0x0A7A, (0, 1)


class Table(NamedTuple):
    """A population to be written.

    `fixed` are its integers per row, `columns` its attributes by the names they have in the file, and `layout` is what
    `Population.layout` was when it was read, or as much of that as there is.
    """

    kind: str
    name: str
    fixed: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    layout: Mapping[str, Any]


def write_tables(file: Path, tables: Iterable[Table]) -> None:
    """An HDF5 file with these populations.

    Raises:
        ValueError: if a type id is not in the type table of its population.
    """
    with h5py.File(file, "w") as content:
        content.attrs["magic"] = np.uint32(MAGIC)
        content.attrs["version"] = np.array(VERSION, np.uint32)
        for table in tables:
            _write_population(content.create_group(f"{table.kind}s/{table.name}"), table)


def write_types(file: Path, tables: Iterable[Table]) -> None:
    """The CSV file with the types of these populations, which share it."""
    frames = [pd.DataFrame(x.layout["types"]["rows"], columns=x.layout["types"]["columns"], dtype=str) for x in tables]
    merged = pd.concat(frames, ignore_index=True).fillna("").replace("", "NULL").drop_duplicates()
    merged.to_csv(file, sep=" ", index=False, lineterminator="\n", encoding="utf-8")


def _write_population(group: h5py.Group, table: Table) -> None:
    kind, dtypes = table.kind, table.layout.get("dtypes", {})
    numbers = table.fixed[f"{kind}_group_id"]
    listed = {int(number): attributes for number, attributes in table.layout.get("groups", {}).items()}
    rows_of = {each: np.flatnonzero(numbers == each) for each in [*listed, *np.unique(numbers).tolist()]}
    index = _group_index(table.fixed[f"{kind}_group_index"], rows_of.values())
    for name, values in (table.fixed | {f"{kind}_group_index": index}).items():
        group[name] = _as_integers(values, dtypes.get(name, DTYPES.get(name, "<i8")))
    if kind == "edge":
        for end, direction in (("source", "source_to_target"), ("target", "target_to_source")):
            group[f"{end}_node_id"].attrs["node_population"] = table.layout[end]
            _write_index(group, direction, table.fixed[f"{end}_node_id"])
    given = _given_by_types(table)
    for number, rows in rows_of.items():
        # Rows are stored at their places in the group.
        stored = rows[np.argsort(index[rows])]
        _write_group(group.create_group(str(number)), listed.get(number, {}), table, stored, given)


def _group_index(read: np.ndarray, rows_of: Iterable[np.ndarray]) -> np.ndarray:
    """Places of the rows in their groups: those they were read from, or anew where rows have gone or come."""
    index = read.copy()
    for rows in rows_of:
        if not np.array_equal(np.sort(index[rows]), np.arange(rows.size)):
            index[rows] = np.arange(rows.size)
    return index


def _given_by_types(table: Table) -> dict[str, np.ndarray]:
    """For every column of the type table, the rows whose value is the one that their type gives."""
    if "types" not in table.layout:
        return {}
    spread = columns_by_row(table.kind, table.layout, table.fixed[f"{table.kind}_type_id"])
    return {
        name: _same(table.columns[name], merge_pieces([Piece(name, rows, values)], table.columns[name].size))
        for name, rows, values in spread
        if name in table.columns
    }


def _write_group(
    group: h5py.Group, attributes: Mapping[str, Any], table: Table, rows: np.ndarray, given: Mapping[str, np.ndarray]
) -> None:
    """The attributes that were read from this group, and those that the types do not give for these rows."""
    written: set[str] = set()
    for name, attribute in attributes.items():
        if set(attribute["columns"]) <= set(table.columns):
            columns = [table.columns[column][rows] for column in attribute["columns"]]
            _write_attribute(group, name, columns[0] if len(columns) == 1 else np.stack(columns, axis=-1), attribute)
            written |= set(attribute["columns"])
    for name, values in table.columns.items():
        own = values[rows]
        redundant = given[name][rows].all() if name in given else _missing(own).all()
        if name not in written and not redundant:
            _write_attribute(group, name, own, {})


def _write_attribute(group: h5py.Group, name: str, values: np.ndarray, attribute: Mapping[str, Any]) -> None:
    """`values` in the format they were read with if it holds them, else in their own."""
    dtype = attribute.get("dtype", "str")
    if "library" in attribute:
        words = list(dict.fromkeys([*attribute["library"], *values.astype(str).tolist()]))
        group.require_group("@library").create_dataset(name, data=words, dtype=h5py.string_dtype())
        group[name] = _as_integers(pd.Index(words).get_indexer(values.astype(str)), dtype)
    elif dtype == "str" or dtype[0] == "S":
        if values.dtype.kind != "U":
            group[name] = values
        elif dtype == "str":
            group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
        else:
            encoded = np.strings.encode(values, "utf-8")
            group[name] = encoded.astype(f"S{max(encoded.dtype.itemsize, int(dtype[1:]))}")
    else:
        cast = _cast(values, np.dtype(dtype))
        if cast.dtype.kind == "U":
            group.create_dataset(name, data=cast.astype(object), dtype=h5py.string_dtype())
        else:
            group[name] = cast


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`values` as `dtype`, or unchanged where that would change any of them."""
    if values.dtype.kind == "U" and dtype.kind == "b":
        cast = values == "True"
    else:
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                cast = (np.where(values == "", "nan", values) if values.dtype.kind == "U" else values).astype(dtype)
        except (ValueError, OverflowError):
            return values
    return cast if _same(values, cast).all() else values


def _as_integers(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` as `dtype` if it holds them, else as int64."""
    info = np.iinfo(dtype)
    fits = not values.size or info.min <= values.min() <= values.max() <= info.max
    return values.astype(dtype if fits else np.int64)


def _same(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where two columns say the same, also as number and text."""
    if "U" in (values.dtype.kind, others.dtype.kind):
        return as_text(values) == as_text(others)
    return (values == others) | (_missing(values) & _missing(others))


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "U":
        return values == ""
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _write_index(group: h5py.Group, name: str, ids: np.ndarray) -> None:
    """For every node, the stretches of consecutive edges that have it at this end."""
    size = int(ids.max(initial=-1)) + 1
    # Node ids that are no positions would make a table of mostly nothing.
    if not 0 < size <= 100 * ids.size + 1000:
        return
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    ends, owners = np.append(starts[1:], ids.size), ids[starts]
    order = np.argsort(owners, kind="stable")
    last = np.cumsum(np.bincount(owners, minlength=size))
    inner = group.create_group(f"indices/{name}")
    inner["range_to_edge_id"] = np.stack([starts[order], ends[order]], axis=-1).astype(np.uint64)
    # The specification says "ranges"; the files and readers of the Allen Institute say "range".
    inner["node_id_to_ranges"] = np.stack([np.append(0, last[:-1]), last], axis=-1).astype(np.uint64)
    inner["node_id_to_range"] = inner["node_id_to_ranges"]
