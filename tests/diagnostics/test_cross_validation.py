from types import SimpleNamespace

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm, poisson

from connectinfer.data.recording import recording
from connectinfer.diagnostics import cross_validation
from connectinfer.diagnostics.compare import compare
from connectinfer.diagnostics.cross_validation import leave_out
from connectinfer.statistics.co_smoothing import ratio_score
from connectinfer.zoo import load_model

TRIALS, BINS, UNITS = 6, 5, 4


def counted(trials=TRIALS, **given):
    counts = np.random.default_rng(0).poisson(2.0, (trials, BINS, UNITS))
    given = given or {"counts": counts}
    return recording(time=0.1, trial=[f"t{i}" for i in range(trials)], unit=[f"u{i}" for i in range(UNITS)], **given)


@pytest.fixture
def fits(monkeypatch):
    """`fit` replaced by a forecast of 2 everywhere, and what it was given; `ends` says how the calls end."""
    calls = []

    def forecast(model, data, *, seed, ends=(), **options):
        assert options.pop("show_progress") is False
        calls.append((data, seed, options))
        end = dict(enumerate(ends, 1)).get(len(calls), "")
        if end == "raise":
            raise KeyboardInterrupt
        if end == "refuse":
            raise ValueError("Too little data.")
        expected = xr.Dataset({"x": xr.full_like(data["mask"], 2.0, dtype=float)})
        result = xr.DataTree.from_dict({"expected": expected, "constant_data": data[["mask"]]})
        status = {"return": "interrupted", "diverge": "diverged"}.get(end, "finished")
        result.attrs.update({"status": status, "model": model})
        return result

    monkeypatch.setattr(cross_validation, "fit", forecast)
    monkeypatch.setattr(cross_validation, "load_model", lambda _: SimpleNamespace())
    return calls


def run(data=None, **options):
    return leave_out("forecast", counted() if data is None else data, show_progress=False, **options)


def test_every_trial_is_hidden_once_but_for_its_first_bin(fits):
    data = counted()
    scores = run(data, folds=3, seed=4, rank=1)
    assert [(seed, options) for _, seed, options in fits] == [(4, {"rank": 1})] * 3
    hidden = np.array([(data["mask"] & ~training["mask"]).values for training, _, _ in fits])
    assert hidden.any((2, 3)).sum(0).tolist() == [1] * TRIALS
    assert (hidden.sum(0) == np.r_[0, np.ones(BINS - 1)][None, :, None]).all()
    for training, _, _ in fits:
        assert (training["counts"].where(~training["mask"], 0) == 0).all()
        assert training["counts"].dtype == data["counts"].dtype
    fold_of = [int(np.flatnonzero(each)[0]) for each in hidden.any((2, 3)).T]
    assert scores["fold"].values.tolist() == fold_of
    assert scores["trial"].values.tolist() == data["trial"].values.tolist()


def test_the_first_observed_bin_stays_where_trials_begin_late(fits):
    mask = np.ones((TRIALS, BINS, UNITS), bool)
    mask[:, 0] = mask[:, 1, :3] = False
    run(counted(counts=np.ones(mask.shape, int), mask=mask), folds=2)
    kept = fits[0][0]["mask"].values
    trial = int(np.argmin(kept.sum((1, 2))))
    assert kept[trial].nonzero() == (np.array([1]), np.array([3]))


def test_every_unit_is_hidden_in_the_trials_of_its_fold_and_seen_in_others(fits):
    data = counted()
    scores = run(data, by="unit", folds=2)
    assert scores["fold"].dims == ("unit",)
    for fold, (training, _, _) in enumerate(fits):
        hidden = (data["mask"] & ~training["mask"]).values
        assert hidden.sum() == 3 * BINS * 2
        assert hidden.any((0, 1)).tolist() == (scores["fold"] == fold).values.tolist()


def test_each_unit_alone_can_be_hidden_in_fewer_trials_than_units(fits):
    counts = np.random.default_rng(0).poisson(2.0, (3, BINS, 6))
    data = recording(counts=counts, time=0.1)
    scores = run(data, by="unit", folds=6)
    hidden = np.array([(data["mask"] & ~training["mask"]).values for training, _, _ in fits])
    assert hidden.shape == (6, 3, BINS, 6)
    assert (hidden.any((0, 1, 2)) & (hidden.any((1, 2)).sum(0) == 1)).all()
    # One trial a fold, each of the three twice.
    assert hidden.any((2, 3)).sum(1).tolist() == [1] * 6
    assert hidden.any((2, 3)).sum(0).tolist() == [2] * 3
    for unit in range(6):
        fold = int(scores["fold"][unit])
        own, seen = hidden[fold][..., unit], counts[..., unit]
        mean = seen[~own].mean()
        nats = (seen[own] * np.log(2 / mean) - 2 + mean).sum()
        assert float(scores["gain"][unit]) == pytest.approx(nats / np.log(2))
        assert float(scores["scale"][unit]) == seen[own].sum()


def test_gains_equal_those_counted_by_hand(fits):
    data = counted()
    scores = run(data, folds=2)
    trial = 3
    training = fits[int(scores["fold"][trial])][0]
    seen, counts = training["mask"].values, data["counts"].values
    means = np.array([counts[..., u][seen[..., u]].mean() for u in range(UNITS)])
    hidden = counts[trial, 1:]
    nats = (hidden * np.log(2 / means) - 2 + means).sum()
    assert float(scores["gain"][trial]) == pytest.approx(nats / np.log(2))
    assert float(scores["scale"][trial]) == hidden.sum()
    assert float(scores["score"][trial]) == pytest.approx(nats / np.log(2) / hidden.sum())
    assert scores.attrs["score"] == pytest.approx(float(scores["gain"].sum() / scores["scale"].sum()))
    assert {"measure": "bits per spike", "status": "finished", "folds": 2}.items() <= scores.attrs.items()


def test_signals_are_scored_by_explained_variance(fits):
    signal = np.random.default_rng(1).normal(2.0, 1.0, (TRIALS, BINS, UNITS))
    scores = run(counted(fluorescence=signal), by="unit", folds=2)
    unit = 1
    training = fits[int(scores["fold"][unit])][0]
    seen = training["mask"].values[..., unit]
    hidden, mean = signal[..., unit][~seen], signal[..., unit][seen].mean()
    expected = 1 - ((hidden - 2) ** 2).sum() / ((hidden - mean) ** 2).sum()
    assert float(scores["score"][unit]) == pytest.approx(expected)
    assert scores.attrs["measure"] == "explained variance"


@pytest.mark.parametrize("kind", ["counts", "fluorescence"])
def test_models_with_paths_are_scored_by_the_likelihood_of_whole_trials(fits, monkeypatch, kind):
    """The likelihood is 1 or 3 times what independent units make it: twice that, averaged over draws."""
    monkeypatch.setattr(cross_validation, "load_model", lambda _: SimpleNamespace(CONDITIONALS=None))
    monkeypatch.setattr(cross_validation, "check_other_trials", lambda *_: None)
    values = counted()["counts"].values
    data = counted(**{kind: values if kind == "counts" else values + 0.5})

    def baselines(training, trials):
        seen = training[kind].values.reshape(-1, UNITS)
        law = poisson(seen.mean(0)).logpmf if kind == "counts" else norm(seen.mean(0), seen.std(0)).logpdf
        return law(trials[kind].values).sum((1, 2))

    def infer_paths(_, trials, *, model):
        assert model == "forecast"
        assert trials["mask"].all()
        independent = baselines(fits[-1][0], trials)
        likelihood = np.stack([independent + np.log(times) for times in (1, 3)])[:, None]
        return xr.DataTree.from_dict({"log_likelihood": xr.Dataset({"x": (("chain", "draw", "trial"), likelihood)})})

    monkeypatch.setattr(cross_validation, "infer_paths", infer_paths)
    scores = run(data, folds=3)
    assert [training.sizes["trial"] for training, _, _ in fits] == [4] * 3
    in_bits = kind == "counts"
    np.testing.assert_allclose(scores["gain"], 1.0 if in_bits else np.log(2))
    np.testing.assert_array_equal(scores["scale"], values.sum((1, 2)) if in_bits else BINS * UNITS)
    measure = "bits per spike" if in_bits else "nats per entry"
    assert scores.attrs["measure"] == f"{measure}, paths integrated out"
    assert (compare({"a": scores, "b": scores})["difference"] == 0).all()


def test_the_standard_error_is_that_of_a_ratio():
    # Residuals of the score 2: -1, 0 and 1, in a sum of 4.
    assert ratio_score(np.array([1.0, 2, 5]), np.array([1.0, 1, 2])) == (2, pytest.approx(np.sqrt(3) * 1 / 4))
    rng = np.random.default_rng(0)
    samples = [(rng.normal(3 * s, 2), s) for s in [rng.uniform(1, 3, 40) for _ in range(2000)]]
    found = np.array([ratio_score(gain, scale) for gain, scale in samples])
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.1)
    assert np.isnan(ratio_score(np.array([0.0]), np.array([0.0]))).all()


def test_units_that_are_silent_in_what_is_left_are_not_fitted_and_not_scored(fits):
    counts = counted()["counts"].values
    counts[1:, :, 2] = counts[0, 0, 2] = 0
    scores = run(counted(counts=counts), folds=2)
    fold = int(scores["fold"][0])
    assert [training.sizes["unit"] for training, _, _ in fits] == ([3, 4] if fold == 0 else [4, 3])
    assert float(scores["scale"][0]) == counts[0, 1:][:, [0, 1, 3]].sum()


@pytest.mark.parametrize("end", ["raise", "return"])
def test_an_interruption_keeps_the_folds_that_were_finished(fits, end):
    scores = run(folds=3, ends=["", "", end])
    assert len(fits) == 3
    assert scores.attrs["status"] == "interrupted"
    undone = scores["fold"].values < 0
    assert undone.sum() == 2
    assert np.isnan(scores["gain"].values[undone]).all()
    assert np.isfinite(scores["score"].values[~undone]).all()
    with pytest.raises(KeyboardInterrupt, match="nothing to keep"):
        run(folds=3, ends=["", "", "", end])


def test_a_fold_whose_fit_diverged_is_left_out(fits):
    with pytest.warns(UserWarning, match="The fit of fold 1 diverged; what it hid is left out"):
        scores = run(folds=3, ends=["", "diverge", ""])
    assert len(fits) == 3
    assert scores.attrs["status"] == "finished"
    assert (np.isnan(scores["gain"].values) == (scores["fold"].values == 1)).all()
    assert np.isfinite(scores.attrs["score"])


def test_two_runs_of_one_recording_and_seed_can_be_compared(fits):
    table = compare({"a": run(folds=2, seed=1), "b": run(folds=2, seed=1)})
    assert (table["difference"] == 0).all()
    with pytest.raises(ValueError, match="other folds or data"):
        compare({"a": run(folds=2, seed=1), "b": run(folds=2, seed=2)})
    assert len(fits) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "time"}, r"`by` must be one of \('trial', 'unit'\); got 'time'"),
        ({"folds": 1}, r"between 2 and 6.*; got 1\."),
        ({"by": "unit", "folds": 5}, r"between 2 and 4, since every fold hides at least one unit; got 5\."),
        ({"by": "unit", "folds": 2, "data": counted(1)}, "one trial or unit .* has 1 trials and 4 units"),
    ],
)
def test_impossible_folds_are_refused(fits, options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)
    assert not fits


def test_every_fold_has_a_checkpoint_of_its_own(fits, tmp_path):
    run(folds=3, checkpoint=str(tmp_path))
    assert [options["checkpoint"] for _, _, options in fits] == [tmp_path / f"fold_{i}" for i in range(3)]


def test_a_fold_that_is_refused_is_named(fits):
    with pytest.raises(ValueError, match=r"^Too little data\."):
        run(folds=3, ends=["refuse"])
    fits.clear()
    with pytest.raises(ValueError, match=r"^Fold 2 of 3 \(counted from 0\) was refused: Too little data\."):
        run(folds=3, ends=["", "", "refuse"])


@pytest.mark.slow
def test_a_model_of_the_zoo_is_scored_on_trials_and_units_it_did_not_see():
    data = load_model("low_rank_rnn_poisson").example(jax.random.key(0))
    for by in ("trial", "unit"):
        options = {"engine": "state_space", "rank": 1, "warmup": 10, "draws": 10, "chains": 2}
        scores = leave_out("low_rank_rnn_poisson", data, by=by, folds=2, **options)
        # A unit that is silent in its hidden trials has no score.
        assert np.isfinite(scores["score"]).values[scores["scale"].values > 0].all()
        assert (scores["scale"] > 0).any()
        assert scores.attrs["model"] == "low_rank_rnn_poisson"
