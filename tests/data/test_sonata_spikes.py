"""Spikes of SONATA: both layouts, their units of time, the real files, and what is no spikes."""

import h5py
import numpy as np
import pytest
from shared_data import SHARED_DATA, needs_shared_data

from connectinfer.data.reading import open_recording

EXAMPLES = SHARED_DATA / "sonata"


def write_spikes(path, *, unit="ms", **populations):
    with h5py.File(path, "w") as file:
        for name, (times, nodes) in populations.items():
            group = file.create_group(f"spikes/{name}")
            group["timestamps"], group["node_ids"] = np.asarray(times), np.asarray(nodes)
            if unit:
                group["timestamps"].attrs["units"] = unit
    return path


def test_spikes_of_several_populations_are_binned_in_seconds_by_node(tmp_path):
    path = write_spikes(tmp_path / "s.h5", v1=([25.0, 1.0, 12.0, 2.0], [10, 10, 2, 10]), lgn=([29.0], [0]))
    read = open_recording(path, bin_width=0.01)
    assert read["unit"].values.tolist() == ["lgn:0", "v1:2", "v1:10"]
    assert read["counts"].values[0].tolist() == [[0, 0, 2], [0, 1, 0], [1, 0, 1]]
    assert read.attrs["read"].endswith("SONATA spikes of lgn (ms, turned to s), v1 (ms, turned to s)")
    assert read.attrs["left_out"] == ""


@pytest.mark.parametrize(("unit", "factor"), [("s", 1.0), ("ms", 1e-3), (b"milliseconds", 1e-3), ("", 1e-3)])
def test_the_unit_of_time_is_that_of_the_file_and_milliseconds_by_default(tmp_path, unit, factor):
    path = write_spikes(tmp_path / "s.h5", unit=unit, v1=([2.0, 4.0], [0, 0]))
    read = open_recording(path, bin_width=factor)
    assert read["counts"].values[0, :, 0].tolist() == [0, 0, 1, 0, 1]


def test_the_old_layout_without_populations_has_node_ids_for_units(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["spikes/timestamps"], file["spikes/gids"] = [15.0, 5.0, 6.0], np.array([9, 4, 9], np.uint64)
    read = open_recording(tmp_path / "s.h5", bin_width=0.01)
    assert read["unit"].values.tolist() == [4, 9]
    assert read["counts"].values[0].tolist() == [[1, 1], [0, 1]]
    aligned = open_recording(tmp_path / "s.h5", bin_width=0.01, events=[0.004], window=(0.0, 0.02))
    assert aligned["counts"].values[0].tolist() == [[1, 1], [0, 1]]


def test_fields_that_the_caller_names_are_read_as_from_any_hdf5(tmp_path):
    path = write_spikes(tmp_path / "s.h5", v1=([1.0, 2.0], [3, 4]))
    read = open_recording(
        path, fields={"spike_times": "spikes.v1.timestamps", "unit": "spikes.v1.node_ids"}, bin_width=1.0
    )
    assert read["unit"].values.tolist() == [3, 4]
    assert read["counts"].values[0].tolist() == [[0, 0], [1, 0], [0, 1]]


def test_groups_called_spikes_or_mapping_that_are_no_sonata_stay_plain_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spikes/matrix"], file["mapping/names"], file["data"] = np.ones((3, 1)), [1], [2]
        file["counts"] = np.array([[1], [2], [0]])
    assert open_recording(tmp_path / "a.h5", bin_width=0.1)["counts"].values[0, :, 0].tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("unit", "times", "nodes", "message"),
    [
        ("h", [1.0], [0], "the spike times of 'v1' are in 'h'; SONATA has ms"),
        (
            "ms",
            [1.0, 2.0],
            [0],
            r"spikes of 'v1' need one time and one integer node id each; got float64 of shape \(2,\)",
        ),
        ("ms", [1.0], [0.5], r"one integer node id each; got .* and float64"),
        ("ms", [np.nan, 1.0], [0, 0], "must be finite"),
        ("ms", np.zeros(0), np.zeros(0, int), "there are no spikes"),
    ],
)
def test_spikes_that_make_no_sense_are_refused(tmp_path, unit, times, nodes, message):
    with pytest.raises(ValueError, match=message):
        open_recording(write_spikes(tmp_path / "s.h5", unit=unit, v1=(times, nodes)), bin_width=0.01)


@pytest.mark.parametrize("root", ["report/v1", ""])
def test_a_report_of_voltages_says_what_it_is_and_opens_by_fields(tmp_path, root):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        group = file.require_group(root) if root else file
        group["data"], group["mapping/index_pointer"] = np.arange(8.0).reshape(4, 2), [0, 1, 2]
    path = f"{root}.data".strip(".").replace("/", ".")
    with pytest.raises(ValueError, match=rf"this is a SONATA report: {path} holds .* \(4, 2\) for \(time, element\)"):
        open_recording(tmp_path / "v.h5", bin_width=1e-4)
    read = open_recording(tmp_path / "v.h5", fields={"fluorescence": path}, bin_width=1e-4)
    assert read["fluorescence"].shape == (1, 4, 2)


SPIKES = {
    "300_pointneurons/inputs/external_spike_trains.h5": (4334, 100, ""),
    "9_cells/inputs/exc_spike_trains.h5": (312, 10, "excvirt"),
    "9_cells/inputs/inh_spike_trains.h5": (285, 10, "inhvirt"),
    "9_cells/output/spikes.h5": (78, 8, "cortex"),
    "point_450glifs/inputs/lgn_spikes.h5": (3044, 100, "lgn"),
}


@needs_shared_data
@pytest.mark.parametrize(("name", "expected"), SPIKES.items(), ids=SPIKES)
def test_real_spike_files_have_the_counts_of_the_notes(name, expected):
    n_spikes, n_units, population = expected
    read = open_recording(EXAMPLES / name, bin_width=0.01)
    with h5py.File(EXAMPLES / name) as file:
        group = file[f"spikes/{population}"]
        times, nodes = group["timestamps"][()] / 1000, group["node_ids" if population else "gids"][()]
    assert (n_spikes, n_units) == (times.size, np.unique(nodes).size)
    assert (int(read["counts"].sum()), read.sizes["unit"]) == (n_spikes, n_units)
    node = nodes[len(nodes) // 2]
    counted = np.histogram(times[nodes == node], np.arange(read.sizes["time"] + 1) * 0.01)[0]
    unit = f"{population}:{node}" if population else node
    np.testing.assert_array_equal(read["counts"].sel(unit=unit).values[0], counted)
