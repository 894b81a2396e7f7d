import json

import numpy as np
import pytest
import xarray as xr
from hand_built import N_BINS, N_TRIALS, approximated, gibbs_sampled, poisson_counts, sampled, with_predictions

from connectinfer.diagnostics import checks
from connectinfer.diagnostics.checks import diagnose
from connectinfer.diagnostics.importance import k_hat

RNG = np.random.default_rng(1)


def verdict(result, concern):
    (found,) = [v for v in diagnose(result).verdicts if v.concern == concern]
    return found


def test_independent_draws_pass_every_check():
    diagnosis = diagnose(sampled())
    assert diagnosis.passed
    assert {v.verdict for v in diagnosis.verdicts} == {"pass"}
    assert list(diagnosis.table["concern"]) == [
        "R-hat of parameters",
        "ESS (bulk) of parameters",
        "ESS (tail) of parameters",
        "divergences",
        "E-BFMI",
        "tree depth",
    ]
    assert str(diagnosis).startswith("All checks passed.")


def test_a_shifted_chain_fails_r_hat_and_the_worst_entry_is_named():
    theta = RNG.normal(size=(4, 500, 2))
    theta[2, :, 1] += 3
    found = verdict(sampled(theta=theta), "R-hat of parameters")
    assert found.verdict == "fail"
    assert found.value > 1.3
    assert "theta[axis=1]" in found.explanation


def test_the_worst_r_hat_of_many_agreeing_chains_is_allowed_what_chance_gives():
    # Ten runs of 100 autocorrelated parameters: each fails wrongly in at most one run of 100, so more than one failure
    # has a chance of 4e-3. All are above 1.01, and a chain that is a standard deviation away is still found.
    rng = np.random.default_rng(3)
    above, failed, missed = 0, 0, 0
    for _ in range(10):
        theta = rng.normal(size=(4, 400, 100))
        for t in range(1, 400):
            theta[:, t] = 0.4 * theta[:, t - 1] + np.sqrt(1 - 0.4**2) * theta[:, t]
        found = verdict(sampled(theta=theta), "R-hat of parameters")
        above, failed = above + (found.value > 1.01), failed + (found.verdict == "fail")
        theta[1, :, 7] += 1.0
        missed += verdict(sampled(theta=theta), "R-hat of parameters").verdict == "pass"
    assert above >= 9
    assert failed <= 1
    assert missed == 0


def test_draws_that_are_not_finite_fail_with_their_site_and_count():
    theta = np.random.default_rng(0).normal(size=(4, 500, 2))
    theta[1, 3, 0], theta[2, 7:9, 1] = np.inf, np.nan
    verdict = next(v for v in diagnose(sampled(theta=theta)).verdicts if v.concern == "finite draws")
    assert (verdict.verdict, verdict.value) == ("fail", 3)
    assert "Values of theta are not finite" in verdict.explanation


def test_chains_stuck_at_different_values_fail_r_hat():
    theta = RNG.normal(size=(4, 500, 2))
    theta[..., 0] = np.arange(4.0)[:, None]
    found = verdict(sampled(theta=theta), "R-hat of parameters")
    assert found.verdict == "fail"
    assert found.value > 1e6
    assert "theta[axis=0]" in found.explanation


def test_a_constant_has_no_r_hat_and_fails_nothing():
    theta = RNG.normal(size=(4, 500, 2))
    theta[..., 0] = 1.0
    assert diagnose(sampled(theta=theta)).passed


def test_chains_of_one_seed_fail_though_r_hat_passes():
    theta = np.repeat(RNG.normal(size=(1, 2000, 2)), 4, axis=0)
    found = verdict(sampled(theta=theta), "repeated chains")
    assert (found.verdict, found.value) == ("fail", 3)
    assert "Only 1 of 4 chains of 2000 draws differ" in found.explanation
    assert verdict(sampled(theta=theta), "R-hat of parameters").verdict == "pass"
    theta[1:3] += 1e-9
    assert verdict(sampled(theta=theta), "repeated chains").value == 2


def test_a_chain_stuck_in_the_middle_of_the_others_fails_r_hat():
    theta = RNG.normal(size=(4, 500, 2))
    theta[3] = 0.0
    assert verdict(sampled(theta=theta), "R-hat of parameters").verdict == "fail"


def test_slow_chains_fail_the_effective_sample_size():
    steps = RNG.normal(size=(4, 500, 2))
    theta = np.empty_like(steps)
    theta[:, 0] = steps[:, 0]
    for t in range(1, 500):
        theta[:, t] = 0.98 * theta[:, t - 1] + np.sqrt(1 - 0.98**2) * steps[:, t]
    found = verdict(sampled(theta=theta), "ESS (bulk) of parameters")
    # An autoregression of 0.98 has 1 effective draw in (1 + 0.98) / (1 - 0.98) = 99: about 20 of 2,000.
    assert found.verdict == "fail"
    assert 5 < found.value < 100
    assert found.threshold == "at least 400"


def test_a_single_chain_is_not_certified():
    diagnosis = diagnose(sampled(chains=1))
    assert verdict(sampled(chains=1), "R-hat of parameters").verdict == "not certified"
    assert diagnosis.passed
    assert str(diagnosis).startswith("Nothing failed; not certified: R-hat of parameters.")


@pytest.mark.parametrize(
    ("stat", "values", "concern", "value"),
    [
        ("diverging", np.eye(4, 500, dtype=bool), "divergences", 4),
        ("failed_solves", np.eye(4, 500, dtype=int) * 2, "failed solves", 8),
    ],
)
def test_counts_of_sampler_trouble_fail_with_their_number(stat, values, concern, value):
    found = verdict(sampled(**{stat: values}), concern)
    assert found.verdict == "fail"
    assert found.value == pytest.approx(value)


def test_trajectories_at_the_limit_leave_the_verdict_to_r_hat():
    found = verdict(sampled(reached_max_tree_depth=np.arange(2000).reshape(4, 500) < 40), "tree depth")
    assert (found.verdict, found.value) == ("not certified", pytest.approx(0.02))


def descended(losses, latent_values=100):
    result = approximated(np.zeros(1000))
    result["optimisation"] = xr.Dataset({"loss": ("step", losses)}, attrs={"latent_values": latent_values})
    return verdict(result, "convergence")


def test_a_loss_that_still_falls_fails_by_the_shift_it_stands_for():
    # From 50 above the end to the end in the second half; tenths average to 45 and 5 above.
    steady = descended(np.linspace(100, 0, 1000))
    noise = 3 * 0.1 / 10  # steps of 0.1
    assert steady.verdict == "fail"
    assert steady.value == pytest.approx(np.sqrt(2 * (40.0 - noise) / 100), rel=0.01)
    assert descended(np.linspace(100, 0, 1000), latent_values=400).verdict == "not certified"
    # The same rise of the bound, shared by a hundred times as many values, is little.
    assert descended(np.linspace(100, 0, 1000), latent_values=10_000).verdict == "pass"


def test_a_loss_that_is_only_noise_passes():
    found = descended(np.random.default_rng(0).normal(size=1000))
    assert (found.verdict, found.value) == ("pass", 0.0)


def test_a_short_or_interrupted_run_does_not_pass():
    assert descended(np.random.default_rng(0).normal(size=999)).verdict == "not certified"
    result = approximated(np.zeros(1000))
    result.attrs["status"] = "interrupted"
    result["optimisation"] = xr.Dataset({"loss": ("step", np.zeros(1000))}, attrs={"latent_values": 100})
    assert verdict(result, "convergence").verdict == "not certified"


def test_a_parameter_that_still_moves_is_named_although_the_loss_is_flat():
    def moved(*by, status="finished"):
        result = approximated(np.zeros(1000))
        result.attrs["status"] = status
        found = {"loss": ("step", np.zeros(1000)), "moved": ("site", list(by))}
        result["optimisation"] = xr.Dataset(found, {"site": ["gain", "noise"]}, attrs={"latent_values": 100})
        return [v for v in diagnose(result).verdicts if v.concern == "movement of parameters"]

    (still,), (rest,), (lost,) = moved(0.1, 2.0), moved(0.1, 0.4), moved(0.1, np.nan)
    assert (still.verdict, still.value, rest.verdict) == ("not certified", 2.0, "pass")
    assert still.explanation.startswith("noise moved most")
    assert lost.verdict == "not certified"
    # Where half of the run was is known of whole runs only.
    assert moved(0.1, 2.0, status="interrupted") == []


def test_a_handful_of_steps_does_not_certify_convergence():
    found = descended(np.zeros(30))
    assert (found.verdict, found.value, found.threshold) == ("not certified", 30, "at least 200 steps")


def test_one_draw_in_a_hundred_at_the_tree_limit_passes():
    at_limit = np.arange(2000).reshape(4, 500) < 20
    assert verdict(sampled(reached_max_tree_depth=at_limit), "tree depth").verdict == "pass"


def test_an_energy_that_drifts_fails_e_bfmi():
    energy = RNG.normal(size=(4, 500)).cumsum(1)
    found = verdict(sampled(energy=energy), "E-BFMI")
    expected = ((np.diff(energy, axis=1) ** 2).mean(1) / energy.var(1, ddof=1)).min()
    assert found.verdict == "fail"
    assert found.value == pytest.approx(expected, rel=0.01)


def test_nearly_constant_weights_pass_and_heavy_ones_fail_without_paths():
    fine = verdict(approximated(0.1 * RNG.normal(size=1000)), "k-hat of the guide")
    assert fine.verdict == "pass"
    assert fine.threshold == "at most 0.67"
    assert verdict(approximated(np.zeros(1000)), "k-hat of the guide").verdict == "pass"
    # A guide that is too wide has weights with a heavy tail to the left, which does no harm.
    assert verdict(approximated(-2 * RNG.exponential(size=1000)), "k-hat of the guide").verdict == "pass"
    heavy = verdict(approximated(2 * RNG.exponential(size=1000)), "k-hat of the guide")
    # The exponential of an exponential variable of mean 2 is a Pareto variable of shape k = 2.
    assert heavy.verdict == "fail"
    assert 1.3 < heavy.value < 2.7


def test_heavy_weights_over_paths_are_not_certified_and_count_their_values():
    found = verdict(approximated(2 * RNG.exponential(size=1000), path_sites="latent"), "k-hat of the guide")
    assert found.verdict == "not certified"
    assert "40 path values" in found.explanation


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_draws_without_a_density_fail_with_their_count(weight):
    weights = np.zeros(100)
    weights[:3] = weight
    found = verdict(approximated(weights), "k-hat of the guide")
    assert found.verdict == "fail"
    assert found.value == 3
    assert "3 of 100 draws" in found.explanation


def test_draws_that_the_model_rules_out_have_no_weight():
    weights = 0.3 * np.random.default_rng(0).normal(size=1000)
    weights[:100] = -np.inf
    found = verdict(approximated(weights), "k-hat of the guide")
    assert (found.verdict, found.value) == ("pass", pytest.approx(k_hat(weights[100:]), abs=0.1))
    assert verdict(approximated(weights[:150]), "k-hat of the guide").verdict == "not certified"


def learned(validation, steps=2000, status="finished"):
    result = approximated(np.zeros(1000))
    result.attrs["status"] = status
    losses = {"loss": ("step", np.zeros(steps)), "validation": ("chunk", validation)}
    result["optimisation"] = xr.Dataset(losses, attrs={"latent_values": 4})
    return verdict(result, "convergence")


def test_a_flow_is_judged_by_simulations_it_has_not_seen():
    # Halfway the best is 4, at the end 2: a shift of sqrt(2 * 2 / 4).
    falling = learned(np.array([6.0, 5, 4, 3.5, 3, 2]))
    assert (falling.verdict, falling.value) == ("fail", pytest.approx(1.0))
    by_heart = learned(np.array([6.0, 2, 3, 4, 5, 6]))
    assert (by_heart.verdict, by_heart.value) == ("pass", 0.0)
    assert "best after 2 of 6 chunks" in by_heart.explanation
    assert learned(np.array([3.0, 2, 1])).verdict == "not certified"
    rest = np.array([6.0, 2, 2, 2, 2, 2])
    assert [learned(rest, 600).verdict, learned(rest, status="interrupted").verdict] == ["not certified"] * 2


@pytest.mark.parametrize("draws", [1, 20, 99])
def test_too_few_weights_are_not_certified(draws):
    assert verdict(approximated(RNG.normal(size=draws)), "k-hat of the guide").verdict == "not certified"


@pytest.mark.parametrize(("status", "expected"), [("interrupted", "not certified"), ("diverged", "fail")])
def test_runs_that_did_not_finish_say_so(status, expected):
    result = sampled()
    result.attrs["status"] = status
    assert verdict(result, "completion").verdict == expected
    assert diagnose(result).passed == (expected != "fail")


def test_data_like_the_model_pass_and_a_planted_rate_fails_and_names_its_unit():
    rates = np.array([0.5, 1.0, 2.0])
    predicted = poisson_counts(rates, 200)
    result = with_predictions(sampled(), poisson_counts(rates, 1, seed=5)[0], predicted)
    judged = [v for v in diagnose(result).verdicts if v.concern.startswith("prediction of counts")]
    assert [v.concern.partition(", ")[2] for v in judged] == [
        "firing rate",
        "rate modulation",
        "Fano factor",
        "CV of intervals",
        "correlation of pairs",
        "population time course",
        "population autocorrelation",
    ]
    assert {v.verdict for v in judged} == {"pass"}
    planted = with_predictions(sampled(), poisson_counts(np.array([0.5, 3.0, 6.0]), 1, seed=5)[0], predicted)
    found = verdict(planted, "prediction of counts, firing rate")
    assert found.verdict == "fail"
    assert (found.value, found.threshold) == (2, "at most 1 of 3 units in the outer 1 %")
    assert "units u1, u2" in found.explanation
    assert not diagnose(planted).passed


def test_few_predictive_draws_tell_what_is_far_off_and_very_few_nothing():
    counts = poisson_counts(np.array([1.0]), 20)
    silent = with_predictions(sampled(), 0 * counts[0], counts)
    # Among 20 draws the lowest is nothing special, but 80 spikes are 9 sd of their number.
    assert verdict(silent, "prediction of counts, firing rate").verdict == "fail"
    lowest = counts[np.argmin(counts.sum((1, 2, 3)))] * (np.arange(N_TRIALS * N_BINS).reshape(N_TRIALS, N_BINS, 1) > 1)
    assert verdict(with_predictions(sampled(), lowest, counts), "prediction of counts, firing rate").verdict == "pass"
    few = verdict(with_predictions(sampled(), 0 * counts[0], counts[:19]), "prediction of counts, firing rate")
    assert few.verdict == "not certified"
    assert "Too few units or predictive draws" in few.explanation


def test_variance_between_trials_is_judged_beside_the_rate():
    rates = np.array([1.0, 1.0, 1.0])
    # Same sum over all trials, but all of it in the first two.
    observed = np.zeros((N_TRIALS, N_BINS, 3), int)
    observed[:2] = N_TRIALS // 2
    result = with_predictions(sampled(), observed, poisson_counts(rates, 200))
    assert observed.sum((0, 1)).tolist() == [N_TRIALS * N_BINS] * 3
    assert verdict(result, "prediction of counts, firing rate").verdict == "pass"
    assert verdict(result, "prediction of counts, Fano factor").verdict == "fail"


def test_units_without_a_value_are_left_out_and_counted():
    rates = np.array([1.0, 1.0, 0.0])
    result = with_predictions(sampled(), poisson_counts(rates, 1, seed=5)[0], poisson_counts(rates, 200))
    found = verdict(result, "prediction of counts, Fano factor")
    assert found.threshold == "at most 1 of 2 units in the outer 1 %"
    assert "1 units without a value in all data sets are left out" in found.explanation
    silent = with_predictions(sampled(), poisson_counts(0 * rates, 1)[0], poisson_counts(rates, 200))
    assert verdict(silent, "prediction of counts, Fano factor").verdict == "not certified"


def test_masked_entries_do_not_count_in_predictions():
    rates = np.array([1.0, 1.0, 1.0])
    observed = poisson_counts(rates, 1, seed=5)[0]
    mask = np.ones(observed.shape, bool)
    mask[:, 5:] = False
    observed[~mask] = 0
    result = with_predictions(sampled(), observed, poisson_counts(rates, 200), mask)
    assert verdict(result, "prediction of counts, firing rate").verdict == "pass"


def test_markdown_and_text_lead_with_the_failures_and_hold_a_row_for_each_concern():
    diagnosis = diagnose(sampled(diverging=np.eye(4, 500, dtype=bool)))
    markdown = diagnosis.to_markdown().splitlines()
    assert markdown[0] == "Do not use this fit yet: divergences failed."
    assert markdown[2:4] == [
        "| concern | verdict | value | threshold | what it means |",
        "| --- | --- | --- | --- | --- |",
    ]
    assert len(markdown) == 4 + len(diagnosis.verdicts)
    assert any(row.startswith("| divergences | **fail** | 4 | none | Some regions") for row in markdown)
    assert "         FAIL  divergences: 4 (none). Some regions were too curved" in str(diagnosis)


def test_invariants_are_judged_beside_the_parameters():
    result = sampled()
    # Chains that sit in different gauges agree about the spectrum; here one has another spectrum.
    overlap = RNG.normal(size=(4, 500, 2, 2)) * 0.1 + np.diag([1.0, 2.0])
    overlap[1] += np.diag([0.0, 1.0])
    dims = ("chain", "draw", "latent_dim", "latent_from")
    result["posterior"] = xr.DataTree(result["posterior"].to_dataset().assign(overlap=(dims, overlap)))
    found = verdict(result, "R-hat of invariants")
    assert found.verdict == "fail"
    assert "eigenvalue_real[mode=1]" in found.explanation


def test_a_tree_without_its_groups_is_refused():
    with pytest.raises(ValueError, match=r"missing: \['sample_stats'\]"):
        diagnose(xr.DataTree.from_dict({"posterior": xr.Dataset()}))


def test_data_that_cannot_be_compared_are_not_certified():
    result = with_predictions(sampled(), np.zeros((8, 10, 3), int), np.zeros((5, 8, 10, 3), int))
    result["constant_data"] = xr.DataTree(xr.Dataset())
    found = verdict(result, "prediction")
    assert found.verdict == "not certified"
    assert "were not compared" in found.explanation


@pytest.mark.parametrize(
    ("kinds", "outcome", "share", "said"),
    [
        ([["2 stable", "2 stable", "none"]] * 2, "pass", 2 / 3, "2 stable in most draws of every chain. Of 6 draws: 4"),
        ([["2 stable"] * 3, ["1 stable"] * 3], "not certified", 1 / 2, "Chains differ: 2 stable, 1 stable"),
    ],
)
def test_chains_are_compared_by_their_most_common_fixed_points(monkeypatch, kinds, outcome, share, said):
    monkeypatch.setattr(checks, "fixed_point_kinds", lambda _: xr.DataArray(np.array(kinds), dims=("chain", "draw")))
    found = verdict(sampled(), "fixed points")
    assert (found.verdict, found.value) == (outcome, pytest.approx(share))
    assert found.explanation.startswith(said)


def test_paths_are_judged_at_some_of_their_bins():
    result = sampled()
    latent = RNG.normal(size=(4, 500, 5, 20, 1))
    latent[2, :, 4] += 5
    result["posterior"] = (
        result["posterior"].to_dataset().assign(latent=(("chain", "draw", "trial", "time", "latent_dim"), latent))
    )
    found = verdict(result, "R-hat of parameters")
    assert found.verdict == "fail"
    assert "latent[" in found.explanation


@pytest.mark.parametrize(("acceptance", "outcome"), [(0.8, "pass"), (0.05, "fail")])
def test_paths_that_hardly_move_fail(acceptance, outcome):
    result = gibbs_sampled(acceptance)
    assert verdict(result, "paths").verdict == outcome
    assert verdict(result, "R-hat of parameters").verdict == "pass"
    assert "failed updates" not in {each.concern for each in diagnose(result).verdicts}


def test_updates_that_failed_numerically_are_counted():
    found = verdict(gibbs_sampled(failed=3), "failed updates")
    assert (found.verdict, found.value) == ("fail", 3.0)
    assert "float64" in found.explanation


def test_a_latent_dimension_that_draws_do_not_share_is_named():
    rng = np.random.default_rng(0)
    path = rng.normal(size=(3, 50, 2))
    # Along the second dimension, draws scatter with twice the sd of what they share: a fifth of the variance.
    latent = path + [0.1, 2.0] * rng.normal(size=(4, 100, 3, 50, 2))
    tree = sampled(theta=rng.normal(size=(4, 100, 1)))
    posterior = tree["posterior"].to_dataset()
    posterior["latent"] = (("chain", "draw", "trial", "time", "latent_dim"), latent)
    tree["posterior"] = posterior.assign_coords(latent_dim=[0, 1])
    found = verdict(tree, "rank")
    assert found.verdict == "not certified"
    assert found.value == pytest.approx(0.2, abs=0.03)
    assert "along latent dimension 1:" in found.explanation
    tree["posterior"] = posterior.isel(latent_dim=[0]).assign_coords(latent_dim=[0])
    assert "rank" not in [each.concern for each in diagnose(tree).verdicts]


def test_what_the_recording_cannot_tell_is_not_certified():
    tree = sampled()
    tree.attrs["limits"] = json.dumps(
        {"trials": {"value": 1, "asked": "several trials", "said": "There is one trial."}}
    )
    found = verdict(tree, "trials")
    assert (found.verdict, found.value, found.threshold) == ("not certified", 1.0, "several trials")
    assert found.explanation == "There is one trial."
