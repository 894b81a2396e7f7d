import numpy as np
import pytest

from connectinfer.data.limits import recording_limits
from connectinfer.data.recording import recording

RNG = np.random.default_rng(0)
SPIKES = RNG.poisson(0.7, (4, 20, 3))
STEPS = np.tile((np.arange(20) > 9)[:, None], (4, 1, 1)).astype(float)


def test_a_recording_with_nothing_amiss_has_no_limits():
    shifted = np.stack([np.roll(step, trial) for trial, step in enumerate(STEPS)])
    assert recording_limits(recording(time=0.01, counts=SPIKES, inputs=shifted)) == {}


def test_silent_units_are_counted_and_named():
    found = recording_limits(recording(time=0.01, counts=SPIKES * [1, 0, 0], unit=["a", "b", "c"]))
    assert list(found) == ["silent units"]
    assert found["silent units"].value == 2
    assert "2 of 3 units never fire in the observed bins: 'b', 'c'." in found["silent units"].said


@pytest.mark.parametrize("kind", ["fluorescence", "rates"])
def test_signals_that_never_change_where_they_are_seen_are_silent(kind):
    signal = RNG.normal(size=(4, 20, 3)) ** 2
    signal[..., 2] = 0.3
    signal[0, 3, 2] = 5.0
    mask = np.ones(signal.shape, bool)
    assert recording_limits(recording(time=0.1, mask=mask, **{kind: signal})) == {}
    mask[0, 3, 2] = False
    found = recording_limits(recording(time=0.1, mask=mask, **{kind: signal}))
    assert "1 of 3 units never change in the observed bins: 2." in found["silent units"].said


def test_units_at_their_largest_count_in_most_bins_are_saturated():
    coarse = np.minimum(RNG.poisson(2.0, (4, 20, 3)), 1)
    assert (coarse.mean((0, 1)) > 0.5).all()
    found = recording_limits(recording(time=0.01, counts=np.where([True, False, True], coarse, SPIKES)))
    assert list(found) == ["saturated counts"]
    assert found["saturated counts"].value == 2
    assert "2 of 3 units are at their largest value in most bins: 0, 2." in found["saturated counts"].said


def test_inputs_that_never_differ_between_trials_cannot_be_told_from_time():
    lengths = [20, 12, 20, 7]
    data = recording(
        time=0.01,
        counts=[trial[:n] for trial, n in zip(SPIKES, lengths, strict=True)],
        inputs=[trial[:n] for trial, n in zip(STEPS, lengths, strict=True)],
    )
    assert "same in all trials" in recording_limits(data)["inputs"].said
    # Of the two trials that last so long, one differs in one bin.
    data["inputs"][2, 18] = 3.0
    assert recording_limits(data) == {}


def test_one_trial_is_said_to_be_one():
    found = recording_limits(recording(time=0.01, counts=SPIKES[:1], inputs=STEPS[:1]))
    assert list(found) == ["trials"]
    assert "There is one trial" in found["trials"].said
