"""Small sound tables, JSON files and graphs, with the odd constructs of each."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import networkx as nx
import pandas as pd
from sample import COUNTS, TIMES, UNITS, Sample, plain_wiring, taken, text, wiring

from connectinfer.data.saving import save

EDGE_ROWS = [("pre", "post", "weight", "kind"), ("a", "b", "0.5", "x"), ("b", "c", "1e-3", "y"), ("c", "a", "-2", "x")]
SPIKE_ROWS = [("spike_times", "unit", "depth"), *((f"{t:.17g}", str(u), "") for t, u in zip(TIMES, UNITS, strict=True))]


def delimited(suffix: str, separator: str) -> Callable[[Path], Iterator[Sample]]:
    def lines(rows) -> str:
        return "".join(separator.join(each) + "\n" for each in rows)

    def make(_: Path) -> Iterator[Sample]:
        yield text(f"edges{suffix}", lines(EDGE_ROWS), "connectome")
        yield text(f"spikes{suffix}", "\ufeff" + lines(SPIKE_ROWS), "recording")
        bins = [("trial", "time", "light", "cell_1", "cell_2")]
        bins += [(str(trial), f"{at / 10}", "0.5", str(at), "1") for trial in (1, 2) for at in range(4)]
        fields = {"counts": "cell_*", "trial": "trial", "time": "time"}
        yield text(f"bins{suffix}", lines(bins), "recording", fields)
        big = [("648518346349539437", "648518346349539438", "2"), ("648518346349539438", "3", "1")]
        yield text(f"numbers{suffix}", lines(big), "connectome", {"pre": "0", "post": "1", "synapse_count": "2"})
        quoted = [("pre", "post", "weight", "note"), ("1", "2", "1", '"two\nlines"'), ("2", "1", "", "")]
        yield text(f"quoted{suffix}", lines(quoted), "connectome", {"pre": "pre", "post": "post", "note": "note"})

    return make


def parquet(root: Path) -> Iterator[Sample]:
    edges = pd.DataFrame({"pre": [1, 2, 2**60], "post": [2, 1, 1], "weight": [0.5, 1, 2], "kind": ["x", "y", "x"]})
    for name, options in (
        ("plain", {"compression": None}),
        ("packed", {"compression": "zstd"}),
        ("old", {"compression": "gzip", "version": "1.0"}),
    ):
        edges.to_parquet(root / f"{name}.parquet", **options)
        yield taken(root / f"{name}.parquet", "connectome")
    nested = pd.DataFrame({
        "spike_times": [TIMES[:9], TIMES[9:]], "unit": [1, 2], "label": pd.Categorical(["x", "y"]),
        "day": pd.to_datetime(["2024-01-01", None]), "sure": pd.array([True, None], "boolean"), "box": [{"a": 1}, None],
    })  # fmt: skip
    nested.to_parquet(root / "nested.parquet")
    yield taken(root / "nested.parquet", "recording")


def json_graph(_: Path) -> Iterator[Sample]:
    nodes = [{"id": "a", "size": 1}, {"id": "b", "x": 1.0}, {"id": "c"}]
    links = [{"source": "a", "target": "b", "weight": 0.5}, {"source": "b", "target": "c", "weight": 1e-3, "key": 0}]
    yield text("d3.json", json.dumps({"nodes": nodes, "links": links, "directed": True}), "connectome")
    edges = [{"source": 1, "target": 2, "key": "gap", "tags": [1]}, {"source": 1, "target": 2, "key": "chemical"}]
    listed = {"nodes": [{"id": 1}, {"id": 2}], "edges": edges, "directed": True, "multigraph": True, "graph": {}}
    yield text("multi.json", json.dumps(listed), "connectome")
    yield text("packed.json.gz", json.dumps({"nodes": nodes, "links": links}), "connectome")


def json_table(_: Path) -> Iterator[Sample]:
    rows = [{"pre": 2**60, "post": 1, "weight": 0.5}, {"pre": 1, "post": 2**60, "weight": 2, "note": None}]
    yield text("edges.json", json.dumps(rows), "connectome")
    rows = [{"unit": 1, "spike_times": TIMES[:9].tolist()}, {"unit": 2, "spike_times": TIMES[9:].tolist()}]
    yield text("trains.json", json.dumps(rows), "recording")


def json_tree(_: Path) -> Iterator[Sample]:
    session = {
        "bin_width": 0.02,
        "counts": COUNTS.tolist(),
        "unit": ["a", "b"],
        "meta": {"who": "é", "list": [{"a": 1}]},
    }
    yield text("session.json", json.dumps(session), "recording")
    trials = {"trials": [{"spikes": each.tolist(), "choice": 1} for each in COUNTS], "rate": 50}
    yield text("trials.json", json.dumps(trials), "recording", {"counts": "trials.spikes"}, bin_width=0.02)
    yield text("counts.json", json.dumps(COUNTS.tolist()), "recording", None, bin_width=0.1)


def written_graph(suffix: str) -> Callable[[Path], Iterator[Sample]]:
    def make(root: Path) -> Iterator[Sample]:
        for name, made in (("typed", wiring()), ("plain", plain_wiring())):
            if suffix == ".edgelist" and name == "typed":
                continue
            save(made, root / f"{name}{suffix}")
            yield taken(root / f"{name}{suffix}", "connectome")
        graph = nx.MultiGraph(
            [("u", "v", {"weight": 1.5}), ("u", "v", {"weight": 2.5}), ("v", "v", {"weight": 1.0, "kind": "x"})]
        )
        writers = {".graphml": nx.write_graphml_xml, ".gml": nx.write_gml}
        if suffix in writers:
            writers[suffix](graph, root / f"multi{suffix}")
            yield taken(root / f"multi{suffix}", "connectome")
        else:
            yield text("weighted.edgelist", "# c\n1 2 0.5\n2 3 1e-3\n3 1 4\n", "connectome")
            yield text("labelled.edgelist", "a b {'weight': 1.0, 'kind': 'x'}\nb a {'weight': 2}\n", "connectome")
            yield text("neighbours.adjlist", "# c\n1 2 3\n2 3\n3\n", "connectome")

    return make


def gexf(root: Path) -> Iterator[Sample]:
    directed = nx.DiGraph([("u", "v", {"weight": 1.5, "kind": "x"}), ("v", "w", {"weight": 2.0})])
    directed.add_node("q", size=1)
    for name, graph in (("directed", directed), ("multi", nx.MultiGraph([(1, 2), (1, 2), (2, 3)]))):
        nx.write_gexf(graph, root / f"{name}.gexf")
        yield taken(root / f"{name}.gexf", "connectome")


def pajek(_: Path) -> Iterator[Sample]:
    arcs = '*Vertices 3\n1 "a" 0.1 0.2 ellipse\n2 "b b"\n3 c\n*Arcs\n1 2 0.5\n2 3 1\n3 3 -2\n'
    yield text("arcs.net", arcs, "connectome")
    yield text("edges.net", '*Vertices 2\n1 "a"\n2 "b"\n*Edges\n1 2 3\n1 2 4\n', "connectome")


def gzipped(root: Path) -> Iterator[Sample]:
    for suffix, make in (
        (".csv", delimited(".csv", ",")),
        (".graphml", written_graph(".graphml")),
        (".json", json_tree),
    ):
        folder = root / f"gz{suffix}"
        folder.mkdir()
        for each in make(folder):
            packed = gzip.compress(each.files[each.opened], mtime=0)
            if each.opened.endswith(suffix):
                yield each._replace(files={f"{each.opened}.gz": packed}, opened=f"{each.opened}.gz")
