"""netCDF (`.nc`, through h5netcdf) and Zarr (`.zarr`): labelled data written and read without loss."""

from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.data.characters import check_characters
from connectinfer.data.hdf5 import DENSEST, check_stored_size, read_hdf5
from connectinfer.data.padding import text_array

# Bytes that a Zarr folder may unfold to beyond what it stores: chunks of a single value need not be stored.
ALWAYS_ALLOWED = 2**24


def read_labelled(path: FilePath) -> xr.Dataset:
    """The Dataset in a netCDF file or Zarr folder, in memory.

    Raises:
        ValueError: if it is damaged or of another format.
    """
    file = Path(path)
    try:
        if file.suffix.lower() == ".zarr":
            # Zarr 3 has no consolidated metadata; asking for them warns.
            with xr.open_dataset(file, engine="zarr", consolidated=False) as dataset:
                _check_stored_size(dataset, file)
                return _decoded(dataset.load())
        _check_hdf5(file)
        # Other programs write arrays without dimension scales: their dimensions get made-up names.
        return _decoded(xr.load_dataset(file, engine="h5netcdf", phony_dims="access"))
    # The libraries meet damage wherever they happen to look next, and raise whatever that breaks.
    except Exception as error:
        kind = "Zarr" if file.suffix.lower() == ".zarr" else "netCDF 4"
        raise ValueError(
            f"{file.name} cannot be read as {kind} ({type(error).__name__}: {error}). "
            "It is damaged or of another format."
        ) from error


def _check_hdf5(file: Path) -> None:
    """Raise unless the file itself holds the values of all its arrays, and its groups can be walked through."""
    read_hdf5(file)
    # The callbacks collect only: an error raised in them would be lost in h5py.
    items: list[tuple[str, h5py.Group | h5py.Dataset]] = []
    links: list[tuple[str, object]] = []
    with h5py.File(file, "r") as content:
        content.visititems(lambda name, item: items.append((name, item)))
        content.visititems_links(lambda name, link: links.append((name, link)))
        outside = [name for name, link in links if isinstance(link, h5py.ExternalLink)]
        if outside:
            raise ValueError(f"{outside[0]} lies in another file, which is not followed")
        for name, item in items:
            _check_array(name, item)


def _check_array(name: str, item: h5py.Group | h5py.Dataset) -> None:
    if isinstance(item, h5py.Dataset):
        check_stored_size(item)
        text = h5py.check_string_dtype(item.dtype)
        # xarray makes all texts as wide as the longest.
        if text is not None and text.length is None and item.size:
            text_array(np.ravel(item.asstr()[()]).tolist(), name)


def _decoded(dataset: xr.Dataset) -> xr.Dataset:
    """The same; text that is damaged is found here, where the file is known."""
    for name, each in dataset.variables.items():
        check_characters(each.values, str(name))
    return dataset


def _check_stored_size(dataset: xr.Dataset, folder: Path) -> None:
    claimed = sum(each.nbytes for each in dataset.variables.values())
    stored = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    if claimed > ALWAYS_ALLOWED + DENSEST * stored:
        raise ValueError(f"its arrays claim {claimed} bytes, far more than the {stored} stored let expect")


def write_labelled(data: xr.Dataset | xr.DataTree, path: Path) -> None:
    """Write to netCDF (`.nc`) or Zarr (`.zarr`), over what is there."""
    if path.suffix.lower() == ".zarr":
        data.to_zarr(path, mode="w", consolidated=False)
    else:
        data.to_netcdf(path, mode="w", engine="h5netcdf")
