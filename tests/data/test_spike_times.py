import numpy as np
import pytest

from connectinfer.data.spike_times import align_spikes, bin_spikes, count_spikes, mask_unobserved

SPIKES = {"a": [0.05, 0.1, 0.3, 0.31], "b": [0.29], "c": []}


def test_hand_counted_bins_contain_their_start_and_not_their_end():
    made = bin_spikes(SPIKES, bin_width=0.1)
    # 0.3 / 0.1 is 2.9999999999999996, and yet 0.3 belongs to the fourth bin.
    assert made["counts"].sel(unit="a").values.tolist() == [[1, 1, 0, 2]]
    assert made["counts"].sel(unit="b").values.tolist() == [[0, 0, 1, 0]]
    assert made["time"].values == pytest.approx([0, 0.1, 0.2, 0.3])


def test_times_with_their_units_count_as_the_mapping_does():
    times = np.concatenate([np.asarray(each, float) for each in SPIKES.values()])
    clusters = np.repeat([10, 20, 30], [len(each) for each in SPIKES.values()])
    order = np.argsort(times)
    made = bin_spikes((times[order], clusters[order]), bin_width=0.1)
    assert made["unit"].values.tolist() == [10, 20]
    assert made["counts"].values.tolist() == bin_spikes(SPIKES, bin_width=0.1)["counts"].values[:, :, :2].tolist()


def test_a_bin_beyond_the_stop_is_left_out():
    made = bin_spikes(SPIKES, bin_width=0.1, start=0.05, stop=0.34)
    assert made["time"].values == pytest.approx([0.05, 0.15])
    assert made["counts"].sel(unit="a").values.tolist() == [[2, 0]]


def test_binning_agrees_with_numpy_histogram():
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 50, 4000))
    clusters = rng.integers(0, 5, 4000)
    made = bin_spikes((times, clusters), bin_width=0.02, start=0.0, stop=50.0)
    for unit in range(5):
        expected, _ = np.histogram(times[clusters == unit], np.arange(2501) * 0.02)
        assert np.array_equal(made["counts"].sel(unit=unit).values[0], expected)


def test_aligned_trials_count_around_their_events():
    made = align_spikes(SPIKES, [0.3, 0.1], bin_width=0.1, window=(-0.1, 0.2))
    assert made["time"].values == pytest.approx([-0.1, 0.0, 0.1])
    assert made["counts"].sel(unit="a").values.tolist() == [[0, 2, 0], [1, 1, 0]]
    assert made["event"].values.tolist() == [0.3, 0.1]
    assert made["mask"].values.all()


def test_trials_that_stop_earlier_are_masked():
    made = align_spikes(SPIKES, [0.0, 0.2], bin_width=0.1, stops=[0.4, 0.35])
    assert made["counts"].sel(unit="a").values.tolist() == [[1, 1, 0, 2], [0, 0, 0, 0]]
    assert made["mask"].sel(unit="a").values.sum(1).tolist() == [4, 1]


@pytest.mark.parametrize("rate", [0.05, 0.5, 5.0, 50.0])
def test_poisson_trains_from_sparse_to_fast_pass_as_seconds(rate):
    rng = np.random.default_rng(1)
    times = {unit: np.sort(rng.uniform(0, 2000, rng.poisson(2000 * rate))) for unit in range(10)}
    assert bin_spikes(times, bin_width=0.5)["counts"].values.sum() == sum(len(each) for each in times.values())


@pytest.mark.parametrize("rate", [1.0, 5.0, 20.0])
def test_the_same_trains_in_milliseconds_are_refused(rate):
    rng = np.random.default_rng(2)
    trains = {unit: 1000 * np.cumsum(0.002 + rng.exponential(1 / rate, 200)) for unit in range(10)}
    with pytest.raises(ValueError, match="look like milliseconds"):
        bin_spikes(trains, bin_width=0.01)


def test_bins_that_were_not_observed_as_a_whole_are_masked():
    whole = bin_spikes({"a": [0.05, 0.25, 0.45], "b": [0.15]}, bin_width=0.1)
    # Touching and overlapping intervals are one: bin 1 of "a" lies across the border of two.
    masked = mask_unobserved(whole, [[[0.15, 0.3], [0.02, 0.15], [0.1, 0.2]], [[0.0, 0.19], [0.3, 0.5]]])
    assert masked["mask"].values[0].T.tolist() == [[False, True, True, False, False], [True, False, False, True, True]]
    assert masked["counts"].values[0].T.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_observed_times_are_on_the_clock_of_the_events():
    spikes = {"a": [1.05, 2.05, 2.15]}
    counted = count_spikes(
        spikes, events=[1.0, 2.0], stops=[1.2, 2.2], bin_width=0.1, observed=[[[1.0, 2.1]]], trial=["x", "y"]
    )
    assert counted["mask"].values[:, :, 0].tolist() == [[True, True], [True, False]]
    assert counted["counts"].values[:, :, 0].tolist() == [[1, 0], [1, 0]]
    assert counted["trial"].values.tolist() == ["x", "y"]


def test_the_stretch_reaches_over_all_observed_times_unless_told():
    spikes, observed = {"a": [0.25], "b": [0.35]}, [[[0.2, 0.5]], [[0.3, 0.8]]]
    assert count_spikes(spikes, bin_width=0.1, observed=observed)["time"].values == pytest.approx(
        [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    )
    assert count_spikes(spikes, bin_width=0.1, observed=observed, stop=0.4).sizes["time"] == 2


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        pytest.param([], "`observed` has intervals for 0 units, the recording 1 units", id="units"),
        pytest.param([[0.1, 0.2]], r"must hold a finite start and stop per interval, .* got shape \(2,\)", id="shape"),
        pytest.param([[[0.1, np.nan]]], "must hold a finite start and stop", id="NaN"),
        pytest.param([[[0.3, 0.2]]], r"an interval that starts at 0.3 s and stops at 0.2 s", id="backwards"),
        pytest.param([[[0.0, 0.05]]], "in trials 0 no unit was observed for a whole bin", id="too short"),
    ],
)
def test_observed_times_that_make_no_sense_are_refused(observed, message):
    with pytest.raises(ValueError, match=message):
        mask_unobserved(bin_spikes({"a": [0.05, 0.25]}, bin_width=0.1), observed)


def test_a_stop_before_the_first_spike_is_refused():
    with pytest.raises(ValueError, match=r"first spike comes at 100 s, after `stop`, 90 s"):
        bin_spikes({1: [100.0, 150.0]}, bin_width=0.1, stop=90.0)


def test_spikes_that_begin_late_need_a_start():
    late = {"a": np.arange(3600.5, 3700.0, 0.5)}
    with pytest.raises(
        ValueError, match=r"first spike comes at 3600.5 s, so that 97% of the bins from 0 s .*`start=3600`"
    ):
        bin_spikes(late, bin_width=0.1)
    assert bin_spikes(late, bin_width=0.1, start=3600.0)["time"].values[0] == 3600
    assert bin_spikes(late, bin_width=0.1, start=0.0)["time"].values[0] == 0


@pytest.mark.parametrize(("first", "last"), [(59.0, 70.0), (199.0, 2000.0)])
def test_a_stretch_begins_at_zero_if_the_first_spike_is_within_a_minute_or_a_tenth_of_it(first, last):
    assert bin_spikes({"a": np.arange(first, last, 0.25)}, bin_width=1.0)["time"].values[0] == 0


def test_trials_and_observed_times_say_themselves_where_they_begin():
    late = {"a": [3600.05, 3600.25]}
    assert count_spikes(late, bin_width=0.1, events=[3600.0], window=(0.0, 0.3)).sizes["time"] == 3
    assert count_spikes(late, bin_width=0.1, observed=[[[3600.0, 3600.5]]])["time"].values[0] == 3600
