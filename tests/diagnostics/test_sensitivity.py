import numpy as np
import pytest
import xarray as xr
from conjugate_trials import fitted
from scipy.stats import norm

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
    assert "engine='state_space' or 'nuts'" in found.explanation


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


def eight_schools(*, centred):
    """Exact draws of mu ~ N(0, 5^2), log tau ~ N(1, 1) and theta ~ N(mu, tau^2), on the data of Rubin (1981)."""
    effect = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    error = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    mu, log_tau = (x.ravel() for x in np.meshgrid(np.linspace(-20, 25, 200), np.linspace(-3, 4, 200)))
    joint = norm.logpdf(effect, mu[:, None], np.hypot(error, np.exp(log_tau)[:, None])).sum(1)
    joint += norm.logpdf(mu, 0, 5) + norm.logpdf(log_tau, 1, 1)
    rng = np.random.default_rng(0)
    at = rng.choice(len(joint), 4000, p=np.exp(joint - joint.max()) / np.exp(joint - joint.max()).sum())
    mu, tau = mu[at], np.exp(log_tau[at])
    precision = 1 / tau[:, None] ** 2 + 1 / error**2
    theta = rng.normal((mu[:, None] / tau[:, None] ** 2 + effect / error**2) / precision, precision**-0.5)
    z = (theta - mu[:, None]) / tau[:, None]
    shaped = lambda x: x.reshape(4, 1000, *x.shape[1:])  # noqa: E731
    sample = ("chain", "draw")
    priors = {"mu": norm.logpdf(mu, 0, 5), "tau": norm.logpdf(np.log(tau), 1, 1) - np.log(tau)}
    priors |= {"theta": norm.logpdf(theta, mu[:, None], tau[:, None]).sum(1)} if centred else {}
    priors |= {} if centred else {"z": norm.logpdf(z).sum(1)}
    sites = {"mu": mu, "tau": tau, "theta": theta} | ({} if centred else {"z": z})
    likelihood = norm.logpdf(effect, theta, error)
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({n: ((*sample, "school")[: x.ndim + 1], shaped(x)) for n, x in sites.items()}),
            "log_prior": xr.Dataset({name: (sample, shaped(x)) for name, x in priors.items()}),
            "log_likelihood": xr.Dataset({"effect": ((*sample, "school"), shaped(likelihood))}),
            "observed_data": xr.Dataset({"effect": ("school", effect)}),
        }
    )


def test_centred_and_non_centred_hierarchies_are_judged_alike():
    centred, other = eight_schools(centred=True), eight_schools(centred=False)
    judged = {v.concern: v for v in prior_sensitivity(centred).verdicts}
    again = {v.concern: v for v in prior_sensitivity(other).verdicts}
    assert set(judged) == {"prior of mu", "prior of tau", "prior of theta"}
    assert {concern: again[concern] for concern in judged} == judged
    # With so few schools, the prior of tau matters.
    assert judged["prior of tau"].verdict == "not certified"


def test_scaling_the_priors_of_a_hierarchys_members_depends_on_how_they_are_written():
    centred = prior_sensitivity(eight_schools(centred=True), priors=["mu", "tau", "theta"])
    other = prior_sensitivity(eight_schools(centred=False), priors=["mu", "tau", "z"])
    found = {v.concern: v.value for v in centred.verdicts}
    again = {v.concern: v.value for v in other.verdicts}
    assert abs(found["prior of tau"] - again["prior of tau"]) > 0.02


def test_priors_of_neurons_are_scaled_and_those_of_trials_are_not():
    result = fitted(VALUES, prior_sd=10.0)
    theta = result["posterior"]["theta"]
    rng = np.random.default_rng(0)
    offsets = xr.DataArray(rng.normal(size=(4, 1000, 10)), dims=("chain", "draw", "trial"))
    weights = xr.DataArray(rng.normal(size=(4, 1000, 3)), dims=("chain", "draw", "unit"))
    result["posterior"] = result["posterior"].to_dataset().assign(offset=offsets, weight=weights)
    # Scaled, this prior would shift theta by much.
    steep, flat = 100 * (theta - 3), 0 * theta
    result["log_prior"] = result["log_prior"].to_dataset().assign(offset=steep, weight=flat)
    assert prior_sensitivity(result).verdicts[0].verdict == "pass"
    result["log_prior"] = result["log_prior"].to_dataset().assign(offset=flat, weight=steep)
    assert prior_sensitivity(result).verdicts[0].verdict == "not certified"


def test_missing_groups_and_nothing_to_scale_are_refused():
    result = fitted(VALUES)
    del result["log_prior"]
    with pytest.raises(ValueError, match=r"missing: \['log_prior'\]"):
        prior_sensitivity(result)
    result = fitted(VALUES)
    with pytest.raises(ValueError, match=r"sites with a prior \(theta\); got \['eta'\]"):
        prior_sensitivity(result, priors=["eta"])
    with pytest.raises(ValueError, match="no prior to scale: none is named"):
        prior_sensitivity(result, priors=[])
    result.attrs["path_sites"] = "theta"
    with pytest.raises(ValueError, match="no prior to scale: all of"):
        prior_sensitivity(result)
