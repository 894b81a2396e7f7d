"""Files that would crash a library, make it run without end, or lead it to other files: refused by a clear error."""

import json
import struct
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import scipy.io
import xarray as xr
from scipy import sparse

from connectinfer.data import field_tree, hdf5
from connectinfer.data.connectome import check_connectome, connectome
from connectinfer.data.field_tree import check_extent
from connectinfer.data.hdf5 import read_hdf5
from connectinfer.data.labelled import read_labelled
from connectinfer.data.matlab import read_matlab
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.saving import save


@pytest.fixture
def outside(tmp_path):
    """Values that lie beside the file, and links that lead to them."""
    with h5py.File(tmp_path / "values.h5", "w") as file:
        file["counts"] = np.ones((3, 2))
    layout = h5py.VirtualLayout((3, 2), "f8")
    layout[...] = h5py.VirtualSource("values.h5", "counts", (3, 2))
    return SimpleNamespace(
        virtual=lambda file: file.create_virtual_dataset("counts", layout),
        stored=lambda file: file.create_dataset("counts", (3, 2), "f8", external=[("values.h5", 0, 48)]),
        linked=lambda file: file.__setitem__("counts", h5py.ExternalLink("values.h5", "/counts")),
    )


@pytest.mark.parametrize("name", ["a.h5", "a.mat", "a.nc"])
@pytest.mark.parametrize("kind", ["virtual", "stored", "linked"])
def test_values_in_other_files_are_not_read(tmp_path, outside, name, kind):
    with h5py.File(tmp_path / name, "w") as file:
        getattr(outside, kind)(file)
    with pytest.raises(ValueError, match=r"other files|another file|none of \('counts'"):
        open_recording(tmp_path / name, bin_width=0.1, **({"fields": {"counts": "counts"}} if name == "a.nc" else {}))


def double_links(file):
    """Forty groups, each of which the one before holds twice."""
    for at in range(40):
        file.create_group(f"g{at}")
    for at in range(39):
        file[f"g{at}/a"] = file[f"g{at}/b"] = file[f"g{at + 1}"]


@pytest.mark.parametrize("name", ["a.h5", "a.mat", "a.nc"])
def test_links_that_double_at_every_level_end(tmp_path, monkeypatch, name):
    monkeypatch.setattr(hdf5, "MOST_FIELDS", 2000)
    monkeypatch.setattr(field_tree, "MOST_FIELDS", 2000)
    with h5py.File(tmp_path / name, "w") as file:
        double_links(file)
    with pytest.raises(ValueError, match=r"a\.\w+.* more than 2000 fields, or links that lead to the same "):
        open_recording(tmp_path / name, bin_width=0.1)


def test_fields_are_counted_wherever_links_lead_to_them_and_may_nest_a_hundred_deep(monkeypatch):
    monkeypatch.setattr(field_tree, "MOST_FIELDS", 2000)
    tree = {}
    for _ in range(99):
        tree = {"inner": tree}
    check_extent(tree)
    with pytest.raises(ValueError, match="nest more than 100 deep"):
        check_extent({"a": tree, "b": {}} | {"c": {"inner": {"inner": tree}}})
    shared = {}
    for _ in range(12):
        shared = {"a": shared, "b": shared}
    with pytest.raises(ValueError, match="more than 2000 fields"):
        check_extent(shared)


def test_a_heap_with_an_entry_without_end_is_refused_before_hdf5_runs_into_it(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("names", data=["one", "two", "three"], dtype=h5py.string_dtype())
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a.h5 cannot be read as HDF5 \(the heap at byte {heap} is damaged\)"):
        read_hdf5(path)


@pytest.mark.parametrize("layout", [{}, {"chunks": (1,), "maxshape": (None,)}], ids=["whole", "in chunks"])
def test_text_that_claims_more_than_the_file_is_refused_before_memory_is_filled(tmp_path, layout):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        item = file.create_dataset("names", data=["one", "two"], dtype=h5py.string_dtype(), **layout)
        place = item.id.get_chunk_info(0).byte_offset if layout else item.id.get_offset()
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<I", 3 * 10**9)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.h5 .*names claims a text of 3000000000 characters, longer than the file"):
        read_hdf5(path)


@pytest.fixture
def matlab(tmp_path):
    """A file with a sparse matrix, and the places of its tags: flags, size, name, rows, columns, values."""
    scipy.io.savemat(tmp_path / "a.mat", {"w": sparse.csc_array(np.array([[0, 1.5], [2, 0]]))})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    places, at = [], 136
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, at)
        places.append(at)
        at += 8 if kind >> 16 else 8 + size + -size % 8
    return tmp_path / "a.mat", content, places


@pytest.mark.parametrize("kind", [0, 8, 10, 14, 15, 19, 200])
def test_tags_that_would_end_the_process_are_refused(matlab, kind):
    path, content, places = matlab
    content[places[-1] : places[-1] + 4] = struct.pack("<I", kind)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a.mat cannot be read .* is of type {kind}, which does not belong there"):
        read_matlab(path)


def test_an_element_that_claims_more_than_there_is_is_refused_before_it_is_allocated(matlab):
    path, content, places = matlab
    content[places[-1] + 4 : places[-1] + 8] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="an element claims 2147483648 bytes where 16 follow"):
        read_matlab(path)


def test_rows_beyond_the_matrix_are_refused(matlab):
    path, content, places = matlab
    content[places[3] + 8 : places[3] + 12] = struct.pack("<i", 10**9)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.mat cannot be read as a MATLAB file"):
        read_matlab(path)


def test_sound_files_of_every_layout_pass_the_check_of_tags(tmp_path):
    cells = np.empty(2, object)
    cells[:] = ["text", np.eye(2, dtype=np.int8)]
    values = {"s": {"x": cells, "e": np.zeros((0, 3)), "c": 1 + 2j, "l": True}, "w": sparse.csc_array(np.eye(3))}
    for packed in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", values, do_compression=packed)
        assert read_matlab(tmp_path / "a.mat")["s"]["x"][0] == "text"
    scipy.io.savemat(tmp_path / "old.mat", {"x": np.eye(2)}, format="4")
    assert read_matlab(tmp_path / "old.mat")["x"].tolist() == np.eye(2).tolist()


@pytest.mark.parametrize("header", [b"{'descr': '<f8\x00'", b"{'descr': '<f8, ", b"(" * 100, "{'d\x7f': é".encode()])
def test_headers_that_python_cannot_split_are_damage(tmp_path, header):
    content = header.ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content + bytes(64))
    with pytest.raises(ValueError, match=r"a.npy cannot be read as NumPy's npy .* It is damaged or of another format"):
        open_recording(tmp_path / "a.npy", bin_width=0.1)


def test_a_netcdf_file_that_claims_more_than_it_stores_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.create_dataset("counts", (2**20, 2**20), "f8", chunks=(2**10, 2**10), compression="gzip")
    with pytest.raises(ValueError, match=r"a.nc cannot be read as netCDF 4 .* it claims 8796093022208 bytes"):
        read_labelled(tmp_path / "a.nc")


def test_hdf5_without_dimensions_is_read_as_netcdf_in_silence(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["counts"] = np.ones((1, 3, 2), int)
    assert open_recording(tmp_path / "a.nc", fields={"counts": "counts"}, bin_width=0.1).sizes["time"] == 3


def test_a_long_text_in_a_netcdf_file_does_not_widen_the_others(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.create_dataset("names", data=["a" * 10**5, *map(str, range(999))], dtype=h5py.string_dtype())
    with pytest.raises(ValueError, match=r"a.nc .* `names` holds a text of 100000 characters"):
        read_labelled(tmp_path / "a.nc")


def test_zarr_that_claims_more_than_it_stores_is_refused(tmp_path):
    save(connectome([1], [2], weight=[1.0]), tmp_path / "a.zarr")
    metadata = tmp_path / "a.zarr" / "weight" / "zarr.json"
    parsed = json.loads(metadata.read_text())
    parsed["shape"] = [10**12]
    metadata.write_text(json.dumps(parsed))
    with pytest.raises(ValueError, match=r"a.zarr cannot be read as Zarr"):
        open_connectome(tmp_path / "a.zarr")
    xr.Dataset({"weight": ("x", np.zeros(10**5))}).to_zarr(tmp_path / "b.zarr", consolidated=False)
    assert read_labelled(tmp_path / "b.zarr").sizes == {"x": 10**5}


def test_a_netcdf_variable_that_does_not_fit_its_dimensions_is_damage(tmp_path):
    xr.Dataset({"x": ("neuron", np.zeros(3))}, {"neuron": [1, 2, 3]}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with h5py.File(tmp_path / "a.nc", "r+") as content:
        del content["x"]
        content["x"] = np.zeros(6)
        content["x"].dims[0].attach_scale(content["neuron"])
    with pytest.raises(
        ValueError, match=r"a.nc .*`x` has shape \(6,\), but its dims \('neuron',\) have the sizes \(3,\)"
    ):
        read_labelled(tmp_path / "a.nc")


@pytest.mark.parametrize("name", ["unit.npy", "a.npz"])
def test_text_of_numbers_that_are_no_characters_is_damage(tmp_path, name):
    damaged = np.array([0x110000, 0x41], np.uint32).view("<U1")
    if name == "a.npz":
        np.savez(tmp_path / name, unit=damaged, counts=np.ones((1, 3, 2), int))
    else:
        np.save(tmp_path / name, damaged)
    with pytest.raises(
        ValueError, match=rf"{name} cannot be read .*`unit` holds the code 0x110000, which is no character"
    ):
        open_recording(
            tmp_path / name, bin_width=0.1, fields={"counts": "counts" if name == "a.npz" else "unit", "unit": "unit"}
        )


def test_half_a_character_is_no_id(tmp_path):
    (tmp_path / "a.gml").write_text('graph [ node [ id 0 label "a&#xD800;" ] ]')
    with pytest.raises(ValueError, match=r"a.gml: `node` holds the code 0xd800, which is no character"):
        open_connectome(tmp_path / "a.gml")


def test_text_that_goes_on_after_a_zero_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"pre": "a\0b", "post": "c"}, {"pre": "c", "post": "a"}]))
    with pytest.raises(ValueError, match=r"a\.json: `\w+` holds a text with the code 0 inside"):
        open_connectome(path)
    path.write_text(json.dumps([{"pre": "a", "post": "c", "note": "x\0y"}, {"pre": "c", "post": "a", "note": ""}]))
    with pytest.raises(ValueError, match=r"a\.json: `note` holds a text with the code 0 inside"):
        open_connectome(path)


def test_ids_below_int64_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("pre,post\n-9223372036854775809,1\n2,1\n")
    with pytest.raises(ValueError, match=r"a.csv: `pre` ids must be int64 or str"):
        open_connectome(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "pre,post,\0ind\na,b,x\n"),
        ("a.json", '[{"pre": 1, "post": 2, "\\ud800": null}]'),
        ("a.json", '{"nodes": [{"id": "a", "\\ud800": 1}], "links": []}'),
    ],
    ids=["column", "row", "graph"],
)
def test_names_that_no_file_can_store_are_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"a\.\w+: the name '.*' holds a code that is no character"):
        open_connectome(tmp_path / name)


def test_columns_of_several_shapes_are_no_matrix(tmp_path):
    np.savez(tmp_path / "a.npz", cell_1=np.ones(3, int), cell_2=np.ones((3, 2), int))
    with pytest.raises(ValueError, match=r"a.npz: the columns of `counts` .* cell_1 \(3,\), cell_2 \(3, 2\)"):
        open_recording(tmp_path / "a.npz", bin_width=0.1, fields={"counts": "cell_*"})


def test_a_table_without_rows_is_an_empty_recording(tmp_path):
    (tmp_path / "bins.csv").write_text("time,cell_1,cell_2")
    with pytest.raises(ValueError, match=r"bins.csv: there are no time bins"):
        open_recording(tmp_path / "bins.csv", fields={"counts": "cell_*", "time": "time"})


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"sign": ("neuron", np.zeros(2, "V8"))}, "`sign` must be numbers; got"),
        ({"sign": ("edge", [1])}, r"`sign` must have one value per neuron, dims \('neuron',\); got \('edge',\)"),
        ({n: ("neuron" if n == "x" else "edge", [1.0] * (2 if n == "x" else 1)) for n in "xyz"}, "`y` must have one"),
    ],
)
def test_neurons_described_by_something_else_are_refused(variables, message):
    with pytest.raises(ValueError, match=message):
        check_connectome(connectome(["a"], ["b"]).assign(variables))


def test_ids_that_are_records_are_refused():
    with pytest.raises(ValueError, match="`pre` ids must be int64 or str; got"):
        connectome(np.zeros(2, "i4,f4"), [1, 2])
