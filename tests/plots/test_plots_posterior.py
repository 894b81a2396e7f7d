import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from connectinfer.plots.posterior import plot_bound, plot_latent_paths, plot_ranks

TIME = [0.0, 0.1, 0.2, 0.3]


@pytest.fixture
def latent():
    """Paths `draw - 10 + trial + 100 latent_dim` for draws 0, ..., 20: mean 10 less, 5 % and 95 % at draws 1 and 19."""
    draw, trial, dim = (np.arange(n, dtype=float) for n in (21, 2, 2))
    values = draw[:, None, None] - 10 + trial[:, None] + 100 * dim
    values = np.broadcast_to(values[None, :, :, None, :], (1, 21, 2, 4, 2))
    coords = {"trial": [7, 8], "time": TIME, "latent_dim": [0, 1]}
    return xr.DataArray(values, coords, ("chain", "draw", "trial", "time", "latent_dim"))


def test_paths_have_a_row_per_dimension_and_a_column_per_trial(latent):
    figure = plot_latent_paths(latent)
    assert len(figure.axes) == 4
    assert [ax.get_title() for ax in figure.axes[:2]] == ["trial 7", "trial 8"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["latent 0", "", "latent 1", ""]
    assert figure.axes[2].get_xlabel() == "time (s)"
    assert figure.axes[0].get_xlim() == pytest.approx((0, 0.4))


def test_paths_are_the_mean_and_ninety_per_cent_of_the_draws(latent):
    ax = plot_latent_paths(latent).axes[3]
    np.testing.assert_allclose(ax.lines[0].get_data(), [TIME, [101] * 4])
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == pytest.approx((101 - 9, 101 + 9))


def test_the_truth_is_drawn_for_the_chosen_trial(latent):
    truth = xr.DataArray(np.arange(16.0).reshape(2, 4, 2), dims=("trial", "time", "latent_dim"))
    figure = plot_latent_paths(latent, truth=truth.transpose("time", "latent_dim", "trial"), trials=[8])
    np.testing.assert_array_equal(figure.axes[1].lines[1].get_ydata(), [9, 11, 13, 15])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["90% band", "posterior mean", "truth"]


def test_every_stretch_without_observed_unit_is_shaded(latent):
    mask = np.ones((2, 4, 3), bool)
    mask[0, 0] = mask[0, 2:] = False
    mask[1, 1, :2] = False
    labelled = xr.DataArray(
        mask, latent.isel(chain=0, draw=0, latent_dim=0, drop=True).coords, ("trial", "time", "unit")
    )
    first, second = plot_latent_paths(latent, mask=labelled).axes[:2]
    assert [(box.get_x(), box.get_width()) for box in first.patches] == [
        pytest.approx((0.0, 0.1)),
        pytest.approx((0.2, 0.2)),
    ]
    assert not second.patches


def test_paths_go_into_a_given_part_of_a_figure(latent):
    whole = plt.figure(figsize=(6, 8), layout="constrained")
    _, lower = whole.subfigures(2, 1)
    assert plot_latent_paths(latent, figure=lower) is whole
    assert len(lower.axes) == 4


def test_paths_without_draws_are_refused(latent):
    with pytest.raises(ValueError, match=r"`latent` must have dims .* and draws along `draw`.*expand_dims"):
        plot_latent_paths(latent.isel(chain=0, draw=0))


def test_paths_with_further_dims_are_refused(latent):
    with pytest.raises(ValueError, match=r"got \('fold', 'chain', 'draw', 'trial', 'time', 'latent_dim'\)"):
        plot_latent_paths(latent.expand_dims(fold=2))


def test_a_truth_of_other_times_is_refused(latent):
    truth = latent.isel(chain=0, draw=0, drop=True)
    with pytest.raises(ValueError, match=r"`truth` and the posterior differ along 'time': 4 entries 5\.0, 5\.1"):
        plot_latent_paths(latent, truth=truth.assign_coords(time=np.add(TIME, 5)))
    with pytest.raises(ValueError, match="differ along 'trial': 1 entries 7 against 2 entries 7, 8"):
        plot_latent_paths(latent, truth=truth.isel(trial=[0]))


def test_a_truth_of_other_dims_is_refused(latent):
    with pytest.raises(ValueError, match=r"`truth` must have dims .*; got \('draw', 'trial'.*Rename"):
        plot_latent_paths(latent, truth=latent.isel(chain=0, drop=True))


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    coords = {"chain": [0, 1], "draw": range(50), "latent_dim": [0, 1]}
    posterior = {
        "tau": (("chain", "draw"), rng.normal(size=(2, 50))),
        "scale": (("chain", "draw", "latent_dim"), rng.normal(size=(2, 50, 2))),
    }
    return xr.DataTree.from_dict({"posterior": xr.Dataset(posterior, coords)})


def test_ranks_have_a_panel_per_entry(result):
    figure = plot_ranks(result, ["tau", "scale"])
    titles = [ax.get_title() for ax in figure.axes if ax.get_visible()]
    assert titles == ["tau", "scale\n0", "scale\n1"]
    assert len(figure.axes[0].lines) == 2


def test_ranks_of_unknown_variables_are_refused(result):
    with pytest.raises(ValueError, match=r"no variable \['rho'\]; the posterior has tau, scale"):
        plot_ranks(result, ["tau", "rho"])


def test_ranks_of_a_single_chain_are_refused(result):
    with pytest.raises(ValueError, match=r"ranks compare chains.*only one"):
        plot_ranks(result.isel(chain=[0]), ["tau"])


def test_a_bound_is_drawn_over_all_steps_and_over_the_second_half():
    bound = xr.DataArray(-100.0 / np.arange(1.0, 6), dims="step")
    everything, second = plot_bound(bound).axes
    np.testing.assert_array_equal(everything.lines[0].get_xydata(), np.stack([np.arange(5), bound], 1))
    np.testing.assert_array_equal(second.lines[0].get_xydata(), np.stack([np.arange(2, 5), bound[2:]], 1))
    assert everything.get_ylabel() == "ELBO (nats)"


def test_a_bound_of_other_dims_is_refused():
    with pytest.raises(ValueError, match=r"`bound` must have dims \('step',\); got \('x',\)"):
        plot_bound(xr.DataArray(np.ones(3), dims="x"))
