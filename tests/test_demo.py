"""The demo recovers what it says it recovers, and writes what it says it writes."""

import re

import pytest
import xarray as xr

from connectinfer.demo import run_demo


@pytest.mark.slow
def test_the_demo_shows_recovered_beside_true_and_writes_the_fit_and_its_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert run_demo(tmp_path) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    recovered = {name: (true, found) for name, true, found in rows}
    for kind, count in (("stable", "2"), ("saddle", "1"), ("unstable", "0")):
        true, found = recovered[f"{kind} fixed points"]
        assert true == count
        assert found.startswith(f"{count} ")
    assert float(recovered["latent R2 (after affine alignment)"][1]) > 0.95
    ideal, achieved = map(float, recovered["held-out bits/spike (true: ideal observer)"])
    assert 0.9 * ideal < achieved
    # Both attractors, each with its true location inside the interval, give or take a tenth.
    attractors = [(true, found) for name, true, found in rows if name == "stable fixed point"]
    assert len(attractors) == 2
    for true, found in attractors:
        for value, interval in zip(re.findall(r"-?\d+\.\d+", true), found.split(";"), strict=True):
            _, low, high = map(float, re.findall(r"-?\d+\.\d+", interval))
            assert low - 0.1 <= float(value) <= high + 0.1
    names = ("raster", "latent_paths", "flow_field", "connectivity", "overlap_spectrum")
    assert {path.name for path in tmp_path.iterdir()} == {"fit.nc", *(f"{name}.png" for name in names)}
    assert "posterior" in xr.load_datatree(tmp_path / "fit.nc", engine="h5netcdf").children
    for name in ("fit.nc", "flow_field.png"):
        assert name in printed
