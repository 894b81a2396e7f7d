"""Type tables of SONATA: CSV files, separated by blanks, with the attributes that all nodes or edges of a type share.

Kept as text, so that they can be written back as they were; what a column means is seen when it is used.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from connectinfer.data.columns import EXACT_IN_FLOAT
from connectinfer.data.identifiers import check_unique, listing
from connectinfer.data.sonata.hdf5 import reading

MISSING = ("", "NULL", "NA", "N/A", "NaN", "nan", "NONE", "None")
# Rules by which a builder chose the pairs of a type; repeated for every edge they would be most of the memory.
RULES = ("target_query", "source_query")


def read_types(kind: str, file: Path) -> pd.DataFrame:
    """The type table of nodes or edges (`kind`) as it is written, all text.

    Raises:
        ValueError: if the file is damaged, or has no column of type ids.
    """
    key = f"{kind}_type_id"
    with reading(file):
        table = pd.read_csv(file, sep=r"\s+", dtype=str, keep_default_na=False, index_col=False)
        if key not in table:
            raise ValueError(f"it needs columns separated by blanks, among them {key}; got {list(table)[:8]}")
        if not table[key].str.fullmatch(r"-?\d{1,18}").all():
            raise ValueError(f"{key} must be integers; got {table[key].tolist()[:8]}")
        return table


def types_of(population: str, table: pd.DataFrame) -> dict[str, list]:
    """The rows of a table that are about a population, as `columns` and `rows`."""
    own = table[table["population"].isin((population, *MISSING))] if "population" in table else table
    return {"columns": list(own), "rows": own.to_numpy().tolist()}


def columns_by_row(
    kind: str, layout: Mapping[str, Any], type_ids: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rows and values of every column, spread over the nodes or edges of the given types; -1 is no type.

    The table is `types` in the layout of their population, and called `types_file` there.

    Raises:
        ValueError: for a type id that the table lacks, or has twice.
    """
    table = pd.DataFrame(layout["types"]["rows"], columns=layout["types"]["columns"], dtype=str)
    file = layout.get("types_file", "the type table")
    ids = table[f"{kind}_type_id"].astype(np.int64).to_numpy()
    check_unique(ids, f"{kind}_type_id of {file}")
    at = pd.Index(ids).get_indexer(type_ids)
    unknown = np.unique(type_ids[(at < 0) & (type_ids != -1)])
    if unknown.size:
        raise ValueError(f"{kind}_type_id {listing(unknown)} is not in {file}, which has {listing(ids) or 'none'}")
    rows = np.flatnonzero(at >= 0)
    for name in table:
        values = table[name].to_numpy()
        # A column that says nothing has no type, and must not turn another population's numbers to text.
        if name not in (f"{kind}_type_id", "population", *RULES) and not np.isin(values, MISSING).all():
            yield str(name), rows, _typed(values)[at[rows]]


def _typed(text: np.ndarray) -> np.ndarray:
    """A text column as int64, as float with NaN for what is missing, or as str with ""."""
    missing = np.isin(text, MISSING)
    words = np.where(missing, "", text).astype(str)
    try:
        numbers = np.asarray(pd.to_numeric(words[~missing]))
    except ValueError:
        return words
    if numbers.dtype.kind not in "if":
        return words
    if not missing.any():
        return numbers
    if numbers.dtype.kind == "i" and (np.abs(numbers) > EXACT_IN_FLOAT).any():
        return words
    filled = np.full(len(text), np.nan)
    filled[~missing] = numbers
    return filled
