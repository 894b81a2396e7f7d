"""What `save` writes for other programs: bit-equal where the format can, named where it cannot."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from connectinfer.data.connectome import connectome
from connectinfer.data.reading import open_connectome
from connectinfer.data.recognition import holds_connectome
from connectinfer.data.recording import recording
from connectinfer.data.saving import save

GRAPHS = (".graphml", ".gml", ".json")
TABLES = (".csv", ".tsv", ".parquet")


@pytest.fixture
def made():
    neurons = pd.DataFrame(
        {
            "cell_type": ["PV", "", "L 4é"],
            "sign": np.array([-1, 0, 1], np.int8),
            "x": [0.1, 5, np.nan],
            "y": [0.0, 1, np.nan],
            "z": [1 / 3, 2, np.nan],
            "axon_observed": [True, False, True],
        },
        index=[2**60 + 1, 7, -3],
    )
    return connectome(
        [2**60 + 1, 7, 7, 7],
        [7, 2**60 + 1, 2**60 + 1, 7],
        neurons=neurons,
        weight=np.array([0.1, 0.2, 1 / 3, 4]),
        size=np.array([0.1, 0.2, 1 / 3, 4], np.float32),
        synapse_count=[1, 2**40, 3, 4],
        kind=["a", "b", "c", ""],
        delay=[1.0, np.nan, 2, 3],
    )


def ordered(dataset):
    keys = [dataset[name].values for name in ("kind", "post", "pre")]
    return dataset.isel(edge=np.lexsort(keys)).drop_attrs()


@pytest.mark.parametrize("suffix", GRAPHS)
def test_a_graph_file_keeps_every_bit_and_type(tmp_path, made, suffix):
    save(made, tmp_path / f"w{suffix}")
    read = open_connectome(tmp_path / f"w{suffix}")
    xr.testing.assert_identical(ordered(read), ordered(made))
    assert {name: each.dtype for name, each in read.variables.items()} == {
        name: each.dtype for name, each in made.variables.items()
    }


@pytest.mark.parametrize("suffix", [*TABLES, ".edgelist"])
def test_a_list_of_edges_keeps_them_and_names_what_it_leaves_out(tmp_path, made, suffix):
    lost = r"cannot hold the 1 neurons without edges, axon_observed, cell_type, sign, x, y, z; .nc and .zarr can"
    with pytest.warns(UserWarning, match=rf"w{suffix} {lost}"):
        save(made, tmp_path / f"w{suffix}")
    read, edges = ordered(open_connectome(tmp_path / f"w{suffix}")), ordered(made)
    for name in ("pre", "post", "weight", "size", "synapse_count", "kind", "delay"):
        np.testing.assert_array_equal(read[name].values, edges[name].values)


@pytest.mark.parametrize("suffix", [".nc", ".zarr", *GRAPHS, *TABLES, ".edgelist"])
def test_edges_of_ids_in_text_are_written_without_loss(tmp_path, suffix):
    made = connectome(["v1:1", "v1:2"], ["v1:2", "lgn:1"], weight=[0.5, 1.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(made, tmp_path / f"w{suffix}")
    read = open_connectome(tmp_path / f"w{suffix}")
    assert sorted(zip(read["pre"].values, read["post"].values, read["weight"].values, strict=True)) == [
        ("v1:1", "v1:2", 0.5), ("v1:2", "lgn:1", 1.5),
    ]  # fmt: skip


def test_every_contact_of_a_pair_is_written(tmp_path):
    made = connectome([1, 1, 2], [2, 2, 1], contact=[0, 1, 0], size=[0.5, 0.25, 1.0])
    for suffix in (*GRAPHS, *TABLES, ".edgelist"):
        save(made, tmp_path / f"w{suffix}")
        read = open_connectome(tmp_path / f"w{suffix}")
        assert dict(zip(read["contact"].values[read["pre"].values == 1].tolist(), [0.5, 0.25], strict=True)) == {
            0: 0.5,
            1: 0.25,
        }


@pytest.mark.parametrize(
    ("ids", "suffix"),
    [
        pytest.param(["7", "8"], ".csv", id="numbers as text"),
        pytest.param(["a b", "c"], ".edgelist", id="blank"),
        pytest.param(["#a", "c"], ".edgelist", id="comment"),
        pytest.param(["a\x01", "c"], ".graphml", id="control character"),
    ],
)
def test_ids_that_the_format_would_change_are_refused_and_nothing_is_written(tmp_path, ids, suffix):
    made = connectome(ids, ids[::-1], weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=rf"w{suffix} cannot hold"):
        save(made, tmp_path / f"w{suffix}")
    assert not list(tmp_path.iterdir())
    save(made, tmp_path / "w.json")
    assert open_connectome(tmp_path / "w.json")["neuron"].values.tolist() == sorted(ids)


def test_a_name_that_the_format_has_no_way_to_write_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r".gml cannot hold this connectome: 'spine volume' is not a valid key"):
        save(connectome([1], [2], **{"spine volume": [0.5]}), tmp_path / "w.gml")
    assert not list(tmp_path.iterdir())


def test_attributes_of_the_dataset_are_named_as_lost(tmp_path):
    made = connectome([1], [2], weight=[0.5]).assign_attrs(species="mouse", read="by hand")
    with pytest.warns(UserWarning, match=r"w.json cannot hold the attribute species; .nc and"):
        save(made, tmp_path / "w.json")


def test_a_network_is_a_folder_that_replaces_nothing_else(tmp_path):
    made = connectome(["v1:0", "v1:1"], ["v1:1", "v1:0"], weight=[0.5, 1.5])
    save(made, tmp_path / "net")
    assert open_connectome(tmp_path / "net" / "circuit_config.json").sizes == {"edge": 2, "neuron": 2}
    with pytest.raises(FileExistsError, match=r"net exists. Choose another name, or pass `overwrite=True`"):
        save(made, tmp_path / "net")
    save(made.isel(edge=[0]), tmp_path / "net" / "circuit_config.json", overwrite=True)
    assert open_connectome(tmp_path / "net" / "circuit_config.json").sizes["edge"] == 1
    for precious in ("thesis.tex", "network/thesis.tex", "network/own.csv", "network/nodes"):
        (tmp_path / "net" / precious).write_text("precious")
        with pytest.raises(FileExistsError, match="net exists and is no network, or holds more than that"):
            save(made, tmp_path / "net", overwrite=True)
        (tmp_path / "net" / precious).unlink()
    (tmp_path / "net" / "circuit_config.json").unlink()
    with pytest.raises(FileExistsError, match="net exists and is no network"):
        save(made, tmp_path / "net", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net"]


def test_a_network_is_written_into_an_empty_folder_and_opens_by_its_name(tmp_path):
    made = connectome(["v1:0", "v1:1"], ["v1:1", "v1:0"], weight=[0.5, 1.5])
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*deep to write net into; create it first"):
        save(made, tmp_path / "deep" / "net")
    (tmp_path / "net").mkdir()
    save(made, tmp_path / "net" / "circuit_config.json")
    assert holds_connectome(tmp_path / "net") is True
    assert open_connectome(tmp_path / "net")["weight"].values.tolist() == [0.5, 1.5]
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"other is a folder, neither a SONATA network, .* nor called .zarr"):
        open_connectome(tmp_path / "other")


def test_a_folder_that_no_writer_left_there_is_not_overwritten(tmp_path):
    made = connectome([1], [2])
    for name, message in (("a.zarr", "a.zarr exists and is no Zarr group"), ("a.nc", "a.nc exists and is a folder")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("precious")
        with pytest.raises(FileExistsError, match=message):
            save(made, tmp_path / name, overwrite=True)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["thesis.tex"]


def test_what_lies_beside_the_arrays_of_a_zarr_group_survives(tmp_path):
    made = connectome([1], [2])
    save(made, tmp_path / "a.zarr")
    for precious in ("notes.txt", "figures"):
        (tmp_path / "a.zarr" / precious).mkdir() if precious == "figures" else (tmp_path / "a.zarr" / precious).touch()
        with pytest.raises(FileExistsError, match=r"a.zarr exists and is no Zarr group, or holds more than that"):
            save(made, tmp_path / "a.zarr", overwrite=True)
        shutil.move(tmp_path / "a.zarr" / precious, tmp_path)
    save(made, tmp_path / "a.zarr", overwrite=True)


@pytest.mark.parametrize("target", [".", "circuit_config.json", "../here"])
def test_the_folder_that_the_program_runs_in_is_not_replaced(tmp_path, monkeypatch, target):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileExistsError, match="The program runs in the folder that would be replaced"):
        save(connectome(["v1:0"], ["v1:0"], weight=[0.5]), target)
    assert not list(Path.cwd().iterdir())
    assert [each.name for each in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("target", ["net", "net/circuit_config.json", "s.nc", "s.zarr", "w.csv"])
def test_what_is_called_nearly_so_survives(tmp_path, target):
    made = connectome(["v1:0", "v1:1"], ["v1:1", "v1:0"], weight=[0.5, 1.5])
    beside = [f"{name}{end}" for name in ("net", "s.nc", "s.zarr", "w.csv") for end in (".old", ".part")]
    beside += ["s.part.nc", "s.part.zarr", "w.part.csv"]
    for name in beside:
        (tmp_path / name).mkdir()
    save(made, tmp_path / target)
    save(made, tmp_path / target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*beside, target.split("/")[0]])


def test_ids_that_a_network_renames_are_announced(tmp_path):
    with pytest.warns(UserWarning, match="net cannot hold these ids; neurons are numbered in their population"):
        save(connectome(["a"], ["b"], weight=[0.5]), tmp_path / "net")


def test_a_network_keeps_every_value_of_neurons_and_edges(tmp_path):
    neurons = pd.DataFrame(
        {"cell_type": ["NA", "2.50", "", "None"], "layer": ["1", "2.50", "NA", ""]}, index=list("abcd")
    )
    neurons["sign"] = np.array([1, -1, 0, 1], np.int8)
    edges = {"contact": [7, 3, 0, 0], "kind": ["x", "x", "NA", "2.0"], "size": np.float32([0.1, 0.2, 0.3, 0.4])}
    written = connectome(list("aaba"), list("bbcd"), neurons=neurons, synapse_count=[1, 2, 3, 4], **edges)
    with pytest.warns(UserWarning, match=r"^net cannot hold these ids; neurons are .* `neuron_id` beside; .nc and "):
        save(written, tmp_path / "net")
    read = open_connectome(tmp_path / "net")
    assert read["neuron_id"].values.tolist() == list("abcd")
    for name in ("cell_type", "layer", "sign", *edges, "synapse_count"):
        np.testing.assert_array_equal(read[name].values, written[name].values, name)
    assert read["size"].dtype == np.float32


def test_what_a_network_cannot_hold_is_named(tmp_path):
    neurons = pd.DataFrame(
        {"weight": [0.5, 1.5], "model_name": ["LIF", ""], "cell_type": ["", "PV"]}, index=["a:0", "a:1"]
    )
    made = connectome(["a:0"], ["a:1"], neurons=neurons).assign_attrs(species="mouse")
    # Both names mean something else there: the weight of an edge, and the first of the columns that name types.
    with pytest.warns(UserWarning, match="net cannot hold weight, cell_type, the attribute species; .nc and .zarr can"):
        save(made, tmp_path / "net")


def test_recordings_and_unknown_suffixes_are_refused_with_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=r"a recording or result is written as .nc or .zarr; got a.csv"):
        save(recording(time=0.1, counts=np.ones((1, 3, 2), int)), tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"a connectome is written as .nc, .zarr, .graphml, .*; got a.gexf"):
        save(connectome([1], [2]), tmp_path / "a.gexf")
