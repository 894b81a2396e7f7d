"""The door for files that are written: `save`; the name of the target decides the format."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.data.edge_tables import write_edge_table
from connectinfer.data.files import LABELLED
from connectinfer.data.graph_files import write_graph
from connectinfer.data.labelled import write_labelled
from connectinfer.data.reading import open_connectome
from connectinfer.data.sonata import to_sonata

CONFIG = "circuit_config.json"


def _write_sonata(dataset: xr.Dataset, folder: Path) -> None:
    to_sonata(dataset, folder)


CONNECTOME_WRITERS: dict[str, Callable[[xr.Dataset, Path], None]] = {
    **dict.fromkeys((".graphml", ".gml", ".json", ".edgelist"), write_graph),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), write_edge_table),
    "": _write_sonata,
}
_PROVENANCE = ("source", "read", "left_out")


def save(data: xr.Dataset | xr.DataTree, path: FilePath, *, overwrite: bool = False) -> None:
    """Write to netCDF (`.nc`) or Zarr (`.zarr`); connectomes also as a graph, a table of edges or a SONATA network.

    netCDF and Zarr keep everything. A connectome is written as a graph by `.graphml`, `.gml`, `.json` (node-link) and
    `.edgelist`, as a table by `.csv`, `.tsv` and `.parquet`, and as a SONATA network by the name of a folder, without
    suffix. These are read back before they get their name: a warning names what the format could not hold, such as the
    properties of neurons in a table.

    Raises:
        FileExistsError: if the path exists and `overwrite` is False, or it is a folder that holds more than a network.
        ValueError: for another suffix, or if ids or edges would not come back as they are; nothing is written then.
        ImportError: for Parquet without the extra `parquet`.
    """
    file = Path(path)
    write = _writer(data, file)
    if file.name == CONFIG:
        file = file.parent
    _check_free(file, overwrite, is_network=write is _write_sonata)
    # Written beside and moved, so that an interruption leaves nothing half-written under the name.
    part = file.with_name(f"{file.stem}.part{file.suffix}")
    _remove(part)
    try:
        write(data, part)
        lost = [] if write is write_labelled else _lost(data, part, file)
    except BaseException:
        _remove(part)
        raise
    if part.is_dir() and file.exists():
        _swap(part, file)
    else:
        part.replace(file)
    if lost:
        warnings.warn(f"{file.name} cannot hold {', '.join(lost)}; .nc and .zarr can.", stacklevel=2)


def _writer(data: xr.Dataset | xr.DataTree, file: Path) -> Callable[[Any, Path], None]:
    suffix = "" if file.name == CONFIG else file.suffix.lower()
    if suffix in LABELLED:
        return write_labelled
    is_connectome = isinstance(data, xr.Dataset) and {"pre", "post"} <= set(data.variables)
    if not is_connectome or suffix not in CONNECTOME_WRITERS:
        known = [*LABELLED, *(filter(None, CONNECTOME_WRITERS) if is_connectome else ())]
        what = "a connectome" if is_connectome else "a recording or result"
        raise ValueError(f"{what} is written as {', '.join(known[:-1])} or {known[-1]}; got {file.name}.")
    return CONNECTOME_WRITERS[suffix]


def _check_free(file: Path, overwrite: bool, is_network: bool) -> None:
    if not file.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{file.name} exists. Choose another name, or pass `overwrite=True` to replace it.")
    # What else a folder holds would go with it.
    if is_network and not (file.is_dir() and {each.name for each in file.iterdir()} <= {CONFIG, "network"}):
        raise FileExistsError(f"{file.name} exists and is no network, or holds more than that. Choose another name.")


def _lost(dataset: Any, written: Path, file: Path) -> list[str]:
    """What differs between a connectome and the file it was written to, in words.

    Raises:
        ValueError: if ids or edges differ.
    """
    try:
        found = open_connectome(written / CONFIG if written.is_dir() else written)
    except ValueError as error:
        raise ValueError(f"{file.name} cannot hold this connectome; .nc and .zarr can. Read back: {error}") from error
    if written.is_dir():
        is_kept = set(found["neuron"].values.tolist()) == set(dataset["neuron"].values.tolist())
        return [] if is_kept else ["these ids; neurons are numbered in their population, with `neuron_id` beside"]
    before, after = _in_order(dataset, found), _in_order(found, dataset)
    if not all(_same(before[name].values, after[name].values) for name in ("pre", "post")):
        raise ValueError(
            f"{file.name} cannot hold the ids of this connectome: they come back as others, such as text that looks "
            "like numbers or holds blanks. Use .nc, .zarr or .parquet."
        )
    isolated = np.setdiff1d(before["neuron"].values, after["neuron"].values)
    before = before.sel(neuron=after["neuron"].values)
    lost = [f"the {isolated.size} neurons without edges"] if isolated.size else []
    for name, each in before.variables.items():
        if name not in after.variables or not _same(each.values, after[name].values):
            lost.append(str(name))
    return lost + [f"the attribute {name}" for name in dataset.attrs if name not in _PROVENANCE]


def _in_order(dataset: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Edges sorted by what identifies them in both, since graphs keep them by neuron."""
    names = [name for name in ("contact", "kind", "post", "pre") if name in dataset and name in other]
    return dataset.isel(edge=np.lexsort([dataset[name].values for name in names]))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or (one.dtype.kind == "U") != (other.dtype.kind == "U"):
        return False
    return bool(((one == other) | (pd.isna(one) & pd.isna(other))).all())


def _swap(part: Path, file: Path) -> None:
    """A folder cannot be replaced in one step: until the new one is in place, the old one is kept beside it."""
    old = file.with_name(file.name + ".old")
    _remove(old)
    file.replace(old)
    try:
        part.replace(file)
    except BaseException:
        old.replace(file)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
