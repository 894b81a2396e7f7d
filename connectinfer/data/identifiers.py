"""Identifiers of units, trials and neurons: int64 or str, never float, because EM root ids exceed 2^53."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from connectinfer.data.characters import check_characters
from connectinfer.data.padding import text_array

LARGEST_ID = np.iinfo(np.int64).max


def as_identifiers(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as a one-dimensional array of int64 or str; `name` is what messages call them.

    Raises:
        ValueError: for missing ids (NaN, None, ""), floats, integers beyond int64, several axes or mixed types, for
            text that is far longer than the others or no characters.
    """
    # As objects, because numpy turns [1, "a"] into text and [1, 2**63] into floats.
    ids = np.asarray(values, object) if isinstance(values, list | tuple) else np.asarray(values)
    if ids.ndim != 1:
        raise ValueError(f"`{name}` ids must form one axis; got shape {ids.shape}.")
    if ids.size == 0 and ids.dtype.kind != "U":
        return ids.astype(np.int64)
    if ids.dtype.kind in "OT":
        ids = _same_type(ids, name)
    _check_present(ids, name)
    if ids.dtype.kind == "f":
        raise ValueError(
            f"`{name}` ids are floating-point ({ids.dtype}); above 2^53 (EM root ids) digits are lost that way. "
            "Read them as int64 or str (in pandas: `read_csv(..., dtype={'id': 'int64'})`)."
        )
    if ids.dtype.kind not in "iuU":
        raise ValueError(f"`{name}` ids must be int64 or str; got {ids.dtype}, for example {ids[:3].tolist()}.")
    if ids.dtype.kind == "u" and ids.max() > LARGEST_ID:
        raise ValueError(f"`{name}` id {ids.max()} does not fit int64. Give these ids as str.")
    return check_characters(ids, name) if ids.dtype.kind == "U" else ids.astype(np.int64)


def _same_type(ids: np.ndarray, name: str) -> np.ndarray:
    """Objects as str, int64 or float if all are of that type; else unchanged."""
    plain = [each.item() if isinstance(each, np.generic) else each for each in ids]
    types = {type(each) for each in plain}
    if types == {str}:
        return text_array(plain, name)
    if types == {int} and -LARGEST_ID <= min(plain) <= max(plain) <= LARGEST_ID:
        return ids.astype(np.int64)
    return ids.astype(float) if float in types and types <= {int, float} else ids


def _check_present(ids: np.ndarray, name: str) -> None:
    if ids.dtype.kind not in "UOf":
        return
    missing = np.flatnonzero(ids == "" if ids.dtype.kind == "U" else pd.isna(ids))
    if missing.size:
        others = f" and {missing.size - 1} more" if missing.size > 1 else ""
        raise ValueError(
            f"the `{name}` id is missing in row {missing[0]}{others} of {ids.size}, counted from 0. Give every row an "
            "id, or leave out those without."
        )


def check_unique(ids: np.ndarray, name: str) -> None:
    """Raise unless every id occurs once, naming those that do not."""
    found, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"duplicate `{name}` ids: {listing(found[counts > 1])}. Every {name} needs an id of its own; "
            "rename or merge the repeated ones."
        )


def listing(ids: np.ndarray, most: int = 8) -> str:
    """`ids` for a message: at most `most` of them, then how many more there are."""
    shown = ", ".join(repr(each) for each in np.asarray(ids).tolist()[:most])
    return shown + (f" and {len(ids) - most} more" if len(ids) > most else "")
