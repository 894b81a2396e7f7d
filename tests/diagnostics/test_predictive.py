import numpy as np
import pytest
import xarray as xr
from hand_built import sampled, with_predictions

from connectinfer.data.recording import recording
from connectinfer.diagnostics.predictive import extremes, held_out_score, predictive_statistics

TIME = 0.01 * np.arange(2)
COUNTS = np.array([[[2, 0], [0, 1]], [[2, 1], [3, 0]]])  # (trial, time, unit)


def fitted(expected, seen):
    dims = ("trial", "time", "unit")
    return xr.DataTree.from_dict(
        {
            "expected": xr.Dataset({"counts": (dims, np.asarray(expected, float))}, coords={"time": TIME}),
            "constant_data": xr.Dataset({"mask": (dims, seen)}),
        }
    )


def test_bits_per_spike_equal_the_hand_computed_ones():
    seen = np.ones((2, 2, 2), bool)
    seen[1, 1] = False
    # Held out: 3 spikes of unit 0, none of unit 1. Their means over what was seen are 4/3 and 2/3.
    result = fitted(np.where(seen, 9.0, [2.0, 0.5]), seen)
    gain = 3 * np.log(2 / (4 / 3)) - 2 + 4 / 3 + 0 - 0.5 + 2 / 3
    score = held_out_score(result, recording(time=TIME, counts=COUNTS))
    assert score == pytest.approx(gain / 3 / np.log(2), rel=1e-6)


def test_explained_variance_of_a_continuous_signal_equals_the_hand_computed_one():
    signal = np.array([[[1.0], [3.0]], [[2.0], [6.0]]])
    seen = np.array([[[True], [True]], [[True], [False]]])
    result = fitted([[[0.0], [0.0]], [[0.0], [5.0]]], seen)
    # Unit mean of what was seen is 2: 1 - (6 - 5)^2 / (6 - 2)^2.
    score = held_out_score(result, recording(time=TIME, fluorescence=signal))
    assert score == pytest.approx(1 - 1 / 16)


def test_entries_that_the_recording_masks_are_not_scored():
    seen = np.ones((2, 2, 2), bool)
    seen[1, 1] = False
    mask = np.ones((2, 2, 2), bool)
    mask[1, 1, 1] = False
    result = fitted(np.full((2, 2, 2), 2.0), seen)
    score = held_out_score(result, recording(time=TIME, counts=COUNTS, mask=mask))
    assert score == pytest.approx((3 * np.log(2 / (4 / 3)) - 2 + 4 / 3) / 3 / np.log(2), rel=1e-6)


def test_nothing_held_out_and_another_shape_are_refused():
    everything = np.ones((2, 2, 2), bool)
    with pytest.raises(ValueError, match="hold some out with `hold_out` first"):
        held_out_score(fitted(np.ones((2, 2, 2)), everything), recording(time=TIME, counts=COUNTS))
    with pytest.raises(ValueError, match="lacks 1 of the 2 trials that the result predicts, among them 1"):
        held_out_score(fitted(np.ones((2, 2, 2)), everything), recording(time=TIME, counts=COUNTS[:1]))
    for other in (recording(time=0.01, counts=COUNTS[:, :1]), recording(time=TIME + 0.005, counts=COUNTS)):
        with pytest.raises(ValueError, match=r"the result predicts 2 from 0 to 0\.01 s"):
            held_out_score(fitted(np.ones((2, 2, 2)), everything), other)


def test_bins_late_in_a_session_are_told_apart():
    late = 3600 + TIME
    result = fitted(np.ones((2, 2, 2)), np.ones((2, 2, 2), bool)).map_over_datasets(
        lambda dataset: dataset.assign_coords(time=late) if "time" in dataset.coords else dataset
    )
    with pytest.raises(ValueError, match=r"The recording has 2 time bins from 3600\.01"):
        held_out_score(result, recording(time=late + 0.01, counts=COUNTS))


def test_trials_and_units_are_matched_by_their_labels():
    seen = np.ones((2, 2, 2), bool)
    seen[1, 1] = False
    result, data = fitted(np.where(seen, 9.0, [2.0, 0.5]), seen), recording(time=TIME, counts=COUNTS)
    turned = data.isel(unit=[1, 0], trial=[1, 0])
    assert held_out_score(result, turned) == held_out_score(result, data)


def test_sites_of_other_dims_are_left_out_and_a_result_without_a_mask_has_none():
    result = with_predictions(sampled(), np.zeros((1, 10, 3), int), np.zeros((5, 1, 10, 3), int))
    for group, dims in (("observed_data", ()), ("posterior_predictive", ("chain", "draw"))):
        choice = np.zeros((1, 5, 1)[-1 - len(dims) :])
        result[group] = result[group].to_dataset().assign(choice=((*dims, "trial"), choice))
    assert set(predictive_statistics(result).children) == {"counts"}
    result["constant_data"] = xr.DataTree()
    assert not predictive_statistics(result).children


def test_rates_and_their_tails_equal_the_hand_counted_ones():
    # Two trials of two bins of one unit: 4 spikes observed; 2, 4, 4 and 18 predicted.
    observed = np.array([[[2], [1]], [[1], [0]]])
    predicted = np.array(
        [
            [[[1], [0]], [[0], [1]]],
            [[[3], [0]], [[1], [0]]],
            [[[2], [2]], [[0], [0]]],
            [[[9], [0]], [[0], [9]]],
        ]
    )
    result = with_predictions(sampled(), observed, predicted)
    for group in ("observed_data", "posterior_predictive"):
        result[group] = result[group].to_dataset().assign_coords(time=[0.0, 0.5])
    rate = predictive_statistics(result)["counts/rate"]
    assert rate["observed"].values.tolist() == [2]
    assert rate["replicated"].values.tolist() == [[[1], [2], [2], [9]]]
    # One below, two equal.
    assert rate["tail"].values.tolist() == [0.5]
    assert rate["unit"].values.tolist() == ["u0"]
    course = predictive_statistics(result)["counts/time_course"]
    assert course["observed"].values.tolist() == [3, 1]
    assert (course["observed"].attrs["units"], course["time"].values.tolist()) == ("Hz", [0, 0.5])


def test_signals_have_statistics_of_their_own():
    rng = np.random.default_rng(0)
    result = with_predictions(sampled(), rng.normal(size=(4, 30, 3)), rng.normal(size=(20, 4, 30, 3)))
    found = predictive_statistics(result)["counts"]
    assert set(found.children) == {
        "mean",
        "deviation",
        "neighbour_correlation",
        "correlation",
        "time_course",
        "autocorrelation",
    }
    assert found["correlation"]["unit_2"].values.tolist() == ["u1", "u2", "u2"]
    assert found["autocorrelation"]["lag"].values.tolist() == list(range(1, 21))


def test_one_unit_in_one_bin_has_no_pairs_and_no_lags():
    counts = np.ones((3, 1, 1), int)
    found = predictive_statistics(with_predictions(sampled(), counts, counts[None] + np.arange(2)[:, None, None, None]))
    assert set(found["counts"].children) == {"rate", "modulation", "fano_factor", "interval_variation", "time_course"}


def test_masked_entries_never_enter_a_statistic():
    rng = np.random.default_rng(0)
    observed, predicted = rng.poisson(1.0, (6, 20, 3)), rng.poisson(1.0, (30, 6, 20, 3))
    mask = rng.random(observed.shape) < 0.8
    spoiled = with_predictions(sampled(), np.where(mask, observed, 50), np.where(mask, predicted, 7), mask)
    clean = with_predictions(sampled(), observed * mask, predicted, mask)
    for name, compared in predictive_statistics(clean)["counts"].children.items():
        xr.testing.assert_equal(compared.to_dataset(), predictive_statistics(spoiled)["counts"][name].to_dataset())


def test_at_most_two_hundred_draws_are_compared():
    predicted = np.random.default_rng(0).poisson(1.0, (450, 2, 3, 2))
    found = predictive_statistics(with_predictions(sampled(), predicted[0], predicted))["counts/rate"]
    assert found.sizes["draw"] == 200


def compared(pool):
    """The first row as observed, the others as replicates."""
    pool = np.asarray(pool, float)
    return xr.Dataset(
        {"observed": ("unit", pool[0]), "replicated": (("chain", "draw", "unit"), pool[None, 1:])},
        {"unit": [f"u{i}" for i in range(pool.shape[1])]},
    )


@pytest.mark.parametrize(("draws", "correlation"), [(200, 0.0), (200, 0.3), (200, 0.98), (33, 0.0), (33, 0.7)])
def test_a_sound_model_fails_in_about_one_of_a_hundred_recordings_however_units_are_correlated(draws, correlation):
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(200):
        shared, own = rng.normal(size=(draws + 1, 1)), rng.normal(size=(draws + 1, 40))
        found = extremes(compared(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own))
        failed += len(found.items) > found.allowed
    # More than 6 of 200 have a probability of 0.4 % where 1 % fail. The binomial limit alone fails 5 to 20 %.
    assert failed <= 6


def test_units_that_are_shifted_are_found_though_all_move_together():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(201, 1)) + 0.1 * rng.normal(size=(201, 40))
    pool[0] = 4
    found = extremes(compared(pool))
    assert len(found.items) == 40 > found.allowed


def test_ties_are_not_extreme():
    pool = np.zeros((101, 3))
    pool[1, 0] = 1
    found = extremes(compared(pool))
    assert (found.items, found.judged, found.left_out) == ([], 3, 0)


def test_items_without_a_value_in_every_data_set_are_left_out():
    pool = np.random.default_rng(0).normal(size=(101, 3))
    pool[0, 0] = pool[5, 1] = np.nan
    found = extremes(compared(pool))
    assert (found.judged, found.left_out) == (1, 2)
    assert extremes(compared(np.full((101, 3), np.nan))) == ([], 0, 0, 3, 100)
