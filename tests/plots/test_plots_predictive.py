import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from connectinfer.plots.predictive import plot_predictive

UNITS, DRAWS = 5, 40


def compared(dim="unit", offset=0.0, name="rate", units="Hz"):
    replicated = np.random.default_rng(0).normal(size=(2, DRAWS, UNITS)) + np.arange(UNITS)
    observed = (dim, np.arange(UNITS) + offset, {"long_name": name, "units": units})
    return xr.Dataset(
        {"observed": observed, "replicated": (("chain", "draw", dim), replicated)}, {dim: 0.1 * np.arange(UNITS)}
    )


def tree(**groups):
    return xr.DataTree.from_dict(groups)


def test_units_are_bars_over_the_observed_value_and_time_is_a_band_with_a_line():
    figure = plot_predictive(tree(rate=compared(), time_course=compared("time", name="course", units="")))
    rate, course = figure.axes
    bars = rate.collections[0].get_segments()
    replicated = compared()["replicated"].values.reshape(-1, UNITS)
    np.testing.assert_allclose([bar[0] for bar in bars], np.c_[np.arange(UNITS), np.quantile(replicated, 0.05, 0)])
    assert rate.get_xlabel() == "recording (Hz)"
    assert rate.get_title() == "rate\n0 of 5 outside"
    np.testing.assert_allclose(course.lines[0].get_xydata(), np.c_[0.1 * np.arange(UNITS), np.arange(UNITS)])
    assert (course.get_xlabel(), course.get_ylabel()) == ("time (s)", "recording")


def test_what_lies_outside_is_counted_and_coloured():
    (inside,) = plot_predictive(tree(rate=compared())).axes
    (outside,) = plot_predictive(tree(rate=compared(offset=9.0))).axes
    assert outside.get_title() == "rate\n5 of 5 outside"
    assert inside.lines[0].get_color() != outside.lines[0].get_color()


def test_items_without_a_value_in_every_data_set_are_left_out():
    group = compared()
    group["observed"][0] = np.nan
    group["replicated"][1, 3, 1] = np.nan
    figure = plot_predictive(tree(rate=group, empty=group.isel(unit=[0])))
    (ax,) = figure.axes
    assert ax.get_title() == "rate\n0 of 3 outside"


def test_a_part_of_a_figure_can_be_drawn_into_and_seven_statistics_take_two_rows():
    whole = plt.figure(figsize=(11, 6), layout="constrained")
    part = whole.subfigures(1, 1)
    assert plot_predictive(tree(**{f"s{i}": compared() for i in range(7)}), figure=part) is whole
    assert [ax.get_visible() for ax in part.axes] == [True] * 7 + [False]


@pytest.mark.parametrize("given", [{}, {"counts": xr.Dataset({"mask": 1})}])
def test_another_tree_is_refused_with_what_to_give(given):
    with pytest.raises(ValueError, match=r"no statistic to draw among .*`predictive_statistics\(result\)\['counts'\]`"):
        plot_predictive(tree(**given))
