import numpy as np
import pytest

from connectinfer.statistics.spike_statistics import (
    fano_factors,
    firing_rates,
    interval_histogram,
    interval_variation,
    peristimulus_histogram,
    rate_modulation,
    window_counts,
)

# Two trials of six bins, two units; trial 1 ends after four bins.
COUNTS = np.array([[[1, 0], [0, 2], [1, 0], [0, 0], [0, 0], [1, 0]], [[0, 0], [2, 0], [0, 0], [1, 0], [9, 9], [9, 9]]])
MASK = np.ones(COUNTS.shape, bool)
MASK[1, 4:] = False


def everywhere(counts):
    return np.ones(np.shape(counts)[-3:], bool)


def test_rates_of_hand_counted_trains():
    # Six and two spikes in ten observed bins of half a second.
    np.testing.assert_allclose(firing_rates(COUNTS, MASK, 0.5), [6 / 5, 2 / 5])


def test_a_histogram_averages_the_trials_that_saw_a_bin():
    expected = [[1, 0], [2, 2], [1, 0], [1, 0], [0, 0], [2, 0]]
    np.testing.assert_allclose(peristimulus_histogram(COUNTS, MASK, 0.5), expected)
    never = MASK.copy()
    never[:, 3, 1] = False
    assert np.isnan(peristimulus_histogram(COUNTS, never, 0.5)[3, 1])


def test_modulation_is_the_sd_of_the_histogram_weighted_by_trials():
    weights = np.array([2, 2, 2, 2, 1, 1])
    histogram = np.array([1, 2, 1, 1, 0, 2.0])
    mean = np.average(histogram, weights=weights)
    expected = np.sqrt(np.average((histogram - mean) ** 2, weights=weights))
    assert rate_modulation(COUNTS, MASK, 0.5)[0] == pytest.approx(expected)
    flat = np.full((3, 5, 1), 2)
    assert rate_modulation(flat, everywhere(flat), 0.1) == 0


def test_windows_are_side_by_side_and_only_whole_ones_count():
    sums, whole = window_counts(COUNTS, MASK, 2)
    np.testing.assert_array_equal(sums[..., 0], [[1, 1, 1], [2, 1, 0]])
    np.testing.assert_array_equal(whole[..., 0], [[True, True, True], [True, True, False]])
    assert window_counts(COUNTS, MASK, 4)[0].shape == (2, 1, 2)
    for window in (0, 7):
        with pytest.raises(ValueError, match=rf"between 1 bin and the 6 of a trial; got {window}\."):
            window_counts(COUNTS, MASK, window)


def test_a_fano_factor_of_hand_counted_windows():
    # Windows of two bins: counts (1, 2) and (1, 1) over the two trials; the third is seen in one trial only.
    # Variances 1/2 and 0, means 3/2 and 1.
    assert fano_factors(*window_counts(COUNTS, MASK, 2))[0] == pytest.approx(0.5 / 2.5)


def test_the_fano_factor_of_one_window_is_numpys_variance_over_mean():
    counts = np.random.default_rng(0).negative_binomial(2, 0.3, (30, 8, 4))
    totals = counts.sum(1)
    expected = totals.var(0, ddof=1) / totals.mean(0)
    np.testing.assert_allclose(fano_factors(*window_counts(counts, everywhere(counts), 8)), expected)


def test_a_poisson_process_has_a_fano_factor_of_one_whatever_its_time_course():
    rate = (1 + np.sin(np.linspace(0, 6, 40)))[:, None] * [0.1, 2.0]
    counts = np.random.default_rng(0).poisson(rate, (2000, 40, 2))
    np.testing.assert_allclose(fano_factors(*window_counts(counts, everywhere(counts), 10)), 1, atol=0.05)
    # A gain of variance g per trial adds g times the mean count.
    gain = np.random.default_rng(1).gamma(4, 0.25, (2000, 1, 1))
    counts = np.random.default_rng(2).poisson(np.ones((40, 1)) * gain, (2000, 40, 1))
    np.testing.assert_allclose(fano_factors(*window_counts(counts, everywhere(counts), 40)), 1 + 0.25 * 40, rtol=0.1)


def test_a_fano_factor_needs_two_trials_and_a_spike():
    assert np.isnan(fano_factors(*window_counts(COUNTS[:1], MASK[:1], 2))).all()
    silent = np.zeros((3, 4, 1), int)
    assert np.isnan(fano_factors(*window_counts(silent, everywhere(silent), 2))).all()


def test_intervals_of_hand_counted_trains():
    # Unit 0: 2 and 3 bins in trial 0; 0 and 2 in trial 1. Unit 1: 0. None crosses trials or the end of trial 1.
    expected = np.zeros((6, 2), int)
    expected[[0, 2, 3], 0] = [1, 2, 1]
    expected[0, 1] = 1
    np.testing.assert_array_equal(interval_histogram(COUNTS, MASK), expected)
    variation = interval_variation(COUNTS, MASK)
    assert variation[0] == pytest.approx(np.std([2, 3, 0, 2]) / np.mean([2, 3, 0, 2]))
    assert np.isnan(variation[1])


def test_no_interval_crosses_a_gap():
    counts = np.array([1, 0, 1, 1, 0, 1])[None, :, None]
    gap = np.ones(counts.shape, bool)
    gap[0, 4] = False
    assert interval_histogram(counts, gap)[:, 0].tolist() == [0, 1, 1, 0, 0, 0]
    gap[0, 2] = False
    assert interval_histogram(counts, gap)[:, 0].tolist() == [0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_intervals_of_a_memoryless_train_are_geometric(p):
    counts = np.random.default_rng(0).binomial(1, p, (100, 300, 1))
    assert interval_variation(counts, everywhere(counts))[0] == pytest.approx(np.sqrt(1 - p), abs=0.03)
    found = interval_histogram(counts, everywhere(counts))[:, 0]
    np.testing.assert_allclose(found[1:5] / found.sum(), p * (1 - p) ** np.arange(4), atol=0.01)


def test_a_clock_has_no_variation():
    counts = np.zeros((2, 50, 1), int)
    counts[:, ::5] = 1
    assert interval_variation(counts, everywhere(counts))[0] == pytest.approx(0, abs=1e-6)


def test_a_batch_of_draws_equals_a_loop_and_masked_entries_do_not_matter():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.6, (3, 4, 12, 5)).astype(np.uint16)
    mask = rng.random((4, 12, 5)) < 0.8
    spoiled = np.where(mask, counts, 99)
    for statistic in (
        lambda x: firing_rates(x, mask, 0.1),
        lambda x: peristimulus_histogram(x, mask, 0.1),
        lambda x: rate_modulation(x, mask, 0.1),
        lambda x: fano_factors(*window_counts(x, mask, 2)),
        lambda x: interval_variation(x, mask),
    ):
        batch = statistic(counts)
        np.testing.assert_allclose(batch, [statistic(draw) for draw in spoiled])
