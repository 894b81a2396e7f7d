import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import ortho_group

from connectinfer.statistics.recording_blocks import BlockPath, align_block, recording_blocks

LAGS = (3, 6, 12)


def mask_of(*trials):
    """A mask `(trial, time, unit)` of two bins, from the units that every trial saw in both."""
    return np.repeat(np.array(trials, bool)[:, None], 2, axis=1)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        pytest.param(mask_of([1, 1], [1, 1]), [([0, 1], [0, 1])], id="all seen"),
        pytest.param(mask_of([1, 1, 0], [0, 0, 1], [0, 0, 1]), [([0], [0, 1]), ([1, 2], [2])], id="two sessions"),
        pytest.param(mask_of([0, 0, 1], [1, 1, 0]), [([1], [0, 1]), ([0], [2])], id="the larger first"),
        pytest.param(mask_of([1, 1, 0], [0, 1, 1]), [([0, 1], [0, 1, 2])], id="one unit in both"),
        pytest.param(
            mask_of([1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]), [([0, 1], [0, 2, 3]), ([2], [1])], id="never observed"
        ),
    ],
)
def test_blocks_of_hand_counted_masks(mask, expected):
    found = recording_blocks(mask)
    assert [(each.trials.tolist(), each.units.tolist()) for each in found] == expected


def whitened(path):
    flat = path.reshape(-1, path.shape[-1])
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    return (path - flat.mean(0)) @ vectors / np.sqrt(values) @ vectors.T


def diffusion(rng, transition, n_trials=20, n_bins=80):
    """Paths of `z_{t+1} = transition @ z_t + noise`, of which trials share nothing."""
    path = np.zeros((n_trials, n_bins + 50, len(transition)))
    noise = rng.normal(size=path.shape)
    for t in range(1, path.shape[1]):
        path[:, t] = path[:, t - 1] @ transition.T + noise[:, t]
    return path[:, 50:]


def block(path, drive=None):
    drive = np.zeros((*path.shape[:2], 0)) if drive is None else drive
    return BlockPath(path, np.ones(path.shape[:2], bool), drive)


def turned(path, rng):
    """The path in coordinates of a random rotation or reflection, and what leads back."""
    turn = ortho_group.rvs(path.shape[-1], random_state=rng)
    return path @ turn, turn.T


SLOW = np.diag([0.97, 0.9, 0.6])


def test_a_time_course_that_all_trials_share_fixes_every_dimension():
    rng = np.random.default_rng(0)
    course = 3 * np.sin(np.arange(80)[:, None] / [30.0, 12.0, 7.0] + [0.0, 1.0, 2.0])
    mine, theirs = (whitened(course + 0.1 * diffusion(rng, SLOW)) for _ in range(2))
    path, back = turned(mine, rng)
    found = align_block(block(path), block(theirs), LAGS)
    assert found.determined == 3
    np.testing.assert_allclose(found.rotation, back, atol=0.15)


def test_inputs_at_other_times_in_every_trial_fix_the_dimensions_that_they_drive():
    rng = np.random.default_rng(0)
    transition, effect = np.diag([0.95, 0.9]), np.eye(2)

    def driven(n_trials):
        drive = np.repeat(rng.normal(size=(n_trials, 8, 2)), 10, axis=1)
        path = 0.05 * diffusion(rng, transition, n_trials)
        for t in range(1, 80):
            path[:, t] = 0.9 * path[:, t - 1] + drive[:, t - 1] @ effect
        return whitened(path), drive

    (mine, drive), (theirs, other) = driven(15), driven(20)
    path, back = turned(mine, rng)
    found = align_block(block(path, drive), block(theirs, other), LAGS)
    assert found.determined == 2
    np.testing.assert_allclose(found.rotation, back, atol=0.1)


def test_trials_that_share_nothing_fix_no_dimension():
    rng = np.random.default_rng(0)
    fixed = [
        align_block(*(block(whitened(diffusion(rng, SLOW, 10, 40))) for _ in range(2)), LAGS).determined
        for _ in range(12)
    ]
    # What is judged are maxima over 20 splits of each block; a tenth of all pairs would be two in twelve.
    assert sum(each > 0 for each in fixed) <= 3


def test_too_few_trials_to_split_fix_no_dimension():
    rng = np.random.default_rng(0)
    path = whitened(diffusion(rng, SLOW, 3))
    assert align_block(block(path), block(path), LAGS).determined == 0


def test_without_a_shared_course_time_scales_leave_only_the_signs_open():
    rng = np.random.default_rng(0)
    mine, theirs = (whitened(diffusion(rng, SLOW, 40, 200)) for _ in range(2))
    path, back = turned(mine, rng)
    found = align_block(block(path), block(theirs), LAGS)
    np.testing.assert_allclose(np.abs(back.T @ found.rotation), np.eye(3), atol=0.25)


def test_without_a_shared_course_rotations_keep_their_sense():
    rng = np.random.default_rng(0)
    transition = 0.97 * expm(np.array([[0.0, -0.2], [0.2, 0.0]]))
    for _ in range(5):
        mine, theirs = (whitened(diffusion(rng, transition)) for _ in range(2))
        path, back = turned(mine, rng)
        found = align_block(block(path), block(theirs), LAGS)
        # A turn of the plane is a symmetry of these dynamics; a reflection would turn the other way round.
        assert np.linalg.det(back.T @ found.rotation) == pytest.approx(1.0)


def test_the_shift_takes_mean_paths_onto_each_other():
    rng = np.random.default_rng(0)
    course = 3 * np.sin(np.arange(80)[:, None] / [30.0, 12.0])
    theirs = course + 0.1 * rng.normal(size=(10, 80, 2))
    mine = course + 0.1 * rng.normal(size=(10, 80, 2)) - [0.5, -0.2]
    found = align_block(block(mine), block(theirs), LAGS)
    np.testing.assert_allclose(found.shift, [0.5, -0.2], atol=0.05)
