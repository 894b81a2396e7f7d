import numpy as np
import pytest
import xarray as xr
from hand_built import approximated
from scipy import stats

from connectinfer.diagnostics.approximation import approximation_verdicts
from connectinfer.diagnostics.importance import smoothed_weights


def normal_guide(loc, scale, n_draws=2000):
    """Draws of independent normal guides `N(loc, scale^2)` of a standard normal posterior, with their weights."""
    loc, scale = (np.asarray(x) for x in np.broadcast_arrays(np.atleast_1d(loc), np.atleast_1d(scale)))
    draws = np.random.default_rng(0).normal(loc, scale, (n_draws, len(loc)))
    log_weight = (stats.norm.logpdf(draws) - stats.norm.logpdf(draws, loc, scale)).sum(1)
    result = approximated(log_weight)
    result["posterior"] = xr.DataTree(xr.Dataset({"theta": (("chain", "draw", "axis"), draws[None])}))
    result["optimisation"] = xr.Dataset({"loss": ("step", np.zeros(1000))}, attrs={"latent_values": len(loc)})
    return result


def verdict(result, concern):
    (found,) = [v for v in approximation_verdicts(result) if v.concern == concern]
    return found


@pytest.mark.parametrize("shift", [0.1, 0.5])
@pytest.mark.parametrize("n_values", [1, 4])
def test_the_distance_of_a_shifted_guide_is_its_shift_in_sds(shift, n_values):
    found = verdict(normal_guide(np.full(n_values, shift), 1.0), "distance of the guide")
    assert found.value == pytest.approx(shift, abs=0.03)
    assert found.verdict == ("pass" if shift < 0.3 else "fail")


@pytest.mark.parametrize("scale", [0.65, 1.4])
def test_a_guide_of_another_width_passes_k_hat_and_fails_by_distance_and_width(scale):
    result = normal_guide(np.zeros(3), scale)
    assert verdict(result, "k-hat of the guide").verdict == "pass"
    assert verdict(result, "distance of the guide").verdict == "fail"
    width = verdict(result, "width of the guide")
    assert width.verdict == "fail"
    # Chance is subtracted, so the value lies between that of the guide and one.
    assert min(scale, 1.0) - 0.02 < width.value < max(scale, 1.0) + 0.02
    assert ("too narrow" if scale < 1 else "too wide") in width.explanation


def test_one_value_far_off_among_many_is_named_though_the_distance_is_small():
    loc, scale = np.zeros(20), np.ones(20)
    loc[7], scale[3] = 0.6, 1.6
    result = normal_guide(loc, scale)
    assert verdict(result, "distance of the guide").verdict == "pass"
    mean, width = verdict(result, "mean of the guide"), verdict(result, "width of the guide")
    assert (mean.verdict, width.verdict) == ("fail", "fail")
    assert "theta[7]" in mean.explanation
    assert "theta[3]" in width.explanation
    assert 0.35 < mean.value <= 0.65


def test_an_exact_guide_is_at_no_distance():
    found = approximation_verdicts(normal_guide(np.zeros(2), 1.0))
    assert {v.verdict for v in found} == {"pass"}
    assert [v.concern for v in found] == [
        "convergence",
        "k-hat of the guide",
        "distance of the guide",
        "mean of the guide",
        "width of the guide",
    ]
    assert [v.value for v in found] == pytest.approx([0, 0, 0, 0, 1], abs=1e-9)


def test_a_few_draws_far_off_hardly_change_the_distance():
    result = normal_guide(np.zeros(1), 1.0)
    weights = np.zeros(2000)
    # A flow may send a draw where the posterior is nothing, however far.
    weights[:5] = -1e4
    result["sample_stats"] = xr.DataTree(xr.Dataset({"log_weight": (("chain", "draw"), weights[None])}))
    assert verdict(result, "distance of the guide").value == pytest.approx(2.5 * 5 / 2000, abs=0.002)


def test_where_k_hat_fails_reweighted_moments_are_not_asked_for():
    concerns = {v.concern: v.verdict for v in approximation_verdicts(normal_guide(np.zeros(3), 0.2))}
    assert concerns == {"convergence": "pass", "k-hat of the guide": "fail"}


def test_smoothed_weights_reweight_to_the_posterior():
    draws = stats.norm.rvs(0.3, 1.2, 4000, random_state=np.random.default_rng(1))
    weights = smoothed_weights(stats.norm.logpdf(draws) - stats.norm.logpdf(draws, 0.3, 1.2))
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ draws == pytest.approx(0.0, abs=0.05)
    assert weights @ draws**2 == pytest.approx(1.0, abs=0.06)
    assert smoothed_weights(np.full(4, 2.0)) == pytest.approx(np.full(4, 0.25))
