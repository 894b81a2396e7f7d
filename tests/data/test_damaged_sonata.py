"""SONATA files that are damaged, do not fit together, or mean harm: one ValueError that names the file."""

import json
from collections.abc import Callable

import h5py
import numpy as np
import pytest
from sonata_network import write_network

from connectinfer.data.reading import open_connectome
from connectinfer.data.sonata import open_sonata

L4, NODES = "edges/l4_l4", "nodes/l4"


def replace(path: str, values) -> Callable[[h5py.File], None]:
    """Puts another data set in the place of one, with its attributes."""

    def change(file):
        kept = dict(file[path].attrs)
        del file[path]
        file[path] = values
        file[path].attrs.update(kept)

    return change


def remove(path: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(path)


def set_link(path: str, link) -> Callable[[h5py.File], None]:
    def change(file):
        if path in file:
            del file[path]
        file[path] = link

    return change


def claim_too_much(path: str) -> Callable[[h5py.File], None]:
    def change(file):
        del file[path]
        file.create_dataset(path, shape=(2**40,), dtype=np.uint64, chunks=(2**20,), compression="gzip")

    return change


def no_population(file: h5py.File) -> None:
    del file[f"{L4}/source_node_id"].attrs["node_population"]


BROKEN = {
    "missing ids": ("edges", remove(f"{L4}/source_node_id"), r"l4_l4 has no data set source_node_id; it has \["),
    "missing types": ("nodes", remove(f"{NODES}/node_type_id"), "l4 has no data set node_type_id"),
    "float ids": ("edges", replace(f"{L4}/source_node_id", [3.0] * 4), "must hold one integer per row; got float64"),
    "table of ids": ("edges", replace(f"{L4}/source_node_id", [[3, 3, 5, 3]]), r"got int64 of shape \(1, 4\)"),
    "ids beyond int64": ("edges", replace(f"{L4}/source_node_id", np.full(4, 2**63 + 5, np.uint64)), "beyond int64"),
    "fewer sources": ("edges", replace(f"{L4}/source_node_id", [3, 3]), "differ in length.*'source_node_id': 2"),
    "unnamed nodes": ("edges", no_population, "source_node_id needs the attribute node_population"),
    "unknown node": ("edges", replace(f"{L4}/target_node_id", [7, 8, 3, 3]),
                     "target_node_id of 'l4_l4' in edges.h5 names 1 nodes that population 'l4' of 3 lacks: 8"),
    "unknown group": ("edges", replace(f"{L4}/edge_group_id", [0, 0, 1, 6]), r"edge_group_id .* names \[6\], but its"),
    "only group ids": ("edges", remove(f"{L4}/edge_group_index"), r"has groups \['0', '1'\], so it needs"),
    "index too large": ("edges", replace(f"{L4}/edge_group_index", [1, 0, 0, 2]), "reaches from 0 to 2, but .* has 2"),
    "index negative": ("edges", replace(f"{L4}/edge_group_index", [1, -1, 0, 1]), "reaches from -1 to 1"),
    "attribute too short": ("edges", replace(f"{L4}/0/sec_id", [1]), "differ in length: .*'sec_id': 1"),
    "unknown type": ("edges", replace(f"{L4}/edge_type_id", [4, 4, 9, 8]), "8 is not in edge_types.csv, which has 4"),
    "two of a node": ("nodes", replace(f"{NODES}/node_id", [3, 3, 5]), "duplicate `node_id` ids: 3"),
    "negative node": ("nodes", replace(f"{NODES}/node_id", [3, -3, 5]), "must not be negative; got -3"),
    "no populations": ("nodes", remove("nodes"), r"has no group /nodes, which holds the populations; it has \[\]"),
    "claims a terabyte": ("edges", claim_too_much(f"{L4}/source_node_id"), "claims 8796093022208 bytes"),
    "linked elsewhere": ("edges", set_link(f"{L4}/source_node_id", h5py.ExternalLink("nodes.h5", "/nodes/l4/node_id")),
                         "has no data set source_node_id"),
    "circle of links": ("edges", set_link(f"{L4}/source_node_id", h5py.SoftLink(f"/{L4}/source_node_id")),
                        "too many links"),
    "infinite": ("edges", replace(f"{L4}/0/syn_weight", [np.inf, 1.0]), "`syn_weight` of edge 1 is inf"),
    "half a position": ("nodes", replace(f"{NODES}/0/x", [np.nan, 1.0]), r"bad position \[nan, 3.0, 5.0\]"),
    "group for data": ("nodes", set_link(f"{NODES}/node_type_id", h5py.SoftLink("/nodes/l4/0")), "no data set node_"),
}  # fmt: skip


@pytest.mark.parametrize(("which", "damage", "message"), BROKEN.values(), ids=BROKEN)
def test_parts_that_do_not_fit_are_named(tmp_path, which, damage, message):
    write_network(tmp_path)
    with h5py.File(tmp_path / "network" / f"{which}.h5", "a") as file:
        damage(file)
    with pytest.raises(ValueError, match=rf"(?s)({which}.h5|config.json).*{message}"):
        open_connectome(tmp_path / "circuit_config.json")


TYPES = {
    "no type ids": ("id,name\n4,5\n", r"among them edge_type_id; got \['id,name'\]"),
    "text for ids": ("edge_type_id delay\nfour 1\nnine 2\n", r"edge_type_id must be integers; got \['four', 'nine'\]"),
    "two rows": ("edge_type_id delay\n4 1\n4 2\n9 3\n", "duplicate `edge_type_id of edge_types.csv` ids: 4"),
    "ragged": ("edge_type_id delay\n4 1\n9 2 3 4\n", "edge_types.csv cannot be read as SONATA"),
    "empty": ("", "edge_types.csv cannot be read as SONATA"),
}


@pytest.mark.parametrize(("text", "message"), TYPES.values(), ids=TYPES)
def test_bad_type_tables_are_named(tmp_path, text, message):
    write_network(tmp_path)
    (tmp_path / "network" / "edge_types.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_connectome(tmp_path / "circuit_config.json")


def doubling(depth: int) -> dict[str, str]:
    return {f"$V{at}": f"$V{at + 1}/$V{at + 1}" for at in range(depth)} | {f"$V{depth}": "x"}


NODE_ENTRY = {"nodes": [{"nodes_file": "$A/nodes.h5"}]}
CONFIGS = {
    "absent file": ({"networks": {"edges": [{"edges_file": "network/gone.h5"}]}},
                    r"`edges_file` of bad_config.json is 'network/gone.h5', but there is no file .*gone.h5"),
    "absent circuit": ({"network": "gone.json"}, "`network` of bad_config.json is 'gone.json', but there is no file"),
    "circle of configs": ({"network": "./bad_config.json"}, "bad_config.json points at itself by `network`"),
    "circle of variables": ({"manifest": {"$A": "$B", "$B": "$A"}, "networks": NODE_ENTRY},
                            "the manifest of bad_config.json defines variables by each other: A -> B"),
    "growing variables": ({"manifest": doubling(30) | {"$A": "$V0"}, "networks": NODE_ENTRY}, "longer than any path"),
    "unknown variable": ({"manifest": {"$B": "."}, "networks": NODE_ENTRY},
                         r"`nodes_file` of bad_config.json needs \$A, which its manifest does not define; it has"),
    "no network": ({"manifest": {}, "run": {}}, r"bad_config.json names no network: .* got \['manifest', 'run'\]"),
    "number for a file": ({"networks": {"nodes": [{"nodes_file": 3}]}}, "`nodes_file` .* must be a path; got 3"),
    "list for networks": ({"networks": [1]}, r"`networks` of bad_config.json must hold lists .* got \[1\]"),
    "text for nodes": ({"networks": {"nodes": "nodes.h5"}}, "must be a list of files; got 'nodes.h5'"),
    "text for the manifest": ({"manifest": "$A", "networks": NODE_ENTRY}, "`manifest` .* must map variables to paths"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "message"), CONFIGS.values(), ids=CONFIGS)
def test_bad_configs_are_named(tmp_path, config, message):
    write_network(tmp_path)
    (tmp_path / "bad_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        open_connectome(tmp_path / "bad_config.json")


def test_variables_that_vanish_cost_no_time(tmp_path):
    write_network(tmp_path)
    manifest = {f"$V{at}": f"$V{at + 1}" * 8 for at in range(30)} | {"$V30": "", "$A": "$V0."}
    config = {"manifest": manifest, "networks": {"edges": [{"edges_file": "$A/network/edges.h5"}]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_connectome(tmp_path / "config.json").sizes["edge"] == 5


def test_json_nested_absurdly_deep_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"networks":' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ValueError, match=r"config\.json nests"):
        open_connectome(tmp_path / "config.json")


def test_files_must_be_there_and_name_different_populations(tmp_path):
    write_network(tmp_path)
    folder = tmp_path / "network"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.csv"):
        open_sonata(nodes=[(folder / "nodes.h5", folder / "gone.csv")], edges=[folder / "edges.h5"])
    with pytest.raises(ValueError, match="duplicate `edge population` ids: 'l4_l4', 'lgn_l4'"):
        open_sonata(nodes=[folder / "nodes.h5"], edges=[folder / "edges.h5", folder / "edges.h5"])
    with h5py.File(folder / "nodes.h5", "a") as file:
        del file["nodes/lgn"]
    with pytest.raises(
        ValueError, match=r"'lgn_l4' in edges.h5 are population 'lgn', but the node files have \['l4'\]"
    ):
        open_sonata(nodes=[folder / "nodes.h5"], edges=[folder / "edges.h5"])


@pytest.mark.parametrize("seed", range(60))
def test_a_mutated_file_is_refused_or_has_the_same_edges(tmp_path, seed):
    write_network(tmp_path)
    generator = np.random.default_rng(seed)
    path = tmp_path / "network" / "edges.h5"
    content = bytearray(path.read_bytes())
    if seed % 4:
        for at in generator.integers(0, len(content), 4):
            content[at] ^= 1 << generator.integers(8)
    else:
        del content[generator.integers(len(content)) :]
    path.write_bytes(content)
    refusal, n_edges = "", 5
    try:
        n_edges = open_connectome(tmp_path / "circuit_config.json").sizes["edge"]
    except ValueError as error:
        refusal = str(error)
    assert (refusal and "edges.h5" in refusal) or n_edges == 5
