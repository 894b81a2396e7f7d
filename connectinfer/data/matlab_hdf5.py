"""MATLAB files of version 7.3: HDF5 with axes in reverse order, and references for cells and struct arrays."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from connectinfer.data.field_tree import Leaf
from connectinfer.data.hdf5 import check_stored_size, is_linked_elsewhere
from connectinfer.data.hdf5_text import check_text_storage

# Arrays of at most this many bytes are read at once: opening the file again for each of many would take longer.
_SMALL = 100_000


def read_matlab_hdf5(file: Path) -> dict[str, Any]:
    """The variables by name; arrays of more than 100 kB stay in the file until they are asked for."""
    check_text_storage(file)
    with h5py.File(file, "r") as content:
        reader = _Reader(file, content)
        return {name: reader.value(item) for name, item in _members(content).items() if not name.startswith("#")}


def squeezed(array: np.ndarray) -> Any:
    """Row and column vectors with one axis, 1 x 1 arrays as scalars, anything else unchanged."""
    if array.size == 1:
        return array.reshape(())[()]
    if array.ndim == 2 and 1 in array.shape:
        return array.ravel()
    return array


class _Reader:
    """Follows references; what is referred to twice is read once, and what contains itself ends there as None."""

    def __init__(self, file: Path, content: h5py.File):
        self._file = file
        self._content = content
        self._known: dict[Any, Any] = {}

    def value(self, item: Any) -> Any:
        if item not in self._known:
            self._known[item] = None
            self._known[item] = self._read(item)
        return self._known[item]

    def _read(self, item: Any) -> Any:
        kind = _text(item.attrs.get("MATLAB_class", ""))
        if "MATLAB_object_decode" in item.attrs or kind == "function_handle":
            return None
        if isinstance(item, h5py.Group):
            return _sparse(item) if "MATLAB_sparse" in item.attrs else self._struct(item)
        if not isinstance(item, h5py.Dataset):
            return None
        if "MATLAB_empty" in item.attrs:
            return "" if kind == "char" else ([] if kind in ("cell", "struct") else np.zeros(0))
        if item.dtype == h5py.ref_dtype:
            check_stored_size(item)
            return [self.value(self._content[each]) for each in item[()].ravel()]
        if kind == "char":
            check_stored_size(item)
            return _characters(item[()])
        return self._array(item, kind == "logical")

    def _struct(self, group: h5py.Group) -> Any:
        members = _members(group)
        fields = {name: self.value(each) for name, each in members.items()}
        if fields and all(map(_is_struct_array_field, members.values())):
            return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
        return fields

    def _array(self, item: h5py.Dataset, logical: bool) -> Any:
        if item.nbytes <= _SMALL:
            check_stored_size(item)
            return _shown(item[()], logical)
        file, location = self._file, str(item.name)
        shape = tuple(n for n in reversed(item.shape) if item.ndim != 2 or n > 1)
        return Leaf(shape, "bool" if logical else str(item.dtype), lambda: _load(file, location, logical))


def _members(group: h5py.Group) -> dict[str, Any]:
    """What a group holds in this file; None where a link leads nowhere."""
    return {name: group.get(name) for name in map(str, group) if not is_linked_elsewhere(group, name)}


def _load(file: Path, location: str, logical: bool) -> Any:
    try:
        with h5py.File(file, "r") as content:
            item: Any = content[location]
            check_stored_size(item)
            return _shown(item[()], logical)
    except Exception as error:
        raise ValueError(f"{location} of {file.name} cannot be read ({error}). The file is damaged.") from error


def _shown(values: np.ndarray, logical: bool) -> Any:
    """With the axes that MATLAB shows, and its complex numbers as such."""
    if values.dtype.names == ("real", "imag"):
        values = values["real"] + 1j * values["imag"]
    return squeezed(values.T.astype(bool) if logical else values.T)


def _characters(codes: np.ndarray) -> Any:
    """A row as str, several rows as an array of them."""
    rows = np.atleast_2d(codes.T).astype("<u2")
    texts = [np.ascontiguousarray(row).tobytes().decode("utf-16-le", "replace") for row in rows]
    return texts[0] if len(texts) == 1 else np.array(texts)


def _sparse(group: h5py.Group) -> sparse.csc_array:
    # A matrix without entries has no `data` and no `ir`.
    parts: dict[str, Any] = {"data": np.zeros(0), "ir": np.zeros(0, np.int64)}
    for name in ("data", "ir", "jc"):
        if isinstance(item := group.get(name), h5py.Dataset):
            check_stored_size(item)
            parts[name] = item[()]
    attrs: dict[str, Any] = dict(group.attrs)
    ends, rows = parts["jc"].astype(np.int64), parts["ir"].astype(np.int64)
    values = parts["data"].astype(bool) if _text(attrs.get("MATLAB_class", "")) == "logical" else parts["data"]
    matrix = sparse.csc_array((values, rows, ends), shape=(int(attrs["MATLAB_sparse"]), len(ends) - 1))
    # scipy's compiled loops trust the indices, and damaged ones lead them outside of their arrays.
    matrix.check_format(full_check=True)
    return matrix


def _is_struct_array_field(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype == h5py.ref_dtype and "MATLAB_class" not in item.attrs


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
