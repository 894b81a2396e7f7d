"""MATLAB files: version 5 and 7 through scipy, version 7.3 (HDF5 inside) through h5py.

Structs become dicts, struct arrays lists of dicts, cells lists, char arrays str, sparse matrices those of scipy. Row
and column vectors become one axis, 1 x 1 arrays scalars; other arrays keep MATLAB's axis order. Objects (tables,
strings, datetimes) and function handles are not read: they are None.
"""

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from scipy import sparse
from scipy.io.matlab import MatlabFunction, MatlabOpaque, mat_struct

from connectinfer._typing import FilePath
from connectinfer.data.matlab_hdf5 import read_matlab_hdf5, squeezed
from connectinfer.data.matlab_tags import check_tags


def read_matlab(path: FilePath) -> dict[str, Any]:
    """The variables of a MATLAB file by name.

    Raises:
        ValueError: if the file is damaged or not a MATLAB file.
    """
    file = Path(path)
    try:
        if h5py.is_hdf5(file):
            return read_matlab_hdf5(file)
        check_tags(file)
        with warnings.catch_warnings():
            # scipy 1.18 warns that sparse matrices will become arrays, which they become here anyway.
            warnings.simplefilter("ignore", DeprecationWarning)
            variables = scipy.io.loadmat(file, struct_as_record=False, squeeze_me=False, chars_as_strings=True)
        return {name: _value(value) for name, value in variables.items() if not name.startswith("__")}
    # scipy meets damage wherever it happens to look next: zlib, struct, index, type and value errors all occur.
    except Exception as error:
        raise ValueError(
            f"{file.name} cannot be read as a MATLAB file ({type(error).__name__}: {error}). "
            "It is damaged, cut short or of another format; copy it again or re-save it in MATLAB."
        ) from error


def exact_integers(values: Any) -> Any:
    """MATLAB's doubles as int64 where all are whole and exact (below 2^53), anything else unchanged; for ids."""
    numbers = np.asarray(values)
    if numbers.dtype.kind == "f" and (numbers == np.floor(numbers)).all() and (np.abs(numbers) < 2**53).all():
        return numbers.astype(np.int64)
    return values


def _value(value: Any) -> Any:
    if isinstance(value, mat_struct):
        return {name: _value(getattr(value, name)) for name in vars(value)["_fieldnames"]}
    if isinstance(value, MatlabFunction | MatlabOpaque):
        return None
    if sparse.issparse(value):
        # scipy's compiled loops trust the indices, and damaged ones lead them outside of their arrays.
        matrix = sparse.csc_array(value)
        matrix.check_format(full_check=True)
        return matrix
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "U":
        return str(value[0]) if value.size == 1 else ("" if value.size == 0 else value.ravel())
    if value.dtype == object:
        items = [_value(each) for each in value.ravel(order="F")]
        is_struct = bool(items) and isinstance(value.flat[0], mat_struct)
        return items[0] if is_struct and len(items) == 1 else items
    return squeezed(value)
