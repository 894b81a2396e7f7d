"""Columns from lists of plain Python values, as graphs, JSON and nested tables give them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from connectinfer.data.characters import check_name
from connectinfer.data.identifiers import LARGEST_ID
from connectinfer.data.padding import check_filled, is_mostly_padding

# Above it a float does not hold every whole number.
EXACT_IN_FLOAT = 2**53

# Rows of a table may lack this many entries for each that they have.
CELLS_PER_VALUE = 100


def column_names(rows: Sequence[Mapping[Any, Any]], what: str) -> list[Any]:
    """The names that occur in any row; `what` is what messages call the rows.

    Raises:
        ValueError: for many rows that hardly share a name, which would make a table of missing values, or for a name
            that holds no characters.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        check_name(str(name))
    check_filled(
        len(names) * len(rows),
        sum(map(len, rows)),
        CELLS_PER_VALUE,
        f"the {len(rows)} {what} have {len(names)} different names, hardly any in two of them, so they are no rows of "
        "a table; put what is common under common names",
    )
    return names


def joined_columns(columns: Mapping[str, Any], name: str) -> np.ndarray:
    """Columns side by side, along a new last axis; `name` is what messages call them.

    Raises:
        ValueError: if they differ in shape.
    """
    arrays = {column: np.asarray(values) for column, values in columns.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1:
        found = ", ".join(f"{column} {array.shape}" for column, array in list(arrays.items())[:8])
        raise ValueError(f"the columns of `{name}` must have one shape; got {found}. Name them one by one.")
    return np.stack(list(arrays.values()), axis=-1)


def as_column(values: Sequence[Any], name: str) -> np.ndarray | None:
    """`values` as one array of bool, int64, float or str; None where they are no single values (lists, dicts).

    None among them is a missing value: "" in text, NaN in numbers. Text among numbers makes all of them text, since
    layers are called 1, 2 and "2/3". Text stays objects where one far longer than the others would make all as wide.

    Raises:
        ValueError: where a missing value beside integers beyond 2^53 would cost them digits; `name` is named.
    """
    plain = [each.item() if isinstance(each, np.generic) else each for each in values]
    types = {type(each) for each in plain} - {type(None)}
    missing = any(each is None for each in plain)
    if not types <= {bool, int, float, str}:
        return None
    if str in types:
        texts = ["" if each is None else str(each) for each in plain]
        return np.array(texts, object if is_mostly_padding(texts) else str)
    if types == {bool} and not missing:
        return np.array(plain, bool)
    integers = [each for each in plain if isinstance(each, int)]
    largest = max(map(abs, integers), default=0)
    if float not in types and types and not missing:
        # What int64 cannot hold keeps its digits as objects, and whoever needs ids says so.
        return np.array(plain, np.int64 if largest <= LARGEST_ID else object)
    if largest > EXACT_IN_FLOAT:
        raise ValueError(
            f"`{name}` has missing or fractional values (first in row {_first_gap(plain)}, counted from 0) beside the "
            f"integer {max(integers, key=abs)}, which is beyond 2^53 and would lose digits. Give a value everywhere, "
            "or text."
        )
    return np.array([np.nan if each is None else each for each in plain], float)


def _first_gap(values: Sequence[Any]) -> int:
    return next(row for row, each in enumerate(values) if not isinstance(each, int))
