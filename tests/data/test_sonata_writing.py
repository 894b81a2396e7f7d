"""What is written is what was read, bit by bit; what was made here can be written too, and libsonata reads it."""

import json
from pathlib import Path

import h5py
import libsonata
import numpy as np
import pandas as pd
import pytest
from shared_data import SHARED_DATA, needs_shared_data
from sonata_network import write_network, write_population

from connectinfer.data.connectome import connectome, merge_contacts
from connectinfer.data.reading import open_connectome
from connectinfer.data.sonata import open_sonata, to_sonata

EXAMPLES = SHARED_DATA / "sonata"


def arrays(file, *, but=("indices", "dynamics_params")):
    """Every data set of an HDF5 file by its path."""
    found = {}
    with h5py.File(file) as content:
        content.visititems(lambda path, item: found.update({path: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return {path: each for path, each in found.items() if not set(but) & set(path.split("/"))}


def assert_same_arrays(written, read):
    assert set(written) == set(read)
    for path, each in read.items():
        assert written[path].dtype == each.dtype, path
        np.testing.assert_array_equal(written[path], each, path)


def open_example(name):
    folder = EXAMPLES / name
    if name != "layer4_sample":
        return open_connectome(next(folder.glob("*circuit*.json")))
    network = folder / "network"
    return open_sonata(
        nodes=[(network / "l4_nodes.h5", network / "l4_node_types.csv")],
        edges=[(network / "l4_l4_edges.h5", network / "l4_l4_edge_types.csv")],
    )


@needs_shared_data
@pytest.mark.parametrize("name", ["300_pointneurons", "9_cells", "point_450glifs", "layer4_sample"])
def test_real_networks_are_written_as_they_were_read(tmp_path, name):
    read = open_example(name)
    config = to_sonata(read, tmp_path / "out")
    for original in (EXAMPLES / name / "network").iterdir():
        written = config.parent / "network" / original.name
        if original.suffix == ".h5":
            assert_same_arrays(arrays(written), arrays(original))
        else:
            assert written.read_text() == original.read_text().replace("\r\n", "\n")
    again = open_connectome(config)
    assert again.drop_attrs().identical(read.drop_attrs())
    assert again.attrs["sonata"] == read.attrs["sonata"]


@needs_shared_data
def test_libsonata_finds_the_same_nodes_edges_and_neighbours(tmp_path):
    read = open_example("300_pointneurons")
    network = to_sonata(read, tmp_path / "out").parent / "network"
    nodes = libsonata.NodeStorage(str(network / "internal_nodes.h5")).open_population("internal")
    mine = read["population"].values == "internal"
    assert nodes.size == 300
    np.testing.assert_array_equal(nodes.get_attribute("x", nodes.select_all()), read["x"].values[mine])
    edges = libsonata.EdgeStorage(str(network / "external_internal_edges.h5")).open_population("external_to_internal")
    assert (edges.source, edges.target, edges.size) == ("external", "internal", 20844)
    of = read["edge_population"].values == "external_to_internal"
    np.testing.assert_array_equal(edges.get_attribute("syn_weight", edges.select_all()), read["syn_weight"].values[of])
    pre, post = read["pre"].values[of], read["post"].values[of]
    assert (
        edges.afferent_edges([7, 299]).flatten().tolist()
        == np.flatnonzero(np.isin(post, ["internal:7", "internal:299"])).tolist()
    )
    assert edges.efferent_edges([42]).flatten().tolist() == np.flatnonzero(pre == "external:42").tolist()


def test_groups_types_formats_and_enumerations_come_back(tmp_path):
    write_network(tmp_path)
    with h5py.File(tmp_path / "network" / "edges.h5", "a") as file:
        del file["edges/l4_l4/0/dynamics_params"]
        group = file["edges/l4_l4/1"]
        group["big"] = np.array([1.5, np.nan], ">f4")
        group["flag"] = [True, False]
        group["label"] = np.array(["a", "éé"], h5py.string_dtype())
        group["code"] = np.array([b"xy", b"z"])
        group["root"] = np.array([2**60 + 1, 5], np.uint64)
        group["site"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        group["layer"] = np.array([1, 0], np.uint8)
        group["@library/layer"] = np.array(["L4", "L5"], h5py.string_dtype())
    read = open_connectome(tmp_path / "circuit_config.json")
    assert read["layer"].values.tolist() == ["", "", "L5", "L4", ""]
    assert read["site_2"].values[2:4].tolist() == [2, 5]
    config = to_sonata(read, tmp_path / "out")
    for name in ("nodes.h5", "edges.h5"):
        written, original = arrays(config.parent / "network" / name), arrays(tmp_path / "network" / name)
        # What a file may leave out is written.
        implied = {path for path in set(written) - set(original) if path.endswith(("_id", "_group_index"))}
        assert_same_arrays({path: each for path, each in written.items() if path not in implied}, original)
    assert open_connectome(config).drop_attrs().identical(read.drop_attrs())


def test_the_way_through_netcdf_loses_nothing(tmp_path):
    write_network(tmp_path)
    read = open_connectome(tmp_path / "circuit_config.json")
    read.to_netcdf(tmp_path / "network.nc", engine="h5netcdf")
    again = open_connectome(to_sonata(open_connectome(tmp_path / "network.nc"), tmp_path / "out"))
    assert again.drop_attrs().identical(read.drop_attrs())


def test_changed_values_go_to_the_groups_and_win_over_types(tmp_path):
    write_network(tmp_path)
    read = open_connectome(tmp_path / "circuit_config.json")
    changed = read.assign(
        delay=read["delay"] + 1, syn_weight=read["syn_weight"] / 3, cell_type=("neuron", ["a", "b", "a", "", "c"]),
        area=("neuron", ["V1", "V1", "V1", "", ""]),
    )  # fmt: skip
    again = open_connectome(to_sonata(changed, tmp_path / "out"))
    assert again.drop_attrs().identical(changed[list(again)].drop_attrs())
    with h5py.File(tmp_path / "out" / "network" / "nodes.h5") as file:
        assert "area" not in file["nodes/lgn/0"]
        assert set(file["nodes/l4/1"]) == {"x", "y", "z", "ei", "area", "cell_type"}


def test_edges_that_are_left_move_up_in_their_groups(tmp_path):
    write_network(tmp_path)
    read = open_connectome(tmp_path / "circuit_config.json")
    fewer = read.isel(edge=[1, 3])
    again = open_connectome(to_sonata(fewer, tmp_path / "out"))
    assert again["pre"].values.tolist() == ["l4:3", "l4:3"]
    assert again["syn_weight"].values.tolist() == [0.5, 4.0]
    assert again["edge_group_index"].values.tolist() == [0, 0]
    assert again["edge_group_id"].values.tolist() == [0, 1]
    assert again["contact"].values.tolist() == [1, 0]


def test_merged_contacts_are_written_as_one_edge(tmp_path):
    write_network(tmp_path)
    merged = merge_contacts(open_connectome(tmp_path / "circuit_config.json"))
    again = open_connectome(to_sonata(merged, tmp_path / "out"))
    assert again["synapse_count"].values.tolist() == [2, 1, 1, 1]
    np.testing.assert_array_equal(again["syn_weight"].values, [0.75, 2.0, 4.0, np.nan])
    assert again["edge_type_id"].values.tolist() == [4, 9, 9, 4]


def test_a_connectome_made_here_is_written_and_read(tmp_path):
    table = pd.DataFrame(
        {
            "population": ["V1", "V1", "LM"],
            "cell_type": ["PV", "a cell", ""],
            "sign": [-1, 1, 0],
            "depth": [1.5, 2.5, 3.5],
        },
        index=[2**60 + 1, 2**60 + 2, 2**60 + 3],
    ).assign(axon_observed=[True, False, True], x=[1.0, 2.0, np.nan], y=[1.0, 2.0, np.nan], z=[1.0, 2.0, np.nan])
    ids = np.array(table.index)
    made = connectome(
        ids[[0, 0, 1, 2]], ids[[1, 1, 0, 0]], neurons=table, contact=[0, 1, 0, 0], weight=[0.1, 0.2, 0.3, 0.4],
        synapse_count=[1, 2, 3, 4], kind=["chemical"] * 4,
    )  # fmt: skip
    config = to_sonata(made, tmp_path / "out")
    read = open_connectome(config)
    assert read["neuron"].values.tolist() == ["V1:0", "V1:1", "LM:0"]
    assert read["neuron_id"].values.tolist() == ids.tolist()
    assert read["pre"].values.tolist() == ["V1:0", "V1:0", "V1:1", "LM:0"]
    assert read["edge_population"].values.tolist() == ["V1_to_V1"] * 3 + ["LM_to_V1"]
    kept = ["population", "cell_type", "sign", "depth", "axon_observed", "dendrite_observed", "x"]
    for name in [*kept, "weight", "kind", "synapse_count", "contact"]:
        np.testing.assert_array_equal(read[name].values, made[name].values, name)
    network = config.parent / "network"
    assert (network / "V1_node_types.csv").read_text() == (
        'node_type_id pop_name ei\n0 PV i\n1 "a cell" e\n2 NULL NULL\n'
    )
    edges = libsonata.EdgeStorage(str(network / "V1_to_V1_edges.h5")).open_population("V1_to_V1")
    assert edges.get_attribute("nsyns", edges.select_all()).tolist() == [1, 2, 3]
    assert edges.source_nodes(edges.select_all()).tolist() == [0, 0, 1]


def test_ids_that_name_population_and_node_are_kept(tmp_path):
    made = connectome(["v1:7", "lgn:3"], ["v1:2", "v1:7"], weight=[1.0, 2.0])
    read = open_connectome(to_sonata(made, tmp_path / "out"))
    assert sorted(read["neuron"].values.tolist()) == ["lgn:3", "v1:2", "v1:7"]
    assert sorted(zip(read["pre"].values, read["post"].values, read["weight"].values, strict=True)) == [
        ("lgn:3", "v1:7", 2.0), ("v1:7", "v1:2", 1.0),
    ]  # fmt: skip
    assert "neuron_id" not in read


def test_what_cannot_be_written_is_refused(tmp_path):
    made = connectome(["a"], ["b"], weight=[1.0])
    to_sonata(made, tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"out exists and is not empty\. Choose another folder"):
        to_sonata(made, tmp_path / "out")
    with pytest.raises(ValueError, match=r"variable 'a/b' of float64 cannot be written to SONATA"):
        to_sonata(made.assign({"a/b": ("edge", [1.0])}), tmp_path / "new")
    with pytest.raises(ValueError, match=r"population 'a/b' cannot be written: SONATA uses names as paths"):
        to_sonata(made.assign(population=("neuron", ["a/b", "c"])), tmp_path / "new")
    two = connectome(["x:0", "y:0"], ["x:0", "x:0"], edge_population=["p", "p"])
    with pytest.raises(ValueError, match=r"source neurons of edge_population 'p' are of populations \['x', 'y'\]"):
        to_sonata(two, tmp_path / "new")
    with pytest.raises(ValueError, match=r"attrs\['sonata'\] is not what reading SONATA left there"):
        to_sonata(made.assign_attrs(sonata="{"), tmp_path / "new")


def test_what_fails_half_way_leaves_nothing(tmp_path):
    write_network(tmp_path)
    read = open_connectome(tmp_path / "circuit_config.json")
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"edge_type_id 77 is not in edge_types\.csv, which has 4, 9"):
        to_sonata(read.assign(edge_type_id=("edge", [4, 4, 9, 9, 77])), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "out.part").exists()
    untyped = open_connectome(to_sonata(read.drop_vars(["edge_type_id", "node_type_id"]), tmp_path / "out"))
    assert set(untyped["edge_type_id"].values) == {-1}
    np.testing.assert_array_equal(untyped["delay"].values, read["delay"].values)
    assert untyped["ei"].values.tolist() == read["ei"].values.tolist()


def test_a_type_column_that_differs_from_what_was_derived_survives(tmp_path):
    with h5py.File(tmp_path / "nodes.h5", "w") as file:
        attributes = {"cell_type": [b"", b"PV"], "model_name": [b"LIF", b"LIF"], "sign": [0.5, 1.0]}
        write_population(file, "node", "a", {"node_type_id": [0, 0]}, {0: attributes})
    with h5py.File(tmp_path / "edges.h5", "w") as file:
        rows = {"source_node_id": [0], "target_node_id": [1], "edge_type_id": [0]}
        write_population(file, "edge", "a_a", rows, {}, ("a", "a"))
    read = open_sonata(nodes=[tmp_path / "nodes.h5"], edges=[tmp_path / "edges.h5"])
    assert read["node_cell_type"].values.tolist() == ["", "PV"]
    assert read["cell_type"].values.tolist() == ["LIF", "PV"]
    again = open_connectome(to_sonata(read, tmp_path / "out"))
    assert again.drop_attrs().identical(read.drop_attrs())
    assert_same_arrays(
        {p: v for p, v in arrays(tmp_path / "out" / "network" / "nodes.h5").items() if "/0/" in p},
        {p: v for p, v in arrays(tmp_path / "nodes.h5").items() if "/0/" in p},
    )
    twice = read.assign(sign=("neuron", [1, -1]))
    assert open_connectome(to_sonata(twice, tmp_path / "more"))["node_sign"].values.tolist() == [0.5, 1.0]


def test_files_of_the_same_name_stay_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / "nodes.h5", "w") as file:
            write_population(file, "node", name, {"node_type_id": [0]}, {0: {}})
        (tmp_path / name / "types.csv").write_text(f"node_type_id model_name\n0 {name}\n")
    with h5py.File(tmp_path / "edges.h5", "w") as file:
        rows = {"source_node_id": [0], "target_node_id": [0], "edge_type_id": [0]}
        write_population(file, "edge", "a_b", rows, {}, ("a", "b"))
    nodes = [(tmp_path / name / "nodes.h5", tmp_path / name / "types.csv") for name in ("a", "b")]
    read = open_sonata(nodes, [tmp_path / "edges.h5"])
    config = to_sonata(read, tmp_path / "out")
    assert [each["nodes_file"] for each in json.loads(config.read_text())["networks"]["nodes"]] == [
        "$NETWORK_DIR/0_nodes.h5", "$NETWORK_DIR/1_nodes.h5",
    ]  # fmt: skip
    assert open_connectome(config)["model_name"].values.tolist() == ["a", "b"]


def test_a_file_name_from_the_attributes_never_leaves_the_folder(tmp_path):
    write_network(tmp_path)
    read = open_connectome(tmp_path / "circuit_config.json")
    hostile = read.assign_attrs(sonata=read.attrs["sonata"].replace('"nodes.h5"', '"../../nodes.h5"'))
    config = to_sonata(hostile, tmp_path / "deep" / "out")
    assert (config.parent / "network" / "nodes.h5").exists()
    assert not Path(tmp_path / "deep" / "nodes.h5").exists()
