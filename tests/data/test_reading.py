import gzip
import logging
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr

from connectinfer.data.connectome import connectome, to_dense
from connectinfer.data.matlab import read_matlab
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.recording import recording
from connectinfer.data.saving import save
from connectinfer.data.tables import read_table

COUNTS = np.array([[[1, 0], [2, 1], [0, 3]], [[0, 1], [1, 1], [4, 0]]])  # (trial, time, unit)


@pytest.fixture
def made():
    return recording(
        time=0.02, counts=[COUNTS[0], COUNTS[1][:2]], unit=["a", "bb"], trial=[3, 5], inputs={"light": np.ones((2, 3))}
    ).assign_coords(area=("unit", ["V1", "LM"]), choice=("trial", [0, 1]))


@pytest.mark.parametrize("name", ["session.nc", "session.zarr"])
def test_a_recording_survives_the_file_bit_by_bit(tmp_path, made, name):
    save(made, tmp_path / name)
    read = open_recording(tmp_path / name)
    assert read.drop_attrs().identical(made.drop_attrs())
    assert {key: each.dtype for key, each in read.variables.items()} == {
        key: each.dtype for key, each in made.variables.items()
    }
    assert read.attrs == {"bin_width": 0.02, "source": name, "read": "counts", "left_out": ""}


@pytest.mark.parametrize("name", ["wiring.nc", "wiring.zarr"])
def test_a_connectome_survives_the_file_bit_by_bit(tmp_path, name):
    made = connectome([2**60 + 1, 7], [7, 2**60 + 1], weight=[0.1, 0.2], kind=["x", "yy"])
    save(made, tmp_path / name)
    assert open_connectome(tmp_path / name).drop_attrs().identical(made)


@pytest.mark.parametrize("name", ["session.nc", "session.zarr"])
def test_an_existing_file_is_replaced_only_on_request(tmp_path, made, name):
    save(made, tmp_path / name)
    with pytest.raises(FileExistsError, match=r"session\.\w+ exists. Choose another name, or pass `overwrite=True`"):
        save(made, tmp_path / name)
    save(made.isel(trial=[0]), tmp_path / name, overwrite=True)
    assert open_recording(tmp_path / name).sizes["trial"] == 1


@pytest.mark.parametrize("name", ["session.nc", "session.zarr"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, made, name, monkeypatch):
    save(made, tmp_path / name)

    def half(_, path, **_options):
        path.mkdir() if path.suffix == ".zarr" else path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(xr.Dataset, "to_zarr" if name.endswith(".zarr") else "to_netcdf", half)
    with pytest.raises(KeyboardInterrupt):
        save(made.isel(trial=[0]), tmp_path / name, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert open_recording(tmp_path / name).sizes["trial"] == made.sizes["trial"]


def test_a_failed_exchange_of_folders_leaves_the_old_one_and_nothing_else(tmp_path, made, monkeypatch):
    save(made, tmp_path / "session.zarr")
    move, refused = Path.replace, []

    def refuse(path, target):
        # The old folder has gone aside, the new one is to take its place.
        if target == tmp_path / "session.zarr" and not refused:
            refused.append(path)
            raise PermissionError(13, "Permission denied")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        save(made.isel(trial=[0]), tmp_path / "session.zarr", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["session.zarr"]
    assert open_recording(tmp_path / "session.zarr").sizes["trial"] == made.sizes["trial"]


def test_a_result_tree_is_written_too(tmp_path, made):
    tree = xr.DataTree.from_dict({"/observed_data": made})
    for name in ("tree.nc", "tree.zarr"):
        save(tree, tmp_path / name)
        assert (tmp_path / name).exists()


def test_names_that_are_ours_need_no_mapping(tmp_path):
    np.savez(tmp_path / "session.npz", counts=COUNTS, bin_width=0.02, unit=np.array([11, 12]), notes=np.zeros(3))
    read = open_recording(tmp_path / "session.npz")
    assert read["counts"].values.tolist() == COUNTS.tolist()
    assert read["unit"].values.tolist() == [11, 12]
    assert read.attrs["left_out"] == "notes"
    assert read.attrs["source"] == "session.npz"


def test_what_was_read_and_left_out_is_logged(tmp_path, caplog):
    np.savez(tmp_path / "session.npz", counts=COUNTS, notes=np.zeros(3))
    with caplog.at_level(logging.INFO, logger="connectinfer"):
        open_recording(tmp_path / "session.npz", bin_width=0.02)
    assert caplog.messages == [
        "session.npz: read counts from counts (2 trials, 3 bins, 2 units); left out: notes",
    ]


def test_a_matrix_with_more_units_than_bins_is_doubted_unless_its_units_are_named(tmp_path):
    np.savez(tmp_path / "session.npz", counts=COUNTS[0, :1], bin_width=0.02)
    with pytest.warns(UserWarning, match=r"`counts` of shape \(1, 2\) is taken for one trial of 1 bins and 2 units"):
        assert open_recording(tmp_path / "session.npz").sizes == {"trial": 1, "time": 1, "unit": 2}
    open_recording(tmp_path / "session.npz", unit=[3, 4])
    open_recording(tmp_path / "session.npz", fields={"counts": lambda file: file["counts"][None]}, bin_width=0.02)


def test_any_axis_order_is_declared_by_a_function(tmp_path):
    np.savez(tmp_path / "session.npz", spikes=COUNTS.transpose(2, 0, 1))
    read = open_recording(
        tmp_path / "session.npz", fields={"counts": lambda file: file["spikes"].transpose(1, 2, 0)}, bin_width=0.02
    )
    assert read["counts"].values.tolist() == COUNTS.tolist()


def test_an_npy_file_is_one_field_named_by_its_stem(tmp_path):
    np.save(tmp_path / "counts.npy", COUNTS[0])
    assert open_recording(tmp_path / "counts.npy", bin_width=0.1)["counts"].values.tolist() == [COUNTS[0].tolist()]


@pytest.fixture
def trials_v5(tmp_path):
    spikes = np.empty(2, object)
    spikes[0], spikes[1] = COUNTS[0].astype(float), COUNTS[1][:2].astype(float)
    trials = np.zeros(2, dtype=[("spikes", object), ("choice", object)])
    trials["spikes"], trials["choice"] = spikes, [1.0, 0.0]
    cells = np.array(["V1", "LM"], object)
    path = tmp_path / "session.mat"
    scipy.io.savemat(path, {"trials": trials, "cells": {"area": cells}, "bin_ms": 20.0, "flag": True})
    return path


@pytest.fixture
def trials_v73(tmp_path):
    """The same variables laid out as MATLAB's -v7.3 does: reversed axes, references for cells and struct arrays."""
    path = tmp_path / "session73.mat"
    with h5py.File(path, "w") as file:
        refs = file.create_group("#refs#")

        def stored(name, value):
            if isinstance(value, str):
                item = refs.create_dataset(name, data=np.array([[ord(each)] for each in value], np.uint16))
                item.attrs["MATLAB_class"] = np.bytes_("char")
            else:
                item = refs.create_dataset(name, data=np.atleast_2d(value).astype(float).T)
                item.attrs["MATLAB_class"] = np.bytes_("double")
            return item.ref

        trials = file.create_group("trials")
        trials.attrs["MATLAB_class"] = np.bytes_("struct")
        spikes = [stored("s0", COUNTS[0]), stored("s1", COUNTS[1][:2])]
        trials.create_dataset("spikes", data=np.array([spikes], h5py.ref_dtype).T)
        trials.create_dataset("choice", data=np.array([[stored("c0", 1.0), stored("c1", 0.0)]], h5py.ref_dtype).T)
        cells = file.create_group("cells")
        cells.attrs["MATLAB_class"] = np.bytes_("struct")
        area = cells.create_dataset("area", data=np.array([[stored("a0", "V1"), stored("a1", "LM")]], h5py.ref_dtype).T)
        area.attrs["MATLAB_class"] = np.bytes_("cell")
        file.create_dataset("bin_ms", data=[[20.0]]).attrs["MATLAB_class"] = np.bytes_("double")
        flag = file.create_dataset("flag", data=np.ones((1, 1), np.uint8))
        flag.attrs["MATLAB_class"] = np.bytes_("logical")
    return path


@pytest.mark.parametrize("version", ["trials_v5", "trials_v73"])
def test_matlab_structs_and_cells_are_reached_by_dotted_paths(version, request):
    path = request.getfixturevalue(version)
    read = open_recording(
        path,
        fields={
            "counts": "trials.spikes",
            "bin_width": lambda file: file["bin_ms"] / 1000,
            "choice": ("trial", "trials.choice"),
            "area": ("unit", "cells.area"),
        },
    )
    assert read["counts"].values.tolist() == [COUNTS[0].tolist(), [*COUNTS[1][:2].tolist(), [0, 0]]]
    assert read["mask"].values[:, :, 0].tolist() == [[True] * 3, [True, True, False]]
    assert read["choice"].values.tolist() == [1, 0]
    assert read["area"].values.tolist() == ["V1", "LM"]
    assert read.attrs["bin_width"] == 0.02
    assert read.attrs["left_out"] == "flag"


def test_both_matlab_formats_give_the_same_tree(trials_v5, trials_v73):
    old, new = read_matlab(trials_v5), read_matlab(trials_v73)
    assert set(old) == set(new) == {"trials", "cells", "bin_ms", "flag"}
    assert np.array_equal(old["trials"][1]["spikes"], new["trials"][1]["spikes"])
    assert old["cells"] == new["cells"]
    assert bool(old["flag"]) is bool(new["flag"]) is True


def test_ids_that_matlab_keeps_as_doubles_are_taken_where_they_are_exact(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"counts": COUNTS, "unit": [3.0, 4.0], "bin_width": 0.1})
    assert open_recording(tmp_path / "a.mat")["unit"].values.tolist() == [3, 4]
    scipy.io.savemat(tmp_path / "b.mat", {"counts": COUNTS, "unit": [3.0, 2.0**60], "bin_width": 0.1})
    with pytest.raises(ValueError, match="`unit` ids are floating-point"):
        open_recording(tmp_path / "b.mat")


def test_an_edge_list_of_matlab_doubles_has_whole_ids(tmp_path):
    ids = {"pre": [3.0, 5.0], "post": [5.0, 3.0], "neuron": [3.0, 5.0, 9.0]}
    scipy.io.savemat(tmp_path / "a.mat", {**ids, "weight": [0.5, 1.5]})
    made = open_connectome(tmp_path / "a.mat")
    assert (made["pre"].values.tolist(), made["neuron"].values.tolist()) == ([3, 5], [3, 5, 9])
    scipy.io.savemat(tmp_path / "b.mat", {"pre": [3.0, 2.0**60], "post": [5.0, 3.0]})
    with pytest.raises(ValueError, match=r"b.mat: `pre` ids are floating-point"):
        open_connectome(tmp_path / "b.mat")


def test_a_spike_table_is_binned(tmp_path):
    path = tmp_path / "spikes.csv"
    path.write_text("cluster,seconds,depth\n3,0.01,5\n8,0.12,5\n3,0.19,5\n")
    read = open_recording(path, fields={"spike_times": "seconds", "unit": "cluster"}, bin_width=0.1)
    assert read["unit"].values.tolist() == [3, 8]
    assert read["counts"].values.tolist() == [[[1, 0], [1, 1]]]
    assert read.attrs["left_out"] == "depth"
    assert read.attrs["read"] == "spike_times from seconds, unit from cluster (1 trials, 2 bins from 0 s, 2 units)"


def test_spike_times_are_aligned_to_the_events_of_the_file(tmp_path):
    path = tmp_path / "spikes.mat"
    trains = np.empty(2, object)
    trains[0], trains[1] = np.array([0.1, 1.1, 1.2]), np.array([1.05])
    scipy.io.savemat(path, {"units": trains, "stimulus_on": np.array([0.0, 1.0])})
    read = open_recording(
        path, fields={"spike_times": "units", "events": "stimulus_on"}, window=(0.0, 0.3), bin_width=0.1
    )
    assert read["counts"].values.sum(1).tolist() == [[1, 0], [2, 1]]


def test_a_gzipped_count_table_with_trial_and_time_columns_becomes_trials(tmp_path):
    path = tmp_path / "counts.tsv.gz"
    with gzip.open(path, "wt") as stream:
        stream.write("trial\ttime\tlight\tcell_1\tcell_2\n")
        stream.write("a\t0.0\t0.5\t1\t0\na\t0.1\t0\t2\t1\nb\t0.0\t0\t0\t4\n")
    read = open_recording(
        path, fields={"counts": "cell_*", "trial": "trial", "time": "time", "inputs": {"light": "light"}}
    )
    assert read["unit"].values.tolist() == ["cell_1", "cell_2"]
    assert read["counts"].values.tolist() == [[[1, 0], [2, 1]], [[0, 4], [0, 0]]]
    assert read["mask"].values[1, :, 0].tolist() == [True, False]
    assert read["inputs"].values[0, :, 0].tolist() == [0.5, 0]


def test_hdf5_groups_are_dotted_paths_and_text_is_read(tmp_path):
    path = tmp_path / "session.h5"
    with h5py.File(path, "w") as file:
        file["imaging/traces"] = COUNTS[0] * 0.5
        file["imaging/names"] = np.array(["AVA", "RIM"], h5py.string_dtype())
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/secret")
        file["nowhere"] = h5py.SoftLink("/gone")
    read = open_recording(path, fields={"fluorescence": "imaging.traces", "unit": "imaging.names"}, bin_width=0.6)
    assert read["unit"].values.tolist() == ["AVA", "RIM"]
    assert read["fluorescence"].values[0, 1].tolist() == [1.0, 0.5]
    assert read.attrs["left_out"] == ""


def test_foreign_netcdf_is_mapped_like_any_file(tmp_path):
    xr.Dataset({"spk": (("rep", "t", "cell"), COUNTS)}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    read = open_recording(tmp_path / "other.nc", fields={"counts": "spk"}, bin_width=0.01)
    assert read["counts"].values.tolist() == COUNTS.tolist()


def test_a_table_without_header_has_numbered_columns_and_exact_ids(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("648518346349539437,648518346349539438,2\n")
    assert list(read_table(path)) == ["0", "1", "2"]
    made = open_connectome(path, fields={"pre": "0", "post": "1", "synapse_count": "2"})
    assert made["neuron"].values.tolist() == [648518346349539437, 648518346349539438]


def test_an_edge_table_with_our_names_brings_all_its_columns(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("pre,post,weight,kind\na,b,0.5,chemical\nb,c,1.5,chemical\n")
    made = open_connectome(path, neurons=pd.DataFrame({"sign": [1, -1, 1]}, index=["a", "b", "c"]))
    assert made["kind"].values.tolist() == ["chemical", "chemical"]
    assert made["sign"].values.tolist() == [1, -1, 1]
    assert made.attrs["read"].endswith("(2 edges, 3 neurons)")


def test_a_matrix_with_pre_in_the_rows_is_transposed_by_its_mapping(tmp_path):
    np.savez(tmp_path / "w.npz", adjacency=np.array([[0, 5], [0, 0]]), ids=np.array(["a", "b"]), kind=np.zeros(1))
    made = open_connectome(tmp_path / "w.npz", fields={"weight": lambda file: file["adjacency"].T, "neuron": "ids"})
    assert to_dense(made, "weight").sel(post="b", pre="a") == 5
    assert made.attrs["left_out"] == "kind"
    assert made.attrs["read"].endswith("(1 edges, 2 neurons, rows taken for post, columns for pre)")


def test_neurons_described_in_the_file_are_read(tmp_path):
    np.savez(
        tmp_path / "w.npz", pre=[1], post=[2], weight=[1.0], neuron=[1, 2, 3], x=[0.0, 1, 2], y=[0.0] * 3, z=[0.0] * 3
    )
    made = open_connectome(tmp_path / "w.npz")
    assert made["x"].values.tolist() == [0, 1, 2]
    assert made.sizes["neuron"] == 3
