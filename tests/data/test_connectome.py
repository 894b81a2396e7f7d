import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from connectinfer.data.connectome import (
    connectome,
    edge_indices,
    from_dense,
    observed_pairs,
    sum_synapses,
    to_dense,
)

ROOT_IDS = np.array([648518346349539437, 648518346349539438])  # differ by one, beyond 2^53


def test_an_edge_list_becomes_a_matrix_with_post_in_the_rows():
    made = connectome(["a", "a", "c"], ["b", "c", "a"], weight=[1.0, 2.0, 3.0])
    assert made["neuron"].values.tolist() == ["a", "b", "c"]
    dense = to_dense(made, "weight")
    assert dense.dims == ("post", "pre")
    assert dense.sel(post="b", pre="a") == 1.0
    assert dense.values.tolist() == [[0, 0, 3], [1, 0, 0], [2, 0, 0]]
    assert [each.tolist() for each in edge_indices(made)] == [[0, 0, 2], [1, 2, 0]]


def test_the_matrix_is_the_transpose_of_networkx():
    graph = nx.gnp_random_graph(12, 0.3, seed=1, directed=True)
    pre, post = np.array(graph.edges).T
    dense = to_dense(connectome(pre, post, neurons=list(graph), weight=np.ones(len(pre))), "weight")
    assert np.array_equal(dense.values.T, nx.to_numpy_array(graph))


def test_root_ids_keep_every_digit():
    made = connectome(ROOT_IDS[:1], ROOT_IDS[1:], weight=[1.0])
    assert made["neuron"].values.tolist() == ROOT_IDS.tolist()
    assert (made["neuron"].values[1] - made["neuron"].values[0]) == 1


def test_neurons_without_edges_and_their_properties_are_kept():
    table = pd.DataFrame(
        {"cell_type": ["PV", None, "L4"], "sign": [-1, 0, 1], "x": [0.0, 5.0, np.nan], "y": [0.0, 1.0, np.nan]},
        index=[5, 6, 7],
    ).assign(z=[1.0, 2.0, np.nan])
    made = connectome([5], [7], neurons=table, synapse_count=[3])
    assert made.sizes["neuron"] == 3
    assert made["cell_type"].values.tolist() == ["PV", "", "L4"]
    assert made["axon_observed"].values.all()


def test_pairs_are_unknown_where_axon_or_dendrite_was_not_observed():
    table = pd.DataFrame({"axon_observed": [True, False], "dendrite_observed": [True, True]}, index=["a", "b"])
    made = connectome(["a"], ["b"], neurons=table, weight=[2.0])
    assert observed_pairs(made).values.tolist() == [[True, False], [True, False]]
    dense = to_dense(made, "weight").values
    assert dense[:, 0].tolist() == [0.0, 2.0]
    assert np.isnan(dense[:, 1]).all()


def test_kind_tells_two_edges_of_a_pair_apart_and_one_kind_has_a_matrix():
    made = connectome(["a", "a"], ["b", "b"], kind=["chemical", "electrical"], weight=[1.0, 4.0])
    one = made.isel(edge=(made["kind"] == "electrical").values)
    assert to_dense(one, "weight").sel(post="b", pre="a") == 4.0
    with pytest.raises(ValueError, match="several kinds of edge"):
        to_dense(made, "weight")


def test_synapses_are_summed_to_edges():
    summed = sum_synapses([2, 1, 2], [1, 2, 1], size=[0.5, 1.0, 0.25])
    assert {name: each.tolist() for name, each in summed.items()} == {
        "pre": [1, 2], "post": [2, 1], "synapse_count": [1, 2], "size": [1.0, 0.75],
    }  # fmt: skip
    assert connectome(**summed).sizes == {"edge": 2, "neuron": 2}


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, (5, 5), elements=st.sampled_from([0.0, -1.5, 2.0])))
def test_a_matrix_survives_the_edge_list(weight):
    assert np.array_equal(to_dense(from_dense(weight), "weight").values, weight)
