"""Whether a file holds a recording or a connectome is told from its format and names."""

import json

import networkx as nx
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.reading import open_connectome
from connectinfer.data.recognition import holds_connectome
from connectinfer.data.saving import save


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"pre": [1], "post": [2]}, True, id="edges"),
        pytest.param({"weight": [[0.0]]}, True, id="matrix"),
        pytest.param({"counts": [[1]], "time": [0.0]}, False, id="counts"),
        pytest.param({"spike_times": [0.1], "unit": [1]}, False, id="spikes"),
        pytest.param({"counts": [[1]], "weight": [[0.0]]}, None, id="both"),
        pytest.param({"pre": [1]}, None, id="neither"),
    ],
)
def test_our_names_in_a_file_tell(tmp_path, fields, expected):
    np.savez(tmp_path / "a.npz", **fields)
    assert holds_connectome(tmp_path / "a.npz") is expected


def test_names_that_the_caller_gives_go_before_those_of_the_file(tmp_path):
    np.savez(tmp_path / "a.npz", counts=[[1]], pre=[1])
    assert holds_connectome(tmp_path / "a.npz", {"pre", "post"}) is True
    np.savez(tmp_path / "b.npz", pre=[1], post=[2])
    assert holds_connectome(tmp_path / "b.npz", {"spike_times"}) is False


def test_graphs_are_connectomes_and_json_is_where_it_is_a_graph(tmp_path):
    nx.write_gml(nx.DiGraph([("a", "b")]), tmp_path / "a.gml")
    assert holds_connectome(tmp_path / "a.gml") is True
    (tmp_path / "a.json").write_text('{"nodes": [{"id": 1}], "links": []}')
    assert holds_connectome(tmp_path / "a.json") is True
    (tmp_path / "b.json").write_text('{"nodes": [{"id": 1}]}')
    assert holds_connectome(tmp_path / "b.json") is None


def test_files_are_read_once(tmp_path, monkeypatch):
    parsed, loaded = [], []
    parse, load = json.load, xr.load_dataset
    monkeypatch.setattr(json, "load", lambda stream: parsed.append(1) or parse(stream))
    monkeypatch.setattr(xr, "load_dataset", lambda *args, **options: loaded.append(1) or load(*args, **options))
    (tmp_path / "a.json").write_text('{"pre": [1, 2], "post": [2, 1]}')
    save(open_connectome(tmp_path / "a.json"), tmp_path / "a.nc")
    assert len(parsed) == 1
    assert holds_connectome(tmp_path / "a.nc") is True
    assert not loaded
    open_connectome(tmp_path / "a.nc")
    assert len(loaded) == 1
