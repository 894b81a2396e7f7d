import numpy as np
import pytest
from scipy.stats import poisson

from connectinfer.statistics.co_smoothing import (
    bits_per_spike,
    explained_variance,
    histogram_r2,
    mean_rates,
    peristimulus_rates,
    rate_gain,
    signal_gain,
)


def everywhere(values):
    return np.ones(np.shape(values), bool)


def test_bits_per_spike_of_a_hand_counted_case():
    counts, rate, baseline = np.array([2, 0]), np.array([2.0, 1.0]), np.array([1.0, 1.0])
    # Gain: 2 ln 2 - 2 + 1 in the first bin, nothing in the second, over two spikes.
    expected = 1 - 1 / (2 * np.log(2))
    assert bits_per_spike(rate, counts, baseline, everywhere(counts)) == pytest.approx(expected)


def test_bits_per_spike_is_a_difference_of_poisson_log_likelihoods():
    generator = np.random.default_rng(0)
    rate, baseline = generator.gamma(2.0, size=(2, 4, 20, 5))
    counts, entries = generator.poisson(rate), generator.random((4, 20, 5)) < 0.4
    gain = (poisson.logpmf(counts, rate) - poisson.logpmf(counts, baseline))[entries].sum()
    expected = gain / counts[entries].sum() / np.log(2)
    assert bits_per_spike(rate, counts, baseline, entries) == pytest.approx(expected)


def test_only_the_chosen_entries_count():
    generator = np.random.default_rng(0)
    rate, counts, entries = generator.gamma(2.0, size=(6, 7)), generator.poisson(1.5, (6, 7)), np.eye(6, 7, dtype=bool)
    baseline = np.ones((6, 7))
    score = bits_per_spike(rate, counts, baseline, entries)
    spoiled = np.where(entries, rate, np.nan), np.where(entries, counts, 1000), np.where(entries, baseline, -1)
    assert bits_per_spike(*spoiled, entries) == score


def test_the_baseline_scores_zero():
    generator = np.random.default_rng(0)
    rate, counts = generator.gamma(2.0, size=(6, 7)), generator.poisson(1.5, (6, 7))
    assert bits_per_spike(rate, counts, rate, everywhere(counts)) == 0


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_the_true_rate_scores_best_in_expectation(factor):
    rate = np.random.default_rng(0).gamma(2.0, size=(6, 7))
    baseline = np.ones((6, 7))

    def expected_score(predicted):
        # The score is linear in the counts, so the expected counts give the expected gain.
        return bits_per_spike(predicted, rate, baseline, everywhere(rate))

    assert expected_score(rate) > expected_score(factor * rate)
    assert expected_score(rate) > expected_score(rate**factor)
    assert expected_score(rate) > expected_score(np.roll(rate, 1))


def test_the_true_rate_scores_best_on_many_counts():
    generator = np.random.default_rng(0)
    rate = generator.gamma(2.0, size=200_000)
    counts, baseline = generator.poisson(rate), np.full(200_000, 2.0)
    score = [bits_per_spike(rate * f, counts, baseline, everywhere(rate)) for f in (0.9, 1.0, 1.1)]
    assert score[1] > 0.3
    assert score[1] > max(score[0], score[2])


def test_entries_without_spikes_are_refused():
    ones = np.ones((2, 3))
    with pytest.raises(ValueError, match="The 6 chosen entries hold no spikes"):
        bits_per_spike(ones, np.zeros((2, 3), int), ones, everywhere(ones))
    with pytest.raises(ValueError, match="The 0 chosen entries hold no spikes"):
        bits_per_spike(ones, ones, ones, np.zeros((2, 3), bool))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["rate", "baseline"])
def test_rates_that_are_not_positive_and_finite_are_refused(name, bad):
    given = {"rate": np.ones(4), "baseline": np.ones(4)}
    given[name][1] = bad
    with pytest.raises(ValueError, match=f"`{name}` must be positive and finite; 1 of 4 entries are not"):
        bits_per_spike(counts=np.ones(4, int), entries=np.ones(4, bool), **given)


def test_explained_variance_of_a_hand_counted_case():
    observed, predicted = np.array([1.0, 3.0, 9.0]), np.array([1.0, 2.0, 0.0])
    entries = np.array([True, True, False])
    # Errors: 0 and 1 against the baseline's 1 and 1.
    assert explained_variance(predicted, observed, np.full(3, 2.0), entries) == 0.5


def test_explained_variance_is_one_at_best_zero_for_the_baseline_and_negative_beyond():
    observed = np.random.default_rng(0).normal(size=(4, 5))
    baseline = np.zeros((4, 5))
    assert explained_variance(observed, observed, baseline, everywhere(observed)) == 1
    assert explained_variance(baseline, observed, baseline, everywhere(observed)) == 0
    assert explained_variance(-observed, observed, baseline, everywhere(observed)) == pytest.approx(-3)


def test_nothing_to_explain_is_refused():
    constant = np.ones((2, 2))
    with pytest.raises(ValueError, match="`observed` equals `baseline` on all 4 chosen entries"):
        explained_variance(constant + 1, constant, constant, everywhere(constant))


def test_mean_rates_average_observed_entries_of_each_unit():
    counts = np.array([[[4, 0], [2, 0]], [[9, 0], [6, 0]]])
    mask = np.array([[[1, 1], [1, 1]], [[0, 1], [1, 1]]], bool)
    mean = mean_rates(counts, mask)
    assert mean.shape == (2, 2, 2)
    np.testing.assert_allclose(mean, np.broadcast_to([4.0, 1e-6], (2, 2, 2)))


def test_mean_rates_of_a_unit_that_was_never_observed_are_small_and_positive():
    mean = mean_rates(np.full((2, 3, 1), 5), np.zeros((2, 3, 1), bool))
    assert (mean == 1e-6).all()


def test_peristimulus_rates_of_a_hand_counted_case():
    # Two trials of two bins; the mean over all is 2. Without smoothing: (1 + 3 + 2) / 3 and (4 + 0 + 2) / 3.
    counts = np.array([[[1], [4]], [[3], [0]]])
    rates = peristimulus_rates(counts, np.ones((2, 2, 1), bool), smoothing=0.01)
    np.testing.assert_allclose(rates, 2.0)
    # The second trial's second bin unobserved: the mean is 8 / 3, the second bin (4 + 8 / 3) / 2.
    rates = peristimulus_rates(counts, np.array([[[1], [1]], [[1], [0]]], bool), smoothing=0.01)
    np.testing.assert_allclose(rates[0, :, 0], [(4 + 8 / 3) / 3, (4 + 8 / 3) / 2])
    np.testing.assert_array_equal(rates[0], rates[1])


def test_peristimulus_rates_approach_the_rate_that_all_trials_share():
    time = np.arange(80)
    rate = (1.5 + np.sin(2 * np.pi * time / 80))[:, None] * [1.0, 0.4]
    counts = np.random.default_rng(0).poisson(rate, (300, 80, 2))
    found = peristimulus_rates(counts, everywhere(counts), smoothing=2.0)
    np.testing.assert_allclose(found[0], rate, atol=0.15)
    entries = everywhere(counts)
    assert bits_per_spike(found, counts, mean_rates(counts, entries), entries) > 0.1


def test_peristimulus_rates_take_the_mean_where_no_trial_was_observed():
    counts = np.random.default_rng(0).poisson(3.0, (5, 60, 2))
    mask = everywhere(counts).copy()
    mask[:, 30:] = False
    rates = peristimulus_rates(counts, mask, smoothing=1.0)
    np.testing.assert_allclose(rates[0, 40:], np.broadcast_to(counts[:, :30].mean((0, 1)), (20, 2)))
    np.testing.assert_array_equal(rates, peristimulus_rates(np.where(mask, counts, 99), mask, smoothing=1.0))


def test_peristimulus_rates_refuse_a_smoothing_of_zero_bins():
    with pytest.raises(ValueError, match="`smoothing` is a width in bins and must be positive; got 0"):
        peristimulus_rates(np.ones((1, 2, 1)), np.ones((1, 2, 1), bool), smoothing=0.0)


def test_gains_are_those_of_the_scores():
    rng = np.random.default_rng(3)
    shape = (3, 4, 2)
    rate, baseline, counts = rng.uniform(0.5, 2, shape), rng.uniform(0.5, 2, shape), rng.poisson(1.0, shape)
    entries = rng.random(shape) < 0.7
    gained = rate_gain(rate, counts, baseline).summed(entries, (0, 1, 2))
    assert gained.gain / gained.scale == pytest.approx(bits_per_spike(rate, counts, baseline, entries))
    gained = signal_gain(rate, 1.0 * counts, baseline).summed(entries, (0, 1, 2))
    assert gained.gain / gained.scale == pytest.approx(explained_variance(rate, 1.0 * counts, baseline, entries))


def test_the_variance_of_histograms_is_counted_by_hand():
    # Two trials of condition a, one of b; one unit; without smoothing the histograms are (1, 3) and (0, 4).
    observed = np.array([[0, 4], [2, 2], [0, 4]])[..., None]
    condition, seen, sharp = np.array(["a", "a", "b"]), np.ones((3, 2, 1), bool), 1e-3
    expected = np.broadcast_to(np.array([[2.0, 2], [2, 2], [0, 4]])[..., None], observed.shape)
    # Weights 2 and 1; mean 2: variance 2 (1 + 1) + 4 + 4, residuals 2 (1 + 1).
    assert histogram_r2(expected, observed, seen, condition, sharp)[0] == pytest.approx(1 - 4 / 12)
    assert histogram_r2(observed.astype(float), observed, seen, condition, sharp) == (1.0, 0.0)
    # A hidden entry does not count: of a, the second bin is that of the second trial.
    seen = seen.copy()
    seen[0, 1] = False
    exact = np.array([[1.0, 2], [1, 2], [0, 4]])[..., None]
    assert histogram_r2(exact, observed, seen, condition, sharp)[0] == pytest.approx(1.0)


def test_the_error_of_the_variance_of_histograms_is_its_spread_over_recordings():
    rng = np.random.default_rng(4)
    rate = np.exp(rng.normal(size=(2, 8, 5)))
    condition = np.arange(20) % 2
    expected = rate[condition] * 1.1
    seen = np.ones(expected.shape, bool)
    found = np.array([histogram_r2(expected, rng.poisson(rate[condition]), seen, condition, 1.0) for _ in range(50)])
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.4)
