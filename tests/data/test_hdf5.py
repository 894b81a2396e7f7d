import h5py
import numpy as np
import pytest

from connectinfer.data.hdf5 import read_hdf5


def test_a_group_that_contains_itself_ends_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["outer/inner/x"] = [1, 2]
        file["outer/inner/back"] = h5py.SoftLink("/outer")
        file["outer/root"] = file["/"]
        file["alias"] = h5py.SoftLink("/outer/inner")
    read = read_hdf5(tmp_path / "a.h5")
    assert set(read) == {"alias", "outer"}
    assert set(read["outer"]) == {"inner"}
    assert set(read["outer"]["inner"]) == {"x"}
    assert read["alias"]["x"].load().tolist() == [1, 2]


def test_an_array_that_claims_more_than_the_file_holds_is_refused_before_it_is_allocated(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("claim", shape=(10**6, 10**6), dtype=float, chunks=(100, 100), compression="gzip")
        file.create_dataset("packed", data=np.zeros((2000, 2000)), compression="gzip")
    read = read_hdf5(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"/claim of a\.h5 cannot be read \(it claims 8000000000000 bytes, but the 0"):
        read["claim"].load()
    assert not read["packed"].load().any()


def test_text_is_str_and_nothing_is_empty(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["names"] = ["AVA", "RIMµ"]
        file["nothing"] = h5py.Empty("f")
    read = read_hdf5(tmp_path / "a.h5")
    assert read["names"].dtype == "str"
    assert (read["names"].load().dtype.kind, read["names"].load().tolist()) == ("U", ["AVA", "RIMµ"])
    assert read["nothing"].load().size == 0
