"""Exact results of a conjugate model: theta ~ N(prior_mean, prior_sd^2), every trial's value ~ N(theta, noise^2)."""

import numpy as np
import xarray as xr
from scipy.stats import norm


def posterior_of(values, prior_mean, prior_sd, noise):
    """Mean and sd of theta."""
    precision = 1 / prior_sd**2 + len(values) / noise**2
    return (prior_mean / prior_sd**2 + np.sum(values) / noise**2) / precision, precision**-0.5


def fitted(values, *, prior_mean=0.0, prior_sd=1.0, noise=1.0, draws=1000):
    """The result of a sampler whose four chains draw from the exact posterior."""
    values = np.asarray(values, float)
    mean, sd = posterior_of(values, prior_mean, prior_sd, noise)
    theta = np.random.default_rng(0).normal(mean, sd, (4, draws))
    likelihood = norm.logpdf(values, theta[..., None], noise)
    sample, trial = ("chain", "draw"), np.arange(len(values))
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"theta": (sample, theta)}),
            "sample_stats": xr.Dataset({"diverging": (sample, np.zeros(theta.shape, bool))}),
            "log_prior": xr.Dataset({"theta": (sample, norm.logpdf(theta, prior_mean, prior_sd))}),
            "log_likelihood": xr.Dataset({"value": ((*sample, "trial"), likelihood)}, {"trial": trial}),
            "observed_data": xr.Dataset({"value": ("trial", values)}, {"trial": trial}),
            "constant_data": xr.Dataset(),
        }
    )
    tree.attrs["status"] = "finished"
    return tree


def exact_left_out(values, prior_mean=0.0, prior_sd=1.0, noise=1.0):
    """Log predictive density of every trial given the others."""
    found = []
    for trial, value in enumerate(values):
        mean, sd = posterior_of(np.delete(values, trial), prior_mean, prior_sd, noise)
        found.append(norm.logpdf(value, mean, np.hypot(sd, noise)))
    return np.array(found)
