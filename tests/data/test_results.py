import numpy as np
import pytest
import xarray as xr

from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.recognition import holds_connectome
from connectinfer.data.results import open_result
from connectinfer.data.saving import save


@pytest.fixture
def result():
    posterior = xr.Dataset({"theta": (("chain", "draw"), np.arange(6.0).reshape(2, 3))})
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": xr.Dataset({"lp": ("draw", np.ones(3))})})
    tree.attrs = {"model": "own", "seed": 3}
    return tree


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr", "fit.ZARR"])
def test_a_result_comes_back_as_it_was_saved(result, tmp_path, name):
    save(result, tmp_path / name)
    xr.testing.assert_identical(open_result(tmp_path / name), result)


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr"])
def test_a_result_that_is_not_there_is_missed(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"No result at .*{name}; `connectinfer fit` writes one"):
        open_result(tmp_path / name)


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "text.nc").write_text("no file")
    with pytest.raises(ValueError, match=r"text\.nc is no netCDF file, or a damaged one"):
        open_result(tmp_path / "text.nc")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match=r"empty\.zarr is no Zarr folder, or a damaged one"):
        open_result(tmp_path / "empty.zarr")
    save(xr.Dataset({"counts": ("time", np.ones(3))}), tmp_path / "spikes.nc")
    with pytest.raises(ValueError, match=r"spikes\.nc is no result: it has no group `posterior`, but counts"):
        open_result(tmp_path / "spikes.nc")


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr"])
@pytest.mark.parametrize("opened", [open_recording, open_connectome, holds_connectome])
def test_a_result_is_neither_recording_nor_connectome_and_says_so(result, tmp_path, name, opened):
    save(result, tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is the result of a fit, .* `diagnose` and `report` take it"):
        opened(tmp_path / name)
