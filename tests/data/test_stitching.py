import inspect

import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import check_recording, recording
from connectinfer.data.stitching import stitch


def session(n_trials, n_bins, unit, first_count=1, inputs=None, **changed):
    """A recording whose counts are numbered from `first_count`."""
    shape = (n_trials, n_bins, len(unit))
    counts = first_count + np.arange(np.prod(shape)).reshape(shape)
    given = {"time": 0.1 * np.arange(n_bins), "unit": unit, "counts": counts, "inputs": inputs} | changed
    return recording(**given)


@pytest.fixture(scope="module")
def two():
    pulse = {"cue": np.ones((1, 2)), "tone": np.full((1, 2), 3.0)}
    # The other session names its inputs in another order.
    turned = {"tone": np.full((2, 3), 4.0), "cue": np.full((2, 3), 2.0)}
    monday = session(1, 2, ["a", "b"], inputs=pulse).assign_coords(choice=("trial", ["left"]), depth=("unit", [1, 2]))
    tuesday = session(2, 3, [7], 100, turned).assign_coords(choice=("trial", ["right", "left"]))
    return {"mon": monday, "tue": tuesday}


def test_entries_stand_in_the_block_of_their_session(two):
    stitched = stitch(two)
    check_recording(stitched)
    monday = [[1, 2, 0], [3, 4, 0], [0, 0, 0]]
    tuesday = [[[0, 0, 100 + 3 * i + j] for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(stitched["counts"], [monday, *tuesday])
    observed = [[[True, True, False]] * 2 + [[False] * 3], *[[[False, False, True]] * 3] * 2]
    np.testing.assert_array_equal(stitched["mask"], observed)
    np.testing.assert_allclose(stitched["time"], [0.0, 0.1, 0.2])
    assert stitched.attrs["bin_width"] == pytest.approx(0.1)


def test_ids_sessions_inputs_and_shared_coordinates_come_along(two):
    stitched = stitch(two)
    assert list(stitched["unit"].values) == ["mon:a", "mon:b", "tue:7"]
    assert list(stitched["trial"].values) == ["mon:0", "tue:0", "tue:1"]
    assert list(stitched["session"].values) == ["mon", "tue", "tue"]
    assert list(stitched["unit_session"].values) == ["mon", "mon", "tue"]
    assert list(stitched["choice"].values) == ["left", "right", "left"]
    # Only one session knows depths.
    assert "depth" not in stitched.coords
    cue, tone = (stitched["inputs"].sel(input=name) for name in ("cue", "tone"))
    np.testing.assert_array_equal(cue, [[1, 1, 0], [2, 2, 2], [2, 2, 2]])
    np.testing.assert_array_equal(tone, [[3, 3, 0], [4, 4, 4], [4, 4, 4]])


def test_each_session_can_be_cut_out_again(two):
    stitched = stitch(two)
    for name, each in two.items():
        back = stitched.sel(trial=stitched["session"] == name, unit=stitched["unit_session"] == name)
        back = back.isel(time=slice(each.sizes["time"]))
        for variable in ("counts", "mask"):
            np.testing.assert_array_equal(back[variable], each[variable])


def test_entries_that_a_session_had_not_observed_stay_hidden():
    hidden = np.ones((1, 2, 2), bool)
    hidden[0, 1, 0] = False
    stitched = stitch({"a": session(1, 2, [0, 1], mask=hidden), "b": session(1, 2, [0])})
    np.testing.assert_array_equal(stitched["mask"][0], [[True, True, False], [False, True, False]])


def test_one_session_is_itself_under_longer_names():
    alone = session(2, 3, [0, 1])
    stitched = stitch({"only": alone})
    np.testing.assert_array_equal(stitched["counts"], alone["counts"])
    assert stitched["mask"].values.all()
    assert "inputs" not in stitched


def test_the_data_stay_rates_or_fluorescence():
    signal = recording(time=0.1, fluorescence=np.array([[[0.5], [-1.5]]]))
    stitched = stitch({"a": signal, "b": signal})
    np.testing.assert_array_equal(stitched["fluorescence"][1], [[0.0, 0.5], [0.0, -1.5]])


FIRST = session(1, 2, [0])
OTHERS = {
    "width": (session(1, 2, [0], time=0.2), "bin width .s. of the first, 'a': 0.1; 'b' has 0.2"),
    "start": (session(1, 2, [0], time=[1.0, 1.1]), "begin at the time .s. of the first, 'a': 0.0; 'b' has 1.0"),
    "inputs": (session(1, 2, [0], inputs={"cue": np.ones((1, 2))}), r"inputs of the first, 'a': \[\]; 'b' has \['cue'"),
    "kind": (recording(time=0.1, rates=np.ones((1, 2, 1))), "hold of the first, 'a': counts; 'b' has rates"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_sessions_that_differ_in_what_they_share_are_refused(name):
    other, message = OTHERS[name]
    with pytest.raises(ValueError, match=message):
        stitch({"a": FIRST, "b": other})


@pytest.mark.parametrize(
    ("recordings", "error", "message"),
    [
        pytest.param({}, ValueError, "is empty", id="empty"),
        pytest.param([FIRST, FIRST], TypeError, "must map session names to recordings; got list", id="list"),
        pytest.param({"a:b": FIRST}, ValueError, "without ':'; got 'a:b'", id="separator"),
        pytest.param({1: FIRST}, ValueError, "must be text .* got 1", id="number"),
        pytest.param({"a": xr.Dataset()}, ValueError, "holds exactly one of", id="no recording"),
    ],
)
def test_what_is_no_mapping_of_recordings_is_refused(recordings, error, message):
    with pytest.raises(error, match=message):
        # Without the type checks of tests, which users do not have.
        inspect.unwrap(stitch)(recordings)
