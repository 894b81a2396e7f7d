"""What all SONATA files share: HDF5 groups and data sets that may be damaged, link elsewhere, or claim too much."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from connectinfer.data.hdf5 import check_stored_size, is_linked_elsewhere
from connectinfer.data.hdf5_text import check_text_storage
from connectinfer.data.identifiers import LARGEST_ID
from connectinfer.data.padding import text_array


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turns whatever reading `file` raises into one ValueError that names it."""
    try:
        yield
    # HDF5 meets damage wherever it happens to look next, and h5py raises nearly everything.
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{file.name} cannot be read as SONATA: {kind}{str(error).rstrip('.')}.") from error


def opened(file: Path) -> h5py.File:
    """The file, to be closed by the caller.

    Raises:
        ValueError, OSError: if it is damaged or not HDF5.
    """
    check_text_storage(file)
    return h5py.File(file, "r")


def names(group: h5py.Group) -> list[str]:
    """The names of what a group holds."""
    return [str(name) for name in group]


def child(parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What has that name in the file itself: links to other files are not followed."""
    if is_linked_elsewhere(parent, name):
        return None
    item = parent.get(name)
    return item if isinstance(item, h5py.Group | h5py.Dataset) else None


def child_group(parent: h5py.Group, name: str) -> h5py.Group | None:
    """The group of that name, None where there is none."""
    item = child(parent, name)
    return item if isinstance(item, h5py.Group) else None


def child_dataset(parent: h5py.Group, name: str) -> h5py.Dataset | None:
    """The data set of that name, None where there is none."""
    item = child(parent, name)
    return item if isinstance(item, h5py.Dataset) else None


def load(item: h5py.Dataset) -> np.ndarray:
    """The values of a data set: numbers in the machine's byte order, or str.

    Raises:
        ValueError: if it claims more bytes than the file can hold, or keeps them in other files.
    """
    check_stored_size(item)
    if h5py.check_string_dtype(item.dtype):
        texts = np.asarray(item.asstr()[()], object)
        return text_array(texts.ravel().tolist(), str(item.name)).reshape(texts.shape)
    values = np.asarray(item[()])
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def load_integers(item: h5py.Dataset) -> np.ndarray:
    """The values of a data set with one integer per row, as int64.

    Raises:
        ValueError: if it holds anything else.
    """
    if item.ndim != 1 or item.dtype.kind not in "iu":
        raise ValueError(f"{item.name} must hold one integer per row; got {item.dtype} of shape {item.shape}")
    values = load(item)
    if values.dtype.kind == "u" and values.size and values.max() > LARGEST_ID:
        raise ValueError(f"{item.name} holds {values.max()}, beyond int64")
    return values.astype(np.int64)


def text_attribute(item: h5py.Dataset | None, name: str) -> str:
    """A text attribute, "" where there is none."""
    value = "" if item is None else item.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)
