"""Any HDF5 file, its groups as nested names, its arrays read when asked for."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from connectinfer._typing import FilePath
from connectinfer.data.field_tree import Leaf

# What h5py raises where it meets damage.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)
# Deflate, the densest of the usual filters, packs at most 1032 bytes into one.
DENSEST = 1032


def read_hdf5(path: FilePath) -> dict[str, Any]:
    """Groups as dicts and data sets as arrays (str where the file holds text). Links to other files are not followed.

    Raises:
        ValueError: if the file is damaged or not HDF5.
    """
    file = Path(path)
    try:
        with h5py.File(file, "r") as content:
            return _group(file, content, (content,))
    except DAMAGE as error:
        raise ValueError(
            f"{file.name} cannot be read as HDF5 ({error}). It is damaged or of another format."
        ) from error


def leaf(file: Path, dataset: h5py.Dataset) -> Leaf:
    """The data set as a field that opens the file again when it is asked for; text as "str"."""
    dtype = "str" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)
    location = str(dataset.name)
    unit = dataset.attrs.get("units", "")
    unit = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    return Leaf(dataset.shape or (), dtype, lambda: load_array(file, location), unit)


def load_array(file: Path, location: str) -> Any:
    """The array at a location, text as str.

    Raises:
        ValueError: if it is damaged; the message names array and file.
    """
    try:
        with h5py.File(file, "r") as content:
            item: Any = content[location]
            check_stored_size(item)
            if item.shape is None:
                return np.zeros(0)
            return np.asarray(item.asstr()[()]).astype(str) if h5py.check_string_dtype(item.dtype) else item[()]
    except DAMAGE as error:
        raise ValueError(f"{location} of {file.name} cannot be read ({error}). The file is damaged.") from error


def check_stored_size(dataset: h5py.Dataset) -> None:
    """Raise unless what the file stores can unpack to the size that the data set claims, before it is allocated.

    Raises:
        ValueError: if an array of over a megabyte is larger than its stored bytes can hold.
    """
    claimed = 0 if dataset.shape is None else dataset.nbytes
    stored = dataset.id.get_storage_size()
    if claimed > 1_000_000 and stored * DENSEST < claimed:
        raise ValueError(f"it claims {claimed} bytes, but the {stored} that the file stores cannot hold them")


def _group(file: Path, group: h5py.Group, ancestors: tuple[h5py.Group, ...]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name in map(str, group):
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            continue
        # None where a link leads nowhere.
        item = group.get(name)
        if isinstance(item, h5py.Group):
            # A group that links back to one it lies in would have no end.
            if item not in ancestors:
                tree[name] = _group(file, item, (*ancestors, item))
        elif isinstance(item, h5py.Dataset):
            tree[name] = leaf(file, item)
    return tree
