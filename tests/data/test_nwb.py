import h5py
import numpy as np
import pynapple
import pynwb
import pytest
from nwb_sessions import imaging, session
from shared_data import RECORDINGS, needs_shared_data

from connectinfer.data.field_tree import FieldTree
from connectinfer.data.nwb import read_nwb
from connectinfer.data.reading import open_recording

PHY = RECORDINGS / "nwb" / "A8604-211122.nwb"
MEMORY = RECORDINGS / "nwb" / "sub-4_ses-4_ecephys+image.nwb"


def written(path, content):
    with pynwb.NWBHDF5IO(path, "w") as file:
        file.write(content)
    return path


@pytest.fixture(scope="module")
def spikes(tmp_path_factory):
    """Two units (ids 7 and 4) and two trials of 0.3 and 0.2 s."""
    content = session()
    content.add_unit_column("quality", "of the sorting")
    content.add_unit_column("area", "of the brain")
    content.add_unit_column("channels", "that see it", index=True)
    content.add_unit(spike_times=[0.05, 0.12, 0.31, 1.05], quality=0.5, area="V1", channels=[3, 4], id=7)
    content.add_unit(spike_times=[0.25, 1.15, 1.19], quality=0.75, area="LM", channels=[9], id=4)
    content.add_trial_column("choice", "of the animal")
    content.add_trial_column("area", "a name that the units have too")
    content.add_trial_column("licks", "several a trial", index=True)
    content.add_trial(start_time=0.0, stop_time=0.3, choice=True, area="left", licks=[0.1, 0.2], id=11)
    content.add_trial(start_time=1.0, stop_time=1.2, choice=False, area="right", licks=[1.1], id=12)
    content.add_epoch(0.0, 0.4, ["baseline"])
    content.add_acquisition(
        pynwb.TimeSeries(
            name="speed", data=np.arange(4), unit="m/s", rate=10.0, starting_time=0.5, conversion=2.0, offset=1.0
        )
    )
    return written(tmp_path_factory.mktemp("nwb") / "spikes.nwb", content)


TRACES = np.arange(20.0).reshape(10, 2)


def test_a_list_of_regions_that_claims_more_than_is_stored_is_refused_before_it_is_loaded(tmp_path):
    path = written(tmp_path / "a.nwb", imaging({"traces": TRACES}))
    with h5py.File(path, "r+") as content:
        name = "processing/ophys/Fluorescence/traces/rois"
        values, attributes = content[name][()], dict(content[name].attrs)
        del content[name]
        longer = content.create_dataset(name, (10**9,), values.dtype, chunks=(2,))
        longer[:2] = values
        longer.attrs.update(attributes)
    with pytest.raises(
        ValueError, match=r"a\.nwb cannot be read as NWB .*rois: it claims 8000000000 bytes, but the 16 that"
    ):
        read_nwb(path)


def test_units_and_trials_need_no_mapping(spikes):
    read = open_recording(spikes, bin_width=0.1)
    assert read["counts"].values.tolist() == [[[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 2], [0, 0]]]
    assert read["mask"].values.all(2).tolist() == [[True, True, True], [True, True, False]]
    assert read["unit"].values.tolist() == [7, 4]
    assert read["trial"].values.tolist() == [11, 12]
    assert read["event"].values.tolist() == [0.0, 1.0]
    assert read["stop_time"].values.tolist() == [0.3, 1.2]


def test_columns_with_one_value_a_row_become_coordinates_and_the_others_are_named_as_left_out(spikes):
    read = open_recording(spikes, bin_width=0.1)
    assert {name: each.dims for name, each in read.coords.items() if name not in read.dims} == {
        "quality": ("unit",),
        "area": ("unit",),
        "event": ("trial",),
        "stop_time": ("trial",),
        "choice": ("trial",),
        "trial_area": ("trial",),
    }
    assert read["area"].values.tolist() == ["V1", "LM"]
    assert read["trial_area"].values.tolist() == ["left", "right"]
    assert read["choice"].values.tolist() == [True, False]
    left_out = read.attrs["left_out"].split(", ")
    assert {"units.channels", "intervals.trials.licks", "intervals.epochs.start_time", "acquisition.speed.data"} <= {
        *left_out
    }


def test_spikes_are_binned_at_10_ms_unless_told_and_attrs_say_so(spikes):
    read = open_recording(spikes)
    assert read.attrs["bin_width"] == 0.01
    assert read["counts"].sum(("time", "unit")).values.tolist() == [3, 3]
    assert "spike_times from units, events from intervals.trials (2 trials, 30 bins, 2 units)" in read.attrs["read"]
    assert "binned at 0.01 s (default; `bin_width=` changes it)" in read.attrs["read"]
    assert "default" not in open_recording(spikes, bin_width=0.1).attrs["read"]


def test_another_table_of_intervals_cuts_other_trials(spikes):
    read = open_recording(spikes, fields={"events": "intervals.epochs"}, bin_width=0.1)
    assert read["counts"].values.tolist() == [[[1, 0], [1, 0], [0, 1], [1, 0]]]
    assert "choice" not in read.coords


def test_a_window_replaces_the_ends_of_the_trials(spikes):
    read = open_recording(spikes, window=(-0.1, 0.2), bin_width=0.1)
    assert read["time"].values == pytest.approx([-0.1, 0.0, 0.1])
    assert read["counts"].values.tolist() == [[[0, 0], [1, 0], [1, 0]], [[0, 0], [1, 0], [0, 2]]]
    assert read["mask"].values.all()


def test_without_events_the_whole_stretch_is_one_trial(spikes):
    whole = open_recording(spikes, events=None, bin_width=0.1)
    assert whole["counts"].values.sum(1).tolist() == [[4, 3]]
    assert open_recording(spikes, start=1.0, stop=1.2, bin_width=0.1)["counts"].values.tolist() == [[[1, 0], [0, 2]]]


def test_the_fields_of_a_file_are_reached_by_their_paths(spikes):
    tree = FieldTree(read_nwb(spikes))
    assert [each.tolist() for each in tree["units"]["channels"]] == [[3, 4], [9]]
    assert [each.tolist() for each in tree["intervals"]["epochs"]["tags"]] == [["baseline"]]
    speed = tree["acquisition"]["speed"]
    assert speed["data"].tolist() == [1, 3, 5, 7]
    assert speed["timestamps"] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert speed["unit"] == "m/s"


def test_bins_in_which_a_unit_was_not_observed_are_masked(tmp_path):
    content = session()
    content.add_unit(spike_times=[0.15, 0.95], obs_intervals=[[0.1, 0.4], [0.8, 1.0]])
    content.add_unit(spike_times=[0.35], obs_intervals=[[0.25, 0.5]])
    read = open_recording(written(tmp_path / "a.nwb", content), bin_width=0.1)
    assert read["time"].values == pytest.approx(np.arange(0.1, 1.0, 0.1))
    assert read["mask"].values[0, :, 0].tolist() == [True, True, True, False, False, False, False, True, True]
    assert read["mask"].values[0, :, 1].tolist() == [False, False, True, True, False, False, False, False, False]
    assert np.argwhere(read["counts"].values[0]).tolist() == [[0, 0], [2, 1], [8, 0]]


def test_the_only_roi_signal_is_read_as_fluorescence_and_cut_at_the_trials(tmp_path):
    content = imaging({"traces": TRACES}, trials=[(0.68, 0.99), (1.2, 1.4)])
    read = open_recording(written(tmp_path / "a.nwb", content))
    assert read["unit"].values.tolist() == [12, 10]
    assert read["fluorescence"].values[0].tolist() == TRACES[2:5].tolist()
    assert read["fluorescence"].values[1].tolist() == [*TRACES[7:9].tolist(), [0, 0]]
    assert read["mask"].values.all(2).tolist() == [[True] * 3, [True, True, False]]
    assert read["event"].values.tolist() == [0.68, 1.2]
    assert read["start"].values == pytest.approx([0.7, 1.2])
    assert read.attrs["bin_width"] == pytest.approx(0.1)


def test_a_signal_of_one_region_has_one_unit(tmp_path):
    read = open_recording(written(tmp_path / "a.nwb", imaging({"trace": TRACES[:, 0]})))
    assert read["unit"].values.tolist() == [12]
    assert read["fluorescence"].values[0].tolist() == TRACES[:, :1].tolist()


def test_several_roi_signals_are_not_guessed_at(tmp_path):
    path = written(tmp_path / "a.nwb", imaging({"raw": TRACES, "corrected": TRACES + 1}))
    with pytest.raises(
        ValueError, match=r"2 signals of .*processing.ophys.DfOverF.corrected, processing.ophys.Fluorescence.raw"
    ):
        open_recording(path)
    read = open_recording(path, fields={"fluorescence": "processing.ophys.DfOverF.corrected"})
    assert read["fluorescence"].values[0].tolist() == (TRACES + 1).tolist()
    assert read["time"].values == pytest.approx(0.5 + np.arange(10) / 10)


def test_frames_that_wander_need_a_nominal_bin_width(tmp_path):
    stamps = 0.5 + np.arange(10) / 10 + np.tile([0.0, 0.01], 5)
    path = written(tmp_path / "a.nwb", imaging({"traces": TRACES}, timestamps=stamps))
    with pytest.raises(ValueError, match=r"`time` must be uniform; .* or pass `time` as a number, the bin width"):
        open_recording(path)
    read = open_recording(path, bin_width=0.1)
    assert read["time"].values == pytest.approx(0.5 + np.arange(10) / 10)
    assert open_recording(path, time=0.1).drop_attrs().identical(read.drop_attrs())


def test_frames_that_wander_little_are_taken_as_they_are(tmp_path):
    stamps = 0.5 + np.arange(10) / 10 + np.tile([0.0, 0.001], 5)
    read = open_recording(written(tmp_path / "a.nwb", imaging({"traces": TRACES}, timestamps=stamps)))
    assert read["time"].values == pytest.approx(stamps)


def test_a_file_without_units_and_regions_lists_what_it_holds(tmp_path):
    content = session()
    content.add_acquisition(pynwb.TimeSeries(name="speed", data=np.arange(4.0), unit="m/s", rate=10.0))
    path = written(tmp_path / "a.nwb", content)
    with pytest.raises(
        ValueError, match=r"none of .* among the fields of the file:\n  acquisition.speed.data: float64"
    ):
        open_recording(path)
    read = open_recording(
        path, fields={"rates": lambda file: file["acquisition"]["speed"]["data"][:, None]}, bin_width=0.1
    )
    assert read["rates"].values[0, :, 0].tolist() == [0, 1, 2, 3]


def test_unsorted_spike_times_are_refused(tmp_path):
    content = session()
    content.add_unit(spike_times=[0.3, 0.1], id=5)
    with pytest.raises(ValueError, match="spike times of unit 5 are not sorted"):
        open_recording(written(tmp_path / "a.nwb", content))


def test_columns_of_extensions_are_read_from_the_types_that_the_file_describes(tmp_path, spikes):
    path = tmp_path / "a.nwb"
    path.write_bytes(spikes.read_bytes())
    with h5py.File(path, "r+") as file:
        # As `spikes.nwb`, but `intervals/epochs` is of a type that only the specification in the file knows.
        group = file.create_group("specifications/ndx-mine/0.1.0")
        group["namespace"] = (
            '{"namespaces": [{"name": "ndx-mine", "version": "0.1.0", "doc": "d", "author": "a", "contact": "c",'
            ' "schema": [{"namespace": "core"}, {"source": "mine"}]}]}'
        )
        group["mine"] = (
            '{"groups": [{"neurodata_type_def": "MyEpochs", "neurodata_type_inc": "TimeIntervals", "doc": "d"}]}'
        )
        file["intervals/epochs"].attrs.update(neurodata_type="MyEpochs", namespace="ndx-mine")
    assert FieldTree(read_nwb(path))["intervals"]["epochs"]["stop_time"].tolist() == [0.4]


def test_data_that_lies_in_another_file_is_not_followed(tmp_path, spikes):
    path = tmp_path / "a.nwb"
    path.write_bytes(spikes.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["acquisition/speed/data"]
        file["acquisition/speed/data"] = h5py.ExternalLink(str(spikes), "/acquisition/speed/data")
    assert read_nwb(path)["acquisition"]["speed"]["data"] is None


def test_a_ragged_column_that_ends_beyond_its_values_is_damage(tmp_path, spikes):
    path = tmp_path / "a.nwb"
    path.write_bytes(spikes.read_bytes())
    with h5py.File(path, "r+") as file:
        file["units/spike_times_index"][1] = 9
    with pytest.raises(ValueError, match=r"a ragged column of a\.nwb ends beyond its 7 values"):
        open_recording(path)


def test_invalid_times_are_named_because_they_are_not_masked(tmp_path):
    content = session()
    content.add_unit(spike_times=[0.1, 0.2])
    content.add_invalid_time_interval(start_time=0.1, stop_time=0.15)
    read = open_recording(written(tmp_path / "a.nwb", content))
    assert read.attrs["read"].endswith("what lies in intervals.invalid_times is not masked")
    assert "intervals.invalid_times.start_time" in read.attrs["left_out"]


def test_damage_is_one_error_that_names_the_file(tmp_path, spikes):
    whole, expected = spikes.read_bytes(), open_recording(spikes, bin_width=0.1)
    random, path, refused = np.random.default_rng(0), tmp_path / "damaged.nwb", []
    for trial in range(40):
        content = bytearray(whole)
        if trial % 4 == 0:
            content = content[: random.integers(len(content))]
        else:
            for at in random.integers(len(content), size=30):
                content[at] ^= 1 << random.integers(8)
        path.write_bytes(content)
        try:
            assert open_recording(path, bin_width=0.1).sizes == expected.sizes
        except ValueError as error:
            refused.append(str(error).replace(str(path), "damaged.nwb"))
    assert len(refused) >= 10
    assert all("damaged.nwb" in each and str(tmp_path) not in each for each in refused)


def test_a_file_cut_short_is_named(tmp_path, spikes):
    (tmp_path / "a.nwb").write_bytes(spikes.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"a\.nwb cannot be read as NWB .* It is damaged, cut short"):
        open_recording(tmp_path / "a.nwb")


@needs_shared_data
@pytest.mark.filterwarnings("ignore:The 'manufacturer' field")
def test_sorted_units_of_a_mouse_are_counted_as_the_notes_and_pynapple_say():
    read = open_recording(PHY)
    assert dict(read.sizes) == {"trial": 1, "time": 108736, "unit": 3}
    assert read["counts"].values.sum() == 21354
    assert read["unit"].values.tolist() == [6, 191, 206]
    assert 'fields={"events": "intervals.epochs"}' in read.attrs["read"]
    assert "intervals.epochs.tags" in read.attrs["left_out"]
    oracle = pynapple.NWBFile(str(PHY))
    counted = oracle["units"].count(0.01, pynapple.IntervalSet(0, 1087.36))
    oracle.close()
    assert counted.columns.tolist() == [6, 191, 206]
    assert np.array_equal(counted.values, read["counts"].values[0])


@needs_shared_data
def test_human_units_are_counted_as_the_notes_say():
    read = open_recording(MEMORY, bin_width=1.0)
    assert (read.sizes["unit"], read["counts"].values.sum(), read.sizes["time"]) == (35, 214278, 2822)
    assert read["counts"].values.sum() / 35 / 2821 == pytest.approx(2.2, abs=0.05)
    tables = "encoding_table, recognition_table, timediscrimination_table"
    assert f'cut trials: {tables} (`fields={{"events": "intervals.encoding_table"}}`)' in read.attrs["read"]


@needs_shared_data
@pytest.mark.parametrize(
    ("table", "trials", "column"), [("encoding", 90, "Clip_name"), ("recognition", 180, "old_new")]
)
def test_trials_of_a_memory_task_are_chosen_by_the_name_of_their_table(table, trials, column):
    read = open_recording(MEMORY, fields={"events": f"intervals.{table}_table"}, bin_width=0.1)
    assert (read.sizes["trial"], read.sizes["unit"]) == (trials, 35)
    assert read[column].dims == ("trial",)
    durations = (read["stop_time"] - read["event"]).values
    assert read["mask"].values[:, :, 0].sum(1).tolist() == np.floor(durations / 0.1 + 1e-6).astype(int).tolist()
    with h5py.File(MEMORY) as file:
        times, stops = file["units/spike_times"][()], read["event"].values + read["mask"].values[:, :, 0].sum(1) * 0.1
    inside = [
        ((times >= start) & (times < stop)).sum() for start, stop in zip(read["event"].values, stops, strict=True)
    ]
    assert read["counts"].values.sum((1, 2)).tolist() == inside
