"""Values of members of groups, against dense quadrature and by simulation-based calibration."""

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from connectinfer.statistics.random_effects import MEAN_SD, SPREAD_SD, random_effects_unit, sample_random_effects

MEASURED = np.array([0.2, 1.1, 0.6, 2.3, 1.9, 0.9])
ERROR = np.array([0.3, 0.2, 0.6, 0.2, 0.4, 0.3])
GROUP = np.array([0, 0, 0, 1, 1, 2])


def by_quadrature(unit, grouped):
    """Posterior means of mu, both sds and the members' values, and sds of both sds, by dense covariances on a grid."""
    grid, n = unit * (np.arange(100) + 0.5) * 0.05, len(MEASURED)
    same = GROUP[:, None] == GROUP
    within, between = (each.ravel() for each in np.meshgrid(grid, grid if grouped else [0.0]))
    effects = within[:, None, None] ** 2 * np.eye(n) + between[:, None, None] ** 2 * same + (MEAN_SD * unit) ** 2
    inverse = np.linalg.inv(effects + np.diag(ERROR**2))
    weighted = inverse @ MEASURED
    density = np.sqrt(np.linalg.det(inverse)) * np.exp(
        -0.5 * weighted @ MEASURED - 0.5 * (within**2 + between**2) / (SPREAD_SD * unit) ** 2
    )
    density /= density.sum()
    mean = (MEAN_SD * unit) ** 2 * weighted.sum(1)
    values = np.einsum("gij,gj->gi", effects, weighted)
    columns = np.column_stack([mean, within, between, within**2, between**2, values])
    return density @ columns


@pytest.mark.parametrize("grouped", [True, False])
def test_the_posterior_is_that_of_quadrature_with_dense_covariances(grouped):
    unit = random_effects_unit(MEASURED, ERROR)
    group = GROUP if grouped else None
    found = sample_random_effects(np.random.default_rng(0), MEASURED, ERROR, group, 0.0, unit, 100_000)
    means = [found.mean, found.within, found.between, found.within**2, found.between**2, *found.value.T]
    # Five standard errors of the draws (a false alarm in 1e-5 of all runs), and what both grids round.
    errors = np.array([np.std(each) for each in means]) / 100_000**0.5
    assert (np.abs(np.mean(means, 1) - by_quadrature(unit, grouped)) < 5 * errors + 2e-3).all()


def test_the_unit_is_the_root_of_variance_and_mean_squared_error():
    assert random_effects_unit(np.array([0.0, 2.0]), np.array([1.0, 3.0])) == pytest.approx(7**0.5)


def test_without_error_and_with_very_many_members_the_sds_are_those_of_the_members():
    rng = np.random.default_rng(0)
    measured = 3.0 + 2.0 * rng.normal(size=4000)
    found = sample_random_effects(rng, measured, np.full(4000, 1e-3), None, 3.0, 2.0, 1000)
    assert found.within.mean() == pytest.approx(measured.std(ddof=1), rel=2e-3)
    # The sd of an sd, which cells of its logarithm must not widen.
    assert found.within.std() == pytest.approx(measured.std() / 8000**0.5, rel=0.1)
    assert found.mean.std() == pytest.approx(measured.std() / 4000**0.5, rel=0.1)
    np.testing.assert_allclose(found.value.mean(0), measured, atol=1e-3)


def test_equal_members_of_large_error_shrink_to_their_mean_and_leave_the_prior_of_the_sd():
    found = sample_random_effects(np.random.default_rng(0), np.ones(5), np.full(5, 50.0), None, 1.0, 1.0, 20_000)
    assert found.within.mean() == pytest.approx((2 / np.pi) ** 0.5, abs=0.02)
    assert found.mean.std() == pytest.approx(MEAN_SD, rel=0.03)


def simulated_ranks(n_sets, draws=99):
    """Ranks of mu, sds, groups and values, drawn from the prior, among the draws from their posteriors."""
    rng = np.random.default_rng(0)
    ranks = []
    for _ in range(n_sets):
        mu, within, between = MEAN_SD * rng.normal(), *np.abs(rng.normal(size=2))
        groups = mu + between * rng.normal(size=3)
        values = groups[GROUP] + within * rng.normal(size=6)
        measured = values + ERROR * rng.normal(size=6)
        found = sample_random_effects(rng, measured, ERROR, GROUP, 0.0, 1.0, draws)
        truth = [mu, within, between, groups[0], groups[2], values[0], values[5]]
        drawn = [found.mean, found.within, found.between, *found.group.T[[0, 2]], *found.value.T[[0, 5]]]
        ranks.append([(d < t).sum() for d, t in zip(drawn, truth, strict=True)])
    return np.array(ranks)


def test_truths_from_the_prior_have_uniform_ranks_and_are_covered():
    ranks = simulated_ranks(400)
    # Ten bins of ten ranks each; seven quantities, a false alarm in 7e-4 of all runs.
    counts = np.stack([np.bincount(each // 10, minlength=10) for each in ranks.T])
    assert ((counts - 40) ** 2 / 40).sum(1).max() < chi2.isf(1e-4, 9)
    covered = ((ranks >= 5) & (ranks < 95)).sum(0)
    assert min(binomtest(int(each), 400, 0.9).pvalue for each in covered) > 1e-4
