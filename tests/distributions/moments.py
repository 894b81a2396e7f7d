"""A test of sample moments against closed forms."""

import numpy as np
from scipy.stats import norm

FALSE_ALARM_RATE = 1e-6
"""Chance that `assert_moments` rejects the true mean and covariance (Bonferroni over all entries, normal limits)."""


def assert_moments(samples, mean, covariance):
    """Passes if samples `(draw, dim)` have the mean and covariance that they should have."""
    samples, n = np.asarray(samples, float), len(samples)
    spread = np.diag(covariance)
    z_mean = (samples.mean(0) - mean) * np.sqrt(n / spread)
    # Wishart: the variance of a sample covariance is (S_ii S_jj + S_ij^2) / n.
    z_covariance = (np.cov(samples.T) - covariance) * np.sqrt(n / (np.outer(spread, spread) + covariance**2))
    limit = norm.isf(FALSE_ALARM_RATE / 2 / (z_mean.size + z_covariance.size))
    assert max(np.abs(z_mean).max(), np.abs(z_covariance).max()) < limit
