import numpy as np
import pytest

from connectinfer.diagnostics.coverage import pooled_coverage


def test_independent_intervals_get_the_plain_binomial_band():
    # Ten data sets of ten intervals, nine of which are covered in each: no variance between data sets.
    covered = np.ones((10, 10), bool)
    covered[:, 0] = False
    found = pooled_coverage(covered, 0.9)
    assert (found.share, found.independent) == (0.9, 100)
    # Binomial(100, 0.9): P(X < 82) = 0.0046 and P(X <= 97) = 0.9981.
    assert found.band == (0.82, 0.97)
    assert found.passed


def test_intervals_that_are_all_covered_or_all_missed_count_once_a_data_set():
    covered = np.repeat([[True], [True], [False], [True]], 50, axis=1)
    found = pooled_coverage(covered, 0.9)
    assert found.independent == 4
    assert found.passed
    assert "75.0% of 90% intervals hold the truth" in str(found)


def test_intervals_that_are_too_narrow_are_outside_the_band():
    covered = np.random.default_rng(0).uniform(size=(50, 10)) < 0.7
    assert not pooled_coverage(covered, 0.9).passed


@pytest.mark.parametrize(("correlation", "most"), [(0.0, 0.01), (0.3, 0.02), (0.6, 0.045)])
def test_honest_intervals_are_outside_as_rarely_as_the_docstring_says(correlation, most):
    """4,000 studies of 40 data sets of 8 normal means, whose true shares are about 0.3, 1 to 2 and 3.6 %."""
    rng = np.random.default_rng(1)
    shared, own = rng.normal(size=(4000, 40, 1)), rng.normal(size=(4000, 40, 8))
    error = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    alarms = np.mean([not pooled_coverage(np.abs(study) < 1.645, 0.9).passed for study in error])
    assert alarms < most


@pytest.mark.parametrize(("shape", "level"), [((1, 5), 0.9), ((5, 0), 0.9), ((5, 5), 1.0)])
def test_what_cannot_be_judged_is_refused(shape, level):
    with pytest.raises(ValueError, match=f"got {shape[0]} data sets, {shape[1]} intervals and level {level}"):
        pooled_coverage(np.ones(shape, bool), level)
