"""networkx graphs as connectomes and back."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from connectinfer.data.connectome import connectome, number_contacts, to_dense
from connectinfer.data.graphs import from_networkx, to_networkx


def edges_of(dataset, *names):
    return sorted(zip(*(dataset[name].values.tolist() for name in ("pre", "post", *names)), strict=True))


def test_an_edge_leads_from_pre_to_post_and_nodes_without_edges_stay():
    graph = nx.DiGraph([("a", "b", {"weight": 2.0}), ("c", "a", {"weight": 3.0})])
    graph.add_node("alone")
    made = from_networkx(graph)
    assert made["neuron"].values.tolist() == ["a", "b", "c", "alone"]
    assert edges_of(made, "weight") == [("a", "b", 2.0), ("c", "a", 3.0)]
    assert np.array_equal(to_dense(made, "weight").values.T, nx.to_numpy_array(graph))
    assert (made.attrs["read"], made.attrs["left_out"]) == ("directed graph", "")


def test_an_undirected_graph_becomes_both_directions_and_says_so():
    made = from_networkx(nx.Graph([(1, 2, {"weight": 5}), (3, 3, {"weight": 7})]))
    assert edges_of(made, "weight") == [(1, 2, 5), (2, 1, 5), (3, 3, 7)]
    assert made.attrs["read"] == "undirected graph: both directions of every edge"


def test_attributes_that_some_nodes_and_edges_lack_are_missing_there():
    graph = nx.DiGraph([(1, 2, {"delay": 1.5}), (2, 3)])
    graph.add_node(1, cell_type="PV", depth=100)
    made = from_networkx(graph)
    assert made["cell_type"].values.tolist() == ["PV", "", ""]
    np.testing.assert_array_equal(made["depth"].values, [100, np.nan, np.nan])
    np.testing.assert_array_equal(made["delay"].values, [1.5, np.nan])


def test_a_weight_that_some_edges_lack_is_refused():
    with pytest.raises(ValueError, match="`weight` of edge 1 is nan"):
        from_networkx(nx.DiGraph([(1, 2, {"weight": 1.5}), (2, 3)]))


def test_what_is_no_single_value_and_flat_positions_are_left_out_by_name():
    graph = nx.DiGraph([(1, 2, {"syn": [4, 5], "weight": 1})])
    graph.add_node(1, x=1.0, y=2.0, viz={"color": "red"}, layer=2)
    graph.add_node(2, x=1.0, y=2.0, viz={}, layer="2/3")
    made = from_networkx(graph)
    assert made.attrs["left_out"] == (
        "viz of the nodes, syn of the edges, x of the nodes (no position x, y, z), y of the nodes (no position x, y, z)"
    )
    assert made["layer"].values.tolist() == ["2", "2/3"]
    assert set(made.data_vars) == {"pre", "post", "axon_observed", "dendrite_observed", "layer", "weight"}


def test_an_edge_attribute_called_like_a_node_attribute_gets_a_prefix():
    graph = nx.DiGraph([(1, 2, {"population": "v1 to v1", "pre": 9})])
    nx.set_node_attributes(graph, "v1", "population")
    made = from_networkx(graph)
    assert made["population"].values.tolist() == ["v1", "v1"]
    assert (made["edge_population"].item(), made["edge_pre"].item(), made["pre"].item()) == ("v1 to v1", 9, 1)


def test_keys_of_parallel_edges_are_kinds_if_they_are_text_and_contacts_if_not():
    kinds = from_networkx(nx.MultiDiGraph([(1, 2, "chemical", {}), (1, 2, "electrical", {}), (2, 1, "chemical", {})]))
    assert edges_of(kinds, "kind") == [(1, 2, "chemical"), (1, 2, "electrical"), (2, 1, "chemical")]
    contacts = from_networkx(nx.MultiDiGraph([(1, 2, 5, {}), (2, 1, 5, {}), (1, 2, 9, {})]))
    assert edges_of(contacts, "contact") == [(1, 2, 0), (1, 2, 1), (2, 1, 0)]
    single = from_networkx(nx.MultiDiGraph([(1, 2), (2, 1)]))
    assert not {"kind", "contact"} & set(single)


def test_parallel_edges_of_one_kind_are_counted():
    graph = nx.MultiDiGraph([(1, 2, 0, {"kind": "x"}), (1, 2, 1, {"kind": "x"}), (1, 2, 2, {"kind": "y"})])
    assert edges_of(from_networkx(graph), "kind", "contact") == [(1, 2, "x", 0), (1, 2, "x", 1), (1, 2, "y", 0)]


def test_a_connectome_is_a_digraph_unless_pairs_have_several_edges():
    one = to_networkx(connectome([1, 2], [2, 1], neurons=[1, 2, 3], weight=[0.5, 1.5]))
    assert type(one) is nx.DiGraph
    assert (sorted(one.edges(data="weight")), list(one)) == ([(1, 2, 0.5), (2, 1, 1.5)], [1, 2, 3])
    several = to_networkx(connectome([1, 1], [2, 2], kind=["chemical", "electrical"], weight=[0.5, 1.5]))
    assert type(several) is nx.MultiDiGraph
    assert several[1][2]["electrical"]["weight"] == 1.5
    contacts = to_networkx(connectome([1, 1], [2, 2], contact=[0, 1], size=[0.5, 1.5]))
    assert contacts[1][2][1] == {"contact": 1, "size": 1.5}


def test_values_in_the_graph_are_those_of_python():
    graph = to_networkx(connectome([1], [2], weight=np.float32([0.5]), count=np.int16([3])))
    assert {type(value) for value in graph[1][2].values()} == {float, int}
    assert {type(node) for node in graph} == {int}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        pytest.param([1.5, 2.5], "`node` ids are floating-point", id="float"),
        pytest.param([(0, 1), (1, 0)], "`node` ids must form one axis", id="grid"),
        pytest.param(["a", ""], "the `node` id is missing in row 1 of 2, counted from 0", id="empty"),
        pytest.param([1, "b"], "`node` ids must be int64 or str", id="mixed"),
    ],
)
def test_nodes_that_are_no_ids_are_refused(nodes, message):
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    with pytest.raises(ValueError, match=message):
        from_networkx(graph)


def test_graphs_without_edges_or_nodes_are_connectomes():
    graph = nx.DiGraph()
    assert from_networkx(graph).sizes == {"edge": 0, "neuron": 0}
    graph.add_node("a", cell_type="PV")
    made = from_networkx(graph)
    assert made["pre"].dtype.kind == "U"
    assert to_networkx(made).nodes["a"]["cell_type"] == "PV"


IDS = st.one_of(
    st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=5, unique=True),
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4),
        min_size=1,
        max_size=5,
        unique=True,
    ),
)


@settings(max_examples=20)
@given(st.data())
def test_every_connectome_survives_networkx(data):
    ids = data.draw(IDS)
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), min_size=1, max_size=8))

    def drawn(values, size):
        return np.array(data.draw(st.lists(values, min_size=size, max_size=size)))

    table = pd.DataFrame({"sign": drawn(st.sampled_from([-1, 0, 1]), len(ids))}, index=pd.Index(ids))
    weight = drawn(st.floats(allow_nan=False, allow_infinity=False), len(pairs))
    pre, post = ([pair[at] for pair in pairs] for at in (0, 1))
    made = connectome(pre, post, neurons=table, weight=weight, contact=number_contacts(pre, post))
    back = from_networkx(to_networkx(made)).drop_attrs()

    def ordered(dataset):
        return dataset.isel(edge=np.lexsort([dataset[name].values for name in ("contact", "post", "pre")]))

    xr.testing.assert_identical(ordered(back), ordered(made))
