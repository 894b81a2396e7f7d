"""What is appended is read; what is missing is noticed, whatever the arrays are called."""

import numpy as np
import pytest

from connectinfer.inference.draw_store import open_draws

NAMES = ("posterior/d", "posterior/drift", "sample_stats/diverging", "sample_stats/n_steps")
DIMS = dict.fromkeys(NAMES, ("chain", "draw"))


def chunk(start):
    values = np.arange(start, start + 10) * np.ones((2, 1))
    stats = {"sample_stats/diverging": np.zeros((2, 10), bool), "sample_stats/n_steps": np.zeros((2, 10), np.int32)}
    return {"posterior/d": values, "posterior/drift": -values} | stats


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_draws_come_back_even_where_all_are_zero(kind, tmp_path):
    store = open_draws(None if kind == "memory" else tmp_path, chunk(0), DIMS, 30)
    for start in (0, 10, 20):
        store.append(start, chunk(start))
    found = store.read(5, 25)
    assert set(found) == set(NAMES)
    np.testing.assert_array_equal(found["posterior/drift"], -np.arange(5, 25) * np.ones((2, 1)))
    assert not found["sample_stats/diverging"].any()


def test_what_was_not_written_is_missing(tmp_path):
    store = open_draws(tmp_path, chunk(0), DIMS, 30)
    store.append(0, chunk(0))
    store.check(10)
    with pytest.raises(ValueError, match=r"1 of 2 pieces of posterior/d in .* are missing"):
        store.read(0, 20)
    assert open_draws(tmp_path, chunk(0), DIMS, 60, 10).read(0, 10)["posterior/d"].shape == (2, 10)
    with pytest.raises(ValueError, match="2 of 3 pieces of posterior/d in"):
        open_draws(tmp_path, chunk(0), DIMS, 60, 30)
