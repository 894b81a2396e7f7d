"""netCDF (`.nc`, through h5netcdf) and Zarr (`.zarr`): labelled data written and read without loss."""

import json
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.data.characters import check_characters
from connectinfer.data.hdf5 import DENSEST, check_stored_size, is_linked_elsewhere, read_hdf5
from connectinfer.data.padding import text_array

# Bytes that a Zarr folder may unfold to beyond what it stores: chunks of a single value need not be stored.
ALWAYS_ALLOWED = 2**24


def read_labelled(path: FilePath) -> xr.Dataset:
    """The Dataset in a netCDF file or Zarr folder, in memory.

    Raises:
        ValueError: if it is damaged, of another format, or the result of a fit.
    """
    file = Path(path)
    dataset = _loaded(file)
    _refuse_result(file, _groups_at_root(file))
    return dataset


def names_at_root(path: FilePath) -> set[str]:
    """Names of the arrays at the root of a netCDF file or Zarr folder, of which no values are read.

    Raises:
        ValueError: as `read_labelled`.
    """
    file = Path(path)
    if _is_zarr(file) and not is_zarr_group(file):
        raise ValueError(f"{file.name} cannot be read as Zarr: it is no group. It is damaged or of another format.")
    names = {each.name for each in file.iterdir() if each.is_dir()} if _is_zarr(file) else set(read_hdf5(file))
    groups = _groups_at_root(file)
    _refuse_result(file, groups)
    return names - groups


def is_zarr_group(folder: Path) -> bool:
    """Whether a folder is a group of Zarr, version 2 or 3."""
    try:
        described = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
        return isinstance(described, dict) and described.get("node_type") == "group"
    except (OSError, ValueError, RecursionError):
        return (folder / ".zgroup").is_file()


def write_labelled(data: xr.Dataset | xr.DataTree, path: Path) -> None:
    """Write to netCDF (`.nc`) or Zarr (`.zarr`), over what is there."""
    if _is_zarr(path):
        data.to_zarr(path, mode="w", consolidated=False)
    else:
        data.to_netcdf(path, mode="w", engine="h5netcdf")


def _is_zarr(file: Path) -> bool:
    return file.suffix.lower() == ".zarr"


def _groups_at_root(file: Path) -> set[str]:
    if _is_zarr(file):
        return {each.name for each in file.iterdir() if is_zarr_group(each)}
    with h5py.File(file, "r") as content:
        return {str(name) for name in content if content.get(name, getclass=True) is h5py.Group}


def _refuse_result(file: Path, groups: set[str]) -> None:
    if "posterior" in groups:
        raise ValueError(
            f"{file.name} is the result of a fit, no recording or connectome: `diagnose` and `report` take it."
        )


def _loaded(file: Path) -> xr.Dataset:
    try:
        if _is_zarr(file):
            # Zarr 3 has no consolidated metadata; asking for them warns.
            with xr.open_dataset(file, engine="zarr", consolidated=False) as dataset:
                _check_stored_size(dataset, file)
                return _decoded(dataset.load())
        _check_hdf5(file)
        # Other programs write arrays without dimension scales: their dimensions get made-up names.
        return _decoded(xr.load_dataset(file, engine="h5netcdf", phony_dims="access"))
    # The libraries meet damage wherever they happen to look next, and raise whatever that breaks.
    except Exception as error:
        kind = "Zarr" if _is_zarr(file) else "netCDF 4"
        raise ValueError(
            f"{file.name} cannot be read as {kind} ({type(error).__name__}: {error}). "
            "It is damaged or of another format."
        ) from error


def _check_hdf5(file: Path) -> None:
    """Raise unless the file itself holds the values of the arrays at its root, and its groups can be walked through."""
    read_hdf5(file)
    with h5py.File(file, "r") as content:
        for name in map(str, content):
            if is_linked_elsewhere(content, name):
                raise ValueError(f"{name} lies in another file, which is not followed")
            item = content.get(name)
            if isinstance(item, h5py.Dataset):
                _check_array(name, item)


def _check_array(name: str, item: h5py.Dataset) -> None:
    check_stored_size(item)
    text = h5py.check_string_dtype(item.dtype)
    # xarray makes all texts as wide as the longest.
    if text is not None and text.length is None and item.size:
        text_array(np.ravel(item.asstr()[()]).tolist(), name)


def _decoded(dataset: xr.Dataset) -> xr.Dataset:
    """The same; damaged text, and arrays that do not fit their dims, are found here, where the file is known."""
    for name, each in dataset.variables.items():
        sizes = tuple(dataset.sizes[dim] for dim in each.dims)
        if each.shape != sizes:
            raise ValueError(f"`{name}` has shape {each.shape}, but its dims {each.dims} have the sizes {sizes}")
        check_characters(each.values, str(name))
    return dataset


def _check_stored_size(dataset: xr.Dataset, folder: Path) -> None:
    claimed = sum(each.nbytes for each in dataset.variables.values())
    stored = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    if claimed > ALWAYS_ALLOWED + DENSEST * stored:
        raise ValueError(f"its arrays claim {claimed} bytes, far more than the {stored} stored let expect")
