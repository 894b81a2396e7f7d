"""Connectomes as tables with one row per edge: CSV, TSV and Parquet. `read_table` reads them."""

from pathlib import Path

import pandas as pd
import xarray as xr


def write_edge_table(dataset: xr.Dataset, path: Path) -> None:
    """Write `pre`, `post` and all edge variables as `.csv`, `.tsv` or `.parquet`; neurons are not in it.

    Raises:
        ImportError: for Parquet without the extra `parquet`.
    """
    edges = {str(name): each.values for name, each in dataset.variables.items() if each.dims == ("edge",)}
    table = pd.DataFrame({name: edges.pop(name) for name in ("pre", "post")} | edges)
    if path.suffix.lower() == ".parquet":
        try:
            table.to_parquet(path, index=False)
        except ImportError as error:
            raise ImportError(
                f"{path.name} needs the extra `parquet`: python -m pip install 'connectinfer[parquet]', or "
                "'.[parquet]' in a clone."
            ) from error
        return
    # The shortest decimal that gives back a float32 is not the one that gives back its value.
    narrow = {name: float for name in table if table[name].dtype == "float32"}
    table.astype(narrow).to_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", index=False)
