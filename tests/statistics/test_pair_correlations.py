import itertools

import numpy as np
import pytest

from connectinfer.statistics.pair_correlations import even_pairs, pair_correlations, trial_residuals

ALL = np.array(list(itertools.combinations(range(4), 2)))


@pytest.mark.parametrize("units", [1, 2, 3, 8])
def test_few_units_give_all_pairs_in_their_order(units):
    assert even_pairs(units, 1000).tolist() == [list(pair) for pair in itertools.combinations(range(units), 2)]


def test_many_units_give_different_pairs_from_the_first_to_the_last():
    pairs = even_pairs(5000, 1000)
    assert len(np.unique(pairs, axis=0)) == 1000
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert pairs[[0, -1]].tolist() == [[0, 1], [4998, 4999]]


def test_complete_data_have_numpys_correlations():
    values = np.random.default_rng(0).poisson(100.0, (7, 9, 4))
    expected = np.corrcoef(values.reshape(-1, 4).T)[ALL[:, 0], ALL[:, 1]]
    np.testing.assert_allclose(pair_correlations(values, np.ones(values.shape, bool), ALL), expected)


def test_a_pair_is_correlated_where_both_were_observed():
    rng = np.random.default_rng(0)
    values, mask = rng.normal(5.0, 1.0, (2, 7, 9, 4)), rng.random((7, 9, 4)) < 0.6
    both = mask[..., ALL[:, 0]] & mask[..., ALL[:, 1]]
    expected = [
        [np.corrcoef(draw[..., i][seen], draw[..., j][seen])[0, 1] for (i, j), seen in zip(ALL, both.T, strict=True)]
        for draw in values.swapaxes(1, 2)
    ]
    np.testing.assert_allclose(pair_correlations(np.where(mask, values, np.inf), mask, ALL), expected)


def test_a_constant_has_no_correlation():
    values = np.random.default_rng(0).normal(size=(5, 6, 2))
    values[..., 1] = 0.1
    assert np.isnan(pair_correlations(values, np.ones(values.shape, bool), np.array([[0, 1]])))


def test_residuals_are_what_trials_do_not_share():
    values = np.array([[[1.0], [4.0]], [[3.0], [9.0]]])
    mask = np.array([[[True], [True]], [[True], [False]]])
    assert trial_residuals(values, mask)[..., 0].tolist() == [[-1, 0], [1, 0]]
    assert trial_residuals(values[:1], mask[:1]).tolist() == values[:1].tolist()


def test_residuals_of_a_shared_time_course_are_uncorrelated():
    rng = np.random.default_rng(0)
    counts = rng.poisson(5 + 4 * np.sin(np.arange(30))[:, None] * np.ones(2), (200, 30, 2))
    mask, pair = np.ones(counts.shape, bool), np.array([[0, 1]])
    assert pair_correlations(counts, mask, pair)[0] > 0.5
    assert pair_correlations(trial_residuals(counts, mask), mask, pair)[0] == pytest.approx(0, abs=0.04)
