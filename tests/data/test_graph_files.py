"""Files of graphs: what other programs write is read, what we write comes back, and damage is refused."""

import gzip

import networkx as nx
import numpy as np
import pytest

from connectinfer.data import compressed
from connectinfer.data.graph_files import open_graph, read_graph
from connectinfer.data.reading import open_connectome

GRAPHML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed">{}</graph></graphml>'
BOMB = '<!DOCTYPE g [<!ENTITY a "{}"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'.format("lol" * 100)


def edges_of(dataset, *names):
    return sorted(zip(*(dataset[name].values.tolist() for name in ("pre", "post", *names)), strict=True))


@pytest.fixture
def graph():
    made = nx.DiGraph([("AVA", "AVB", {"weight": 2.5}), ("AVB", "RIM", {"weight": 0.1})])
    nx.set_node_attributes(made, {"AVA": "command", "AVB": "command", "RIM": "motor"}, "cell_type")
    return made


@pytest.mark.parametrize("form", ["graphml", "gml", "gexf"])
def test_what_networkx_wrote_is_read_with_all_attributes(tmp_path, graph, form):
    path = tmp_path / f"worm.{form}"
    getattr(nx, f"write_{form}")(graph, path)
    made = open_connectome(path)
    assert edges_of(made, "weight") == [("AVA", "AVB", 2.5), ("AVB", "RIM", 0.1)]
    assert made["cell_type"].values.tolist() == ["command", "command", "motor"]
    assert made.attrs["source"] == path.name


def test_ids_of_graphml_are_text_unless_the_file_says_otherwise(tmp_path):
    graph = nx.DiGraph([(7, 8)])
    nx.write_graphml(graph, tmp_path / "a.graphml")
    assert open_graph(tmp_path / "a.graphml")["neuron"].values.tolist() == ["7", "8"]
    graph.graph["connectinfer"] = '{"neuron": {"neuron": "int64"}}'
    nx.write_graphml(graph, tmp_path / "b.graphml")
    assert open_graph(tmp_path / "b.graphml")["neuron"].values.tolist() == [7, 8]


def test_a_note_that_does_not_fit_changes_nothing(tmp_path):
    graph = nx.DiGraph([("x7", "8", {"weight": 1.5})])
    graph.graph["connectinfer"] = '{"neuron": {"neuron": "int64"}, "edge": {"weight": "int8"}}'
    nx.write_graphml(graph, tmp_path / "a.graphml")
    made = open_graph(tmp_path / "a.graphml")
    assert (made["neuron"].values.tolist(), made["weight"].item()) == (["x7", "8"], 1.5)


def test_labels_of_gml_are_ids_where_they_differ(tmp_path):
    text = 'graph [ directed 1 node [ id 4 label "{}" ] node [ id 9 label "b" ] edge [ source 4 target 9 ] ]'
    (tmp_path / "a.gml").write_text(text.format("a"))
    assert edges_of(open_graph(tmp_path / "a.gml")) == [("a", "b")]
    (tmp_path / "b.gml").write_text(text.format("b"))
    same = open_graph(tmp_path / "b.gml")
    assert edges_of(same) == [(4, 9)]
    assert same["label"].values.tolist() == ["b", "b"]


def test_edge_ids_of_parallel_edges_in_graphml_are_no_kinds(tmp_path):
    edges = '<node id="a"/><node id="b"/><edge id="e1" source="a" target="b"/><edge id="e2" source="a" target="b"/>'
    (tmp_path / "a.graphml").write_text(GRAPHML.format(edges))
    made = open_graph(tmp_path / "a.graphml")
    assert edges_of(made, "contact") == [("a", "b", 0), ("a", "b", 1)]
    assert "kind" not in made


def test_pajek_arcs_have_weights_and_drawings_no_positions(tmp_path):
    (tmp_path / "a.net").write_text(
        '*Vertices 3\n1 "L 4" 0.1 0.2 ellipse\n2 "b" 0 0 box\n3 "c"\n*Arcs\n1 2 0.5\n2 3 2\n'
    )
    made = open_graph(tmp_path / "a.net")
    assert edges_of(made, "weight") == [("L 4", "b", 0.5), ("b", "c", 2.0)]
    assert not {"x", "y", "shape"} & set(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("*Vertices 2\n1 a\n2 b\n*Arcs\n1 2\n*Edges\n1 2\n", "it mixes arcs and edges", id="mixed"),
        pytest.param("*Vertices 2\n1 a\n2 b\n*Arcslist\n1 2\n", "lists them by vertex", id="lists"),
        pytest.param("*Vertices 2\n1 L4\n2 L4\n*Arcs\n1 2\n", "announces 2 vertices and has 1 different", id="names"),
        pytest.param("*Vertices 99999999999\n1 a\n", "a.net cannot be read as a graph", id="cut"),
    ],
)
def test_pajek_files_that_networkx_would_misread_are_refused(tmp_path, text, message):
    (tmp_path / "a.net").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_graph(tmp_path / "a.net")


@pytest.mark.parametrize(
    ("text", "names", "edges"),
    [
        pytest.param("# snap\n% konect\n1 2\n2 1\n", (), [(1, 2), (2, 1)], id="whole numbers"),
        pytest.param("a b 0.5\nb c 2\n", ("weight",), [("a", "b", 0.5), ("b", "c", 2.0)], id="weights"),
        pytest.param("a b {'size': 3}\n", ("size",), [("a", "b", 3)], id="attributes"),
        pytest.param("01 2\n", (), [("01", "2")], id="leading zero"),
        pytest.param("a b\na b\n", ("contact",), [("a", "b", 0), ("a", "b", 1)], id="repeated"),
    ],
)
def test_edge_lists_are_directed(tmp_path, text, names, edges):
    (tmp_path / "a.edgelist").write_text(text)
    assert edges_of(open_graph(tmp_path / "a.edgelist"), *names) == edges


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("a.edgelist", "0,1\n1,2\n", "looks comma-separated; name it .csv", id="commas"),
        pytest.param("a.edgelist", "0, 1\n1, 2\n", "looks comma-separated; name it .csv", id="commas and blanks"),
        pytest.param("a.adjlist", "0,1,2\n1,2\n", "looks comma-separated; name it .csv", id="lists with commas"),
        pytest.param("a.adjlist", "0, 1, 2\n", "looks comma-separated; name it .csv", id="lists, commas and blanks"),
        pytest.param("a.edgelist", "# ids\n0 1\n\n2\n", "line 4 has no edge, two ids .*: '2'", id="single"),
    ],
)
def test_lists_that_networkx_would_misread_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} cannot be read as a graph .*{message}"):
        open_graph(tmp_path / name)


def test_commas_within_ids_and_attributes_are_no_separators(tmp_path):
    (tmp_path / "a.edgelist").write_text("L2,3 L4 {'size': 3, 'depth': 2}\n")
    assert edges_of(open_graph(tmp_path / "a.edgelist"), "size") == [("L2,3", "L4", 3)]


@pytest.mark.parametrize(
    ("stated", "edges", "read"),
    [
        pytest.param("", [(1, 2)], r"directed graph (the file does not say; undirected is `directed: false`)", id="d3"),
        pytest.param('"directed": true,', [(1, 2)], "directed graph", id="directed"),
        pytest.param(
            '"directed": false,', [(1, 2), (2, 1)], "undirected graph: both directions of every edge", id="undirected"
        ),
    ],
)
def test_node_link_json_is_directed_unless_it_says_otherwise(tmp_path, stated, edges, read):
    (tmp_path / "a.json").write_text(
        f'{{{stated} "nodes": [{{"id": 1}}, {{"id": 2}}], "links": [{{"source": 1, "target": 2}}]}}'
    )
    made = open_connectome(tmp_path / "a.json")
    assert (edges_of(made), made.attrs["read"]) == (edges, read)


def test_adjacency_lists_keep_nodes_without_edges(tmp_path):
    (tmp_path / "a.adjlist").write_text("# made by hand\n1 2 3\n3 1\n4\n")
    made = open_graph(tmp_path / "a.adjlist")
    assert edges_of(made) == [(1, 2), (1, 3), (3, 1)]
    assert made["neuron"].values.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("links", ["links", "edges"])
def test_node_link_json_keeps_ids_of_either_type(tmp_path, links):
    (tmp_path / "a.json").write_text(
        f'{{"directed": true, "nodes": [{{"id": {2**60 + 1}}}, {{"id": 2, "cell_type": null}}],'
        f'"{links}": [{{"source": {2**60 + 1}, "target": 2, "weight": 0.5}}]}}'
    )
    made = open_connectome(tmp_path / "a.json")
    assert edges_of(made, "weight") == [(2**60 + 1, 2, 0.5)]
    assert np.isnan(made["cell_type"].values).all()


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [
        pytest.param('{"id": 1}, {"id": 2}', '{"source": 1, "target": 2}, {"source": 1, "target": 2}', id="repeated"),
        pytest.param('{"id": 1}, {"id": 1}', '{"source": 1, "target": 1}', id="same node"),
        pytest.param('{"id": 1}', '{"source": 1, "target": 3}', id="unlisted"),
    ],
)
def test_node_link_json_that_networkx_would_misread_is_refused(tmp_path, nodes, edges):
    (tmp_path / "a.json").write_text(f'{{"directed": true, "nodes": [{nodes}], "links": [{edges}]}}')
    with pytest.raises(ValueError, match="differ; repeated edges need `multigraph`, and edges join listed nodes"):
        open_connectome(tmp_path / "a.json")


def test_columns_of_a_graph_are_fields_too(tmp_path, graph):
    nx.write_graphml(graph, tmp_path / "a.graphml")
    made = open_connectome(
        tmp_path / "a.graphml",
        fields={"pre": "edges.post", "post": "edges.pre", "weight": lambda file: file["edges"]["weight"] * 2},
    )
    assert edges_of(made, "weight") == [("AVB", "AVA", 5.0), ("RIM", "AVB", 0.2)]
    assert made.attrs["left_out"] == "nodes.neuron, nodes.cell_type"


def test_a_graph_describes_its_neurons_itself(tmp_path, graph):
    nx.write_graphml(graph, tmp_path / "a.graphml")
    with pytest.raises(ValueError, match=r"a.graphml lists its neurons itself; leave out `neurons`"):
        open_connectome(tmp_path / "a.graphml", neurons=["AVA", "AVB", "RIM"])


def test_a_gzipped_graph_is_read(tmp_path, graph):
    (tmp_path / "a.gml.gz").write_bytes(gzip.compress("\n".join(nx.generate_gml(graph)).encode()))
    assert open_connectome(tmp_path / "a.gml.gz").sizes == {"edge": 2, "neuron": 3}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("suffix", [".graphml", ".gexf"])
def test_declared_entities_are_refused_in_any_encoding(tmp_path, suffix, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>{BOMB}' + GRAPHML.format('<node id="&b;"/>')
    (tmp_path / f"a{suffix}").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=f"a{suffix} cannot be read .* declares a document type or entities"):
        open_graph(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.graphml", "<a>" * 100_000),
        ("deep.gml", "graph [ " * 50_000),
        ("deep.edgelist", "a b " + "{'a':" * 5_000),
        ("deep.json", "[" * 500_000),
        ("level.json", "[" * 150 + "]" * 150),
        ("nothing.graphml", ""),
        ("nothing.edgelist", ""),
        ("nothing.adjlist", "# only a comment\n"),
        ("nothing.gml", ""),
        ("nothing.json", ""),
    ],
)
def test_absurd_nesting_and_empty_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"^{name}"):
        open_connectome(tmp_path / name)


@pytest.mark.parametrize("name", ["a.json.gz", "a.graphml.gz", "a.csv.gz"])
def test_a_small_file_that_unfolds_without_end_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 1000)
    (tmp_path / name).write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(ValueError, match=f"{name} cannot be read .* it unfolds to more than"):
        open_connectome(tmp_path / name)


@pytest.mark.parametrize("suffix", [".graphml", ".gml", ".gexf", ".net", ".edgelist", ".adjlist", ".json"])
def test_a_damaged_file_is_refused_by_name_or_still_a_graph(tmp_path, graph, suffix):
    if suffix == ".json":
        whole = (
            b'{"directed": true, "nodes": [{"id": 1}, {"id": 2}], "links": [{"source": 1, "target": 2, "weight": 3}]}'
        )
    elif suffix == ".net":
        whole = "\n".join(nx.generate_pajek(nx.DiGraph(graph.edges))).encode()
    else:
        getattr(nx, f"write_{suffix[1:]}")(graph, tmp_path / f"whole{suffix}")
        whole = (tmp_path / f"whole{suffix}").read_bytes()
    path, refused, random = tmp_path / f"damaged{suffix}", [], np.random.default_rng(0)
    for attempt in range(40):
        damaged = bytearray(whole[: random.integers(len(whole))] if attempt % 4 == 0 else whole)
        for at in random.integers(max(len(damaged), 1), size=2 if damaged else 0):
            damaged[at] = random.integers(256)
        path.write_bytes(damaged)
        try:
            open_graph(path)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) >= 10
    assert all(message.startswith(path.name) for message in refused)
    path.write_bytes(whole)
    assert len(read_graph(path)) in (2, 3)
