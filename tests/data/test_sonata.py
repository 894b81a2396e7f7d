"""SONATA networks are read: a small one with every trait of the format, and the real ones."""

import json
from collections import Counter

import h5py
import numpy as np
import pytest
from shared_data import SHARED_DATA, needs_shared_data
from sonata_network import write_network, write_population

from connectinfer.data.connectome import merge_contacts, to_dense
from connectinfer.data.reading import open_connectome
from connectinfer.data.sonata import is_sonata_config, open_sonata

EXAMPLES = SHARED_DATA / "sonata"


@pytest.fixture
def network(tmp_path):
    write_network(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["circuit_config.json", "simulation_config.json", "config.json"])
def test_every_kind_of_config_leads_to_the_network(network, name):
    made = open_connectome(network / name)
    assert made["neuron"].values.tolist() == ["l4:3", "l4:7", "l4:5", "lgn:0", "lgn:1"]
    assert made["pre"].values.tolist() == ["l4:3", "l4:3", "l4:5", "l4:3", "lgn:1"]
    assert made["post"].values.tolist() == ["l4:7", "l4:7", "l4:3", "l4:3", "l4:5"]
    assert made.attrs["source"] == name


def test_neurons_have_what_their_group_says_and_else_what_their_type_says(network):
    made = open_connectome(network / "circuit_config.json")
    assert made["population"].values.tolist() == ["l4", "l4", "l4", "lgn", "lgn"]
    assert made["node_type_id"].values.tolist() == [20, 10, 20, 1, 1]
    assert made["x"].values.tolist() == [2, 9, 1, 0, 3]
    assert made["z"].values.tolist() == [6, 7, 5, 2, 5]
    np.testing.assert_array_equal(made["tuning"].values, [60, np.nan, 30, np.nan, np.nan])
    np.testing.assert_array_equal(made["note"].values, [2.5, np.nan, 2.5, np.nan, np.nan])
    assert made["ei"].values.tolist() == ["e", "i", "e", "e", "e"]
    assert made["sign"].values.tolist() == [1, -1, 1, 1, 1]
    assert made["cell_type"].values.tolist() == ["L4 cell", "PV", "L4 cell", "", ""]


def test_edges_have_what_their_group_says_and_else_what_their_type_says(network):
    made = open_connectome(network / "circuit_config.json")
    assert made["edge_population"].values.tolist() == ["l4_l4"] * 4 + ["lgn_l4"]
    assert made["edge_type_id"].values.tolist() == [4, 4, 9, 9, 4]
    assert made["contact"].values.tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_array_equal(made["syn_weight"].values, [0.25, 0.5, 2.0, 4.0, np.nan])
    np.testing.assert_array_equal(made["sec_id"].values, [8, -2, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(made["delay"].values, [3.0, 3.0, 1.5, 2.5, 3.0])
    np.testing.assert_array_equal(made["edge_x"].values, [np.nan] * 4 + [1.0])
    assert made["edge_model_name"].values.tolist() == ["static"] * 5


def test_what_was_read_derived_and_left_out_is_said(network):
    attrs = open_connectome(network / "simulation_config.json").attrs
    assert attrs["read"] == (
        "3 neurons of l4, 2 neurons of lgn, 4 edges of l4_l4, 1 edges of lgn_l4; cell_type from model_name; "
        "sign from ei; contact numbers the edges that join the same two neurons"
    )
    assert set(attrs["left_out"].split(", ")) == {
        "run", "components.morphologies_dir (not there)", "components.mechanisms_dir (not there)",
        "edges/l4_l4/0/dynamics_params", "edges/l4_l4/target_query", "edges/lgn_l4/target_query",
    }  # fmt: skip


def test_an_edges_file_alone_gives_the_neurons_with_an_edge_and_says_what_is_missing(network):
    made = open_connectome(network / "network" / "edges.h5")
    assert made["neuron"].values.tolist() == ["l4:3", "l4:5", "l4:7", "lgn:1"]
    assert made["pre"].values.tolist() == ["l4:3", "l4:3", "l4:5", "l4:3", "lgn:1"]
    assert "cell_type" not in made
    assert made.attrs["left_out"].startswith("nodes and types (their files were not given)")


def test_files_without_a_config_are_given_in_pairs(network):
    folder = network / "network"
    made = open_sonata(
        nodes=[(folder / "nodes.h5", folder / "node_types.csv")],
        edges=[(folder / "edges.h5", folder / "edge_types.csv")],
    )
    assert made.drop_attrs().identical(open_connectome(network / "circuit_config.json").drop_attrs())
    untyped = open_sonata(nodes=[folder / "nodes.h5"], edges=[(folder / "edges.h5", None)])
    assert untyped["ei"].values.tolist() == ["", "i", "", "", ""]
    np.testing.assert_array_equal(untyped["delay"].values, [np.nan, np.nan, 1.5, 2.5, np.nan])


def test_an_entry_that_is_not_enabled_is_left_out(network):
    config = json.loads((network / "circuit_config.json").read_text())
    config["networks"]["edges"][0]["enabled"] = False
    (network / "circuit_config.json").write_text(json.dumps(config))
    made = open_connectome(network / "circuit_config.json")
    assert made.sizes["edge"] == 0
    assert "$NETWORK/edges.h5 (not enabled)" in made.attrs["left_out"]


def test_a_file_may_leave_out_what_the_format_implies(tmp_path):
    with h5py.File(tmp_path / "edges.h5", "w") as file:
        rows = {"source_node_id": [2, 0], "target_node_id": [0, 2], "edge_type_id": [0, 0]}
        write_population(file, "edge", "default", rows, {0: {"conductance": [0.5, 1.5]}}, ("all", "all"))
        file["edges/default/edge_type_id"][:] = 0
    with h5py.File(tmp_path / "nodes.h5", "w") as file:
        file["nodes/all/node_type_id"] = np.array([-1, -1, -1])
        group = file.create_group("nodes/all/0")
        group["mtype"] = np.array([1, 0, 1], np.uint32)
        group["@library/mtype"] = np.array(["L1_DAC", "L5_TPC"], h5py.string_dtype())
        group["synapse_class"] = np.array([b"INH", b"EXC", b"EXC"])
    made = open_sonata(nodes=[tmp_path / "nodes.h5"], edges=[tmp_path / "edges.h5"])
    assert made["neuron"].values.tolist() == ["all:0", "all:1", "all:2"]
    assert made["mtype"].values.tolist() == made["cell_type"].values.tolist() == ["L5_TPC", "L1_DAC", "L5_TPC"]
    assert made["sign"].values.tolist() == [-1, 1, 1]
    assert made["conductance"].values.tolist() == [0.5, 1.5]


def test_names_that_mean_something_else_here_are_changed_unless_their_values_fit(tmp_path):
    with h5py.File(tmp_path / "nodes.h5", "w") as file:
        attributes = {"population": [1.0, 2.0], "sign": [0.5, 1.0], "x": [1.0, 2.0], "axon_observed": [True, False]}
        write_population(file, "node", "a", {"node_type_id": [0, 0]}, {0: attributes | {"cell_type": [b"L4", b"PV"]}})
    with h5py.File(tmp_path / "edges.h5", "w") as file:
        rows = {"source_node_id": [0, 1], "target_node_id": [1, 0], "edge_type_id": [0, 0]}
        attributes = {"nsyns": np.array([3, 4], np.uint16), "neurons": [1, 2], "weight": [1.0, np.nan], "x": [5.0, 6.0]}
        write_population(file, "edge", "a_a", rows, {0: attributes}, ("a", "a"))
    made = open_sonata(nodes=[tmp_path / "nodes.h5"], edges=[tmp_path / "edges.h5"])
    assert made["node_population"].values.tolist() == [1, 2]
    assert made["node_sign"].values.tolist() == [0.5, 1]
    assert made["node_x"].values.tolist() == [1, 2]
    assert made["axon_observed"].values.tolist() == [True, False]
    assert made["cell_type"].values.tolist() == ["L4", "PV"]
    assert made["synapse_count"].values.tolist() == [3, 4]
    assert made["edge_neurons"].values.tolist() == [1, 2]
    assert made["edge_weight"].values[0] == 1.0
    assert made["edge_x"].values.tolist() == [5, 6]
    assert not {"sign", "node_cell_type"} & set(made)


def test_integers_that_some_edges_lack_keep_every_digit(tmp_path):
    with h5py.File(tmp_path / "edges.h5", "w") as file:
        rows = {"source_node_id": [0, 1], "target_node_id": [1, 0], "edge_type_id": [0, 0]}
        grouped = rows | {"edge_group_id": [0, 1], "edge_group_index": [0, 0]}
        write_population(file, "edge", "a_a", grouped, {0: {"synapse_id": [2**60 + 1], "n": [7]}, 1: {}}, ("a", "a"))
    made = open_connectome(tmp_path / "edges.h5")
    assert made["synapse_id"].values.tolist() == ["1152921504606846977", ""]
    np.testing.assert_array_equal(made["n"].values, [7.0, np.nan])


@pytest.mark.parametrize(
    ("parsed", "expected"),
    [
        ({"networks": {}}, True),
        ({"network": "circuit.json", "run": {}}, True),
        ({"manifest": {}}, True),
        ({"components": {}}, True),
        ({"nodes": [], "links": []}, False),
        ([{"network": 1}], False),
        ("network", False),
    ],
)
def test_a_config_is_known_by_its_entries(parsed, expected):
    assert is_sonata_config(parsed) is expected


def test_hdf5_that_is_no_sonata_is_read_by_fields(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["edges/from"], file["edges/to"] = [1, 2], [2, 3]
    made = open_connectome(tmp_path / "w.h5", fields={"pre": "edges.from", "post": "edges.to"})
    assert made["neuron"].values.tolist() == [1, 2, 3]


REAL = {
    "300_pointneurons": (
        "circuit_config.json",
        {"internal": 300, "external": 100},
        {"internal_to_internal": 27588, "external_to_internal": 20844},
    ),
    "9_cells": (
        "config.json",
        {"cortex": 9, "excvirt": 10, "inhvirt": 10},
        {"excvirt_to_cortex": 659, "inhvirt_to_cortex": 630},
    ),
    "point_450glifs": (
        "config.simulation.json",
        {"v1": 450, "lgn": 100},
        {"v1_to_v1": 28555, "lgn_to_v1": 36035},
    ),
}


@needs_shared_data
@pytest.mark.parametrize("name", REAL)
def test_real_networks_have_the_counts_of_the_notes_and_the_ends_of_their_files(name):
    config, neurons, edges = REAL[name]
    made = open_connectome(EXAMPLES / name / config)
    assert dict(Counter(made["population"].values.tolist())) == neurons
    assert dict(Counter(made["edge_population"].values.tolist())) == edges
    for path in (EXAMPLES / name / "network").glob("*_edges.h5"):
        with h5py.File(path) as file:
            ((population, group),) = file["edges"].items()
            mine = made.isel(edge=(made["edge_population"] == population).values)
            for end, variable in (("source_node_id", "pre"), ("target_node_id", "post")):
                prefix = group[end].attrs["node_population"]
                assert mine[variable].values.tolist() == [f"{prefix}:{node}" for node in group[end][()]]
    assert "(not there)" in made.attrs["left_out"]


@needs_shared_data
def test_glif_network_knows_types_signs_and_synapse_counts():
    made = open_connectome(EXAMPLES / "point_450glifs" / "config.circuit.json")
    signs = {kind: set(made["sign"].values[made["cell_type"].values == kind]) for kind in ("Scnn1a", "PV1", "LIF_inh")}
    assert signs == {"Scnn1a": {1}, "PV1": {-1}, "LIF_inh": {-1}}
    assert np.isnan(made["rotation_angle_zaxis"].values).sum() == 150 + 100
    inhibitory = made.sel(neuron=made["pre"].values)["sign"].values < 0
    assert np.array_equal(inhibitory, made["syn_weight"].values < 0)
    assert made["synapse_count"].dtype == np.uint32


@needs_shared_data
def test_the_47020_contacts_of_layer_4_join_9417_pairs():
    folder = EXAMPLES / "layer4_sample" / "network"
    made = open_sonata([(folder / "l4_nodes.h5", folder / "l4_node_types.csv")],
                       [(folder / "l4_l4_edges.h5", folder / "l4_l4_edge_types.csv")])  # fmt: skip
    assert dict(made.sizes) == {"edge": 47020, "neuron": 449}
    assert (made["contact"].values == 0).sum() == 9417
    assert np.isnan(made["sec_id"].values).sum() == 32237
    with pytest.raises(ValueError, match=r"several contacts; sum them first, with `merge_contacts\(dataset\)`"):
        to_dense(made, "syn_weight")
    merged = merge_contacts(made)
    assert merged.sizes["edge"] == 9417
    assert merged["synapse_count"].values.sum() == 47020
    assert merged["syn_weight"].values.sum() == pytest.approx(made["syn_weight"].values.sum())
    assert to_dense(merged, "synapse_count").values.sum() == 47020
    assert "sec_id (differs between contacts)" in merged.attrs["left_out"]
