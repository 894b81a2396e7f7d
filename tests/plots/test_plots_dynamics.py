import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from connectinfer.plots._style import POSTERIOR, TRUTH
from connectinfer.plots.dynamics import plot_drift, plot_fixed_points, plot_flow, plot_limit_cycles


def field(velocity=lambda x, y: (-x, -2 * y)):
    x, y = np.linspace(-1, 1, 5), np.linspace(-2, 2, 9)
    drift = np.stack(velocity(*np.meshgrid(x, y, indexing="ij")), -1)
    return xr.Dataset({"drift": (("x", "y", "latent_dim"), drift)}, {"x": x, "y": y, "latent_dim": [0, 2]})


def points(position, stability, **coords):
    return xr.Dataset(
        {
            "position": (("fixed_point", "latent_dim"), np.array(position, float)),
            "stability": ("fixed_point", np.array(stability)),
        },
        {name: ("fixed_point", values) for name, values in coords.items()},
    )


def drift_group(latent, recurrent, occupancy):
    return xr.Dataset(
        {"recurrent_drift": (("chain", "draw", "point", "latent_dim"), np.array(recurrent, float)[None])},
        {"latent": (("point", "latent_dim"), np.array(latent, float)), "occupancy": ("point", occupancy)},
        {"tau": 0.1},
    )


def test_streamlines_run_along_the_drift():
    ax = plot_flow(field(lambda x, y: (np.ones_like(x), np.zeros_like(y))))
    segments = np.stack(ax.collections[0].get_segments())
    steps = segments[:, -1] - segments[:, 0]
    assert (steps[:, 0] >= 0).all()
    assert steps[:, 0].sum() > 1
    np.testing.assert_allclose(steps[:, 1], 0, atol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("latent 0", "latent 2")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-2, 2))


def test_streamlines_are_thicker_where_the_drift_is_faster():
    ax = plot_flow(field(lambda x, y: (x + 1.0, np.zeros_like(y))))
    segments = np.stack(ax.collections[0].get_segments())
    width = np.asarray(ax.collections[0].get_linewidths())
    middle = segments[:, :, 0].mean(1)
    np.testing.assert_allclose(width, 0.4 + 0.8 * (middle + 1) / 2, atol=0.05)


def test_visited_states_are_counted_behind_the_flow():
    visited = xr.DataArray(np.full((3, 4, 2), 0.01), dims=("draw", "time", "latent_dim"))
    density = plot_flow(field(), visited=visited).collections[0].get_array()
    assert density.max() == density.sum() == 12


def test_a_flow_of_a_drift_that_vanishes_is_empty():
    assert plot_flow(field(lambda x, y: (0 * x, 0 * y))).get_xlim() == (-1, 1)


def test_arrows_are_the_mean_drift_at_the_visited_states():
    latent = [[0, 0], [1, 0], [0, 1]]
    recurrent = [[[0.2, 0], [1, 0.3], [0, 1]], [[0.4, 0], [1, 0.5], [0, 1]]]
    ax = plot_drift(drift_group(latent, recurrent, [0.5, 0.3, 0.2]))
    arrows = ax.collections[0]
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], -1), [[0.3, 0], [0, 0.4], [0, 0]], atol=1e-12)
    np.testing.assert_array_equal(arrows.get_offsets(), latent)
    assert arrows.get_array().tolist() == [0.5, 0.3, 0.2]
    # 0.15 of the unit range at speed 0.4 per tau are 0.375 tau, rounded down to 0.2 tau of 100 ms.
    assert arrows.scale == pytest.approx(1 / 0.2)
    assert ax.get_title(loc="left") == "arrows: motion in 20 ms"


def test_the_drift_group_of_a_result_can_be_drawn_where_nothing_moves():
    latent = [[0, 0], [1, 1]]
    tree = xr.DataTree.from_dict({"drift": drift_group(latent, [latent], [0.5, 0.5])})
    assert len(plot_drift(tree["drift"]).collections[0].U) == 2


def test_a_drift_in_one_dimension_is_drawn_over_the_state():
    recurrent = [[[2.0 + k], [3.0 + k]] for k in range(21)]
    ax = plot_drift(drift_group([[1], [2]], recurrent, [0.5, 0.5]))
    np.testing.assert_allclose(ax.lines[1].get_data(), [[1, 2], [11, 11]])
    np.testing.assert_allclose(ax.collections[0].get_segments(), [[[1, 2], [1, 20]], [[2, 2], [2, 20]]])
    assert ax.get_ylabel() == "drift (latent units per τ)"


def test_fixed_points_are_told_apart_by_marker_and_truth_by_colour():
    inferred = points([[1, 0], [0, 0], [0, 1], [-1, 0]], ["stable", "saddle", "unstable", "stable"])
    ax = plot_fixed_points(inferred, truth=points([[0, 0]], ["marginal"]))
    drawn = {line.get_label(): line for line in ax.lines}
    assert list(drawn) == ["stable", "saddle", "unstable", "true marginal"]
    assert drawn["stable"].get_xydata().tolist() == [[1, 0], [-1, 0]]
    assert [line.get_marker() for line in drawn.values()] == ["o", "X", "o", "D"]
    assert drawn["unstable"].get_markerfacecolor() == "none"
    assert [to_hex(line.get_color()).upper() for line in drawn.values()] == [POSTERIOR] * 3 + [TRUTH]


def test_fixed_points_of_several_draws_are_small_and_translucent():
    once = plot_fixed_points(points([[1, 0], [0, 1]], ["stable"] * 2, draw=[0, 0])).lines[0]
    often = plot_fixed_points(points([[1, 0], [0, 1]], ["stable"] * 2, draw=[0, 1])).lines[0]
    assert often.get_alpha() < once.get_alpha() == 1
    assert often.get_markersize() < once.get_markersize()


def test_limit_cycles_are_closed():
    square = xr.DataArray([[[0, 0], [1, 0], [1, 1], [0, 1]]], dims=("limit_cycle", "phase", "latent_dim"))
    ax = plot_limit_cycles(square, truth=square + 1)
    inferred, true = (collection.get_segments() for collection in ax.collections)
    assert inferred[0].tolist() == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    assert true[0].tolist() == [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]
    assert ax.get_xlim()[1] >= 2


def test_no_limit_cycle_is_no_error():
    ax = plot_limit_cycles(xr.DataArray(np.zeros((0, 1, 2)), dims=("limit_cycle", "phase", "latent_dim")))
    assert not ax.collections
    assert ax.get_legend() is None


def test_pictures_overlay_on_one_axes_with_one_legend():
    _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    cycle = xr.DataArray([[[-1, 0], [0, 1], [1, 0]]], dims=("limit_cycle", "phase", "latent_dim"))
    assert plot_flow(field(), ax=ax) is ax
    plot_limit_cycles(cycle, ax=ax)
    plot_fixed_points(points([[0, 0]], ["saddle"]), ax=ax)
    plot_fixed_points(points([[0, 1]], ["saddle"]), ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["limit cycle", "saddle"]
    assert ax.get_xlim() == (-1, 1)


def test_a_plane_needs_two_latent_dimensions():
    with pytest.raises(ValueError, match=r"`field` must have two latent dimensions.*\.sel\(latent_dim="):
        plot_flow(field().isel(latent_dim=[0]))
    with pytest.raises(ValueError, match="`drift` must have two latent dimensions"):
        plot_drift(drift_group(np.eye(3), [np.eye(3)], [1, 0, 0]))
    with pytest.raises(ValueError, match="`fixed_points` must have two latent dimensions"):
        plot_fixed_points(points([[0, 0, 0]], ["stable"]))
    with pytest.raises(ValueError, match="`visited` must have two latent dimensions"):
        plot_flow(field(), visited=xr.DataArray([0.0], dims="time"))


def test_other_dims_are_refused():
    with pytest.raises(ValueError, match=r"`drift` must have dims .*; got \('x', 'z', 'latent_dim'\)"):
        plot_flow(field().rename(y="z"))
    with pytest.raises(ValueError, match="`limit_cycles` must have dims"):
        plot_limit_cycles(xr.DataArray(np.zeros((1, 4, 2)), dims=("limit_cycle", "time", "latent_dim")))


def test_an_unknown_stability_is_refused():
    with pytest.raises(ValueError, match="one of stable, saddle, unstable, marginal; got 'focus'"):
        plot_fixed_points(points([[0, 0]], ["focus"]))
