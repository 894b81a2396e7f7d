"""The door for files that are written: `save`; the name of the target decides the format."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.data.connectome import edge_indices
from connectinfer.data.edge_tables import write_edge_table
from connectinfer.data.files import LABELLED
from connectinfer.data.graph_files import write_graph
from connectinfer.data.labelled import is_zarr_group, write_labelled
from connectinfer.data.reading import open_connectome
from connectinfer.data.replacement import written_beside
from connectinfer.data.sonata import CONFIG, write_sonata
from connectinfer.data.sonata.assembly import KEPT_ROWS

CONNECTOME_WRITERS: dict[str, Callable[[xr.Dataset, Path], None]] = {
    **dict.fromkeys((".graphml", ".gml", ".json", ".edgelist"), write_graph),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), write_edge_table),
    "": write_sonata,
}
ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
_PROVENANCE = ("source", "read", "left_out")


def save(data: xr.Dataset | xr.DataTree, path: FilePath, *, overwrite: bool = False) -> None:
    """Write to netCDF (`.nc`) or Zarr (`.zarr`); connectomes also as a graph, a table of edges or a SONATA network.

    netCDF and Zarr keep everything. A connectome is written as a graph by `.graphml`, `.gml`, `.json` (node-link) and
    `.edgelist`, as a table by `.csv`, `.tsv` and `.parquet`, and as a SONATA network by the name of a folder, without
    suffix (or of the `circuit_config.json` in it). These are read back before they get their name: a warning names what
    the format could not hold, such as the properties of neurons in a table.

    Raises:
        FileExistsError: if the path exists and `overwrite` is False, or it is a folder that holds more than a network
            or Zarr group.
        FileNotFoundError: if there is no folder to write into.
        ValueError: for another suffix, or if ids or edges would not come back as they are; nothing is written then.
        ImportError: for Parquet without the extra `parquet`.
    """
    file = Path(path)
    write = _writer(data, file)
    if file.name == CONFIG:
        file = file.parent.absolute()
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} into; create it first.")
    _check_free(file, overwrite, is_network=write is write_sonata)
    with written_beside(file) as part:
        write(data, part)
        lost = [] if write is write_labelled else _lost(data, part, file)
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
    if Path.cwd().is_relative_to(file.resolve()):
        raise FileExistsError("The program runs in the folder that would be replaced. Name another one.")
    if not file.exists() or (is_network and file.is_dir() and not any(file.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{file.name} exists. Choose another name, or pass `overwrite=True` to replace it.")
    # What else a folder holds would go with it.
    if is_network and not _is_network(file):
        raise FileExistsError(f"{file.name} exists and is no network, or holds more than that. Choose another name.")
    if file.suffix.lower() == ".zarr" and not _is_zarr_alone(file):
        raise FileExistsError(f"{file.name} exists and is no Zarr group, or holds more than that. Choose another name.")
    if file.is_dir() and not is_network and file.suffix.lower() != ".zarr":
        raise FileExistsError(f"{file.name} exists and is a folder. Choose another name.")


def _is_network(folder: Path) -> bool:
    """Whether a folder holds what writing a network leaves there, and nothing else."""
    if not folder.is_dir() or {each.name for each in folder.iterdir()} != {CONFIG, "network"}:
        return False
    network, listed = folder / "network", (folder / CONFIG).read_text(encoding="utf-8", errors="replace")
    return network.is_dir() and all(f'/{each.name}"' in listed for each in network.iterdir())


def _is_zarr_alone(folder: Path) -> bool:
    """Whether a folder is a Zarr group, and holds nothing else."""
    return is_zarr_group(folder) and all(
        each.name in ZARR_METADATA or any((each / name).is_file() for name in ZARR_METADATA)
        for each in folder.iterdir()
    )


def _lost(dataset: Any, written: Path, file: Path) -> list[str]:
    """What differs between a connectome and the file it was written to, in words.

    Raises:
        ValueError: if ids or edges differ.
    """
    try:
        found = open_connectome(written)
    except ValueError as error:
        raise ValueError(f"{file.name} cannot hold this connectome; .nc and .zarr can. Read back: {error}") from error
    lost, made_anew = [], _PROVENANCE
    if written.is_dir():
        made_anew = (*_PROVENANCE, "sonata")
        # Which rows of the files these were is nothing that networks are known by.
        dataset = dataset.drop_vars([name for each in KEPT_ROWS.values() for name in each], errors="ignore")
        if set(found["neuron"].values.tolist()) != set(dataset["neuron"].values.tolist()):
            found = _with_former_ids(found)
            lost.append("these ids; neurons are numbered in their population, with `neuron_id` beside")
    before, after = _in_order(dataset, found), _in_order(found, dataset)
    if not all(_same(before[name].values, after[name].values) for name in ("pre", "post")):
        raise ValueError(
            f"{file.name} cannot hold the ids of this connectome: they come back as others, such as text that looks "
            "like numbers or holds blanks. Use .nc, .zarr or .parquet."
        )
    isolated = np.setdiff1d(before["neuron"].values, after["neuron"].values)
    before = before.sel(neuron=after["neuron"].values)
    lost += [f"the {isolated.size} neurons without edges"] if isolated.size else []
    for name, each in before.variables.items():
        kept = name in after.variables and _same(each.values, after[name].values)
        if not kept and not (name not in after.variables and _says_nothing(each.values)):
            lost.append(str(name))
    return lost + [f"the attribute {name}" for name in dataset.attrs if name not in made_anew]


def _with_former_ids(found: xr.Dataset) -> xr.Dataset:
    """A network whose neurons have the ids that are kept beside their new ones."""
    ids = found["neuron_id"].values
    ends = {name: ("edge", ids[at]) for name, at in zip(("pre", "post"), edge_indices(found), strict=True)}
    return found.assign_coords(neuron=ids).assign(ends)


def _in_order(dataset: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Edges sorted by what identifies them in both, since graphs keep them by neuron."""
    names = [name for name in ("contact", "kind", "post", "pre") if name in dataset and name in other]
    return dataset.isel(edge=np.lexsort([dataset[name].values for name in names]))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or (one.dtype.kind == "U") != (other.dtype.kind == "U"):
        return False
    return bool(((one == other) | (pd.isna(one) & pd.isna(other))).all())


def _says_nothing(values: np.ndarray) -> bool:
    return bool((values == "").all() if values.dtype.kind == "U" else pd.isna(values).all())
