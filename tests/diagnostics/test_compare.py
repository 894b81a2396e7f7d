import numpy as np
import pytest
import xarray as xr
from conjugate_trials import exact_left_out, fitted

from connectinfer.diagnostics.compare import compare

VALUES = np.random.default_rng(1).normal(1.0, 1.0, 25)


def scores(gain, *, scale=None, fold=None, measure="bits per spike"):
    gain = np.asarray(gain, float)
    scale = np.ones(gain.shape) if scale is None else np.asarray(scale, float)
    fold = np.arange(gain.size) if fold is None else np.asarray(fold)
    variables = {"gain": ("trial", gain), "scale": ("trial", scale), "fold": ("trial", fold)}
    return xr.Dataset(variables, {"trial": np.arange(gain.size)}, {"measure": measure})


def test_elpd_and_paired_difference_equal_the_closed_form():
    table = compare({"good": fitted(VALUES), "noisy": fitted(VALUES, noise=2.0)})
    exact = {"good": exact_left_out(VALUES), "noisy": exact_left_out(VALUES, noise=2.0)}
    paired = exact["noisy"] - exact["good"]
    assert list(table.index) == ["good", "noisy"]
    for name, each in exact.items():
        assert table.loc[name, "score"] == pytest.approx(each.sum(), abs=0.1)
        assert table.loc[name, "standard_error"] == pytest.approx(each.std(ddof=1) * 5, rel=0.05)
    assert table.loc["noisy", "difference"] == pytest.approx(paired.sum(), abs=0.1)
    assert table.loc["noisy", "difference_error"] == pytest.approx(paired.std(ddof=1) * 5, rel=0.05)
    assert table.loc["good", "difference"] == table.loc["good", "difference_error"] == 0
    assert (table["items"] == 25).all()
    assert table.attrs["measure"] == "elpd"


def test_scores_of_hand_counted_trials():
    table = compare({"a": scores([1, 2, 3], scale=[1, 1, 2]), "b": scores([2, 4, 4], scale=[1, 1, 2])})
    assert list(table.index) == ["b", "a"]
    assert table["score"].tolist() == [10 / 4, 6 / 4]
    # Differences -1, -2, -1 in a sum of 4, about -1 for each unit of the scale.
    assert table.loc["a", "difference"] == -1
    residuals = np.array([-1, -2, -1]) + np.array([1, 1, 2])
    assert table.loc["a", "difference_error"] == pytest.approx(np.sqrt(3) * residuals.std(ddof=1) / 4)
    assert table.attrs["measure"] == "bits per spike"


def test_a_difference_can_be_clear_though_scores_overlap():
    common = np.random.default_rng(0).normal(0, 10, 50)
    table = compare({"a": scores(common), "b": scores(common - 1 + 0.1 * np.arange(50) % 0.3)})
    assert table.loc["a", "standard_error"] > 1
    assert table.loc["b", "difference_error"] < 0.05


def test_only_what_all_models_scored_is_compared():
    whole, part = scores([1, 2, 3]), scores([5, 6, np.nan], fold=[0, 1, -1])
    table = compare({"whole": whole, "part": part})
    assert table["score"].tolist() == [5.5, 1.5]
    assert (table["items"] == 2).all()
    with pytest.raises(ValueError, match="folds were interrupted"):
        compare({"whole": whole, "none": scores([np.nan] * 3, fold=[-1] * 3)})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (scores([1, 2]), r"'b' scores \{'trial': 2\} in bits per spike and 'a' \{'trial': 3\}"),
        (scores([1, 2, 3], measure="explained variance"), "in explained variance and 'a'"),
        (scores([1, 2, 3], scale=[1, 1, 2]), "other folds or data"),
        (scores([1, 2, 3], fold=[1, 0, 2]), "other folds or data"),
        (xr.Dataset({"mask": 1}), r"'b' is neither a result of `fit` nor scores of `leave_out`: it has \['mask'\]"),
    ],
)
def test_scores_of_something_else_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        compare({"a": scores([1, 2, 3]), "b": other})


def test_results_on_other_data_are_refused():
    with pytest.raises(ValueError, match="'b' and 'a' were not fitted to the same data"):
        compare({"a": fitted(VALUES), "b": fitted(VALUES[::-1])})
    masked = fitted(VALUES)
    masked["constant_data"] = xr.Dataset({"mask": ("trial", np.arange(25) > 0)})
    with pytest.raises(ValueError, match="observed_data or masks differ"):
        compare({"a": fitted(VALUES), "b": masked})


def test_paths_are_refused_with_a_way_out():
    result = fitted(VALUES)
    result.attrs["path_sites"] = "latent"
    with pytest.raises(ValueError, match=r"'b' has latent paths \(latent\).* `leave_out\(model, recording\)`"):
        compare({"a": fitted(VALUES), "b": result})


def test_sampled_paths_are_known_by_their_prior_and_their_time():
    result = fitted(VALUES)
    path = xr.DataArray(np.zeros((4, 1000, 25, 2)), dims=("chain", "draw", "trial", "time"))
    result["posterior"] = result["posterior"].to_dataset().assign(latent=path)
    # A path that follows from parameters has no prior of its own.
    assert len(compare({"a": fitted(VALUES), "b": result})) == 2
    result["log_prior"] = result["log_prior"].to_dataset().assign(latent=path[..., 0, 0])
    with pytest.raises(ValueError, match="'b' has latent paths"):
        compare({"a": fitted(VALUES), "b": result})


def test_draws_of_a_guide_and_trials_that_decide_the_posterior_are_refused():
    guided = fitted(VALUES)
    guided["sample_stats"] = guided["sample_stats"].to_dataset().assign(log_weight=guided["posterior"]["theta"])
    with pytest.raises(ValueError, match="draws of 'b' are those of a variational guide"):
        compare({"a": fitted(VALUES), "b": guided})
    outlier = np.append(VALUES, 60.0)
    with pytest.raises(ValueError, match="cannot leave out 1 of the 26 items of 'a': their k-hat reaches"):
        compare({"a": fitted(outlier, prior_sd=10.0), "b": fitted(outlier, prior_sd=10.0, noise=2.0)})


def test_one_model_and_a_mixture_of_kinds_are_refused():
    with pytest.raises(ValueError, match=r"at least two models; got \['a'\]"):
        compare({"a": fitted(VALUES)})
    with pytest.raises(ValueError, match=r"a: results of `fit`\. b: scores of `leave_out`"):
        compare({"a": fitted(VALUES), "b": scores([1, 2])})


def test_likelihoods_without_trials_are_left_out_item_by_item():
    def by_unit(result):
        result["log_likelihood"] = result["log_likelihood"].to_dataset().rename(trial="unit")
        return result

    table = compare({"good": by_unit(fitted(VALUES)), "noisy": by_unit(fitted(VALUES, noise=2.0))})
    assert table.loc["good", "score"] == pytest.approx(exact_left_out(VALUES).sum(), abs=0.1)
    two = by_unit(fitted(VALUES))
    two["log_likelihood"] = two["log_likelihood"].to_dataset().assign(other=two["posterior"]["theta"])
    with pytest.raises(ValueError, match="likelihoods value, other, not all of which have trials"):
        compare({"a": two, "b": two})
