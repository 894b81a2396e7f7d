"""Sparse matrices in NPZ files, as `scipy.sparse.save_npz` writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from connectinfer.data.field_tree import Leaf

_INDEXED = ("format", "shape", "data", "indices", "indptr")
_LISTED = ("format", "shape", "data", "row", "col")


def is_sparse(members: Mapping[str, Leaf]) -> bool:
    """Whether an archive's members are those of a sparse matrix: in rows, in columns, or as coordinates."""
    return any(set(layout) <= set(members) for layout in (_INDEXED, _LISTED))


def sparse_fields(file: Path, members: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The members of an archive with those of the sparse matrix replaced by one field, `matrix`.

    Raises:
        ValueError: if they are damaged, or of another sparse format than csr, csc and coo.
    """
    others = {name: each for name, each in members.items() if name not in {*_INDEXED, *_LISTED, "_is_array"}}
    shape = tuple(np.ravel(members["shape"].load()).tolist())
    return {"matrix": Leaf(shape, f"sparse {members['data'].dtype}", lambda: _load(file, members, shape))} | others


def _load(file: Path, members: Mapping[str, Leaf], shape: tuple[int, ...]) -> Any:
    kind = np.ravel(members["format"].load()).tolist()[0]
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
    try:
        data = members["data"].load()
        if kind == "coo":
            return sparse.coo_array((data, (members["row"].load(), members["col"].load())), shape=shape)
        if kind not in ("csr", "csc"):
            raise ValueError(f"the format is {kind!r}; save it as csr, csc or coo")
        matrix = (sparse.csr_array if kind == "csr" else sparse.csc_array)(
            (data, members["indices"].load(), members["indptr"].load()), shape=shape
        )
        # scipy's compiled loops trust the indices, and damaged ones lead them outside of their arrays.
        matrix.check_format(full_check=True)
        return matrix
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"the sparse matrix of {file.name} cannot be read ({error}).") from error
