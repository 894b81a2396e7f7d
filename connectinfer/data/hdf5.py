"""Any HDF5 file, its groups as nested names, its arrays read when asked for."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from connectinfer._typing import FilePath
from connectinfer.data.field_tree import Leaf


def read_hdf5(path: FilePath) -> dict[str, Any]:
    """Groups as dicts and data sets as arrays (str where the file holds text). Links to other files are not followed.

    Raises:
        ValueError: if the file is damaged or not HDF5.
    """
    file = Path(path)
    try:
        with h5py.File(file, "r") as content:
            return _group(file, content)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{file.name} cannot be read as HDF5 ({error}). It is damaged or of another format."
        ) from error


def _group(file: Path, group: h5py.Group) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name in map(str, group):
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            continue
        # None where a link leads nowhere.
        item = group.get(name)
        if isinstance(item, h5py.Group):
            tree[name] = _group(file, item)
        elif isinstance(item, h5py.Dataset):
            location = f"{group.name}/{name}"
            tree[name] = Leaf(item.shape or (), str(item.dtype), lambda location=location: _load(file, location))
    return tree


def _load(file: Path, location: str) -> Any:
    try:
        with h5py.File(file, "r") as content:
            item: Any = content[location]
            return np.asarray(item.asstr()[()]) if h5py.check_string_dtype(item.dtype) else item[()]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"{location} of {file.name} cannot be read ({error}). The file is damaged.") from error
