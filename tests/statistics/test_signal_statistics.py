import numpy as np
import pytest

from connectinfer.statistics.signal_statistics import (
    neighbour_correlations,
    population_autocorrelation,
    population_course,
    signal_deviations,
    signal_means,
)

VALUES = np.array([[[1.0, 4.0], [3.0, 4.0]], [[5.0, 4.0], [7.0, 4.0]]])
MASK = np.array([[[True, True], [True, True]], [[True, True], [False, True]]])


def autoregression(coefficient, shape):
    steps = np.random.default_rng(0).normal(size=shape)
    for t in range(1, shape[-2]):
        steps[..., t, :] += coefficient * steps[..., t - 1, :]
    return steps


def test_mean_and_deviation_of_a_hand_counted_signal():
    assert signal_means(VALUES, MASK).tolist() == [3, 4]
    np.testing.assert_allclose(signal_deviations(VALUES, MASK), [np.std([1, 3, 5]), 0])


def test_neighbours_of_a_hand_counted_signal():
    # About the mean 3: -2 and 0 are the only neighbours, of product 0; the constant has no correlation.
    found = neighbour_correlations(VALUES, MASK)
    assert found[0] == 0
    assert np.isnan(found[1])


def test_neighbours_of_an_autoregression_have_its_coefficient():
    values = autoregression(0.7, (50, 400, 3))
    np.testing.assert_allclose(neighbour_correlations(values, np.ones(values.shape, bool)), 0.7, atol=0.03)


def test_the_course_is_the_mean_over_observed_trials_and_units():
    assert population_course(VALUES, MASK).tolist() == [(1 + 4 + 5 + 4) / 4, (3 + 4 + 4) / 3]


def test_the_population_remembers_as_its_autoregression_does_and_forgets_what_trials_share():
    values = autoregression(0.8, (200, 100, 1)) + 3 * np.sin(np.arange(100.0))[:, None]
    found = population_autocorrelation(np.repeat(values, 2, -1), np.ones((200, 100, 2), bool), 4)
    np.testing.assert_allclose(found, 0.8 ** np.arange(1, 5), atol=0.04)


@pytest.mark.parametrize("lags", [0, 2])
def test_lags_that_no_trial_has_are_refused(lags):
    with pytest.raises(ValueError, match=rf"between 1 and 1, for trials of 2 bins; got {lags}\."):
        population_autocorrelation(VALUES, MASK, lags)


def test_a_batch_of_draws_equals_a_loop_and_masked_entries_do_not_matter():
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(3, 4, 12, 5)), rng.random((4, 12, 5)) < 0.8
    spoiled = np.where(mask, values, 1e6)
    for statistic in (
        signal_means,
        signal_deviations,
        neighbour_correlations,
        population_course,
        lambda x, m: population_autocorrelation(x, m, 3),
    ):
        np.testing.assert_allclose(statistic(values, mask), [statistic(draw, mask) for draw in spoiled], rtol=1e-9)
