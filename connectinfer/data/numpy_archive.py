"""NPZ and NPY files. Pickled objects are refused: loading them would run code from the file."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from connectinfer._typing import FilePath
from connectinfer.data.characters import check_characters
from connectinfer.data.field_tree import Leaf
from connectinfer.data.hdf5 import DENSEST
from connectinfer.data.sparse_archive import is_sparse, sparse_fields


def read_numpy(path: FilePath) -> dict[str, Any]:
    """The arrays of an NPZ by name, read when asked for; the array of an NPY under the file's stem.

    A sparse matrix that scipy saved is one field, `matrix`.

    Raises:
        ValueError: if the file is damaged, or an array holds pickled objects.
    """
    file = Path(path)
    try:
        if file.suffix.lower() == ".npy":
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            return {file.stem: Leaf(array.shape, str(array.dtype), lambda: _in_memory(file, array))}
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            members = {name: _leaf(file, archive, name) for name in names}
        return sparse_fields(file, members) if is_sparse(members) else members
    # A flipped bit can make a member look encrypted, or its header anything that Python's tokenizer refuses.
    except Exception as error:
        raise _explained(file, error) from error


def _leaf(file: Path, archive: zipfile.ZipFile, name: str) -> Leaf:
    shape, dtype = _header(archive, name)
    return Leaf(shape, str(dtype), lambda: _load(file, name))


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(f"{name}.npy") as stream:
        major, _ = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    return shape, dtype


def _check_claimed_size(archive: zipfile.ZipFile, name: str) -> None:
    """Raise unless the member can hold what its header claims, before numpy allocates it."""
    shape, dtype = _header(archive, name)
    claimed, member = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{name}.npy")
    if not dtype.hasobject and claimed > min(member.file_size, member.compress_size * DENSEST):
        raise ValueError(f"its header claims {claimed} bytes, but the {member.compress_size} stored cannot hold them")


def _load(file: Path, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(file) as archive:
            _check_claimed_size(archive, name)
        with np.load(file, allow_pickle=False) as archive:
            return check_characters(archive[name], name)
    except Exception as error:
        raise _explained(file, error, name) from error


def _in_memory(file: Path, array: np.ndarray) -> np.ndarray:
    try:
        return check_characters(np.array(array), file.stem)
    except ValueError as error:
        raise _explained(file, error) from error


def _explained(file: Path, error: Exception, name: str = "") -> ValueError:
    of = f"array {name!r} of " if name else ""
    if "pickle" in str(error).lower() or "object array" in str(error).lower():
        return ValueError(
            f"{of}{file.name} holds pickled Python objects, which are refused because loading them runs code. "
            "Save plain arrays: pad ragged trials and save a mask, or save one array per trial."
        )
    return ValueError(
        f"{of}{file.name} cannot be read as NumPy's {file.suffix[1:]} ({error}). It is damaged or of another format."
    )
