import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from connectinfer.plots.connectivity import plot_connectivity, plot_overlap_spectrum, plot_weight_recovery

NEURONS = ["a", "b", "c"]
MEAN = np.array([[0.0, 1.0, 2.0], [-1.0, 0.0, 0.5], [0.25, -0.5, 0.0]])


@pytest.fixture
def weight():
    """21 draws `MEAN + k`, k = -10, ..., 10: mean MEAN, sd sqrt(110 / 3), 90 % within 9 of the mean."""
    coords = {"post": NEURONS, "pre": NEURONS}
    return xr.DataArray(MEAN + np.arange(-10.0, 11)[:, None, None], coords, ("draw", "post", "pre"))


@pytest.fixture
def truth():
    return xr.DataArray(2 * MEAN, {"post": NEURONS, "pre": NEURONS}, ("post", "pre"))


def images(figure):
    return {ax.get_title(): ax.images[0] for ax in figure.axes if ax.get_title()}


def test_mean_and_spread_of_the_weights_are_drawn_with_post_as_rows(weight):
    drawn = images(plot_connectivity(weight.transpose("pre", "draw", "post")))
    assert list(drawn) == ["posterior mean", "posterior sd"]
    np.testing.assert_allclose(drawn["posterior mean"].get_array(), MEAN, atol=1e-12)
    np.testing.assert_allclose(drawn["posterior sd"].get_array(), np.sqrt(110 / 3))


def test_truth_and_mean_share_a_scale_that_is_symmetric_about_zero(weight, truth):
    figure = plot_connectivity(weight, truth=truth)
    drawn = images(figure)
    assert list(drawn) == ["truth", "posterior mean", "posterior sd"]
    norm = drawn["truth"].norm
    assert norm is drawn["posterior mean"].norm
    # Of 18 entries the largest are 4 and 2: the 99th percentile lies 0.83 of the way between them.
    assert (norm.vmin, norm.vmax) == pytest.approx((-(2 + 0.83 * 2), 2 + 0.83 * 2))
    assert [ax.get_ylabel() for ax in figure.axes[3:]] == ["weight", "weight sd"]


def test_neurons_follow_the_order_that_is_asked_for(weight, truth):
    figure = plot_connectivity(weight, truth=truth, order=["c", "a"])
    np.testing.assert_array_equal(images(figure)["truth"].get_array(), 2 * MEAN[np.ix_([2, 0], [2, 0])])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["c", "a"]
    assert figure.axes[0].get_ylabel() == "postsynaptic neuron"


def test_many_neurons_are_counted_instead_of_named():
    figure = plot_connectivity(xr.DataArray(np.ones((2, 30, 30)), dims=("draw", "post", "pre")))
    assert figure.axes[0].get_xlabel() == "presynaptic neuron (position)"


def test_weights_that_are_all_zero_can_be_drawn():
    drawn = images(plot_connectivity(xr.DataArray(np.zeros((1, 2, 2, 2)), dims=("chain", "draw", "post", "pre"))))
    assert drawn["posterior mean"].norm.vmin == -1


def test_recovery_shows_mean_and_bar_over_the_true_weight(weight, truth):
    ax = plot_weight_recovery(weight, truth)
    np.testing.assert_allclose(ax.lines[0].get_data(), [2 * MEAN.ravel(), MEAN.ravel()], atol=1e-12)
    bars = np.stack(ax.collections[0].get_segments())
    np.testing.assert_allclose(bars[:, :, 1], np.stack([MEAN.ravel() - 9, MEAN.ravel() + 9], -1))
    np.testing.assert_allclose(ax.lines[1].get_data(), [[-2, 4], [-2, 4]])


def test_eigenvalues_of_a_rotation_lie_at_plus_minus_i():
    rotation = np.array([[0.0, -1.0], [1.0, 0.0]])
    dims = ("latent_dim", "latent_from")
    overlap = xr.DataArray(np.arange(1.0, 4)[None, :, None, None] * rotation, dims=("chain", "draw", *dims))
    ax = plot_overlap_spectrum(overlap, truth=xr.DataArray(np.diag([2.0, 3.0]), dims=dims))
    draws, true = ax.lines[1:]
    np.testing.assert_allclose(draws.get_xdata(), 0, atol=1e-12)
    assert sorted(draws.get_ydata()) == pytest.approx([-3, -2, -1, 1, 2, 3])
    np.testing.assert_allclose(true.get_xydata(), [[2, 0], [3, 0]])


def test_given_axes_are_used(weight, truth):
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    overlap = xr.DataArray(np.ones((3, 1, 1)), dims=("draw", "latent_dim", "latent_from"))
    assert plot_weight_recovery(weight, truth, ax=left) is left
    assert plot_overlap_spectrum(overlap, ax=right) is right


def test_weights_without_draws_are_refused(truth):
    with pytest.raises(ValueError, match=r"`weight` must have dims \('post', 'pre'\) and draws along `draw`"):
        plot_connectivity(truth)


def test_a_truth_of_other_neurons_is_refused(weight, truth):
    with pytest.raises(ValueError, match="`truth` and the posterior differ along 'pre': 3 entries a, b, d against"):
        plot_weight_recovery(weight, truth.assign_coords(pre=["a", "b", "d"]))


def test_an_order_with_unknown_neurons_is_refused(weight):
    with pytest.raises(ValueError, match="`order` names 1 neurons that 'post' lacks, such as z"):
        plot_connectivity(weight, order=["a", "z"])
