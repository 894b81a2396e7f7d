"""netCDF (`.nc`, through h5netcdf) and Zarr (`.zarr`): labelled data written and read without loss."""

import shutil
from pathlib import Path

import xarray as xr

from connectinfer._typing import FilePath


def read_labelled(path: FilePath) -> xr.Dataset:
    """The Dataset in a netCDF file or Zarr folder, in memory.

    Raises:
        ValueError: if it is damaged or of another format.
    """
    file = Path(path)
    try:
        if file.suffix.lower() == ".zarr":
            # Zarr 3 has no consolidated metadata; asking for them warns.
            return xr.load_dataset(file, engine="zarr", consolidated=False)
        return xr.load_dataset(file, engine="h5netcdf")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        kind = "Zarr" if file.suffix.lower() == ".zarr" else "netCDF 4"
        raise ValueError(
            f"{file.name} cannot be read as {kind} ({type(error).__name__}: {error}). "
            "It is damaged or of another format."
        ) from error


def save(data: xr.Dataset | xr.DataTree, path: FilePath, *, overwrite: bool = False) -> None:
    """Write to netCDF (`.nc`) or Zarr (`.zarr`).

    Raises:
        FileExistsError: if the path exists and `overwrite` is False.
        ValueError: for another suffix.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in (".nc", ".zarr"):
        raise ValueError(f"labelled data is written as .nc or .zarr; got {file.name}.")
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file.name} exists. Choose another name, or pass `overwrite=True` to replace it.")
    # Written beside and moved, so that an interruption leaves nothing half-written under the name.
    part = file.with_name(file.name + ".part")
    try:
        if suffix == ".zarr":
            data.to_zarr(part, mode="w", consolidated=False)
        else:
            data.to_netcdf(part, mode="w", engine="h5netcdf")
    except BaseException:
        _remove(part)
        raise
    if suffix == ".zarr" and file.exists():
        _swap(part, file)
    else:
        part.replace(file)


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
