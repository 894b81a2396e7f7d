"""Columns from lists of plain Python values, as graphs, JSON and nested tables give them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from connectinfer.data.identifiers import LARGEST_ID

# Above it a float does not hold every whole number.
EXACT_IN_FLOAT = 2**53


def as_column(values: Sequence[Any], name: str) -> np.ndarray | None:
    """`values` as one array of bool, int64, float or str; None where they are no single values (lists, dicts).

    None among them is a missing value: "" in text, NaN in numbers. Text among numbers makes all of them text, since
    layers are called 1, 2 and "2/3".

    Raises:
        ValueError: where a missing value beside integers beyond 2^53 would cost them digits; `name` is named.
    """
    plain = [each.item() if isinstance(each, np.generic) else each for each in values]
    types = {type(each) for each in plain} - {type(None)}
    missing = any(each is None for each in plain)
    if not types <= {bool, int, float, str}:
        return None
    if str in types:
        return np.array(["" if each is None else str(each) for each in plain], dtype=str)
    if types == {bool} and not missing:
        return np.array(plain, bool)
    integers = [each for each in plain if isinstance(each, int)]
    largest = max(map(abs, integers), default=0)
    if float not in types and types and not missing:
        # What int64 cannot hold keeps its digits as objects, and whoever needs ids says so.
        return np.array(plain, np.int64 if largest <= LARGEST_ID else object)
    if largest > EXACT_IN_FLOAT:
        raise ValueError(
            f"`{name}` has missing or fractional values beside the integer {max(integers, key=abs)}, which is beyond "
            "2^53 and would lose digits. Give a value everywhere, or text."
        )
    return np.array([np.nan if each is None else each for each in plain], float)
