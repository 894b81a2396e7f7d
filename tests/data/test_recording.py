import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from connectinfer.data.objects import as_recording
from connectinfer.data.recording import check_recording, drop_silent_units, observed_kind, recording

COUNTS = np.array([[[1, 0], [2, 1], [0, 3]], [[0, 1], [1, 1], [4, 0]]])  # (trial, time, unit)


def test_a_recording_carries_dims_coordinates_mask_and_bin_width():
    made = recording(time=0.02, counts=COUNTS, unit=["a", "b"], trial=[7, 9])
    assert made["counts"].dims == made["mask"].dims == ("trial", "time", "unit")
    assert made["counts"].dtype == np.int32
    assert made["mask"].values.all()
    assert made["time"].values.tolist() == [0.0, 0.02, 0.04]
    assert made["unit"].values.tolist() == ["a", "b"]
    assert made.attrs["bin_width"] == 0.02
    assert observed_kind(made) == "counts"
    check_recording(made)


@pytest.mark.parametrize("kind", ["rates", "fluorescence"])
def test_float_kinds_keep_negative_and_fractional_values(kind):
    made = recording(time=[1.0, 1.5, 2.0], **{kind: COUNTS - 0.5})
    assert observed_kind(made) == kind
    assert made[kind].values[0, 1, 0] == 1.5
    assert made.attrs["bin_width"] == pytest.approx(0.5)


def test_ragged_trials_are_padded_with_masked_zeros():
    made = recording(time=0.01, counts=[COUNTS[0], COUNTS[1][:2]])
    assert made["mask"].values[:, :, 0].tolist() == [[True, True, True], [True, True, False]]
    assert made["counts"].values[1].tolist() == [[0, 1], [1, 1], [0, 0]]


def test_masked_nan_is_allowed_and_stored_as_zero():
    values = COUNTS.astype(float)
    values[0, 1, 0] = np.nan
    made = recording(time=0.01, counts=values, mask=np.isfinite(values))
    assert made["counts"].values[0, 1, 0] == 0
    assert made["mask"].values.sum() == 11


def test_ragged_inputs_are_padded_beside_the_data_and_keep_their_names():
    made = recording(
        time=0.01,
        counts=[COUNTS[0], COUNTS[1][:2]],
        inputs={"left": [np.ones(3), np.ones(2)], "right": np.arange(6.0).reshape(2, 3)},
    )
    assert made["inputs"].dims == ("trial", "time", "input")
    assert made["input"].values.tolist() == ["left", "right"]
    assert made["inputs"].values[1].tolist() == [[1, 3], [1, 4], [0, 5]]


def test_dropping_silent_units_keeps_the_others_and_their_coordinates():
    made = recording(time=0.01, counts=COUNTS * [1, 0]).assign_coords(area=("unit", ["V1", "LM"]))
    kept = drop_silent_units(made)
    assert kept["unit"].values.tolist() == [0]
    assert kept["area"].values.tolist() == ["V1"]
    check_recording(kept)


@settings(deadline=None, max_examples=30)
@given(
    values=arrays(np.int32, (2, 4, 3), elements=st.integers(0, 5)),
    lengths=st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda both: max(both) == 4),
)
def test_a_list_of_trials_equals_a_padded_array_with_a_mask(values, lengths):
    mask = np.broadcast_to((np.arange(4) < np.array(lengths)[:, None])[:, :, None], values.shape)
    ragged = recording(time=0.1, counts=[trial[:length] for trial, length in zip(values, lengths, strict=True)])
    assert ragged.identical(recording(time=0.1, counts=values, mask=mask))


def test_arrays_tables_and_labelled_arrays_give_the_same_recording():
    expected = recording(time=0.01, counts=COUNTS)
    index = pd.MultiIndex.from_product([[0, 1], [0.0, 0.01, 0.02]], names=["trial", "time"])
    table = pd.DataFrame(COUNTS.reshape(6, 2), index=index)
    labelled = xr.DataArray(COUNTS, dims=("trial", "time", "unit"), name="counts").assign_coords(time=[0, 0.01, 0.02])
    for made in (
        as_recording(COUNTS, time=0.01),
        as_recording(list(COUNTS), time=0.01),
        as_recording(table),
        as_recording(labelled.transpose("unit", "trial", "time")),
        as_recording(labelled.to_dataset()),
        as_recording(expected),
    ):
        xr.testing.assert_allclose(made, expected)


def test_one_trial_may_come_without_its_axis():
    table = pd.DataFrame(COUNTS[0], index=[0.0, 0.01, 0.02], columns=["a", "b"])
    for made in (
        as_recording(COUNTS[0], time=0.01, unit=["a", "b"]),
        as_recording(table),
        as_recording(xr.DataArray(table, dims=("time", "unit"), name="counts")),
    ):
        assert made["counts"].values.tolist() == [COUNTS[0].tolist()]
        assert made["unit"].values.tolist() == ["a", "b"]


def test_rows_that_a_trial_lacks_are_masked():
    index = pd.MultiIndex.from_tuples([("a", 0.1), ("a", 0.2), ("a", 0.3), ("b", 0.2)])
    made = as_recording(pd.DataFrame({"u": [1, 2, 3, 4], "v": [1, 1, 1, 1]}, index=index))
    assert made["trial"].values.tolist() == ["a", "b"]
    assert made["counts"].values[1, :, 0].tolist() == [0, 4, 0]
    assert made["mask"].values[1, :, 0].tolist() == [False, True, False]


def test_a_table_may_bring_its_inputs_on_the_same_rows():
    table = pd.DataFrame({"u": [1, 2, 3]}, index=[0.0, 0.1, 0.2])
    made = as_recording(table, inputs=pd.DataFrame({"light": [0.0, 1.0, 0.0]}, index=table.index))
    assert made["inputs"].sel(input="light").values.tolist() == [[0, 1, 0]]


def test_a_labelled_recording_keeps_inputs_names_and_further_coordinates():
    made = recording(time=0.01, counts=COUNTS, inputs={"light": np.ones((2, 3))}).assign_coords(
        choice=("trial", ["left", "right"])
    )
    again = as_recording(made.drop_vars("mask").transpose("unit", ...))
    assert again.identical(made)
