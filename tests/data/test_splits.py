import numpy as np
import pytest

from connectinfer.data.recording import check_recording, recording
from connectinfer.data.splits import held_out_entries, hold_out, split_trials, split_units
from connectinfer.data.time_bins import cut_trials, rebin


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def made(rng):
    return recording(
        time=0.01,
        counts=rng.poisson(1.0, (10, 7, 5)),
        trial=np.arange(100, 110),
        unit=list("abcde"),
        inputs={"light": rng.normal(size=(10, 7))},
    ).assign_coords(choice=("trial", np.arange(10) % 2), area=("unit", list("xxyyy")))


def test_trials_are_split_once_and_keep_their_order(rng, made):
    train, test = split_trials(rng, made, test_fraction=0.3)
    assert test.sizes["trial"] == 3
    assert sorted([*train["trial"].values, *test["trial"].values]) == made["trial"].values.tolist()
    assert (np.diff(train["trial"].values) > 0).all()
    assert train["choice"].values.tolist() == [trial % 2 for trial in train["trial"].values]


def test_the_same_seed_splits_alike(made):
    parts = [split_trials(np.random.default_rng(5), made)[1]["trial"].values for _ in range(2)]
    assert np.array_equal(*parts)


def test_units_are_split_into_held_in_and_held_out(rng, made):
    held_in, held_out = split_units(rng, made, held_out_fraction=0.4)
    assert len(held_out) == 2
    assert sorted([*held_in, *held_out]) == list("abcde")


def test_held_out_entries_are_masked_and_their_complement_scores_them(made):
    training = hold_out(made, trials=[101, 105], units=["b", "d"])
    scored = held_out_entries(made, trials=[101, 105], units=["b", "d"])
    check_recording(training)
    assert scored.values.sum() == 2 * 7 * 2
    assert not (scored & training["mask"]).values.any()
    assert (scored | training["mask"]).equals(made["mask"])
    assert (training["counts"].values[scored.values] == 0).all()
    assert np.array_equal(training["counts"].values[~scored.values], made["counts"].values[~scored.values])
    assert training["counts"].dtype == made["counts"].dtype


def test_rebinning_sums_counts_and_averages_inputs(made):
    wide = rebin(made, 3)
    assert dict(wide.sizes) == {"trial": 10, "time": 2, "unit": 5, "input": 1}
    assert np.array_equal(wide["counts"].values[:, 1], made["counts"].values[:, 3:6].sum(1))
    assert np.allclose(wide["inputs"].values[:, 0], made["inputs"].values[:, :3].mean(1))
    assert wide.attrs["bin_width"] == pytest.approx(0.03)
    assert wide["area"].values.tolist() == list("xxyyy")
    check_recording(wide)


def test_a_merged_bin_is_observed_only_if_all_its_parts_were():
    wide = rebin(recording(time=0.01, counts=[np.ones((6, 1), int), np.ones((5, 1), int)]), 2)
    assert wide["mask"].values[:, :, 0].tolist() == [[True] * 3, [True, True, False]]
    assert wide["counts"].values[1, :, 0].tolist() == [2, 2, 0]


def test_rates_are_averaged_by_rebinning():
    wide = rebin(recording(time=0.01, rates=np.array([[[1.0], [3.0]]])), 2)
    assert wide["rates"].values.tolist() == [[[2.0]]]


def test_a_long_stretch_is_cut_into_trials_and_says_what_remains():
    whole = recording(time=[5.0, 5.5, 6.0, 6.5, 7.0], counts=np.arange(10).reshape(1, 5, 2)).assign_coords(
        area=("unit", ["x", "y"])
    )
    trials = cut_trials(whole, 2)
    assert trials["counts"].values.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert trials["start"].values.tolist() == [5.0, 6.0]
    assert trials["area"].values.tolist() == ["x", "y"]
    assert trials.attrs["left_out"] == "the last 1 of 5 bins"
