import numpy as np
import pytest

from connectinfer.data.recording import check_recording, recording
from connectinfer.data.spike_times import align_spikes, bin_spikes
from connectinfer.data.time_bins import cut_at_events


@pytest.fixture
def stretch():
    """Ten bins of 0.5 s from 2 s on, in which unit "b" counts one more than "a"; bin 4 of "b" was not observed."""
    counts = np.arange(10)[None, :, None] + np.array([0, 1])
    mask = np.ones((1, 10, 2), bool)
    mask[0, 4, 1] = False
    made = recording(
        time=2 + 0.5 * np.arange(10), counts=counts, mask=mask, unit=["a", "b"], inputs={"light": np.arange(10.0)[None]}
    )
    return made.assign_coords(area=("unit", ["V1", "LM"])).assign_attrs(source="a.npz")


def test_trials_begin_at_the_bin_nearest_to_their_event(stretch):
    cut = cut_at_events(stretch, [4.0, 2.7, 5.3], stops=[5.0, 3.8, 6.9])
    assert cut["counts"].sel(unit="a").values.tolist() == [[4, 5, 0], [1, 2, 0], [7, 8, 9]]
    assert cut["event"].values.tolist() == [4.0, 2.7, 5.3]
    assert cut["start"].values.tolist() == [4.0, 2.5, 5.5]
    assert cut["time"].values.tolist() == [0.0, 0.5, 1.0]
    assert cut["mask"].sel(unit="a").values.tolist() == [[True, True, False], [True, True, False], [True] * 3]
    assert cut["mask"].sel(unit="b").values.tolist() == [[False, True, False], [True, True, False], [True] * 3]
    check_recording(cut)


def test_a_window_that_leaves_the_stretch_is_masked_there(stretch):
    cut = cut_at_events(stretch, [2.0, 6.5], window=(-0.5, 1.0), trial=["first", "last"])
    assert cut["counts"].sel(unit="a").values.tolist() == [[0, 0, 1], [8, 9, 0]]
    assert cut["mask"].sel(unit="a").values.tolist() == [[False, True, True], [True, True, False]]
    assert cut["time"].values.tolist() == [-0.5, 0.0, 0.5]
    assert cut["trial"].values.tolist() == ["first", "last"]


def test_inputs_coordinates_of_units_and_attributes_come_along(stretch):
    cut = cut_at_events(stretch, [3.0], window=(0.0, 1.0))
    assert cut["inputs"].sel(input="light").values.tolist() == [[2, 3]]
    assert cut["area"].values.tolist() == ["V1", "LM"]
    assert cut.attrs == {"bin_width": 0.5, "source": "a.npz"}


def test_cutting_binned_spikes_at_their_bins_is_aligning_the_spikes():
    random = np.random.default_rng(0)
    spikes = {unit: np.sort(random.uniform(0, 20, 200)) for unit in "abc"}
    events, stops = [1.0, 5.5, 14.0], [3.0, 6.0, 17.5]
    cut = cut_at_events(bin_spikes(spikes, bin_width=0.25), events, stops=stops)
    aligned = align_spikes(spikes, events, bin_width=0.25, stops=stops)
    assert cut.drop_vars("start").identical(aligned)


@pytest.mark.parametrize(
    ("events", "options", "message"),
    [
        pytest.param([2.0], {}, "say where trials end", id="no end"),
        pytest.param([], {"window": (0.0, 1.0)}, "there are no events to cut trials at", id="no event"),
        pytest.param([2.0], {"stops": [2.3]}, "less than one bin of 0.5 s", id="too short"),
        pytest.param(
            [3.0, 90.0], {"window": (0.0, 1.0)},
            "1 of 2 trials have no observed bin: events at 90.0 s, data from 2 to 7 s. Leave these", id="outside",
        ),
    ],
)  # fmt: skip
def test_events_at_which_nothing_can_be_cut_are_refused(stretch, events, options, message):
    with pytest.raises(ValueError, match=message):
        cut_at_events(stretch, events, **options)


def test_trials_are_not_cut_again(stretch):
    trials = cut_at_events(stretch, [2.0, 3.0], window=(0.0, 1.0))
    with pytest.raises(ValueError, match="only a recording of one trial can be cut at events; this one has 2"):
        cut_at_events(trials, [0.0], window=(0.0, 0.5))
