import subprocess
import sys

import neo
import numpy as np
import pynapple
import pytest
import quantities as pq

from connectinfer.data.objects import as_recording


@pytest.fixture(scope="module")
def group():
    """Two units over the support 0 to 1 s and 1.5 to 2 s."""
    return pynapple.TsGroup(
        {3: pynapple.Ts([0.1, 0.25, 0.9]), 5: pynapple.Ts([0.5, 1.55, 1.95])},
        time_support=pynapple.IntervalSet([0, 1.5], [1, 2]),
        metadata={"area": ["V1", "LM"]},
    )


def train(times, *, start=0.0, stop=1.0, **annotations):
    return neo.SpikeTrain(times, units="ms", t_start=start * pq.s, t_stop=stop * pq.s, **annotations)


def test_a_group_of_pynapple_is_counted_as_it_counts_itself(group):
    read, counted = as_recording(group, time=0.1), group.count(0.1)
    bins = np.flatnonzero(read["mask"].values[0, :, 0])
    assert read["counts"].values[0, bins].tolist() == counted.values.tolist()
    assert read["time"].values[bins] + 0.05 == pytest.approx(counted.t)
    assert read["unit"].values.tolist() == counted.columns.tolist() == [3, 5]


def test_bins_outside_the_time_support_are_masked(group):
    read = as_recording(group, time=0.25)
    assert read["mask"].values.all(2).tolist() == [[True, True, True, True, False, False, True, True]]
    assert read["counts"].values[0].tolist() == [[1, 0], [1, 0], [0, 1], [1, 0], [0, 0], [0, 0], [0, 1], [0, 1]]


def test_metadata_of_units_and_intervals_become_coordinates(group):
    trials = pynapple.IntervalSet([0.0, 0.5, 1.5], [0.3, 1.0, 2.0], metadata={"choice": ["l", "r", "l"]})
    read = as_recording(group, time=0.1, events=trials)
    assert read["area"].values.tolist() == ["V1", "LM"]
    assert read["choice"].values.tolist() == ["l", "r", "l"]
    assert read["counts"].values.sum(1).tolist() == [[2, 0], [1, 1], [0, 2]]
    assert read["mask"].values[:, :, 0].sum(1).tolist() == [3, 5, 5]


def test_spike_trains_are_binned_at_10_ms_unless_told(group):
    assert as_recording(group).attrs["bin_width"] == 0.01
    assert as_recording(group).sizes["time"] == 200


@pytest.mark.parametrize("events", [pynapple.Ts([0.1, 1.6]), [0.1, 1.6], neo.Event([100, 1600] * pq.ms)])
def test_trials_are_cut_at_events_of_any_sort(group, events):
    read = as_recording(group, time=0.1, events=events, window=(-0.1, 0.2))
    assert read["counts"].values.tolist() == [[[0, 0], [1, 0], [1, 0]], [[0, 1], [0, 0], [0, 0]]]


def test_a_single_train_of_pynapple_is_one_unit():
    read = as_recording(pynapple.Ts([0.1, 0.25], time_support=pynapple.IntervalSet(0, 0.5)), time=0.25)
    assert read["counts"].values.tolist() == [[[1], [1]]]


def test_a_frame_of_pynapple_keeps_its_gaps_as_masked_bins():
    stamps, values = [0.5, 0.6, 0.8, 0.9], np.arange(8.0).reshape(4, 2)
    frame = pynapple.TsdFrame(t=stamps, d=values, columns=["a", "b"], metadata={"depth": [10, 20]})
    read = as_recording(frame, kind="fluorescence")
    assert read["fluorescence"].values[0].tolist() == [[0, 1], [2, 3], [0, 0], [4, 5], [6, 7]]
    assert read["mask"].values[0, :, 0].tolist() == [True, True, False, True, True]
    assert read["depth"].values.tolist() == [10, 20]
    cut = as_recording(frame, kind="rates", events=pynapple.IntervalSet([0.5, 0.8], [0.7, 1.0]))
    assert cut["rates"].values.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert cut["depth"].values.tolist() == [10, 20]


def test_one_series_is_one_unit_and_the_pixels_of_a_tensor_are_units():
    series = pynapple.Tsd(t=[0.0, 0.1, 0.2], d=[3, 0, 1])
    assert as_recording(series)["counts"].values[0, :, 0].tolist() == [3, 0, 1]
    tensor = pynapple.TsdTensor(t=[0.0, 0.1], d=np.arange(8.0).reshape(2, 2, 2))
    read = as_recording(tensor, kind="fluorescence")
    assert read["unit"].values.tolist() == ["0,0", "0,1", "1,0", "1,1"]
    assert read["fluorescence"].values[0, 1].tolist() == [4, 5, 6, 7]


def test_trains_of_neo_are_counted_from_t_start_to_t_stop():
    trains = [train([10, 120, 990], name="a", area="V1"), train([310], start=0.3, stop=0.7, name="b", area="LM")]
    read = as_recording(trains, time=0.1)
    assert read["unit"].values.tolist() == ["a", "b"]
    assert read["area"].values.tolist() == ["V1", "LM"]
    assert np.argwhere(read["counts"].values[0]).tolist() == [[0, 0], [1, 0], [3, 1], [9, 0]]
    assert np.flatnonzero(read["mask"].values[0, :, 1]).tolist() == [3, 4, 5, 6]
    assert read["mask"].values[0, :, 0].all()


def test_epochs_of_neo_are_trials():
    epochs = neo.Epoch([0, 500] * pq.ms, durations=[0.2, 0.3] * pq.s, labels=["off", "on"])
    read = as_recording([train([10, 120, 550, 790])], time=0.1, events=epochs)
    assert read["label"].values.tolist() == ["off", "on"]
    assert read["counts"].values[:, :, 0].tolist() == [[1, 1, 0], [1, 0, 1]]
    assert read["mask"].values[:, :, 0].tolist() == [[True, True, False], [True, True, True]]


def block(*segments):
    made = neo.Block()
    for trains in segments:
        segment = neo.Segment()
        segment.spiketrains.extend(trains)
        made.segments.append(segment)
    return made


def test_the_segments_of_a_block_are_trials_that_may_differ_in_length():
    read = as_recording(
        block(
            [train([-50, 110], start=-0.1, stop=0.2), train([], start=-0.1, stop=0.2)],
            [train([-20], start=-0.1, stop=0.1), train([30, 40], start=-0.1, stop=0.1)],
        ),
        time=0.1,
    )
    assert read["time"].values == pytest.approx([-0.1, 0.0, 0.1])
    assert read["counts"].values.tolist() == [[[1, 0], [0, 0], [1, 0]], [[1, 0], [0, 2], [0, 0]]]
    assert read["mask"].values.all(2).tolist() == [[True, True, True], [True, True, False]]


def test_segments_on_a_running_clock_start_at_0_and_keep_their_start():
    read = as_recording(block([train([10])], [train([2110], start=2.0, stop=3.0)]), time=0.1)
    assert read["time"].values[0] == 0
    assert read["start"].values.tolist() == [0.0, 2.0]
    assert np.argwhere(read["counts"].values[:, :, 0]).tolist() == [[0, 0], [1, 1]]


def test_an_analog_signal_of_neo_is_fluorescence_or_rates_in_hertz():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    signal = neo.AnalogSignal(values, units="kHz", sampling_rate=10 * pq.Hz, t_start=500 * pq.ms)
    assert as_recording(signal, kind="fluorescence")["fluorescence"].values[0].tolist() == values.tolist()
    read = as_recording(signal, kind="rates")
    assert read["rates"].values[0] == pytest.approx(1000 * values)
    assert read["time"].values == pytest.approx([0.5, 0.6, 0.7])
    made = block([train([10])], [train([10])])
    for segment in made.segments:
        segment.analogsignals.append(signal)
    assert as_recording(made, kind="fluorescence")["fluorescence"].shape == (2, 3, 2)


MISTAKES = {
    "an empty interval set": (
        lambda group: as_recording(group, events=pynapple.IntervalSet([], [])), "there are no events to cut"
    ),
    "intervals as data": (
        lambda _: as_recording(pynapple.IntervalSet(0, 1)),
        "pynapple's IntervalSet holds no spike trains or signals of units; pass SpikeTrains",
    ),
    "a frame as events": (
        lambda group: as_recording(group, events=pynapple.TsdFrame(t=[0.0, 1.0], d=np.ones((2, 1)))),
        "`events` cannot be a TsdFrame; pass an IntervalSet",
    ),
    "a signal of no kind": (
        lambda _: as_recording(pynapple.Tsd(t=[0.0, 0.1], d=[0.5, 0.25])), "so say what they are: `kind=` one of"
    ),
    "a list of segments and trains": (
        lambda _: as_recording([train([10]), neo.Segment()]), "list of neo objects must hold SpikeTrains; got Segment"
    ),
    "a segment without signals": (
        lambda _: as_recording(neo.Segment(), kind="rates"), "0 spike trains and 0 analog signals, so `kind='rates'`"
    ),
    "segments of other units": (
        lambda _: as_recording(block([train([10])], [train([10]), train([20])])),
        r"segments must have the same units; 0 has \[0\], 1 has \[0, 1\]",
    ),
    "events in segments": (
        lambda _: as_recording(block([train([10])], [train([10])]), events=[0.1], window=(0, 0.1)),
        r"\['events', 'window'\] cut trials out of one stretch; the 2 segments are trials already",
    ),
    "a window for a signal": (
        lambda _: as_recording(pynapple.Tsd(t=[0.0, 0.1], d=[1, 2]), window=(0, 1)), r"\['window'\] cut trials around"
    ),
    "a block of nothing": (lambda _: as_recording(neo.Block()), "the block has no segments"),
    "a window without events": (
        lambda group: as_recording(group, window=(0, 1)), r"\['window'\] cut trials around `events`, which are missing"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("mistake", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistaken_object_is_refused_with_what_to_do(group, mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake(group)


def test_neither_package_is_imported_to_take_an_array():
    script = (
        "import sys, connectinfer.data.objects as o; o.as_recording([[[1]], [[2]]], time=0.1);"
        "sys.exit(bool({'neo', 'pynapple', 'pynwb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
