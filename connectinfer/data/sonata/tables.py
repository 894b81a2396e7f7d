"""Node and edge tables of SONATA: the populations of an HDF5 file, with the attributes of their groups and types."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from connectinfer.data.columns import EXACT_IN_FLOAT
from connectinfer.data.identifiers import check_unique
from connectinfer.data.sonata.config import TableFiles
from connectinfer.data.sonata.hdf5 import (
    child,
    child_dataset,
    child_group,
    load,
    load_integers,
    names,
    opened,
    reading,
    text_attribute,
)
from connectinfer.data.sonata.types import RULES, columns_by_row, read_types, types_of

# Data sets of a population with one integer per row; what may be missing is numbered from 0.
REQUIRED = {"node": ("node_type_id",), "edge": ("edge_type_id", "source_node_id", "target_node_id")}
OPTIONAL = {"node": ("node_id",), "edge": ("edge_id",)}
MOST_COLUMNS = 64


class Piece(NamedTuple):
    """Values of one attribute for some rows."""

    name: str
    rows: np.ndarray
    values: np.ndarray


class Population(NamedTuple):
    """A population as its file has it.

    `fixed` are its integers per row (ids, types, groups); later `pieces` take precedence over earlier ones; `layout`,
    plain enough for JSON, is what writing it back needs, with the populations of `source` and `target` for edges.
    """

    name: str
    fixed: dict[str, np.ndarray]
    pieces: list[Piece]
    layout: dict[str, Any]
    left_out: list[str]

    @property
    def size(self) -> int:
        return len(next(iter(self.fixed.values())))


def read_populations(kind: str, files: TableFiles) -> list[Population]:
    """The populations of a file; `kind` is "node" or "edge". Links to other files are not followed.

    Raises:
        ValueError: for a damaged file, or one whose parts do not fit together.
    """
    types = None if files.types is None else read_types(kind, files.types)
    with reading(files.file), opened(files.file) as content:
        tables = child_group(content, f"{kind}s")
        if tables is None:
            raise ValueError(f"it has no group /{kind}s, which holds the populations; it has {names(content)[:8]}")
        groups = {name: child_group(tables, name) for name in names(tables)}
        return [_population(kind, name, group, types, files) for name, group in groups.items() if group is not None]


def merge_pieces(pieces: list[Piece], n: int) -> np.ndarray:
    """One array of `n` values; rows without any hold NaN, or "" among text.

    Integers become floats beside missing values, and text where a float would cost them digits.
    """
    covered = np.zeros(n, bool)
    for piece in pieces:
        covered[piece.rows] = True
    dtype = _common_type([piece.values for piece in pieces], complete=bool(covered.all()))
    merged = np.full(n, "" if dtype.kind == "U" else np.nan if dtype.kind == "f" else 0, dtype)
    for piece in pieces:
        merged[piece.rows] = as_text(piece.values) if dtype.kind == "U" else piece.values
    return merged


def as_text(values: np.ndarray) -> np.ndarray:
    """Numbers as text that gives them back exactly, NaN as ""; text unchanged."""
    return np.where(np.isnan(values), "", values.astype(str)) if values.dtype.kind == "f" else values.astype(str)


def _common_type(arrays: list[np.ndarray], *, complete: bool) -> np.dtype:
    if all(each.dtype.kind != "U" for each in arrays):
        common = np.result_type(*arrays)
        if common.kind in "biu" and not complete:
            common = np.dtype(float)
        integers = [each for each in arrays if each.dtype.kind in "iu" and each.size]
        if common.kind != "f" or not any(max(int(i.max()), -int(i.min())) > EXACT_IN_FLOAT for i in integers):
            return common
    return np.result_type(*(each.dtype if each.dtype.kind == "U" else each.astype(str).dtype for each in arrays), "U1")


def _population(kind: str, name: str, group: h5py.Group, types: pd.DataFrame | None, files: TableFiles) -> Population:
    fixed, dtypes = _fixed(kind, group)
    layout: dict[str, Any] = {"file": files.file.name, "dtypes": dtypes, "groups": {}}
    if kind == "edge":
        layout |= {"source": _end(group, "source_node_id"), "target": _end(group, "target_node_id")}
    pieces: list[Piece] = []
    left_out = [each for each in names(group) if each not in {*dtypes, "indices"} and not each.isdigit()]
    if types is not None and files.types is not None:
        layout |= {"types_file": files.types.name, "types": types_of(name, types)}
        left_out += [each for each in RULES if each in types]
        pieces += [Piece(*each) for each in columns_by_row(kind, layout, fixed[f"{kind}_type_id"])]
    for number, inner in _groups(kind, group, fixed).items():
        attributes, unread = _attributes(kind, inner)
        left_out += [f"{number}/{each}" for each in unread]
        layout["groups"][number] = {each: attribute.layout for each, attribute in attributes.items()}
        pieces += _group_pieces(kind, number, attributes, fixed)
    return Population(name, fixed, pieces, layout, [f"{kind}s/{name}/{each}" for each in left_out])


def _fixed(kind: str, group: h5py.Group) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The integers of every row, those that a file may leave out included, and the types of those it has."""
    grouping = (f"{kind}_group_id", f"{kind}_group_index")
    items = {each: child_dataset(group, each) for each in (*REQUIRED[kind], *OPTIONAL[kind], *grouping)}
    absent = [each for each in REQUIRED[kind] if items[each] is None]
    if absent:
        raise ValueError(f"population {group.name} has no data set {', '.join(absent)}; it has {names(group)[:10]}")
    fixed = {each: load_integers(item) for each, item in items.items() if item is not None}
    dtypes = {each: item.dtype.str for each, item in items.items() if item is not None}
    lengths = {each: len(values) for each, values in fixed.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the data sets of population {group.name} differ in length: {lengths}")
    rows = np.arange(len(fixed[REQUIRED[kind][0]]))
    if not {*grouping} <= {*fixed}:
        numbers = [each for each in names(group) if each.isdigit()]
        if {*grouping} & {*fixed} or numbers not in ([], ["0"]):
            raise ValueError(f"population {group.name} has groups {numbers}, so it needs {' and '.join(grouping)}")
        fixed |= {grouping[0]: np.zeros_like(rows), grouping[1]: rows}
    if kind == "node":
        fixed.setdefault("node_id", rows)
        check_unique(fixed["node_id"], "node_id")
        if (fixed["node_id"] < 0).any():
            raise ValueError(f"node_id of population {group.name} must not be negative; got {fixed['node_id'].min()}")
    return fixed, dtypes


def _end(group: h5py.Group, name: str) -> str:
    population = text_attribute(child_dataset(group, name), "node_population")
    if not population:
        raise ValueError(f"{group.name}/{name} needs the attribute node_population, the name of its population")
    return population


def _groups(kind: str, population: h5py.Group, fixed: Mapping[str, np.ndarray]) -> dict[str, h5py.Group]:
    found = {name: child_group(population, name) for name in names(population) if name.isdigit()}
    groups = {name: group for name, group in found.items() if group is not None}
    used = np.unique(fixed[f"{kind}_group_id"]).tolist()
    # A single group without attributes need not be there.
    absent = sorted({*used} - {int(name) for name in groups}) if groups or used != [0] else []
    if absent:
        raise ValueError(f"{kind}_group_id of {population.name} names {absent[:8]}, but its groups are {list(groups)}")
    return groups


class _Attribute(NamedTuple):
    """Columns of values by the name they are known by, and what writing them back needs."""

    columns: dict[str, np.ndarray]
    layout: dict[str, Any]


def _group_pieces(
    kind: str, number: str, attributes: Mapping[str, _Attribute], fixed: Mapping[str, np.ndarray]
) -> Iterator[Piece]:
    rows = np.flatnonzero(fixed[f"{kind}_group_id"] == int(number))
    at = fixed[f"{kind}_group_index"][rows]
    for name, values in ((name, values) for each in attributes.values() for name, values in each.columns.items()):
        if rows.size and not 0 <= at.min() <= at.max() < len(values):
            raise ValueError(
                f"{kind}_group_index reaches from {at.min()} to {at.max()}, but {name} of group {number} has "
                f"{len(values)} values"
            )
        yield Piece(name, rows, values[at])


def _attributes(kind: str, group: h5py.Group) -> tuple[dict[str, _Attribute], list[str]]:
    """The attributes of a group, and the names of what is no plain column."""
    attributes, unread = {}, []
    for name in names(group):
        item = child_dataset(group, name)
        if item is not None and _is_column(item):
            attributes[name] = _attribute(kind, name, item, group)
        elif name != "@library":
            unread.append(name)
    lengths = {name: len(next(iter(each.columns.values()))) for name, each in attributes.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the attributes of {group.name} differ in length: {lengths}")
    return attributes, unread


def _is_column(item: h5py.Dataset) -> bool:
    """Numbers or text, one per row or a few (positions)."""
    plain = item.dtype.kind in "biuf" or h5py.check_string_dtype(item.dtype) is not None
    return plain and (item.ndim == 1 or (item.ndim == 2 and 0 < item.shape[1] <= MOST_COLUMNS))


def _attribute(kind: str, name: str, item: h5py.Dataset, group: h5py.Group) -> _Attribute:
    text = h5py.check_string_dtype(item.dtype)
    dtype = item.dtype.str if text is None else ("str" if text.length is None else f"S{text.length}")
    values, libraries = load(item), child_group(group, "@library")
    library = None if libraries is None else child_dataset(libraries, name)
    if item.ndim == 2:
        positions = (kind, name, item.shape[1]) == ("node", "positions", 3) and child(group, "x") is None
        columns = ["x", "y", "z"] if positions else [f"{name}_{at}" for at in range(item.shape[1])]
        return _Attribute(dict(zip(columns, values.T, strict=True)), {"dtype": dtype, "columns": columns})
    if library is None:
        return _Attribute({name: values}, {"dtype": dtype, "columns": [name]})
    # Enumerations: the column holds positions in a list of words.
    words = load(library).astype(str)
    if values.dtype.kind not in "iu" or (values.size and not 0 <= values.min() <= values.max() < words.size):
        raise ValueError(f"{item.name} must hold positions in its @library of {words.size} words")
    return _Attribute({name: words[values]}, {"dtype": dtype, "columns": [name], "library": words.tolist()})
