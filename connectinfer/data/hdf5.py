"""Any HDF5 file, its groups as nested names, its arrays read when asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from connectinfer._typing import FilePath
from connectinfer.data.field_tree import MOST_FIELDS, Leaf
from connectinfer.data.hdf5_text import check_text_storage
from connectinfer.data.padding import is_mostly_padding

# Deflate, the densest of the usual filters, packs at most 1032 bytes into one.
DENSEST = 1032


def read_hdf5(path: FilePath) -> dict[str, Any]:
    """Groups as dicts and data sets as arrays (str where the file holds text). Links to other files are not followed.

    Raises:
        ValueError: if the file is damaged or not HDF5.
    """
    file = Path(path)
    try:
        check_text_storage(file)
        with h5py.File(file, "r") as content:
            return _Tree(file, content).unfolded()
    # HDF5 meets damage wherever it happens to look next, and h5py raises nearly everything.
    except Exception as error:
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
    """The array at a location, text as str, or as objects where that would be mostly padding.

    Raises:
        ValueError: if it is damaged; the message names array and file.
    """
    try:
        with h5py.File(file, "r") as content:
            item: Any = content[location]
            check_stored_size(item)
            if item.shape is None:
                return np.zeros(0)
            if not h5py.check_string_dtype(item.dtype):
                return item[()]
            texts = np.asarray(item.asstr()[()], object)
            return texts if is_mostly_padding(texts.ravel().tolist()) else texts.astype(str)
    except Exception as error:
        raise ValueError(f"{location} of {file.name} cannot be read ({error}). The file is damaged.") from error


def check_stored_size(dataset: h5py.Dataset) -> None:
    """Raise unless the file itself stores the values, and enough of them for the size that the data set claims.

    Raises:
        ValueError: if the values lie in other files, or if an array of over a megabyte is larger than its stored bytes
            can hold.
    """
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} keeps its values in other files, which are not followed")
    claimed = 0 if dataset.shape is None else dataset.nbytes
    stored = dataset.id.get_storage_size()
    if claimed > 1_000_000 and stored * DENSEST < claimed:
        raise ValueError(f"it claims {claimed} bytes, but the {stored} that the file stores cannot hold them")


def is_linked_elsewhere(group: h5py.Group, name: str) -> bool:
    """Whether what has that name lies in another file."""
    return isinstance(group.get(name, getlink=True), h5py.ExternalLink)


class _Tree:
    """The groups of a file as dicts; each is read once, however many links lead to it."""

    def __init__(self, file: Path, root: h5py.Group):
        self._file = file
        # Groups by number, because HDF5 takes long to say whether two are the same.
        self._groups = [root]
        self._numbers = {root: 0}
        self._members: dict[int, dict[str, Leaf | int]] = {}
        self._fields = 0

    def unfolded(self, number: int = 0, ancestors: frozenset[int] = frozenset()) -> dict[str, Any]:
        """A group with all groups in it, wherever links lead to them; one that lies in itself ends there."""
        tree: dict[str, Any] = {}
        within = ancestors | {number}
        if number not in self._members:
            self._members[number] = dict(self._read(self._groups[number]))
        for name, item in self._members[number].items():
            self._fields += 1
            # Two links to the next group at every level would be a million fields at the twentieth.
            if self._fields > MOST_FIELDS:
                raise ValueError(f"it has more than {MOST_FIELDS} fields, or links that lead to the same ones")
            if isinstance(item, Leaf):
                tree[name] = item
            elif item not in within:
                tree[name] = self.unfolded(item, within)
        return tree

    def _read(self, group: h5py.Group) -> Iterator[tuple[str, Leaf | int]]:
        for name in map(str, group):
            # None where a link leads nowhere.
            item = None if is_linked_elsewhere(group, name) else group.get(name)
            if isinstance(item, h5py.Dataset):
                yield name, leaf(self._file, item)
            elif isinstance(item, h5py.Group):
                if item not in self._numbers:
                    self._numbers[item] = len(self._groups)
                    self._groups.append(item)
                yield name, self._numbers[item]
