"""Results as files: a tree of groups, in netCDF (`.nc`) or Zarr (`.zarr`)."""

from pathlib import Path

import xarray as xr

from connectinfer._typing import FilePath


def open_result(path: FilePath) -> xr.DataTree:
    """The result that `fit` returned and `save` wrote, in memory.

    Raises:
        FileNotFoundError: if there is no such file (or folder, for Zarr).
        ValueError: if it is damaged or of another format, or holds no result.
    """
    file = Path(path)
    is_zarr = file.suffix.lower() == ".zarr"
    if not (file.is_dir() if is_zarr else file.is_file()):
        raise FileNotFoundError(f"No result at {file}; `connectinfer fit` writes one.")
    try:
        # Zarr 3 has no consolidated metadata; asking for them warns.
        options = {"engine": "zarr", "consolidated": False} if is_zarr else {"engine": "h5netcdf"}
        result = xr.load_datatree(file, **options)
    # The libraries meet damage wherever they happen to look next, and raise whatever that breaks.
    except Exception as error:
        kind = "Zarr folder" if is_zarr else "netCDF file"
        raise ValueError(f"{file} is no {kind}, or a damaged one: {error}") from error
    if "posterior" not in result.children:
        held = ", ".join([*result.children, *map(str, result.data_vars)]) or "nothing"
        raise ValueError(
            f"{file} is no result: it has no group `posterior`, but {held}. `connectinfer fit` writes one."
        )
    return result
