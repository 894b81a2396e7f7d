import numpy as np
import pytest
import xarray as xr
from hand_built import sampled, with_predictions

from connectinfer.data.recording import recording
from connectinfer.diagnostics.predictive import held_out_score, predictive_tail

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


def test_sites_of_other_dims_and_the_variance_over_one_trial_are_left_out():
    result = with_predictions(sampled(), np.zeros((1, 10, 3), int), np.zeros((5, 1, 10, 3), int))
    for group, dims in (("observed_data", ()), ("posterior_predictive", ("chain", "draw"))):
        choice = np.zeros((1, 5, 1)[-1 - len(dims) :])
        result[group] = result[group].to_dataset().assign(choice=((*dims, "trial"), choice))
    assert set(predictive_tail(result)) == {"counts_mean"}


def test_tails_equal_the_hand_counted_shares():
    # Sums per trial of one unit: observed 3 and 1; predicted (1, 1), (3, 1), (4, 0) and (9, 9).
    observed = np.array([[[2], [1]], [[1], [0]]])
    predicted = np.array(
        [
            [[[1], [0]], [[0], [1]]],
            [[[3], [0]], [[1], [0]]],
            [[[2], [2]], [[0], [0]]],
            [[[9], [0]], [[0], [9]]],
        ]
    )
    tails = predictive_tail(with_predictions(sampled(), observed, predicted))
    # Means 1, 2, 2 and 9 against 2: one below, two equal. Variances 0, 1, 4 and 0 against 1: two below, one equal.
    np.testing.assert_allclose(tails["counts_mean"], [0.5])
    np.testing.assert_allclose(tails["counts_variance"], [2.5 / 4])
    assert tails["unit"].values.tolist() == ["u0"]
