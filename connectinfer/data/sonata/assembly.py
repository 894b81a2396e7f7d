"""From the populations of SONATA files to one connectome: ids, names of variables, and what follows from them."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.data.connectome import COMPLETE, OBSERVED, POSITION, connectome, number_contacts
from connectinfer.data.identifiers import check_unique, listing
from connectinfer.data.sonata.tables import Piece, Population, as_text, merge_pieces

# Where a neuron's type and sign are found, the most telling first.
CELL_TYPES = ("cell_type", "pop_name", "model_name", "mtype")
SIGNS = ("ei", "synapse_class")
DERIVED = ("cell_type", "sign")
KEPT_ROWS = {
    "node": ("node_type_id", "node_group_id", "node_group_index"),
    "edge": ("edge_type_id", "edge_group_id", "edge_group_index", "edge_id"),
}
# What a connectome calls its own, besides names that are free to files whose values fit.
RESERVED = {"pre", "post", "edge", "neuron", "neurons", "contact", "population", "edge_population"}.union(
    *KEPT_ROWS.values()
)


def assemble(nodes: list[Population], edges: list[Population]) -> tuple[xr.Dataset, list[str]]:
    """The connectome of all populations, and notes on what was derived how.

    Raises:
        ValueError: if edges name neurons that are not there, populations share a name, or the result is no connectome.
    """
    for kind, populations in (("node", nodes), ("edge", edges)):
        check_unique(np.array([each.name for each in populations], str), f"{kind} population")
    ids = np.concatenate([_ids(each.name, each.fixed["node_id"]) for each in nodes]) if nodes else np.zeros(0, "U1")
    neurons, neuron_names, notes = _neurons(nodes, ids)
    pre, post = _ends(nodes, edges)
    variables, edge_names = _edge_variables(edges, pre, post, taken={*neurons.columns, *POSITION, *OBSERVED})
    contact = number_contacts(pre, post, variables.get("kind"))
    if contact.any() and "contact" not in variables:
        variables["contact"] = contact
        notes.append("contact numbers the edges that join the same two neurons")
    if edge_names.get("nsyns") == "synapse_count":
        notes.append("synapse_count from nsyns")
    layout = {
        "nodes": {"names": neuron_names, "populations": {each.name: each.layout for each in nodes}},
        "edges": {"names": edge_names, "populations": {each.name: each.layout for each in edges}},
    }
    dataset = connectome(ids[pre], ids[post], neurons=neurons, **variables)
    return dataset.assign_attrs(sonata=json.dumps(layout)), notes


def nodes_with_edges(edges: list[Population]) -> list[Population]:
    """Node populations of the ids that edges name, for edges whose nodes are not given."""
    found: dict[str, list[np.ndarray]] = {}
    for population in edges:
        for end in ("source", "target"):
            found.setdefault(population.layout[end], []).append(population.fixed[f"{end}_node_id"])
    return [
        Population(name, {"node_id": np.unique(np.concatenate(ids))}, [], {"dtypes": {}, "groups": {}}, [])
        for name, ids in found.items()
    ]


def derived_neurons(columns: Mapping[str, np.ndarray], n: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """`cell_type` and `sign` of `n` neurons, as far as columns tell them, and which columns those were."""
    cell_type, sign, notes = np.full(n, "", "U1"), np.zeros(n, np.int64), []
    for name in filter(columns.__contains__, CELL_TYPES):
        words = as_text(columns[name])
        fresh = (cell_type == "") & (words != "")
        cell_type = np.where(fresh, words, cell_type)
        notes += [f"cell_type from {name}"] if fresh.any() else []
    signs = {"sign": columns["sign"].astype(np.int64)} if "sign" in columns and _are_signs(columns["sign"]) else {}
    for name in filter(columns.__contains__, SIGNS):
        letter = np.char.lower(columns[name].astype("U1"))
        signs[name] = np.where(letter == "e", 1, np.where(letter == "i", -1, 0))
    for name, values in signs.items():
        fresh = (sign == 0) & (values != 0)
        sign = np.where(fresh, values, sign)
        notes += [f"sign from {name}"] if fresh.any() else []
    known = {"cell_type": (cell_type != "").any(), "sign": (sign != 0).any()}
    return {name: each for name, each in (("cell_type", cell_type), ("sign", sign)) if known[name]}, notes


def _ids(population: str, node_ids: np.ndarray) -> np.ndarray:
    ids = np.char.add(f"{population}:", node_ids.astype(str))
    # Text of numbers is as wide as the longest number there is.
    return ids.astype(f"U{max(np.char.str_len(ids), default=1)}")


def _neurons(nodes: list[Population], ids: np.ndarray) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """The table of the neurons, what it renamed, and notes."""
    columns = _columns(nodes, ids.size)
    derived, notes = derived_neurons(columns, ids.size)
    positioned = all(name in columns and columns[name].dtype.kind in "iuf" for name in POSITION)

    def fits(name: str, values: np.ndarray) -> bool:
        if name in DERIVED:
            means_it = values.dtype.kind == "U" if name == "cell_type" else _are_signs(values)
            return means_it and np.array_equal(values, derived.get(name, values))
        if name in OBSERVED:
            return values.dtype == bool
        return positioned if name in POSITION else name not in RESERVED.union(COMPLETE, ["kind"])

    renamed = _renamed("node", columns, [name for name, values in columns.items() if not fits(name, values)])
    table: dict[str, Any] = {"population": np.repeat([each.name for each in nodes], [each.size for each in nodes])}
    table |= derived | {renamed.get(name, name): values for name, values in columns.items()}
    table |= _kept_rows("node", nodes, ids.size)
    return pd.DataFrame(table, index=pd.Index(ids)), renamed, notes


def _ends(nodes: list[Population], edges: list[Population]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of every edge's source and target among all nodes."""
    starts = dict(zip([each.name for each in nodes], np.cumsum([0, *(each.size for each in nodes)]), strict=False))
    positions = {each.name: pd.Index(each.fixed["node_id"]) for each in nodes}
    found: dict[str, list[np.ndarray]] = {"source": [np.zeros(0, int)], "target": [np.zeros(0, int)]}
    for population in edges:
        for end, each in found.items():
            name, used = population.layout[end], population.fixed[f"{end}_node_id"]
            if name not in positions:
                raise ValueError(
                    f"the {end} nodes of {population.name!r} in {population.layout['file']} are population {name!r}, "
                    f"but the node files have {list(positions)}. Give its file too."
                )
            at = positions[name].get_indexer(used)
            unknown = np.unique(used[at < 0])
            if unknown.size:
                raise ValueError(
                    f"{end}_node_id of {population.name!r} in {population.layout['file']} names {unknown.size} nodes "
                    f"that population {name!r} of {positions[name].size} lacks: {listing(unknown)}."
                )
            each.append(at + starts[name])
    return np.concatenate(found["source"]), np.concatenate(found["target"])


def _edge_variables(
    edges: list[Population], pre: np.ndarray, post: np.ndarray, taken: set[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The variables of the edges, and which the file calls otherwise."""
    columns = _columns(edges, pre.size)

    def fits(name: str, values: np.ndarray) -> bool:
        if name in COMPLETE:
            return values.dtype.kind != "f" or not np.isnan(values).any()
        if name == "contact":
            kinds = {"kind": columns["kind"]} if "kind" in columns else {}
            repeats = pd.DataFrame({"pre": pre, "post": post, "contact": values} | kinds).duplicated()
            return values.dtype.kind in "iu" and not repeats.any()
        return name not in taken and name not in RESERVED

    renamed = _renamed("edge", columns, [name for name, values in columns.items() if not fits(name, values)])
    if "nsyns" in columns and columns["nsyns"].dtype.kind in "iu" and "synapse_count" not in columns:
        renamed["nsyns"] = "synapse_count"
    variables: dict[str, Any] = {"edge_population": np.repeat([x.name for x in edges], [x.size for x in edges])}
    variables |= _kept_rows("edge", edges, pre.size)
    return variables | {renamed.get(name, name): values for name, values in columns.items()}, renamed


def _columns(populations: list[Population], n: int) -> dict[str, np.ndarray]:
    """The attributes of all populations, one array of `n` rows each."""
    pieces: dict[str, list[Piece]] = {}
    start = 0
    for population in populations:
        for piece in population.pieces:
            pieces.setdefault(piece.name, []).append(piece._replace(rows=piece.rows + start))
        start += population.size
    return {name: merge_pieces(each, n) for name, each in pieces.items()}


def _kept_rows(kind: str, populations: list[Population], n: int) -> dict[str, np.ndarray]:
    starts = np.cumsum([0, *(each.size for each in populations)])
    kept: dict[str, np.ndarray] = {}
    for name in KEPT_ROWS[kind]:
        pieces = [
            Piece(name, np.arange(each.size) + start, each.fixed[name])
            for each, start in zip(populations, starts, strict=False)
            if name in each.fixed
        ]
        if pieces:
            kept[name] = merge_pieces(pieces, n)
    return kept


def _renamed(kind: str, columns: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    """New names for columns whose own name is taken."""
    renamed: dict[str, str] = {}
    for name in names:
        new = f"{kind}_{name}"
        while new in columns or new in RESERVED or new in renamed.values():
            new += "_"
        renamed[name] = new
    return renamed


def _are_signs(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu" and bool(np.isin(values, (-1, 0, 1)).all())
