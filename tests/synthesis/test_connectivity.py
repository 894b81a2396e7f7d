import numpy as np
import pytest
import xarray as xr

from connectinfer.data.connectome import edge_indices, to_dense
from connectinfer.synthesis.connectivity import connectivity_edges, sample_connectivity

UNITS = ["a", "b", "c"]


def result(m, n, **attrs):
    """A result with the posterior `m`, `n (chain, draw, unit, latent_dim)`."""
    dims = ("chain", "draw", "unit", "latent_dim")
    unit = UNITS if m.shape[2] == 3 else np.arange(m.shape[2])
    posterior = xr.Dataset({"m": (dims, m), "n": (dims, n), "d": (dims[:3], m[..., 0])}, {"unit": unit})
    posterior = posterior.assign_coords(chain=np.arange(m.shape[0]), draw=np.arange(m.shape[1]))
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "posterior": posterior})


def random_result(chains=2, draws=5, units=4, rank=2):
    m, n = np.random.default_rng(0).normal(size=(2, chains, draws, units, rank))
    return result(m, n), m, n


def hand_counted():
    """One draw: J = m n^T / 3 with m = (1, 2, 0) and n = (3, 0, -6)."""
    m, n = np.array([[[[1.0], [2.0], [0.0]]]]), np.array([[[[3.0], [0.0], [-6.0]]]])
    return result(m, n, model="low_rank_rnn_ode")


def test_weights_of_a_hand_counted_network():
    found = sample_connectivity(hand_counted())
    assert found["weight"].dims == ("draw", "post", "pre")
    assert found["weight"].values.tolist() == [[[1, 0, -2], [2, 0, -4], [0, 0, 0]]]
    # Unit a drives unit b with 2, not the other way round.
    assert found["weight"].sel(draw=0, post="b", pre="a") == 2
    assert found["weight"].sel(draw=0, post="a", pre="b") == 0
    assert found["post"].values.tolist() == found["pre"].values.tolist() == UNITS
    assert found.attrs["model"] == "low_rank_rnn_ode"
    assert "weight[post, pre]" in found.attrs["orientation"]


def test_draws_of_all_chains_are_pooled_and_say_where_they_came_from():
    tree, m, n = random_result()
    found = sample_connectivity(tree)
    assert found.sizes["draw"] == 10
    expected = np.einsum("cdir,cdjr->cdij", m, n) / 4
    chain, draw = found["chain"].values, found["draw_in_chain"].values
    assert {*zip(chain.tolist(), draw.tolist(), strict=True)} == {(c, d) for c in range(2) for d in range(5)}
    np.testing.assert_allclose(found["weight"], expected[chain, draw])


@pytest.mark.parametrize(("draws", "expected"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (200, list(range(10)))])
def test_draws_are_evenly_spaced_and_none_is_taken_twice(draws, expected):
    found = sample_connectivity(random_result()[0], draws=draws)
    assert found["draw"].values.tolist() == list(range(len(expected)))
    assert (5 * found["chain"] + found["draw_in_chain"]).values.tolist() == expected


def test_weights_do_not_depend_on_the_gauge_or_on_the_order_of_dims():
    tree, m, n = random_result()
    expected = sample_connectivity(tree)["weight"]
    angle = 0.7
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(sample_connectivity(result(m @ rotation, n @ rotation))["weight"], expected, atol=1e-12)
    turned = tree.copy()
    turned["posterior"] = xr.DataTree(tree["posterior"].to_dataset().transpose("unit", "latent_dim", "draw", "chain"))
    np.testing.assert_array_equal(sample_connectivity(turned)["weight"], expected)


def test_a_result_without_loadings_is_refused_and_says_what_it_has():
    tree = hand_counted()
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().drop_vars("n"))
    message = r"needs a result with posterior loadings .* of model 'low_rank_rnn_ode', has \['d', 'm'\]"
    with pytest.raises(ValueError, match=message):
        sample_connectivity(tree)
    with pytest.raises(ValueError, match=r"of model 'unknown', has no posterior"):
        sample_connectivity(xr.DataTree())


@pytest.mark.parametrize("draws", [0, -3])
def test_fewer_than_one_draw_is_refused(draws):
    with pytest.raises(ValueError, match=f"`draws` must be at least 1; got {draws}"):
        sample_connectivity(hand_counted(), draws=draws)


def test_edges_lead_from_pre_to_post_and_leave_out_self_connections():
    edges = connectivity_edges(sample_connectivity(hand_counted()))
    found = dict(zip(zip(edges["pre"].values, edges["post"].values, strict=True), edges["weight"].values, strict=True))
    assert found == {
        ("a", "b"): 2,
        ("a", "c"): 0,
        ("b", "a"): 0,
        ("b", "c"): 0,
        ("c", "a"): -2,
        ("c", "b"): -4,
    }
    assert edges["neuron"].values.tolist() == UNITS
    assert (edges["weight_sd"] == 0).all()


def test_edges_summarise_the_draws():
    connectivity = sample_connectivity(random_result(units=5)[0])
    edges = connectivity_edges(connectivity.transpose("pre", "draw", "post"))
    pre, post = edge_indices(edges)
    weight = connectivity["weight"].values
    assert len(pre) == 20
    for name, expected in (
        ("weight", weight.mean(0)),
        ("weight_sd", weight.std(0)),
        ("probability_positive", (weight > 0).mean(0)),
    ):
        np.testing.assert_allclose(edges[name], expected[post, pre])
    off_diagonal = ~np.eye(5, dtype=bool)
    dense = to_dense(edges, "weight").values
    np.testing.assert_allclose(dense[off_diagonal], weight.mean(0)[off_diagonal])
    assert (np.diag(dense) == 0).all()
