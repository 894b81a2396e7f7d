import numpy as np
import pytest
from scipy.linalg import subspace_angles

from connectinfer.statistics.principal_components import principal_components

N_TRIALS, N_BINS, N_UNITS, RANK = 8, 60, 15, 2
NO_SMOOTHING = 0.01  # of a bin: the kernel is a single bin


def planted(noise, seed=0):
    """Slow paths of unit variance, loadings with columns of different length, and activity about an offset."""
    generator = np.random.default_rng(seed)
    phase = generator.uniform(0, 2 * np.pi, (N_TRIALS, 1, RANK))
    path = np.sqrt(2) * np.sin(2 * np.pi * np.arange(N_BINS)[:, None] / [40.0, 25.0] + phase)
    loadings = generator.normal(size=(N_UNITS, RANK)) * [2.0, 1.0]
    offset = generator.normal(size=N_UNITS)
    activity = offset + path @ loadings.T + noise * generator.normal(size=(N_TRIALS, N_BINS, N_UNITS))
    return activity, path, loadings, offset


def all_seen():
    return np.ones((N_TRIALS, N_BINS, N_UNITS), bool)


def fit(activity, mask=None, rank=RANK, smoothing=NO_SMOOTHING):
    return principal_components(activity, all_seen() if mask is None else mask, rank, smoothing)


def reconstruction(found):
    return found.offset + found.path @ found.loadings.T


def test_without_smoothing_they_are_the_eigenvectors_of_the_covariance():
    activity, *_ = planted(noise=0.5)
    found, flat = fit(activity, rank=3), activity.reshape(-1, N_UNITS)
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
    np.testing.assert_allclose(found.loadings @ found.loadings.T, (vectors * values) @ vectors.T, atol=1e-9)
    np.testing.assert_allclose(found.explained, values / flat.var(0, ddof=1).sum())
    np.testing.assert_allclose(found.offset, flat.mean(0))


def test_the_path_has_zero_mean_and_identity_covariance_over_observed_bins():
    activity, *_ = planted(noise=0.5)
    mask = all_seen()
    mask[3:, 50:] = False
    path = fit(activity, mask, smoothing=2.0).path[mask.any(-1)]
    np.testing.assert_allclose(path.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(path.T), np.eye(RANK), atol=1e-12)


def test_activity_of_low_rank_is_explained_entirely():
    activity, *_ = planted(noise=0.0)
    found = fit(activity)
    np.testing.assert_allclose(reconstruction(found), activity, atol=1e-10)
    assert found.explained.sum() == pytest.approx(1)
    assert found.explained[0] > found.explained[1]


def test_the_planted_subspace_and_path_are_recovered_from_noisy_activity_with_missing_entries():
    activity, path, loadings, _ = planted(noise=1.0)
    mask = np.random.default_rng(1).random(activity.shape) < 0.8
    found = fit(activity, mask, smoothing=1.5)
    assert np.rad2deg(subspace_angles(found.loadings, loadings)).max() < 6
    design = np.concatenate([found.path, np.ones((N_TRIALS, N_BINS, 1))], -1).reshape(-1, RANK + 1)
    target = path.reshape(-1, RANK)
    residual = target - design @ np.linalg.lstsq(design, target)[0]
    assert (1 - residual.var(0) / target.var(0)).min() > 0.9
    # Without smoothing the holes are filled by the units' means, which costs accuracy.
    raw = fit(activity, mask)
    assert subspace_angles(raw.loadings, loadings).max() > subspace_angles(found.loadings, loadings).max()


def test_masked_entries_do_not_enter():
    activity, *_ = planted(noise=0.5)
    mask = np.random.default_rng(1).random(activity.shape) < 0.7
    mask[2, 40:] = False
    poisoned = np.where(mask, activity, np.nan)
    for clean, other in zip(fit(activity, mask, smoothing=2.0), fit(poisoned, mask, smoothing=2.0), strict=True):
        np.testing.assert_array_equal(clean, other)


def test_a_unit_keeps_its_mean_where_nothing_near_was_observed():
    activity, *_ = planted(noise=0.0)
    mask = all_seen()
    mask[4:, :, 0] = False
    found = fit(activity, mask, rank=N_UNITS)  # all components: the filled activity comes back
    np.testing.assert_allclose(reconstruction(found)[4:, :, 0], activity[:4, :, 0].mean(), atol=1e-9)
    np.testing.assert_allclose(reconstruction(found)[mask], activity[mask], atol=1e-9)


def test_smoothing_does_not_reach_from_one_trial_into_the_next():
    activity, *_ = planted(noise=0.5)
    changed = activity.copy()
    changed[0] += 0.01 * np.random.default_rng(2).normal(size=activity[0].shape)
    before, after = (reconstruction(fit(a, rank=N_UNITS, smoothing=3.0)) for a in (activity, changed))
    np.testing.assert_allclose(before[1:], after[1:], atol=1e-9)
    assert np.abs(before[0] - after[0]).max() > 1e-4


@pytest.mark.parametrize("axis", [0, 2], ids=["trials", "units"])
def test_the_order_of_trials_and_units_does_not_matter(axis):
    activity, *_ = planted(noise=0.5)
    mask = np.random.default_rng(1).random(activity.shape) < 0.8
    order = np.random.default_rng(2).permutation(activity.shape[axis])
    found, moved = (
        fit(a, m, smoothing=2.0) for a, m in ((activity, mask), (activity.take(order, axis), mask.take(order, axis)))
    )
    np.testing.assert_allclose(reconstruction(moved), reconstruction(found).take(order, axis), atol=1e-9)
    np.testing.assert_allclose(moved.explained, found.explained)


def test_offsets_and_scale_go_to_the_offset_and_the_loadings():
    activity, *_ = planted(noise=0.5)
    mask = np.random.default_rng(1).random(activity.shape) < 0.8
    shift = np.arange(N_UNITS, dtype=float)
    found, moved = fit(activity, mask, smoothing=2.0), fit(3 * activity + shift, mask, smoothing=2.0)
    np.testing.assert_allclose(np.abs(moved.path), np.abs(found.path), atol=1e-8)
    np.testing.assert_allclose(np.abs(moved.loadings), 3 * np.abs(found.loadings), atol=1e-8)


def test_constant_activity_has_no_components_but_finite_ones():
    found = fit(np.ones((N_TRIALS, N_BINS, N_UNITS)))
    np.testing.assert_allclose(found.loadings, 0, atol=1e-9)
    np.testing.assert_allclose(found.explained, 0, atol=1e-9)
    assert np.isfinite(found.path).all()


@pytest.mark.parametrize(
    ("shape", "rank"), [((2, 5, 3), 0), ((2, 5, 3), 4), ((1, 2, 5), 3)], ids=["none", "units", "bins"]
)
def test_a_rank_out_of_range_is_refused(shape, rank):
    message = f"between 1 and the number of units and observed bins; got rank={rank} for {shape[2]} units in"
    with pytest.raises(ValueError, match=message):
        principal_components(np.zeros(shape), np.ones(shape, bool), rank, 1.0)


def test_a_smoothing_of_zero_bins_is_refused():
    with pytest.raises(ValueError, match=r"`smoothing` is a width in bins and must be positive; got 0\.0"):
        fit(np.zeros((N_TRIALS, N_BINS, N_UNITS)), smoothing=0.0)
