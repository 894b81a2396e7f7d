"""netCDF (`.nc`, through h5netcdf) and Zarr (`.zarr`): labelled data written and read without loss."""

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


def write_labelled(data: xr.Dataset | xr.DataTree, path: Path) -> None:
    """Write to netCDF (`.nc`) or Zarr (`.zarr`), over what is there."""
    if path.suffix.lower() == ".zarr":
        data.to_zarr(path, mode="w", consolidated=False)
    else:
        data.to_netcdf(path, mode="w", engine="h5netcdf")
