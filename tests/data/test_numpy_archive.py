import io
import zipfile

import numpy as np
import pytest

from connectinfer.data.numpy_archive import read_numpy


def claiming(shape):
    """A header of NumPy's format that claims `shape`, with four numbers after it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": "<f8"})
    return stream.getvalue() + np.arange(4.0).tobytes()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_claims_more_than_it_holds_is_refused_before_it_is_allocated(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr("claim.npy", claiming((10**6, 10**6)))
        archive.writestr("sound.npy", claiming((4,)))
    read = read_numpy(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"array 'claim' of a\.npz cannot be read .* claims 8000000000000 bytes, but"):
        read["claim"].load()
    assert read["sound"].load().tolist() == [0, 1, 2, 3]


def test_an_array_that_claims_more_than_its_file_holds_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(claiming((10**6, 10**6)))
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as NumPy's npy"):
        read_numpy(tmp_path / "a.npy")


def test_arrays_that_pack_well_are_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros((2000, 2000)))
    assert not read_numpy(tmp_path / "a.npz")["zeros"].load().any()
