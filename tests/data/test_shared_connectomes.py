"""The mappings of the real connectomes give the numbers that the notes on the data state."""

import json

import networkx as nx
import numpy as np
import pytest
from shared_data import (
    CONNECTOMES,
    SHARED_DATA,
    needs_shared_data,
    open_compass_connectome,
    open_cortex_connectome,
    open_developing_worm,
    open_fly_visual_connectome,
    open_human_connectome,
    open_in_silico_cortex,
    open_larva_connectome,
    open_mesoscale_connectome,
    open_mouse_tracts,
    open_mushroom_body_connectome,
    open_published_worm,
    open_visual_cortex_connectome,
    open_worm_connectome,
    open_worm_gap_junctions,
)

from connectinfer.data.connectome import check_connectome, edge_indices, to_dense
from connectinfer.data.graphs import to_networkx
from connectinfer.data.tables import read_table

pytestmark = needs_shared_data


def of_kind(dataset, kind):
    return dataset.isel(edge=(dataset["kind"] == kind).values)


def chemical_worm(animal):
    return of_kind(open_developing_worm(animal), "chemical")


def density_and_reciprocity(dataset):
    """Of the edges between different neurons, over all neurons listed."""
    pre, post = edge_indices(dataset)
    between, size = pre != post, dataset.sizes["neuron"]
    edges, reverse = pre[between] * size + post[between], post[between] * size + pre[between]
    return len(edges) / (size * (size - 1)), np.isin(edges, reverse).mean()


@pytest.mark.parametrize(
    ("opened", "neurons", "edges", "autapses", "counted", "total"),
    [
        pytest.param(open_cortex_connectome, 334, 1736, 2, "synapse_count", 1961, id="microns_l23"),
        pytest.param(open_visual_cortex_connectome, 6548, 115379, 0, "synapse_count", 163188, id="microns_minnie65"),
        pytest.param(lambda: chemical_worm(1), 187, 775, 0, "synapse_count", 1296, id="witvliet 1"),
        pytest.param(lambda: chemical_worm(2), 194, 986, 0, "synapse_count", 1895, id="witvliet 2"),
        pytest.param(lambda: chemical_worm(3), 198, 1012, 0, "synapse_count", 2128, id="witvliet 3"),
        pytest.param(lambda: chemical_worm(5), 211, 1515, 0, "synapse_count", 4116, id="witvliet 5"),
        pytest.param(lambda: chemical_worm(6), 217, 1525, 0, "synapse_count", 4456, id="witvliet 6"),
        pytest.param(lambda: chemical_worm(7), 224, 2202, 11, "synapse_count", 7467, id="witvliet 7"),
        pytest.param(open_worm_connectome, 446, 4879, 38, "sections", 28113, id="cook chemical"),
        pytest.param(open_larva_connectome, 3013, 111243, 537, "synapse_count", 353859, id="larva"),
        pytest.param(open_mushroom_body_connectome, 213, 7536, 0, "weight", 26371, id="mushroom body"),
        pytest.param(open_compass_connectome, 240 + 46, 8755, 0, "synapse_count", 94249, id="ring to compass"),
        pytest.param(
            lambda: open_compass_connectome("epg2erEB"), 46 + 106, 621, 0, "synapse_count", 3339, id="compass to ring"
        ),
        pytest.param(open_in_silico_cortex, 6719, 836167, 0, "weight", 836167, id="in silico"),
    ],
)
def test_connectomes_have_the_counts_of_the_notes(opened, neurons, edges, autapses, counted, total):
    dataset = opened()
    check_connectome(dataset)
    assert (dataset.sizes["neuron"], dataset.sizes["edge"]) == (neurons, edges)
    assert (dataset["pre"].values == dataset["post"].values).sum() == autapses
    assert dataset[counted].values.sum() == total


@pytest.mark.parametrize(
    ("opened", "density", "reciprocity"),
    [
        pytest.param(open_cortex_connectome, 0.0156, 0.036, id="microns_l23"),
        pytest.param(open_visual_cortex_connectome, 0.00269, 0.0649, id="microns_minnie65"),
        pytest.param(open_worm_connectome, 0.0244, 0.276, id="cook chemical"),
        pytest.param(open_larva_connectome, 0.0122, 0.257, id="larva"),
        pytest.param(open_mushroom_body_connectome, 0.167, 0.507, id="mushroom body"),
        pytest.param(open_in_silico_cortex, 0.0185, 0.030, id="in silico"),
    ],
)
def test_density_and_reciprocity_are_those_of_the_notes(opened, density, reciprocity):
    assert density_and_reciprocity(opened()) == pytest.approx((density, reciprocity), rel=0.02)


@pytest.mark.parametrize(
    ("name", "opened", "counted"),
    [
        ("microns_l23", open_cortex_connectome, "synapse_count"),
        *[
            (f"celegans_witvliet2021_{at}_chemical", lambda at=at: chemical_worm(at), "synapse_count")
            for at in (1, 2, 3, 5, 6, 7)
        ],
        ("celegans_cook2019_hermaphrodite_chemical", open_worm_connectome, "sections"),
        ("drosophila_mb_larva_right", open_mushroom_body_connectome, "weight"),
    ],
)
def test_networkx_finds_the_same_graph_behind_the_adapter_as_in_the_reference(name, opened, counted):
    graph = to_networkx(opened())
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    graph.remove_nodes_from(list(nx.isolates(graph)))
    known = json.loads((SHARED_DATA / "reference" / "networkx_graph_metrics.json").read_text())["graphs"][name]
    assert (len(graph), graph.number_of_edges()) == (known["n_nodes"], known["n_edges"])
    assert graph.size(counted) == known["total_weight"]
    assert nx.density(graph) == pytest.approx(known["density"])
    assert nx.overall_reciprocity(graph) == pytest.approx(known["reciprocity_overall"])
    assert nx.number_weakly_connected_components(graph) == known["n_weakly_connected"]
    for way, degrees in (("in", graph.in_degree), ("out", graph.out_degree)):
        counts = np.array([count for _, count in degrees])
        assert [counts.mean(), counts.var(), counts.max()] == pytest.approx(known[f"{way}_degree_mean_var_max"])


def test_minnie_edges_agree_with_the_degrees_of_the_neuron_table():
    dataset = open_visual_cortex_connectome()
    table = read_table(CONNECTOMES / "microns_minnie65" / "mouse_extended_neuron_info.csv.gz")
    pre, post = (np.bincount(each, minlength=6548) for each in edge_indices(dataset))
    assert sorted([pre.tolist(), post.tolist()]) == sorted(
        [table["presynaptic_degree"].tolist(), table["postsynaptic_degree"].tolist()]
    )
    assert ((pre + post > 0).sum(), (pre > 0).sum(), pre.max()) == (6261, 5716, 842)
    assert dataset["neuron"].values.min() > 2**53
    assert [np.ptp(dataset[name].values).round() for name in "xyz"] == [1322, 801, 471]


def test_cortex_cells_are_excitatory_and_have_positions_in_micrometres():
    cortex = open_cortex_connectome()
    assert set(cortex["cell_type"].values) == {"e"}
    assert cortex["neuron"].values.min() > 2**53
    assert 100 < np.ptp(cortex["x"].values) < 1000


@pytest.mark.parametrize(("animal", "junctions"), [(1, 164), (2, 245), (3, 186), (5, 577), (6, 427), (7, 579)])
def test_developing_worms_have_the_gap_junctions_of_the_notes(animal, junctions):
    assert of_kind(open_developing_worm(animal), "electrical").sizes["edge"] == junctions


def test_gap_junctions_of_the_adult_worm_are_symmetric_but_for_four_as_published():
    worm = open_worm_gap_junctions()
    assert dict(worm.sizes) == {"edge": 2881, "neuron": 462}
    dense = to_dense(worm, "sections").values
    assert (np.diagonal(dense) > 0).sum() == 17
    assert ((dense > 0) != (dense.T > 0)).sum() == 4


def test_the_published_worm_has_a_row_for_each_edge_sent():
    worm = open_published_worm()
    kinds, counts = np.unique(worm["kind"].values, return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {
        "chemical": 950,
        "electrical": 1031,
        "polyadic": 1625,
    }
    assert worm.sizes["neuron"] == 279
    rows = read_table(CONNECTOMES / "celegans_varshney2011" / "NeuronConnectFormatted.csv.gz")["Type"]
    assert (len(rows), (rows == "Rp").sum(), (rows == "R").sum(), (rows == "NMJ").sum()) == (6417, 1885, 773, 153)


def test_larva_and_mushroom_body_have_the_cell_types_of_the_notes():
    larva, body = open_larva_connectome(), open_mushroom_body_connectome()
    assert "KCs" in larva["cell_type"].values
    assert [(larva["hemisphere"] == side).values.sum() for side in "LR"] == [1506, 1507]
    assert [(body["cell_type"] == kind).values.sum() for kind in "KPOI"] == [100, 63, 29, 21]


def test_a_matrix_of_the_file_with_pre_in_the_rows_is_turned():
    body = open_mushroom_body_connectome()
    # The first row of the file is what cell 0 sends: 0 1 9 10 8 6 ...
    assert to_dense(body, "weight").sel(pre=0).values[:6].tolist() == [0, 1, 9, 10, 8, 6]


def test_compass_neurons_know_their_glomerulus():
    ring = open_compass_connectome()
    compass = ring.isel(neuron=(ring["cell_type"] == "EPG").values)
    assert compass.sizes["neuron"] == 46
    assert all("PB0" in name for name in compass["name"].values)


def test_the_visual_system_of_the_fly_is_a_tree_of_fields():
    fly = open_fly_visual_connectome()
    assert dict(fly.sizes) == {"edge": 605, "neuron": 65}
    assert set(fly["alpha"].values) == {-1, 1}
    left_out = fly.attrs["left_out"].split(", ")
    assert {"input_units", "nodes.bias"} <= set(left_out)
    assert not {"edges.src", "edges.offsets"} & set(left_out)


@pytest.mark.parametrize(
    ("matrix", "regions", "filled"),
    [
        ("strucMatrix_ctx", 68, 0.30),
        ("strucMatrix_with_sctx", 82, 0.35),
        ("strucMatrix_ctx_schaefer_100", 100, 0.22),
        ("strucMatrix_ctx_schaefer_400", 400, 0.06),
        ("funcMatrix_ctx", 68, 0.98),
        ("funcMatrix_ctx_schaefer_100", 100, 0.98),
    ],
)
def test_human_matrices_are_symmetric_and_named(matrix, regions, filled):
    human = open_human_connectome(matrix)
    assert human.sizes["neuron"] == regions
    dense = to_dense(human, "weight").values
    np.testing.assert_allclose(dense, dense.T, rtol=1e-12)
    assert (dense != 0).mean() == pytest.approx(filled, abs=0.006)
    assert human["neuron"].values[0] in ("L_bankssts", "7Networks_LH_Vis_1")


def test_the_mesoscale_matrix_keeps_its_second_header_row_as_ids():
    brain = open_mesoscale_connectome()
    assert brain.sizes["neuron"] == 291 + 286
    assert brain["axon_observed"].values.sum() == 291
    assert brain.sizes["edge"] / (291 * 577) == pytest.approx(0.40, abs=0.005)
    dense = to_dense(brain, "weight")
    assert dense.sel(pre="ipsi:1", post="ipsi:1") == 1.1957000954331245
    assert np.isnan(dense.sel(pre="contra:7", post="ipsi:1"))


def test_tracts_of_a_mouse_are_symmetric_streamline_counts():
    tracts = to_dense(open_mouse_tracts(), "weight").values
    assert tracts.shape == (332, 332)
    assert np.array_equal(tracts, tracts.T)
    assert not np.diagonal(tracts).any()
    with np.load(CONNECTOMES / "mouse_dti_wang2020" / "mouse_dti_connectomes.npz") as file:
        every = file["adjacency"]
    assert (len(every), every.max()) == (24, 161176)
    assert (every != 0).mean() == pytest.approx(0.64, abs=0.02)


def test_the_in_silico_cortex_has_signs_layers_and_types():
    cortex = open_in_silico_cortex()
    assert [(cortex["sign"] == sign).values.sum() for sign in (1, -1)] == [5852, 867]
    assert np.unique(cortex["layer"].values).tolist() == [1, 2, 3, 4, 5, 6]
    assert np.unique(cortex["cell_type"].values).size == 59
