import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.plots.recording import plot_activity, plot_mean_rates, plot_raster


def two_trials(**given):
    """Two units, four bins of 0.5 s; trial "b" ends after three bins."""
    counts = [[[0, 1], [0, 0], [2, 0], [0, 0]], [[1, 0], [0, 0], [0, 1]]]
    defaults = {"counts": [np.array(trial) for trial in counts]}
    return recording(time=0.5, trial=["a", "b"], unit=["x", "y"], **(given or defaults))


def test_a_raster_has_one_tick_in_the_middle_of_every_bin_with_spikes():
    figure = plot_raster(two_trials())
    ticks = figure.axes[0].collections[0]
    assert [segment.tolist() for segment in ticks.get_segments()] == [
        [[0.25, 0.6], [0.25, 1.4]],
        [[1.25, -0.4], [1.25, 0.4]],
    ]
    assert ticks.get_array().tolist() == [1, 2]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["trial a", "trial b"]
    assert figure.axes[0].get_xlim() == (0, 2)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x", "y"]
    assert figure.axes[2].get_ylabel() == "spikes per bin"


def test_a_raster_without_coincident_spikes_is_black_and_needs_no_scale():
    data = two_trials()
    figure = plot_raster(data.assign(counts=data["counts"].clip(max=1)), trials=["a"])
    (ax,) = figure.axes
    figure.canvas.draw()
    np.testing.assert_allclose(ax.collections[0].get_colors(), [[0, 0, 0, 1]] * 2)


def test_a_raster_shades_what_was_not_observed():
    first, second = plot_raster(two_trials()).axes[:2]
    assert not first.images
    shade = second.images[0].get_array().filled(0)
    assert shade.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


def test_chosen_trials_are_drawn_in_their_order_and_three_without_choice():
    many = recording(time=0.1, counts=np.ones((5, 3, 1), int))
    assert [ax.get_title() for ax in plot_raster(many).axes] == ["trial 0", "trial 1", "trial 2"]
    assert [ax.get_title() for ax in plot_raster(many, trials=[4, 1]).axes] == ["trial 4", "trial 1"]


def test_a_heat_map_shows_units_as_rows_on_a_scale_from_zero():
    rates = np.arange(16.0).reshape(2, 4, 2)
    figure = plot_activity(two_trials(rates=rates))
    image = figure.axes[0].images[0]
    values = np.asarray(image.get_array())
    np.testing.assert_array_equal(values[:: values.shape[0] // 2, :: values.shape[1] // 4], rates[0].T)
    assert list(image.get_extent()) == [0, 2, -0.5, 1.5]
    assert image.norm.vmin == 0
    assert image.norm.vmax == pytest.approx(15 - 0.005 * 15)
    assert image.norm is figure.axes[1].images[0].norm
    assert figure.axes[2].get_ylabel() == "rate (Hz)"


def test_a_heat_map_leaves_out_what_was_not_observed():
    mask = np.ones((2, 4, 2), bool)
    mask[0, 1, 0] = False
    image = plot_activity(two_trials(fluorescence=np.full((2, 4, 2), -1.0), mask=mask)).axes[0].images[0]
    hidden = np.ma.getmaskarray(image.get_array())
    assert hidden[:: hidden.shape[0] // 2, :: hidden.shape[1] // 4].tolist() == [
        [False, True, False, False],
        [False, False, False, False],
    ]
    assert image.norm.vmin == -1


def test_many_units_are_counted_instead_of_named():
    counts = np.ones((1, 2, 30), int)
    ax = plot_activity(recording(time=0.1, counts=counts, unit=[f"cell {i}" for i in range(30)])).axes[0]
    assert ax.get_ylabel() == "unit (position)"


def test_a_part_of_a_figure_can_be_drawn_into():
    whole = plt.figure(figsize=(12, 4), layout="constrained")
    left, right = whole.subfigures(1, 2)
    assert plot_raster(two_trials(), figure=left) is whole
    assert plot_activity(two_trials(), figure=right) is whole
    assert [len(part.axes) for part in (left, right)] == [3, 3]


def test_a_raster_of_rates_is_refused():
    with pytest.raises(ValueError, match=r"holds `rates`. Use `plot_activity"):
        plot_raster(two_trials(rates=np.ones((2, 4, 2))))


@pytest.mark.parametrize("trials", [["a", "z"], []])
def test_unknown_trials_are_named_with_those_there_are(trials):
    with pytest.raises(ValueError, match=r"no trial .*; the trials are a, b\."):
        plot_activity(two_trials(), trials=trials)


def test_a_raster_of_a_recording_with_inputs_leaves_them_out():
    given = recording(counts=np.ones((1, 4, 2), int), time=0.01, inputs=np.zeros((1, 4, 3)))
    assert len(plot_raster(given).axes) == 1


def test_mean_rates_are_dots_in_the_order_of_the_units():
    rates = xr.DataArray([3.0, 1.0, 2.0], {"unit": ["c", "a", "b"]}, ("unit",))
    ax = plot_mean_rates(rates)
    assert ax.lines[0].get_xydata().tolist() == [[0, 3], [1, 1], [2, 2]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["c", "a", "b"]
    assert (ax.get_ylabel(), ax.get_ylim()[0]) == ("mean rate (Hz)", 0)


def test_many_rates_are_counted_instead_of_named():
    assert plot_mean_rates(xr.DataArray(np.ones(30), dims="unit")).get_xlabel() == "unit (position)"
