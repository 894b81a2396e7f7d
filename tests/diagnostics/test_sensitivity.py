import numpy as np
import pytest
import xarray as xr
from conjugate_trials import fitted

from connectinfer.diagnostics.sensitivity import prior_sensitivity

VALUES = np.random.default_rng(1).normal(3.0, 1.0, 10)


def only_verdict(result):
    (found,) = prior_sensitivity(result).verdicts
    return found


def test_a_vague_prior_passes():
    found = only_verdict(fitted(VALUES, prior_sd=10.0))
    assert (found.concern, found.verdict) == ("prior of theta", "pass")
    assert found.value < 0.02


def test_a_strong_prior_that_the_data_contradict_is_flagged_as_conflict():
    found = only_verdict(fitted(VALUES, prior_mean=-2.0, prior_sd=0.5))
    assert found.verdict == "not certified"
    assert found.value > 0.05
    assert "pull in different directions" in found.explanation


def test_a_prior_that_speaks_where_data_are_silent_is_told_apart():
    found = only_verdict(fitted(VALUES, prior_mean=0.0, prior_sd=1.0, noise=100.0))
    assert found.verdict == "not certified"
    assert "The data say little here" in found.explanation


def test_priors_of_paths_are_not_scaled_and_paths_not_judged():
    result = fitted(VALUES, prior_sd=10.0)
    rng = np.random.default_rng(0)
    path = xr.DataArray(rng.normal(size=(4, 1000, 5, 2)), dims=("chain", "draw", "time", "latent_dim"))
    result["posterior"] = result["posterior"].to_dataset().assign(latent=path)
    # Scaled, this prior would shift theta by much.
    density = 100 * (result["posterior"]["theta"] - 3)
    result["log_prior"] = result["log_prior"].to_dataset().assign(latent=density)
    assert only_verdict(result).verdict == "pass"


def test_a_few_values_of_a_large_site_are_judged_and_constants_left_out():
    result = fitted(VALUES, prior_mean=-2.0, prior_sd=0.5)
    theta = result["posterior"]["theta"]
    weights = xr.DataArray(np.random.default_rng(0).normal(size=(4, 1000, 50)), dims=("chain", "draw", "unit"))
    # The last value is among those that are judged.
    weights[..., -1] = theta
    result["posterior"] = xr.Dataset({"weight": weights, "fixed": xr.ones_like(theta)})
    found = only_verdict(result)
    assert (found.concern, found.verdict) == ("prior of weight", "not certified")


def test_draws_of_a_guide_with_heavy_weights_are_not_certified():
    result = fitted(VALUES)
    heavy = 2 * np.random.default_rng(0).exponential(size=(4, 1000))
    result["sample_stats"] = xr.Dataset({"log_weight": (("chain", "draw"), heavy)})
    found = only_verdict(result)
    assert (found.concern, found.verdict) == ("reweighting the draws", "not certified")
    assert found.value > 1
    assert "engine='nuts'" in found.explanation


def test_draws_of_a_guide_that_covers_the_posterior_are_judged():
    result = fitted(VALUES, prior_sd=10.0)
    result["sample_stats"] = xr.Dataset({"log_weight": (("chain", "draw"), np.zeros((4, 1000)))})
    assert only_verdict(result).verdict == "pass"


def test_few_draws_are_not_certified():
    found = only_verdict(fitted(VALUES, draws=20))
    assert (found.verdict, found.threshold) == ("not certified", "at least 100 draws")


def test_a_likelihood_too_steep_to_scale_is_not_certified():
    result = fitted(VALUES)
    steep = xr.DataArray(-500 * np.random.default_rng(0).exponential(size=(4, 1000)) ** 2, dims=("chain", "draw"))
    result["log_likelihood"] = xr.Dataset({"value": steep})
    assert "change the weights too much" in only_verdict(result).explanation


def test_missing_groups_and_nothing_to_scale_are_refused():
    result = fitted(VALUES)
    del result["log_prior"]
    with pytest.raises(ValueError, match=r"missing: \['log_prior'\]"):
        prior_sensitivity(result)
    result = fitted(VALUES)
    result.attrs["path_sites"] = "theta"
    with pytest.raises(ValueError, match="no prior to scale"):
        prior_sensitivity(result)
