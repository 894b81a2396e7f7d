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
    merge_contacts,
    number_contacts,
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
    with pytest.raises(ValueError, match=r"sizes that are summed must be numbers; \['size'\] hold <U1"):
        sum_synapses([2, 1], [1, 2], size=["a", "b"])


CONTACTS = {
    "pre": ["b", "a", "b", "b", "a"],
    "post": ["a", "b", "a", "a", "b"],
    "kind": ["chemical", "chemical", "electrical", "chemical", "chemical"],
    "weight": np.array([0.5, 1.0, 2.0, 0.25, 4.0], np.float32),
    "cleft_size": np.array([200, 100, 1, 100, 7], np.uint8),
    "delay": [1.0, np.nan, 1.5, 1.0, np.nan],
    "distance": [1.0, 2.0, 3.0, 4.0, np.nan],
}


def test_contacts_are_numbered_within_their_pair_and_kind():
    assert number_contacts([5, 2**60, 5, 5], [1, 1, 1, 2]).tolist() == [0, 0, 1, 0]
    assert number_contacts(CONTACTS["pre"], CONTACTS["post"]).tolist() == [0, 0, 1, 2, 1]
    assert number_contacts(CONTACTS["pre"], CONTACTS["post"], CONTACTS["kind"]).tolist() == [0, 0, 0, 1, 1]


def test_contacts_of_a_pair_are_edges_of_their_own_and_merge_to_one():
    made = connectome(**CONTACTS, contact=[0, 0, 0, 1, 1])
    assert made.sizes["edge"] == 5
    with pytest.raises(ValueError, match=r"several contacts; sum them first, with `merge_contacts\(dataset\)`"):
        to_dense(made, "weight")
    merged = merge_contacts(made.assign_attrs(left_out="notes"))
    assert {str(name): merged[name].values.tolist() for name in ("pre", "post", "kind", "synapse_count", "weight")} == {
        "pre": ["b", "a", "b"], "post": ["a", "b", "a"], "kind": ["chemical", "chemical", "electrical"],
        "synapse_count": [2, 2, 1], "weight": [0.75, 5.0, 2.0],
    }  # fmt: skip
    assert merged["cleft_size"].values.tolist() == [300, 107, 1]
    np.testing.assert_array_equal(merged["delay"].values, [1.0, np.nan, 1.5])
    assert not {"contact", "distance"} & set(merged)
    assert merged.attrs["left_out"] == "notes, distance (differs between contacts)"
    chemical = merged.isel(edge=(merged["kind"] == "chemical").values)
    assert to_dense(chemical, "weight").values.tolist() == [[0, 0.75], [5.0, 0]]


def test_merging_adds_the_synapse_counts_of_contacts_that_have_some():
    made = connectome([1, 1, 2], [2, 2, 1], contact=[0, 1, 0], synapse_count=np.array([3, 4, 5], np.uint8))
    assert merge_contacts(made)["synapse_count"].values.tolist() == [7, 5]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_merging_contacts_equals_summing_synapses(pairs):
    pre, post = np.array(pairs, int).reshape(-1, 2).T
    size = np.arange(len(pairs)) + 0.5
    summed = connectome(neurons=np.arange(4), **sum_synapses(pre, post, size=size))
    contacts = connectome(pre, post, neurons=np.arange(4), contact=number_contacts(pre, post), size=size)
    for name in ("synapse_count", "size"):
        assert to_dense(merge_contacts(contacts), name).identical(to_dense(summed, name))


def test_nan_says_that_a_variable_does_not_apply_unless_every_edge_must_have_it():
    made = connectome([1, 2], [2, 1], delay=[1.5, np.nan])
    assert np.isnan(made["delay"].values[1])
    for name in ("weight", "synapse_count"):
        with pytest.raises(ValueError, match=f"`{name}` of edge 1 is nan; leave out edges"):
            connectome([1, 2], [2, 1], **{name: [1.5, np.nan]})
    with pytest.raises(ValueError, match="`delay` of edge 0 is -inf"):
        connectome([1, 2], [2, 1], delay=[-np.inf, 1.0])


def test_repeated_edges_are_refused_with_the_ways_out():
    with pytest.raises(ValueError, match=r"(?s)1 edges repeat .*sum_synapses.*contact=number_contacts\(pre, post\)"):
        connectome([1, 1], [2, 2], weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"the same pre, post, contact, for example \(1, 2, 5\)"):
        connectome([1, 1], [2, 2], contact=[5, 5])
    with pytest.raises(ValueError, match=r"`contact` must be whole numbers 0, 1, \.\.\.; got float64"):
        connectome([1, 1], [2, 2], contact=[0.0, 1.0])


def test_a_property_of_neurons_may_be_called_kind():
    made = connectome(["a"], ["b"], neurons=pd.DataFrame({"kind": ["x", "y"]}, index=["a", "b"]), weight=[2.0])
    assert made["kind"].dims == ("neuron",)
    assert merge_contacts(made)["weight"].values.tolist() == [2.0]


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, (5, 5), elements=st.sampled_from([0.0, -1.5, 2.0])))
def test_a_matrix_survives_the_edge_list(weight):
    assert np.array_equal(to_dense(from_dense(weight), "weight").values, weight)


def test_columns_that_are_no_edges_are_refused_by_name():
    with pytest.raises(ValueError, match=r"every synapse needs .* shapes {'pre': \(2,\), 'post': \(1,\)}"):
        sum_synapses([1, 2], [3])
    with pytest.raises(ValueError, match=r"of one type, .*; got int64 and <U1 ids"):
        sum_synapses([1], ["a"])
    with pytest.raises(ValueError, match=r"one value for each edge; got the shapes \[\(2,\), \(2,\), \(1,\)\]"):
        number_contacts([1, 1], [2, 2], ["chemical"])
    with pytest.raises(ValueError, match="a connectome needs a variable `pre`"):
        merge_contacts(connectome([1], [2]).drop_vars("pre"))
