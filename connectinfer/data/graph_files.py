"""Files of graphs, through networkx: GraphML, GEXF, GML, Pajek, edge lists, adjacency lists and node-link JSON.

Edge and adjacency lists are directed here, and their ids are int64 where all are whole numbers, as in a table. JSON is
a node-link graph if it has `nodes`, and `links` or `edges` with `source` and `target`; it is directed unless it says
`"directed": false`, as networkx does for what is not.
"""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.data.compressed import open_bytes
from connectinfer.data.field_tree import DEEPEST
from connectinfer.data.graphs import NOTE, from_networkx, graph_columns, to_networkx, type_note
from connectinfer.data.json_files import parse_json
from connectinfer.data.naming import naming

if TYPE_CHECKING:
    import networkx as nx

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def read_graph(path: FilePath) -> "nx.Graph":
    """The graph in a file; `from_networkx` makes a connectome of it.

    Raises:
        ValueError: if the file is damaged, of another format, or XML that declares a document type or entities.
    """
    file = Path(path)
    return _read(file, _FORMATS[_suffix(file)])


def open_graph(path: FilePath) -> xr.Dataset:
    """The connectome of the graph in a file, as `from_networkx` makes it.

    Raises:
        ValueError: as `read_graph` and `from_networkx`; the file is named.
    """
    file = Path(path)
    graph = read_graph(file)
    with naming(file):
        return from_networkx(graph)


def open_node_link(path: FilePath, parsed: Any) -> xr.Dataset:
    """The connectome of a node-link JSON file that `parse_json` has read.

    Raises:
        ValueError: as `open_graph`.
    """
    file = Path(path)
    graph = _read(file, lambda _: _from_node_link(parsed))
    with naming(file):
        dataset = from_networkx(graph)
    if "directed" in parsed:
        return dataset
    return dataset.assign_attrs(
        read=f"{dataset.attrs['read']} (the file does not say; undirected is `directed: false`)"
    )


def read_graph_fields(path: FilePath) -> dict[str, Any]:
    """The columns of a graph's nodes and edges, `nodes.neuron`, `edges.pre`, `edges.weight` and so on.

    Raises:
        ValueError: as `read_graph`, and for nodes that are no int or str ids.
    """
    file = Path(path)
    graph = read_graph(file)
    with naming(file):
        return graph_columns(graph)


def is_node_link(parsed: Any) -> bool:
    """Whether parsed JSON is a node-link graph of networkx or d3."""
    if not isinstance(parsed, dict):
        return False
    nodes, edges = parsed.get("nodes"), _links(parsed)
    return all(isinstance(each, list) and all(isinstance(one, dict) for one in each) for each in (nodes, edges)) and (
        all({"source", "target"} <= set(each) for each in edges)
    )


def write_graph(dataset: xr.Dataset, path: Path) -> None:
    """Write a connectome as `.graphml`, `.gml`, `.json` (node-link) or `.edgelist`.

    Raises:
        ValueError: if the format has no way to write a name or value.
    """
    import networkx as nx

    graph: Any = to_networkx(dataset)
    graph.graph[NOTE] = type_note(dataset)
    try:
        match path.suffix.lower():
            case ".graphml":
                nx.write_graphml_xml(graph, path)
            case ".gml":
                nx.write_gml(graph, path)
            case ".json":
                _write_node_link(graph, path)
            case _:
                _write_edge_list(graph, path)
    except (nx.NetworkXException, ValueError, TypeError) as error:
        raise ValueError(f"{path.suffix} cannot hold this connectome: {error}.") from error


def _read(file: Path, reader: Callable[[Path], "nx.Graph"]) -> "nx.Graph":
    try:
        graph = reader(file)
        if not graph:
            raise ValueError("it holds no nodes")
        return graph
    # networkx meets damage wherever it happens to look next: key, index, type, recursion and its own errors all occur.
    except Exception as error:
        raise ValueError(
            f"{file.name} cannot be read as a graph ({type(error).__name__}: {error}). It is damaged, cut short or of "
            "another format."
        ) from error


def _suffix(file: Path) -> str:
    return [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"][-1]


def _content(file: Path) -> bytes:
    with open_bytes(file) as stream:
        return stream.read()


def _lines(file: Path) -> list[str]:
    return _content(file).decode("utf-8").splitlines()


def _graphml(file: Path) -> "nx.Graph":
    import networkx as nx

    graph = nx.read_graphml(io.BytesIO(_checked_xml(file)))
    # The keys are then the ids of edges in the file, which are no kinds of edge.
    return _renumbered(graph) if graph.is_multigraph() else graph


def _gexf(file: Path) -> "nx.Graph":
    import networkx as nx

    graph = nx.read_gexf(io.BytesIO(_checked_xml(file)))
    return _renumbered(graph) if graph.is_multigraph() else graph


def _checked_xml(file: Path) -> bytes:
    """The file's XML, after a parse that refuses document types and entities: they can unfold without end."""
    content = _content(file)
    parser, depth = expat.ParserCreate(), 0

    def refuse(*_: Any) -> None:
        raise ValueError("it declares a document type or entities, which graphs do not need; delete the declaration")

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"its elements nest more than {DEEPEST} deep")

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    parser.Parse(content, True)
    return content


def _renumbered(graph: "nx.Graph") -> "nx.Graph":
    renumbered: Any = graph.__class__()
    renumbered.graph.update(graph.graph)
    renumbered.add_nodes_from(graph.nodes(data=True))
    renumbered.add_edges_from((u, v, attributes) for u, v, attributes in graph.edges(data=True))
    return renumbered


def _gml(file: Path) -> "nx.Graph":
    import networkx as nx

    graph: Any = nx.parse_gml(_lines(file), label="id")
    labels = [label for _, label in graph.nodes(data="label")]
    # Ids in GML number the nodes of the file; their names, where all have one, are the labels.
    if None in labels or len(set(labels)) < len(labels):
        return graph
    for _, attributes in graph.nodes(data=True):
        del attributes["label"]
    return nx.relabel_nodes(graph, dict(zip(graph, labels, strict=True)))


def _pajek(file: Path) -> "nx.Graph":
    import networkx as nx

    lines = _lines(file)
    heads = [line.split()[:2] for line in lines if line.startswith("*")]
    sections = {head[0].lower() for head in heads}
    if {"*arcs", "*edges"} <= sections or any(each.endswith("slist") for each in sections):
        raise ValueError("it mixes arcs and edges, or lists them by vertex, which networkx misreads; save arcs alone")
    graph = nx.parse_pajek(lines)
    announced = sum(int(head[1]) for head in heads if head[0].lower() == "*vertices")
    if announced != len(graph):
        raise ValueError(f"it announces {announced} vertices and has {len(graph)} different names")
    # Where the vertex was drawn, not where the neuron is.
    for _, attributes in graph.nodes(data=True):
        for name in ("id", "x", "y", "shape"):
            attributes.pop(name, None)
    return graph


def _edge_list(file: Path) -> "nx.Graph":
    """Lines `u v`, `u v weight` or `u v {attributes}`; a line `# connectinfer ...` is the note of types."""
    import networkx as nx

    lines = _lines(file)
    numbered = [(at, line) for at, line in enumerate(lines, 1) if line.strip() and not line.startswith(("#", "%"))]
    rows = [line for _, line in numbered]
    _check_separated(rows)
    for at, line in numbered:
        if len(line.split(maxsplit=1)) < 2:
            raise ValueError(f"line {at} has no edge, two ids with a blank between them: {line.strip()!r:.60}")
    is_weighted = bool(rows) and len(rows[0].split()) == 3 and not rows[0].split()[2].startswith("{")
    data: Any = [("weight", float)] if is_weighted else True
    # Ids may hold a #, so that it begins a comment only at the start of a line.
    no_comments: Any = None
    graph = nx.parse_edgelist(rows, comments=no_comments, create_using=nx.MultiDiGraph, data=data)
    return _noted(graph, lines)


def _adjacency_list(file: Path) -> "nx.Graph":
    import networkx as nx

    lines = _lines(file)
    _check_separated([line for line in lines if line.strip() and not line.startswith("#")])
    return _noted(nx.parse_adjlist(lines, create_using=nx.MultiDiGraph), [])


def _check_separated(rows: list[str]) -> None:
    """Refuse commas between ids, which networkx would take for a part of them."""
    ends = [row.split("{")[0].split(maxsplit=2)[:2] for row in rows]
    at_commas = any(each.strip(",") != each for pair in ends for each in pair)
    if at_commas or (rows and all(len(pair) == 1 and "," in pair[0] for pair in ends)):
        raise ValueError("it looks comma-separated; name it .csv, or put blanks between the ids")


def _noted(graph: Any, lines: list[str]) -> "nx.Graph":
    import networkx as nx

    notes = [line.removeprefix(f"# {NOTE} ") for line in lines if line.startswith(f"# {NOTE} ")]
    if notes:
        graph.graph[NOTE] = notes[0]
    elif all(_WHOLE_NUMBER.fullmatch(node) for node in graph):
        graph = nx.relabel_nodes(graph, {node: int(node) for node in graph})
    return graph


def _node_link(file: Path) -> "nx.Graph":
    return _from_node_link(parse_json(file))


def _from_node_link(parsed: Any) -> "nx.Graph":
    import networkx as nx

    if not is_node_link(parsed):
        raise ValueError("it has no `nodes`, or no `links` or `edges` with `source` and `target`")
    links = "links" if "links" in parsed else "edges"
    graph = nx.node_link_graph(parsed, edges=links, directed=True, multigraph=False)
    listed, differ = (len(parsed["nodes"]), len(_links(parsed))), (len(graph), graph.number_of_edges())
    if listed != differ:
        raise ValueError(
            f"it lists {listed[0]} nodes and {listed[1]} edges, of which {differ[0]} and {differ[1]} differ; repeated "
            "edges need `multigraph`, and edges join listed nodes"
        )
    return graph


def _links(parsed: dict[str, Any]) -> Any:
    return parsed.get("links", parsed.get("edges"))


def _write_node_link(graph: "nx.Graph", path: Path) -> None:
    import networkx as nx

    parsed = nx.node_link_data(graph, edges="edges")
    for each in (*parsed["nodes"], *parsed["edges"]):
        # JSON has no NaN; null reads back as NaN.
        each.update({name: None for name, value in each.items() if value != value})
    path.write_text(json.dumps(parsed, allow_nan=False), encoding="utf-8")


def _write_edge_list(graph: "nx.Graph", path: Path) -> None:
    lines = [f"# {NOTE} {graph.graph[NOTE]}"]
    for u, v, attributes in graph.edges(data=True):
        known = {name: value for name, value in attributes.items() if value == value}
        lines.append(f"{u} {v} {known}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


_FORMATS: dict[str, Callable[[Path], "nx.Graph"]] = {
    ".graphml": _graphml,
    ".gexf": _gexf,
    ".gml": _gml,
    ".net": _pajek,
    ".edgelist": _edge_list,
    ".adjlist": _adjacency_list,
    ".json": _node_link,
}
GRAPHS = tuple(suffix for suffix in _FORMATS if suffix != ".json")
