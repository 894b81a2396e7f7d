import itertools

import h5py
import numpy as np
import pytest

from connectinfer.data.field_tree import FieldTree, Leaf
from connectinfer.data.matlab import read_matlab
from connectinfer.data.reading import open_recording


class Writer:
    """Writes what MATLAB's `save -v7.3` writes: reversed axes, classes as attributes, references into `#refs#`."""

    def __init__(self, file):
        self.file = file
        self.refs = file.create_group("#refs#")
        self.names = map("r{}".format, itertools.count())

    def put(self, parent, name, value):
        if isinstance(value, dict):
            item = parent.create_group(name)
            item.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, each in value.items():
                self.put(item, field, each)
            return item
        if isinstance(value, list):
            return self.labelled(parent.create_dataset(name, data=self.references(value)), "cell")
        if isinstance(value, str):
            codes = np.frombuffer(value.encode("utf-16-le"), np.uint16)[:, None]
            return self.labelled(parent.create_dataset(name, data=codes), "char", MATLAB_int_decode=2)
        array = np.atleast_2d(value)
        if array.dtype == bool:
            item = parent.create_dataset(name, data=array.T.astype(np.uint8))
            return self.labelled(item, "logical", MATLAB_int_decode=1)
        return self.labelled(parent.create_dataset(name, data=array.T), "double")

    def struct_array(self, name, records):
        group = self.file.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in records[0]:
            group.create_dataset(field, data=self.references([each[field] for each in records]))

    def references(self, values):
        return np.array([[self.put(self.refs, next(self.names), each).ref] for each in values], h5py.ref_dtype)

    def empty(self, name, kind):
        return self.labelled(self.file.create_dataset(name, data=np.zeros(2, np.uint64)), kind, MATLAB_empty=1)

    @staticmethod
    def labelled(item, kind, **attributes):
        item.attrs["MATLAB_class"] = np.bytes_(kind)
        item.attrs.update(attributes)
        return item


@pytest.fixture
def matlab(tmp_path):
    """The path of a MATLAB 7.3 file that `write`, given a `Writer`, fills."""

    def make(write):
        path = tmp_path / "a.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            write(Writer(file))
        return path

    return make


def test_values_of_every_plain_class_are_what_matlab_shows(matlab):
    def write(mat):
        mat.put(mat.file, "matrix", np.array([[1.0, 2, 3], [4, 5, 6]]))
        mat.put(mat.file, "volume", np.arange(24.0).reshape(2, 3, 4))
        mat.put(mat.file, "row", np.array([1.0, 2.0]))
        mat.put(mat.file, "scalar", 5.0)
        mat.put(mat.file, "flags", np.array([True, False]))
        mat.put(mat.file, "name", "µ-café 🧠")
        letters = np.array([list("left "), list("right")])
        codes = np.vectorize(ord)(letters).astype(np.uint16)
        mat.labelled(mat.file.create_dataset("sides", data=codes.T), "char", MATLAB_int_decode=2)
        complex_dtype = np.dtype([("real", float), ("imag", float)])
        mat.labelled(mat.file.create_dataset("z", data=np.array([[(1.0, 2.0)]], complex_dtype)), "double")

    read = read_matlab(matlab(write))
    assert read["matrix"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert read["volume"].tolist() == np.arange(24.0).reshape(2, 3, 4).tolist()
    assert read["row"].tolist() == [1, 2]
    assert read["scalar"] == 5
    assert (read["flags"].dtype, read["flags"].tolist()) == (bool, [True, False])
    assert read["name"] == "µ-café 🧠"
    assert read["sides"].tolist() == ["left ", "right"]
    assert read["z"] == 1 + 2j


def test_structs_cells_and_struct_arrays_nest(matlab):
    def write(mat):
        mat.put(mat.file, "session", {"rat": {"name": "T1", "ages": [np.array([1.0, 2.0]), "x", [3.0]]}})
        mat.struct_array("trials", [{"choice": 1.0, "cue": {"side": "l"}}, {"choice": 0.0, "cue": {"side": "r"}}])

    read = read_matlab(matlab(write))
    assert read["session"]["rat"]["name"] == "T1"
    first, second, third = read["session"]["rat"]["ages"]
    assert (first.tolist(), second, third) == ([1, 2], "x", [3])
    assert read["trials"] == [{"choice": 1, "cue": {"side": "l"}}, {"choice": 0, "cue": {"side": "r"}}]


def test_empty_values_are_empty(matlab):
    def write(mat):
        for kind in ("double", "char", "cell", "struct"):
            mat.empty(kind, kind)

    read = read_matlab(matlab(write))
    assert read["double"].tolist() == read["cell"] == read["struct"] == []
    assert read["char"] == ""


def test_objects_and_function_handles_are_not_read(matlab):
    def write(mat):
        opaque = mat.file.create_dataset("table", data=np.zeros((1, 6), np.uint32))
        mat.labelled(opaque, "table", MATLAB_object_decode=3)
        mat.labelled(mat.file.create_group("handle"), "function_handle", MATLAB_object_decode=1)
        mat.put(mat.file, "x", 1.0)

    assert read_matlab(matlab(write)) == {"table": None, "handle": None, "x": 1}


def test_sparse_matrices_stay_sparse(matlab):
    def write(mat):
        group = mat.file.create_group("weights")
        mat.labelled(group, "double", MATLAB_sparse=np.uint64(3))
        group["data"], group["ir"], group["jc"] = (
            [5.0, 7.0],
            np.array([2, 0], np.uint64),
            np.array([0, 1, 2], np.uint64),
        )
        empty = mat.file.create_group("none")
        mat.labelled(empty, "logical", MATLAB_sparse=np.uint64(2))
        empty["jc"] = np.zeros(3, np.uint64)

    read = read_matlab(matlab(write))
    assert read["weights"].toarray().tolist() == [[0, 7], [0, 0], [5, 0]]
    assert (read["none"].toarray().tolist(), read["none"].dtype) == ([[False, False], [False, False]], bool)


def test_large_arrays_stay_in_the_file_until_they_are_asked_for(matlab):
    counts = np.arange(60_000.0).reshape(20, 1000, 3)

    def write(mat):
        mat.put(mat.file, "counts", counts)
        mat.put(mat.file, "trials", [counts[:, :, 0], 1.0])

    path = matlab(write)
    read = read_matlab(path)
    assert isinstance(read["counts"], Leaf)
    assert (read["counts"].shape, read["counts"].dtype) == ((20, 1000, 3), "float64")
    tree = FieldTree(read)
    assert np.array_equal(tree["counts"], counts)
    assert np.array_equal(tree["trials"][0], counts[:, :, 0])
    assert np.array_equal(open_recording(path, fields={"counts": "counts"}, bin_width=0.1)["counts"], counts)


def test_a_cell_that_contains_itself_ends_there(matlab):
    def write(mat):
        loop = mat.put(mat.file, "loop", ["x", "y"])
        loop[1, 0] = loop.ref

    assert read_matlab(matlab(write))["loop"] == ["x", None]


def test_what_many_cells_refer_to_is_read_once(matlab):
    def write(mat):
        last = mat.put(mat.refs, "end", "bottom")
        # Followed one by one, these would be 2 ** 60 paths.
        for level in range(60):
            pair = np.array([[last.ref], [last.ref]], h5py.ref_dtype)
            last = mat.labelled(mat.refs.create_dataset(f"level{level}", data=pair), "cell")
        top = mat.file.create_dataset("top", data=np.array([[last.ref]], h5py.ref_dtype))
        mat.labelled(top, "cell")

    value = read_matlab(matlab(write))["top"]
    while isinstance(value, list):
        value = value[0]
    assert value == "bottom"


def nowhere(mat):
    mat.put(mat.file, "cells", ["x"])
    mat.file["cells"][0, 0] = h5py.Reference()


def beyond(mat):
    mat.put(mat.file, "x", {"data": 1.0})
    mat.file["x"].attrs["MATLAB_sparse"] = np.uint64(1)
    mat.file["x"]["jc"], mat.file["x"]["ir"] = np.array([0, 1], np.uint64), np.array([9], np.uint64)


def inflated(mat):
    claim = mat.file.create_dataset("cells", shape=(10**6, 10**6), dtype=h5py.ref_dtype, chunks=(100, 100))
    mat.labelled(claim, "cell")


@pytest.mark.parametrize("write", [nowhere, beyond, inflated])
def test_references_and_indices_that_lead_nowhere_are_damage(matlab, write):
    with pytest.raises(ValueError, match=r"a\.mat cannot be read as a MATLAB file .* damaged"):
        read_matlab(matlab(write))


def test_an_array_that_claims_more_than_the_file_holds_is_refused_before_it_is_allocated(matlab):
    def write(mat):
        claim = mat.file.create_dataset("x", shape=(10**6, 10**6), dtype=float, chunks=(100, 100), compression="gzip")
        mat.labelled(claim, "double")

    leaf = read_matlab(matlab(write))["x"]
    with pytest.raises(ValueError, match=r"/x of a\.mat cannot be read \(it claims 8000000000000 bytes, but"):
        leaf.load()
