import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from connectinfer.plots.rank_selection import plot_rank_selection


def selection():
    variables = {"score": ("rank", [0.1, 0.31, 0.32]), "difference_error": ("rank", [0.02, 0.015, 0.0])}
    return xr.Dataset(variables, {"rank": [1, 2, 4]}, {"chosen": 2, "best": 4, "units": "bits per spike"})


def test_scores_carry_the_errors_of_their_differences_and_the_chosen_rank_a_ring():
    (ax,) = plot_rank_selection(selection()).axes
    (bars,) = ax.containers
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [[1, 0.1], [2, 0.31], [4, 0.32]])
    (segments,) = (lines.get_segments() for lines in bars.lines[2])
    np.testing.assert_allclose(segments[0], [[1, 0.08], [1, 0.12]])
    ring = next(line for line in ax.lines if line.get_label() == "chosen")
    np.testing.assert_allclose(ring.get_xydata(), [[2, 0.31]])
    assert ax.get_ylabel() == "co-smoothing (bits per spike)"


def test_a_part_of_a_figure_can_be_drawn_into_and_something_else_is_refused():
    whole = plt.figure(figsize=(7, 4), layout="constrained")
    assert plot_rank_selection(selection(), figure=whole.subfigures(1, 1)) is whole
    with pytest.raises(ValueError, match=r"what `select_rank` returns; this one lacks \['score'\]"):
        plot_rank_selection(selection().drop_vars("score"))
