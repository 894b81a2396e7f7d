"""From a connectome to the populations of SONATA files: the way back from `sonata.assembly`."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.connectome import OBSERVED, check_connectome, edge_indices, number_contacts
from connectinfer.data.sonata.assembly import DERIVED, KEPT_ROWS, derived_neurons
from connectinfer.data.sonata.tables import Piece, merge_pieces
from connectinfer.data.sonata.types import columns_by_row
from connectinfer.data.sonata.writing import Table

ALONE = "neurons"
"""Name of the population of neurons that have none."""
UNTYPED = -1


def disassemble(dataset: xr.Dataset) -> tuple[list[Table], list[Table]]:
    """The populations of nodes and of edges that make up a connectome.

    Raises:
        ValueError: if this is no connectome, or cannot be laid out so.
    """
    check_connectome(dataset)
    layout = _layout(dataset)
    population, node_id = _numbered(dataset)
    nodes = _node_tables(dataset, layout["nodes"], population, node_id)
    return nodes, _edge_tables(dataset, layout["edges"], population, node_id)


def _layout(dataset: xr.Dataset) -> dict[str, Any]:
    nothing = {"names": {}, "populations": {}}
    if "sonata" not in dataset.attrs:
        return {"nodes": nothing, "edges": nothing}
    try:
        layout = json.loads(dataset.attrs["sonata"])
        return {kind: {part: dict(layout[kind][part]) for part in nothing} for kind in ("nodes", "edges")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "attrs['sonata'] is not what reading SONATA left there; without it, types and groups are made anew: "
            "`dataset.drop_attrs(deep=False)`."
        ) from error


def _numbered(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Population and node id of every neuron: those that its id states, or numbers in order."""
    ids = dataset["neuron"].values
    stated = dataset["population"].values.astype(str) if "population" in dataset else None
    if ids.dtype.kind == "U":
        named, _, digits = (np.asarray(part) for part in np.strings.rpartition(ids, ":"))
        plain = (named != "") & np.strings.isdecimal(digits) & (np.strings.str_len(digits) < 19)
        if plain.all() and (stated is None or np.array_equal(named, stated)):
            numbers = digits.astype(np.int64)
            if np.array_equal(numbers.astype(str), digits):
                return named, numbers
    population = np.full(ids.size, ALONE) if stated is None else np.where(stated == "", ALONE, stated)
    return population, pd.Series(population).groupby(population).cumcount().to_numpy(np.int64)


def _node_tables(dataset: xr.Dataset, layout: Mapping, population: np.ndarray, node_id: np.ndarray) -> list[Table]:
    columns = _columns(dataset, "neuron", layout["names"], {"neuron", "population", *KEPT_ROWS["node"]})
    columns = {name: each for name, each in columns.items() if name not in OBSERVED or not each.all()}
    ids = dataset["neuron"].values
    if not np.array_equal(ids.astype(str), np.strings.add(np.strings.add(population, ":"), node_id.astype(str))):
        columns["neuron_id"] = ids
    own = {name: columns[name] for name in columns if name not in DERIVED}
    made_ids, made_types = _made_types(columns, node_id.size)
    # As they will be read: a type called NA is none, and text that looks like a number becomes one.
    made = {
        name: merge_pieces([Piece(name, rows, values)], node_id.size)
        for name, rows, values in columns_by_row("node", {"types": made_types}, made_ids)
    }
    sonata = bool(layout["populations"])
    derived, _ = derived_neurons(own if sonata else made | own, node_id.size)
    for name in derived:
        # What reading derives need not be written, unless a file had it.
        if name in columns and not _was_read(name, layout) and np.array_equal(columns[name], derived[name]):
            del columns[name]
    type_ids = np.full_like(made_ids, UNTYPED) if sonata else made_ids
    fixed = {"node_id": node_id, "node_type_id": type_ids, **_kept(dataset, "node", node_id.size)}
    tables = []
    for name, rows in _rows_by_name(population, layout["populations"]):
        described = layout["populations"].get(name, {} if sonata else {"types": made_types})
        tables.append(_table("node", name, fixed, columns, rows, described))
    return tables


def _made_types(columns: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, dict[str, list]]:
    """A type for each cell type and sign: ids, and the type table."""
    sign = columns.get("sign", np.zeros(n, int))
    made = {
        "pop_name": columns.get("cell_type", np.full(n, "")).astype(str),
        "ei": np.select([sign > 0, sign < 0], ["e", "i"], ""),
    }
    frame = pd.DataFrame(made, dtype=str)
    type_ids = frame.groupby(list(made), sort=False).ngroup().to_numpy(np.int64)
    rows = [[str(at), *row] for at, row in enumerate(frame.drop_duplicates().to_numpy().tolist())]
    return type_ids, {"columns": ["node_type_id", *made], "rows": rows}


def _edge_tables(dataset: xr.Dataset, layout: Mapping, population: np.ndarray, node_id: np.ndarray) -> list[Table]:
    pre, post = edge_indices(dataset)
    skipped = {"pre", "post", "edge_population", *KEPT_ROWS["edge"]}
    columns = _columns(dataset, "edge", layout["names"], skipped)
    if "nsyns" not in columns and "synapse_count" in columns and columns["synapse_count"].dtype.kind in "iu":
        columns["nsyns"] = columns.pop("synapse_count")
    codes, names = pd.factorize(population)
    fixed = {
        "edge_type_id": np.full(pre.size, UNTYPED if layout["populations"] else 0),
        "source_node_id": node_id[pre],
        "target_node_id": node_id[post],
        **_kept(dataset, "edge", pre.size),
    }
    belongs = dataset["edge_population"].values if "edge_population" in dataset else None
    if belongs is None:
        pairs, labels = pd.factorize(codes[pre] * len(names) + codes[post])
        belongs = np.array([f"{names[at // len(names)]}_to_{names[at % len(names)]}" for at in labels], str)[pairs]
    tables, rows_of = [], _rows_by_name(belongs, layout["populations"])
    if "contact" in columns and _follows_order(dataset, [rows for _, rows in rows_of]):
        del columns["contact"]
    for name, rows in rows_of:
        described = dict(layout["populations"].get(name, {}))
        if not layout["populations"]:
            described["types"] = {"columns": ["edge_type_id"], "rows": [["0"]]}
        for end, at in (("source", pre), ("target", post)):
            joined = [str(names[code]) for code in np.unique(codes[at[rows]])] or [described.get(end, ALONE)]
            if len(joined) > 1:
                raise ValueError(
                    f"the {end} neurons of edge_population {name!r} are of populations {joined}; SONATA needs one. "
                    "Drop the variable `edge_population`, so that the populations of the neurons name it."
                )
            described[end] = joined[0]
        tables.append(_table("edge", name, fixed, columns, rows, described))
    return tables


def _follows_order(dataset: xr.Dataset, rows: list[np.ndarray]) -> bool:
    """Whether reading the edges, population by population, numbers their contacts as they are."""
    written = np.concatenate([np.zeros(0, int), *rows])
    columns = [dataset[name].values[written] for name in ("pre", "post", "kind") if name in dataset]
    contact = dataset["contact"].values[written]
    return bool(contact.any()) and np.array_equal(contact, number_contacts(*columns))


def _table(
    kind: str, name: str, fixed: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], rows: np.ndarray,
    layout: Mapping[str, Any],
) -> Table:  # fmt: skip
    """The rows of one population."""
    if "/" in name or name == ".":
        raise ValueError(f"population {name!r} cannot be written: SONATA uses names as paths. Rename it.")
    own = {each: values[rows] for each, values in fixed.items()}
    # An optional number that some populations lack is NaN there.
    known = {each: values.astype(np.int64) for each, values in own.items() if not np.isnan(values).any()}
    group, index = known.get(f"{kind}_group_id"), known.get(f"{kind}_group_index")
    if group is None or index is None:
        known |= {f"{kind}_group_id": np.zeros(rows.size, np.int64), f"{kind}_group_index": np.arange(rows.size)}
    return Table(kind, name, known, {each: values[rows] for each, values in columns.items()}, layout)


def _columns(dataset: xr.Dataset, dim: str, renamed: Mapping[str, str], skipped: set[str]) -> dict[str, np.ndarray]:
    """The variables along a dim by the names they have in files."""
    original = {variable: name for name, variable in renamed.items()}
    columns = {}
    for name, variable in dataset.variables.items():
        if variable.dims != (dim,) or name in skipped:
            continue
        if variable.dtype.kind not in "biufU" or "/" in str(name):
            raise ValueError(
                f"variable {name!r} of {variable.dtype} cannot be written to SONATA, which has numbers and text under "
                "names without '/'. Convert or rename it, or leave it out with `.drop_vars(...)`."
            )
        if renamed.get(str(name)) in dataset:
            if name in DERIVED:
                continue
            raise ValueError(
                f"{name!r} and {renamed[str(name)]!r} would both be written as {name!r}; drop one of them."
            )
        columns[original.get(str(name), str(name))] = variable.values
    return columns


def _kept(dataset: xr.Dataset, kind: str, n: int) -> dict[str, np.ndarray]:
    present = [name for name in KEPT_ROWS[kind] if name in dataset and dataset[name].shape == (n,)]
    return {name: dataset[name].values for name in present}


def _rows_by_name(names: np.ndarray, first: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    """The rows of each name: those of a layout in its order, also where they have no rows, then others."""
    codes, found = pd.factorize(names)
    at = {str(name): code for code, name in enumerate(found)}
    return [(name, np.flatnonzero(codes == at.get(name, -1))) for name in dict.fromkeys([*first, *at])]


def _was_read(name: str, layout: Mapping) -> bool:
    for each in layout["populations"].values():
        groups = each.get("groups", {}).values()
        if name in each.get("types", {}).get("columns", ()) or any(name in group for group in groups):
            return True
    return False
