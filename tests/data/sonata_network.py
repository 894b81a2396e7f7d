"""A small SONATA network with every trait of the format, written by h5py alone."""

import json

import h5py
import numpy as np


def write_population(file, kind, name, rows, groups, ends=("", "")):
    """A population from its integers per row and its attributes by group."""
    population = file.create_group(f"{kind}s/{name}")
    for key, values in rows.items():
        population[key] = np.asarray(values, np.uint64)
    if kind == "edge":
        for key, end in zip(("source_node_id", "target_node_id"), ends, strict=True):
            population[key].attrs["node_population"] = end
    for number, attributes in groups.items():
        group = population.create_group(str(number))
        for key, values in attributes.items():
            group[key] = values


def write_network(root):
    """A small network under `root`, with its configs.

    Nodes of l4 are 3, 7, 5, in two groups, those of lgn 0, 1; edges from l4 to l4 are in two groups, two of them from 3
    to 7; one edge leads from lgn to l4.
    """
    folder = root / "network"
    folder.mkdir()
    with h5py.File(folder / "nodes.h5", "w") as file:
        rows = {
            "node_id": [3, 7, 5],
            "node_type_id": [20, 10, 20],
            "node_group_id": [0, 1, 0],
            "node_group_index": [1, 0, 0],
        }
        place = {"x": [1.0, 2.0], "y": [3.0, 4.0], "z": [5.0, 6.0], "tuning": np.array([30, 60], np.uint8)}
        write_population(file, "node", "l4", rows, {0: place, 1: {"x": [9.0], "y": [8.0], "z": [7.0], "ei": ["i"]}})
        rows = {"node_type_id": [1, 1], "node_group_id": [0, 0], "node_group_index": [0, 1]}
        write_population(file, "node", "lgn", rows, {0: {"positions": np.arange(6.0).reshape(2, 3)}})
    with h5py.File(folder / "edges.h5", "w") as file:
        rows = {
            "source_node_id": [3, 3, 5, 3],
            "target_node_id": [7, 7, 3, 3],
            "edge_type_id": [4, 4, 9, 9],
            "edge_group_id": [0, 0, 1, 1],
            "edge_group_index": [1, 0, 0, 1],
        }
        synapses = {"syn_weight": [0.5, 0.25], "sec_id": np.array([-2, 8], np.int32)}
        write_population(
            file, "edge", "l4_l4", rows, {0: synapses, 1: {"syn_weight": [2.0, 4.0], "delay": [1.5, 2.5]}}, ("l4", "l4")
        )
        file["edges/l4_l4/0/dynamics_params/tau"] = [1.0, 2.0]
        rows = {"source_node_id": [1], "target_node_id": [5], "edge_type_id": [4]}
        write_population(file, "edge", "lgn_l4", rows, {0: {"x": [1.0]}}, ("lgn", "l4"))
    (folder / "node_types.csv").write_text(
        'node_type_id population ei model_name note\n10 l4 e PV NULL\n20 l4 e "L4 cell" 2.5\n1 lgn e NULL NA\n'
    )
    (folder / "edge_types.csv").write_text(
        "edge_type_id target_query delay model_name\n4 ei=='e' 3.0 static\n9 * NULL static\n"
    )
    manifest = {"$HERE": ".", "$NETWORK": "${HERE}/network", "$PARTS": "$HERE/parts"}
    entries = {
        "nodes": [{"nodes_file": "$NETWORK/nodes.h5", "node_types_file": "$NETWORK/node_types.csv"}],
        "edges": [{"edges_file": "$NETWORK/edges.h5", "edge_types_file": "${configdir}/network/edge_types.csv"}],
    }
    components = {"morphologies_dir": "$PARTS/swc", "mechanisms_dir": "$UNKNOWN/mod"}
    config = {"manifest": manifest, "components": components, "networks": entries}
    (root / "circuit_config.json").write_text(json.dumps(config))
    (root / "simulation_config.json").write_text(
        json.dumps({"manifest": {"$DIR": "."}, "network": "$DIR/circuit_config.json", "run": {"dt": 0.1}})
    )
    (root / "config.json").write_text(json.dumps({"network": "./simulation_config.json"}))
