"""Text tables (CSV, TSV, gzipped or not, any of comma, tab, semicolon and space) and Parquet, by column."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from connectinfer._typing import FilePath
from connectinfer.data.columns import EXACT_IN_FLOAT, as_column
from connectinfer.data.compressed import largest_content, open_bytes
from connectinfer.data.padding import text_array

# Columns whose name another has.
MOST_REPEATED = 1000


def read_table(path: FilePath) -> dict[str, Any]:
    """The columns of a table by name, `(row,)` each; called "0", "1", ... if the first line holds numbers only.

    Whole numbers stay int64, so that root ids keep their digits, and fractions are read to the last bit. Missing
    entries are "" in text and NaN in numbers; words such as NA or None mean missing among numbers, or alone, and are
    text among other text. A Parquet column of lists is a list of arrays, one of structs a list of dicts.

    Raises:
        ValueError: if the file is damaged, empty or not a table.
        ImportError: for Parquet without the extra `parquet`.
    """
    file = Path(path)
    try:
        table = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_text(file)
        return {str(name): _column(pd.Series(table[name]), str(name)) for name in table.columns}
    except ImportError as error:
        raise ImportError(
            f"{file.name} needs the extra `parquet`: python -m pip install 'connectinfer[parquet]', or "
            "'.[parquet]' in a clone."
        ) from error
    # pandas and pyarrow meet damage wherever they happen to look next, and raise whatever that breaks.
    except Exception as error:
        raise ValueError(
            f"{file.name} cannot be read as a table ({type(error).__name__}: {str(error).strip()}). "
            "It is damaged, empty or of another format."
        ) from error


def _read_text(file: Path) -> pd.DataFrame:
    separator, header = _layout(file)

    def read(**options: Any) -> pd.DataFrame:
        with open_bytes(file) as stream:
            # In pieces, a column of a long table could come out with several types.
            return pd.read_csv(stream, sep=separator, header=header, skipinitialspace=True, low_memory=False, **options)

    table = read()
    gaps = [at for at in range(table.shape[1]) if _is_text_with_gaps(table.iloc[:, at])]
    if gaps:
        # pandas takes words such as NA for missing; among text they may be names.
        words = read(dtype=str, na_filter=False)
        for at in gaps:
            table.isetitem(at, words.iloc[:, at])
    return table


def _is_text_with_gaps(column: pd.Series) -> bool:
    return bool(column.isna().any()) and pd.api.types.infer_dtype(column, skipna=True) == "string"


def _read_parquet(file: Path) -> pd.DataFrame:
    from pyarrow import parquet, types

    with parquet.ParquetFile(file) as content:
        claimed = content.metadata.num_rows * content.metadata.num_columns * 8
        if claimed > largest_content(file):
            raise ValueError(f"it claims {content.metadata.num_rows} rows, more than its size lets expect")
        # Long text that is stored once and meant in every row unfolds as well.
        wide = [each.name for each in content.schema_arrow if not types.is_primitive(each.type)]
        unfolded = 0
        for batch in content.iter_batches(2048, columns=wide) if wide else ():
            unfolded += batch.nbytes
            if unfolded > largest_content(file):
                raise ValueError(f"its columns {wide[:8]} unfold to more than {unfolded / 1e6:.0f} MB")
    # Nullable types, so that a missing value does not turn a column of ids into floats.
    return pd.read_parquet(file, dtype_backend="numpy_nullable")


def _layout(file: Path) -> tuple[str, int | None]:
    """The separator, and the line of the header (None if the first line holds numbers only)."""
    with open_bytes(file) as stream:
        first = stream.readline().decode("utf-8-sig").strip()
    # Names of columns may hold blanks; then something else stands between them.
    separator = max(",\t;", key=first.count)
    separator = separator if separator in first else " "
    names = first.split(separator)
    # pandas makes repeated names differ, in a time that grows with their square.
    if len(names) - len(set(names)) > MOST_REPEATED and not _is_number(names[0]):
        raise ValueError(f"its first line repeats names, {len(set(names))} different ones among {len(names)}")
    numeric = all(_is_number(each) for each in names)
    return separator, None if numeric else 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(column: pd.Series, name: str) -> Any:
    if pd.api.types.is_extension_array_dtype(column.dtype) and column.dtype.kind in "biuf":
        return _from_nullable(column, name)
    array = column.to_numpy()
    if array.dtype.kind not in "OT":
        return array
    missing = pd.isna(array)
    values = as_column([None if absent else each for each, absent in zip(array.tolist(), missing, strict=True)], name)
    if values is not None:
        return values
    if _is_nested(array[~missing]):
        return list(array)
    return text_array([str(each) for each in np.where(missing, "", array)], name)


def _from_nullable(column: pd.Series, name: str) -> np.ndarray:
    dtype: Any = column.dtype
    if not column.isna().any():
        return column.to_numpy(dtype.numpy_dtype)
    if dtype.kind in "iu" and column.abs().max() > EXACT_IN_FLOAT:
        raise ValueError(
            f"column {name!r} holds whole numbers beyond 2^53 beside missing ones (first in row "
            f"{int(np.argmax(column.isna()))}, counted from 0), which would cost them digits; fill or drop these rows"
        )
    return column.to_numpy(float, na_value=np.nan)


def _is_nested(array: np.ndarray) -> bool:
    return bool(array.size) and all(isinstance(each, list | dict | np.ndarray) for each in array)
