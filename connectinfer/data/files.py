"""Which reader opens which file: the suffix decides."""

import logging
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.data.characters import check_characters, check_name
from connectinfer.data.field_tree import FieldTree, Leaf, Proposal, check_extent
from connectinfer.data.graph_files import GRAPHS, read_graph_fields
from connectinfer.data.hdf5 import read_hdf5
from connectinfer.data.json_files import read_json
from connectinfer.data.labelled import read_labelled
from connectinfer.data.matlab import read_matlab
from connectinfer.data.naming import naming
from connectinfer.data.numpy_archive import read_numpy
from connectinfer.data.nwb import propose_nwb, read_nwb
from connectinfer.data.sonata import CONFIG
from connectinfer.data.sonata.spikes import propose_spikes
from connectinfer.data.tables import read_table

LABELLED = (".nc", ".zarr")
READERS: dict[str, Callable[[FilePath], Mapping[str, Any]]] = {
    ".mat": read_matlab,
    ".npz": read_numpy,
    ".npy": read_numpy,
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": read_table,
    ".parquet": read_table,
    ".json": read_json,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".nwb": read_nwb,
    **dict.fromkeys(GRAPHS, read_graph_fields),
}
MAY_BE_ZIPPED = (".csv", ".tsv", ".txt", ".json", *GRAPHS)
# For formats that fix the meaning of their fields; None for a file of the suffix that says nothing of its own.
PROPOSALS: dict[str, Callable[[FieldTree], Proposal | None]] = {
    ".nwb": propose_nwb,
    ".h5": propose_spikes,
    ".hdf5": propose_spikes,
}


def find_file(path: FilePath) -> tuple[Path, str]:
    """The path and its suffix in lower case, without a trailing `.gz`; of a folder with a SONATA network its config.

    Raises:
        FileNotFoundError: if there is no such file; names a similar one beside it.
        ValueError: for a suffix that no reader knows.
    """
    file = Path(path)
    if (file / CONFIG).is_file():
        file = file / CONFIG
    if not file.exists():
        beside = [each.name for each in file.parent.iterdir()] if file.parent.is_dir() else []
        near = get_close_matches(file.name, beside, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FileNotFoundError(f"there is no file {file}.{hint}")
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if file.is_dir() and suffixes[-1:] != [".zarr"]:
        raise ValueError(
            f"{file.name} is a folder, neither a SONATA network, which has a {CONFIG}, nor called .zarr. Name a file."
        )
    zipped = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if zipped else suffixes)[-1:] or [""]
    known = [*READERS, *LABELLED]
    if suffix[0] not in known or (zipped and suffix[0] not in MAY_BE_ZIPPED):
        near = get_close_matches(suffix[0], known, 1, 0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        hint = " Save the sheet as .csv." if suffix[0] in (".xls", ".xlsx", ".ods") else hint
        raise ValueError(
            f"no reader for {file.name}.{hint} Readers exist for {', '.join(known)}, and with .gz behind it for "
            f"{', '.join(MAY_BE_ZIPPED)}. What is in memory goes to `as_recording` or `connectome` directly."
        )
    return file, suffix[0]


def read_tree(path: FilePath) -> FieldTree:
    """The fields of a file of any format that has a reader."""
    file, suffix = find_file(path)
    return as_tree(file, labelled_fields(read_labelled(file)) if suffix in LABELLED else READERS[suffix](file))


def as_tree(file: Path, fields: Mapping[str, Any]) -> FieldTree:
    """The fields that a reader found in a file.

    Raises:
        ValueError: if they are too many, or nest too deeply.
    """
    with naming(file):
        check_extent(fields)
    return FieldTree(fields)


def labelled_fields(dataset: xr.Dataset) -> dict[str, Leaf]:
    """The variables of a Dataset as fields."""
    return {
        str(name): Leaf(each.shape, str(each.dtype), lambda each=each: each.values)
        for name, each in dataset.variables.items()
    }


def note_source(dataset: xr.Dataset, path: Path, read: str, left_out: str) -> xr.Dataset:
    """`dataset` with attrs that say which file it came from, what was read and what was left out; also logged.

    Raises:
        ValueError: if it holds text that could not be written, or names were read that could not.
    """
    with naming(path):
        for name in [*map(str, dataset.variables), read, *left_out.split(", ")]:
            check_name(name)
        for name, each in dataset.variables.items():
            check_characters(each.values, str(name))
    # The logger is shared by the package, so that one level switches all of its reports.
    logging.getLogger("connectinfer").info("%s: read %s; left out: %s", path.name, read, left_out or "nothing")
    return dataset.assign_attrs(source=path.name, read=read, left_out=left_out)
