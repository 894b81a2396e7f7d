"""Hostile tables, JSON and graphs: they nest or unfold without end, name entities, hold code or absurd numbers.

Each yields the name of the opened file, its bytes or files by name, what it claims to hold, and perhaps `fields`.
"""

import gzip
import io
import json
import pickle

import numpy as np
import pandas as pd
from traps import MARKER, SECRET, Bomb


def tables(suffix: str, separator: str):
    def make():
        columns = lambda rows: "\n".join(separator.join(row) for row in rows)  # noqa: E731
        edges = [("pre", "post", "weight"), ("a", "b", "1")]
        yield (
            f"long{suffix}",
            columns([*edges, ("c" * 10**5, "a", "1"), *((f"{at}x", "b", "2") for at in range(1000))]),
            "connectome",
        )
        yield f"wide{suffix}", columns([("a",) * 20000, ("1",) * 20000]), "recording"
        yield f"quote{suffix}", columns([*edges, ('"never closed', "b", "1")]), "connectome"
        yield f"nul{suffix}", columns(edges).encode() + b"\x00" * 1000, "connectome"
        yield f"surrogate{suffix}", columns([*edges, ("\ud800", "b", "1")]), "connectome"
        yield f"numbers{suffix}", columns([*edges, ("c", "b", "1e999"), ("d", "b", "nan")]), "connectome"
        yield f"ids{suffix}", columns([("pre", "post"), ("99999999999999999999", "1")]), "connectome"
        yield f"formula{suffix}", columns([*edges, ('=cmd|" /C calc"!A0', "b", "1")]), "connectome"
        for name, last in (("late", "1e300"), ("far", "1e9"), ("nan", "nan")):
            yield f"{name}{suffix}", columns([("spike_times", "unit"), ("0", "1"), (last, "2")]), "recording"
        times = [("trial", "time", "counts"), *(("1", f"{at / 10}", "1") for at in range(9)), ("1", "1e9", "1")]
        yield f"gap{suffix}", columns(times), "recording", {"counts": "counts*", "trial": "trial", "time": "time"}

    return make


def parquet():
    def packed(table, **options):
        image = io.BytesIO()
        table.to_parquet(image, **options)
        return image.getvalue()

    yield (
        "zeros.parquet",
        packed(pd.DataFrame({"pre": np.zeros(10**7, int), "post": np.zeros(10**7, int)})),
        "connectome",
    )
    yield (
        "long.parquet",
        packed(pd.DataFrame({"pre": ["a" * 10**5, *map(str, range(999))], "post": ["1"] * 1000})),
        "connectome",
    )
    yield "bytes.parquet", packed(pd.DataFrame({"pre": [pickle.dumps(Bomb())], "post": [b"x"]})), "connectome"
    yield (
        "decimals.parquet",
        packed(pd.DataFrame({"pre": pd.array([1], "Int8"), "post": [2], "weight": [pd.Timedelta("1s")]})),
        "connectome",
    )
    yield "repeated.parquet", packed(pd.DataFrame({"pre": ["a" * 2000] * 100000, "post": ["b"] * 100000})), "connectome"


def json_graph():
    yield "deep.json", '{"nodes": [{"id": ' + "[" * 10**5 + "]" * 10**5 + '}], "links": []}', "connectome"
    for name, node in {
        "nan": "NaN",
        "infinity": "Infinity",
        "huge": "1" * 5000,
        "list": "[1]",
        "none": "null",
        "surrogate": '"\\ud800"',
        "long": f'"{"a" * 10**5}"',
    }.items():
        link = f'{{"source": {node}, "target": 2, "weight": {node}}}'
        text = f'{{"nodes": [{{"id": {node}}}, {{"id": 2}}], "links": [{link}]}}'
        yield f"{name}.json", text, "connectome"
    yield (
        "notes.json",
        json.dumps(
            {
                "graph": {"connectinfer": '{"neuron": {"neuron": "O,' + "i8," * 5000 + '"}}'},
                "nodes": [{"id": 1}],
                "links": [],
            }
        ),
        "connectome",
    )
    yield (
        "python.json",
        '{"nodes": [{"id": "a"}], "links": [], "py/object/apply:os.system": ["touch executed"]}',
        "connectome",
    )


def json_table():
    yield (
        "long.json",
        json.dumps([{"pre": "a" * 10**5, "post": "b"}, *({"pre": f"{at}", "post": "b"} for at in range(1000))]),
        "connectome",
    )
    yield "wide.json", json.dumps([{f"c{at}": 1} for at in range(3000)]), "connectome"
    yield "yaml.json", f'!!python/object/apply:os.system ["touch {MARKER}"]', "recording"
    yield "far.json", '[{"unit": 1, "spike_times": [0, 1e12]}, {"unit": 2, "spike_times": [1]}]', "recording"


def json_tree():
    yield "deep.json", '{"a":' * 10**5 + "1" + "}" * 10**5, "recording"
    yield "nested.json", '{"a":' * 95 + "1" + "}" * 95, "recording"
    yield "huge.json", '{"counts": [[[1, ' + "9" * 4000 + "]]]}", "recording"
    yield "infinity.json", '{"rates": [[[1, Infinity], [NaN, 1]]]}', "recording"
    yield "float.json", '{"rates": [[[1, 1e999], [2, 1]]]}', "recording"
    yield "mixed.json", '{"counts": [[[1, "a"], [{}, null]]]}', "recording"
    yield "surrogate.json", '{"counts": [[[1], [2]]], "unit": ["\\udcff"]}', "recording"


def xml(suffix: str, inner: str):
    def make():
        lol = "".join(f'<!ENTITY l{at} "{f"&l{at - 1};" * 10}">' for at in range(1, 10))
        yield (
            f"laughs{suffix}",
            f'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY l0 "lol">{lol}]>' + inner.replace("VALUE", "&l9;"),
            "connectome",
        )
        outside = f'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY x SYSTEM "{SECRET}">]>'
        yield f"outside{suffix}", outside + inner.replace("VALUE", "&x;"), "connectome"
        yield f"utf16{suffix}", (outside + inner.replace("VALUE", "&x;")).encode("utf-16"), "connectome"
        yield f"deep{suffix}", "<graph>" * 10**5, "connectome"
        for name, value in {
            "nan": "NaN",
            "huge": "1e999",
            "long": "a" * 10**5,
            "nul": "&#0;",
            "surrogate": "&#xD800;",
        }.items():
            yield f"{name}{suffix}", inner.replace("VALUE", value), "connectome"

    return make


GRAPHML = (
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    '<key id="k" for="edge" attr.name="weight" attr.type="double"/><graph edgedefault="directed"><node id="a"/>'
    '<node id="b"/><edge source="a" target="b"><data key="k">VALUE</data></edge></graph></graphml>'
)
GEXF = (
    '<gexf xmlns="http://www.gexf.net/1.2draft" version="1.2"><graph defaultedgetype="directed"><nodes>'
    '<node id="a" label="a"/><node id="b" label="VALUE"/></nodes>'
    '<edges><edge id="0" source="a" target="b" weight="1"/></edges></graph></gexf>'
)


def gml():
    yield "deep.gml", "graph [ " + "a [ " * 10**4 + "] " * 10**4 + "]", "connectome"
    for name, value in {
        "huge": "9" * 5000,
        "nan": "NAN",
        "infinity": "+INF",
        "list": "[ a 1 ]",
        "code": "\"__import__('os').system('touch executed')\"",
    }.items():
        nodes, edge = 'node [ id 0 label "a" ] node [ id 1 label "b" ]', f"edge [ source 0 target 1 weight {value} ]"
        yield f"{name}.gml", f"graph [ directed 1 {nodes} {edge} ]", "connectome"
    yield "entity.gml", 'graph [ node [ id 0 label "&#1114112;&#xD800;&lol;" ] ]', "connectome"


def pajek():
    yield "many.net", '*Vertices 1000000000\n1 "a"\n*Arcs\n1 1 1\n', "connectome"
    yield "few.net", "*Vertices 1\n*Arcs\n99999999999 1 1\n", "connectome"
    yield "nan.net", '*Vertices 2\n1 "a"\n2 "b"\n*Arcs\n1 2 nan\n', "connectome"
    yield "quote.net", '*Vertices 2\n1 "a\n2 "b"\n*Arcs\n1 2 1\n', "connectome"
    yield "matrix.net", "*Vertices 2\n1 a\n2 b\n*Matrix\n0 1\n1 0\n", "connectome"


def edge_list():
    yield "code.edgelist", f"1 2 {{'w': __import__('os').system('touch {MARKER}')}}\n", "connectome"
    yield "deep.edgelist", "1 2 " + "{'a':" * 5000 + "1" + "}" * 5000 + "\n", "connectome"
    yield "power.edgelist", "1 2 {'w': 9**9**9**9}\n", "connectome"
    yield "minus.edgelist", "1 2 {'w': " + "-" * 10**5 + "1}\n", "connectome"
    yield "note.edgelist", '# connectinfer {"neuron": {"neuron": "O"}}\n1 2 {}\n', "connectome"
    yield "sizes.edgelist", '# connectinfer {"neuron": {"neuron": "U99999999"}}\n1 2 {}\n', "connectome"
    yield "ids.edgelist", "9223372036854775807 9223372036854775808 {}\n", "connectome"


def gzipped():
    def pack(data: bytes) -> bytes:
        return gzip.compress(data, mtime=0)

    yield "zeros.csv.gz", pack(bytes(3 * 10**8)), "connectome"
    yield "spaces.json.gz", pack(b" " * 3 * 10**8), "connectome"
    yield "rows.csv.gz", pack(b"pre,post\n" + b"1,2\n" * (2 * 10**7)), "connectome"
    yield "twice.csv.gz", pack(pack(b"pre,post\n1,2\n")), "connectome"
    yield "empty.csv.gz", b"", "connectome"
    yield "graph.gml.gz", pack(b"graph [ " + b"a [ " * 10**6), "connectome"
    yield "graph.graphml.gz", pack(b"<graphml>" + b"<a/>" * 10**7), "connectome"
