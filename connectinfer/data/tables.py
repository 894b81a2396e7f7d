"""Text tables (CSV, TSV, gzipped or not, any of comma, tab, semicolon and space) and Parquet, by column."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from connectinfer._typing import FilePath


def read_table(path: FilePath) -> dict[str, np.ndarray]:
    """The columns of a table by name, `(row,)` each; called "0", "1", ... if the first line holds numbers only.

    Whole numbers stay int64, so that root ids keep their digits.

    Raises:
        ValueError: if the file is damaged, empty or not a table.
        ImportError: for Parquet without the extra `parquet`.
    """
    file = Path(path)
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
        else:
            separator, header = _layout(file)
            table = pd.read_csv(file, sep=separator, header=header, skipinitialspace=True)
    except ImportError as error:
        raise ImportError(
            f"{file.name} needs the extra `parquet`: python -m pip install 'connectinfer[parquet]'."
        ) from error
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{file.name} cannot be read as a table ({type(error).__name__}: {str(error).strip()}). "
            "It is damaged, empty or of another format."
        ) from error
    return {str(name): _column(table[name].to_numpy()) for name in table.columns}


def _layout(file: Path) -> tuple[str, int | None]:
    """The separator, and the line of the header (None if the first line holds numbers only)."""
    opener = gzip.open if file.suffix.lower() == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as stream:
        first = stream.readline().strip()
    # Names of columns may hold blanks; then something else stands between them.
    separator = max(",\t;", key=first.count)
    separator = separator if separator in first else " "
    numeric = all(_is_number(each) for each in first.split(separator))
    return separator, None if numeric else 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "OT":
        return np.where(pd.isna(array), "", array).astype(str)
    return array
