"""Series that are picked whole keep the times that their file states."""

import h5py
import numpy as np
import pytest

from connectinfer.data.reading import open_recording


def write_series(path, stamps):
    with h5py.File(path, "w") as file:
        file["dff/data"] = np.arange(2.0 * len(stamps)).reshape(-1, 2)
        file["dff/timestamps"], file["dff/roi"] = stamps, [4, 9]
    return path


def test_a_series_is_at_its_time_stamps(tmp_path):
    path = write_series(tmp_path / "a.h5", 10 + np.arange(30) / 30)
    read = open_recording(path, fields={"fluorescence": "dff"})
    assert read["unit"].values.tolist() == [4, 9]
    assert read["time"].values == pytest.approx(10 + np.arange(30) / 30)


@pytest.mark.parametrize("width", ["bin_width", "time"])
def test_a_bin_width_that_is_not_that_of_the_stamps_is_refused(tmp_path, width):
    path = write_series(tmp_path / "a.h5", np.arange(30) / 30)
    message = (
        rf"0.02 s \(`{width}`\) would move sample 29 of `fluorescence`, taken at .*0.0333333 s apart .* Leave `{width}`"
    )
    with pytest.raises(ValueError, match=message):
        open_recording(path, fields={"fluorescence": "dff"}, **{width: 0.02})


def test_a_bin_width_over_a_pause_is_refused(tmp_path):
    stamps = np.arange(200) * 0.1
    stamps[100:] += 0.3
    path = write_series(tmp_path / "a.h5", stamps)
    with pytest.raises(ValueError, match=r"would move sample \d+ .* a series with pauses must be resampled"):
        open_recording(path, fields={"fluorescence": "dff"}, bin_width=0.1)


def test_the_nominal_width_of_stamps_that_wander_is_taken(tmp_path):
    path = write_series(tmp_path / "a.h5", [5.0, 5.1, 5.24, 5.3])
    read = open_recording(path, fields={"fluorescence": "dff"}, bin_width=0.1)
    assert read["time"].values == pytest.approx([5.0, 5.1, 5.2, 5.3])
