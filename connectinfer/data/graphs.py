"""Graphs of networkx as connectomes and back: an edge (u, v) is pre = u, post = v.

Node attributes are variables of the neurons, edge attributes variables of the edges. An undirected graph becomes both
directions of every edge. Several edges of a pair are told apart by the edge variables `kind` and `contact`; where a
MultiDiGraph has neither, its keys are the kinds if they are text, else the edges of a pair are counted.

What text formats lose is kept by a note in the graph attribute `connectinfer`: JSON with the types of ids and columns,
{"neuron": {"neuron": "int64", ...}, "edge": {...}}.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.columns import as_column, column_names
from connectinfer.data.connectome import OBSERVED, POSITION, check_connectome, connectome, number_contacts
from connectinfer.data.identifiers import as_identifiers

if TYPE_CHECKING:
    import networkx as nx

NOTE = "connectinfer"
RESERVED = ("neuron", "pre", "post", "edge")


def from_networkx(graph: "nx.Graph") -> xr.Dataset:
    """The connectome of a networkx graph of any class; nodes are int or str ids, those without edges included.

    Attributes that some nodes or edges lack are "" or NaN there. Attributes that are no single values, and `x`, `y`,
    `z` unless all three are there, are left out; the attrs `read` and `left_out` say so. An edge attribute that is
    called like a node attribute becomes `edge_NAME`.

    Raises:
        ValueError: for nodes that are no int or str ids, and for whatever `connectome` refuses.
    """
    columns = graph_columns(graph)
    nodes, edges = columns["nodes"], columns["edges"]
    ids, pre, post = nodes.pop("neuron"), edges.pop("pre"), edges.pop("post")
    left_out = [f"{name} of the {group}" for group, each in columns.items() for name in each if _is_list(each[name])]
    if any(name in nodes for name in POSITION) and not all(_is_numeric(nodes.get(name)) for name in POSITION):
        left_out += [
            f"{name} of the nodes (no position x, y, z)" for name in POSITION if nodes.pop(name, None) is not None
        ]
    described = {name: each for name, each in nodes.items() if not _is_list(each)}
    described |= {name: _as_type(described[name], "bool") for name in OBSERVED if name in described}
    taken = (*RESERVED, *described)
    variables = {_free(name, "edge", taken): each for name, each in edges.items() if not _is_list(each)}
    variables |= _told_apart(graph, pre, post, variables)
    dataset = connectome(pre, post, neurons=pd.DataFrame(described, index=pd.Index(ids)), **variables)
    read = "undirected graph: both directions of every edge" if not graph.is_directed() else "directed graph"
    return dataset.assign_attrs(read=read, left_out=", ".join(left_out))


def to_networkx(dataset: xr.Dataset) -> "nx.DiGraph | nx.MultiDiGraph":
    """A connectome as a graph with an edge (pre, post) for each of its edges, all variables as attributes.

    A MultiDiGraph where pairs have several edges; its keys are `kind` or `contact`, whichever tells the edges of a pair
    apart, else their number. Attributes of the dataset itself are left out.

    Raises:
        ValueError: if `dataset` is no connectome.
    """
    import networkx as nx

    check_connectome(dataset)
    nodes, edges = _variables(dataset, "neuron"), _variables(dataset, "edge")
    pre, post = (dataset[name].values.tolist() for name in ("pre", "post"))
    several = len(set(zip(pre, post, strict=True))) < len(pre)
    graph: Any = nx.MultiDiGraph() if several else nx.DiGraph()
    graph.add_nodes_from(zip(dataset["neuron"].values.tolist(), _rows(nodes, dataset.sizes["neuron"]), strict=True))
    attributes = _rows(edges, dataset.sizes["edge"])
    if several:
        graph.add_edges_from(zip(pre, post, _keys(dataset), attributes, strict=True))
    else:
        graph.add_edges_from(zip(pre, post, attributes, strict=True))
    return graph


def graph_columns(graph: Any) -> dict[str, dict[str, Any]]:
    """`nodes` with the ids `neuron`, and `edges` with `pre` and `post`, each beside its attributes.

    An attribute is an array, or a list where its values are no single values. An undirected edge is there twice.

    Raises:
        ValueError: for nodes that are no int or str ids.
    """
    ids = as_identifiers(list(graph), "node")
    listed = list(graph.edges(data=True))
    if not graph.is_directed():
        listed += [(v, u, attributes) for u, v, attributes in listed if u != v]
    ends = {
        name: as_identifiers([each[at] for each in listed], name) if listed else ids[:0]
        for at, name in enumerate(("pre", "post"))
    }
    nodes = {"neuron": ids} | _attributes("neuron", (data for _, data in graph.nodes(data=True)))
    return _restored(graph, {"nodes": nodes, "edges": ends | _attributes("edge", (each[2] for each in listed))})


def type_note(dataset: xr.Dataset) -> str:
    """The types of a connectome's ids and variables, for the graph attribute `connectinfer`."""
    types = {dim: {name: _type(dataset[name].dtype) for name in _variables(dataset, dim)} for dim in ("neuron", "edge")}
    types["neuron"] = {"neuron": _type(dataset["neuron"].dtype)} | types["neuron"]
    return json.dumps(types)


def _type(dtype: np.dtype) -> str:
    return "str" if dtype.kind == "U" else str(dtype)


def _variables(dataset: xr.Dataset, dim: str) -> dict[str, np.ndarray]:
    """The variables along `dim` but for ids."""
    own = {str(name): each.values for name, each in dataset.variables.items() if each.dims == (dim,)}
    return {name: each for name, each in own.items() if name not in RESERVED}


def _rows(columns: Mapping[str, np.ndarray], size: int) -> list[dict[str, Any]]:
    if not columns:
        return [{} for _ in range(size)]
    lists = [each.tolist() for each in columns.values()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def _keys(dataset: xr.Dataset) -> list[Any]:
    """Keys of parallel edges: `kind` or `contact` where that is enough, else 0, 1, ... within each pair."""
    table = pd.DataFrame({name: dataset[name].values for name in ("pre", "post", "kind", "contact") if name in dataset})
    for name in ("kind", "contact"):
        if name in table and not table.duplicated(["pre", "post", name]).any():
            return dataset[name].values.tolist()
    return table.groupby(["pre", "post"]).cumcount().tolist()


def _attributes(of: str, records: Iterable[Mapping[Any, Any]]) -> dict[str, Any]:
    rows = list(records)
    columns: dict[str, Any] = {}
    for name in column_names(rows, f"{of}s"):
        values = [row.get(name) for row in rows]
        column = as_column(values, str(name))
        columns[_free(str(name), of, RESERVED)] = values if column is None else column
    return columns


def _told_apart(graph: Any, pre: np.ndarray, post: np.ndarray, variables: Mapping[str, Any]) -> dict[str, Any]:
    """`kind` from the keys of a multigraph if they are text, and `contact` where edges still repeat each other."""
    if not graph.is_multigraph() or "contact" in variables:
        return {}
    listed: list[Any] = list(graph.edges(keys=True))
    keys = [key for _, _, key in listed]
    if not graph.is_directed():
        keys += [key for u, v, key in listed if u != v]
    is_kind = "kind" not in variables and bool(keys) and all(isinstance(key, str) for key in keys)
    kind = np.array(keys, str) if is_kind else variables.get("kind")
    contact = number_contacts(pre, post, kind)
    return ({"kind": kind} if is_kind else {}) | ({"contact": contact} if contact.any() else {})


def _restored(graph: "nx.Graph", columns: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`columns` with the types that the graph's note says, where that changes no value."""
    note = _note(graph)
    for group, dim in (("nodes", "neuron"), ("edges", "edge")):
        for name, each in columns[group].items():
            wanted = note.get(dim, {}).get(name)
            if isinstance(wanted, str) and not _is_list(each):
                columns[group][name] = _as_type(each, wanted)
    # Ids change all together or not at all.
    ids = columns["nodes"]["neuron"]
    columns["edges"] |= {name: columns["edges"][name].astype(ids.dtype) for name in ("pre", "post")}
    return columns


def _note(graph: "nx.Graph") -> dict[str, dict[str, Any]]:
    try:
        note = json.loads(graph.graph.get(NOTE, "{}"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: each for name, each in note.items() if isinstance(each, dict)} if isinstance(note, dict) else {}


def _as_type(column: np.ndarray, wanted: str) -> np.ndarray:
    try:
        dtype = np.dtype(wanted)
        if dtype.kind not in "biufU" or dtype.itemsize > 8 or (column.dtype == object and dtype.kind == "U"):
            return column
        changed = column.astype(dtype)
        back = changed.astype(column.dtype)
    except (ValueError, TypeError, OverflowError, SyntaxError):
        return column
    same = (back == column) | (pd.isna(back) & pd.isna(column))
    return changed if same.all() else column


def _is_list(column: Any) -> bool:
    return not isinstance(column, np.ndarray)


def _is_numeric(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind in "if"


def _free(name: str, prefix: str, taken: Iterable[str]) -> str:
    while name in taken:
        name = f"{prefix}_{name}"
    return name
