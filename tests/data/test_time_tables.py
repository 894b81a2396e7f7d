"""The bins of a table are found from its times, rounded or with gaps."""

import numpy as np
import pandas as pd
import pytest

from connectinfer.data.time_tables import from_table


def test_rounded_stamps_are_uniform_over_the_whole_recording():
    stamps = np.round(np.arange(600) / 30, 4)
    made = from_table(pd.DataFrame({"a": np.arange(600)}, index=stamps))
    assert made["mask"].values.all()
    assert made.attrs["bin_width"] == pytest.approx(1 / 30, rel=1e-5)
    assert made["counts"].values[0, :, 0].tolist() == list(range(600))


def test_rounded_stamps_with_a_gap_mask_the_rows_that_are_not_there():
    kept = np.r_[0:100, 250:600]
    made = from_table(pd.DataFrame({"a": kept}, index=np.round(kept / 30, 4)))
    assert np.flatnonzero(made["mask"].values[0, :, 0]).tolist() == kept.tolist()
    assert made["counts"].values[0, kept, 0].tolist() == kept.tolist()


def test_stamps_off_the_bins_are_refused():
    with pytest.raises(ValueError, match=r"`time` must be uniform: 0.15 s does not lie on bins of"):
        from_table(pd.DataFrame({"a": [1, 2, 3, 4, 5]}, index=[0.0, 0.1, 0.15, 0.3, 0.4]))
