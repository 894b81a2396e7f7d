import re

import jax
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.diagnostics import rank_selection
from connectinfer.diagnostics.rank_selection import choose_rank, select_rank
from connectinfer.statistics.co_smoothing import bits_per_spike, mean_rates
from connectinfer.zoo import load_model

TRIALS, BINS, UNITS = 10, 12, 6


@pytest.fixture
def fits(monkeypatch):
    """`fit` replaced by one whose predictions are better the larger the rank, up to 2; `ends` says how calls end."""
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(2, TRIALS, BINS, UNITS))
    rate = np.exp(0.5 + 0.8 * drive[0] + 0.8 * drive[1])
    data = recording(time=0.1, counts=rng.poisson(rate), trial=[f"t{i}" for i in range(TRIALS)])
    calls = []

    def forecast(model, training, *, rank, ends=(), **options):
        assert model == "low_rank_rnn_poisson"
        calls.append((training, options | {"rank": rank}))
        end = dict(enumerate(ends)).get(len(calls) - 1, "finished")
        if end == "raise":
            raise KeyboardInterrupt
        known = np.exp(0.5 + 0.8 * drive[: min(rank, 2)].sum(0) + (0.32 if rank == 1 else 0.0))
        expected = xr.DataArray(known, dims=training["mask"].dims)
        result = xr.DataTree.from_dict({"expected": xr.Dataset({"counts": expected})})
        result.attrs = {"status": end}
        return result

    monkeypatch.setattr(rank_selection, "fit", forecast)
    calls.append((data, rate))
    return calls


def run(fits, **options):
    data, _ = fits.pop()
    return data, select_rank(data, show_progress=False, **options)


def test_every_trial_and_unit_is_hidden_from_every_rank_in_blocks(fits):
    rate = fits[0][1]
    data, selection = run(fits, ranks=(3, 1, 2), folds=3, draws=7, seed=4)
    assert [options["rank"] for _, options in fits] == [1, 2, 3]
    expected = {"engine": "state_space", "warmup": 60, "draws": 7, "chains": 2, "seed": 4, "show_progress": False}
    assert expected.items() <= fits[0][1].items()
    hidden = (data["mask"] & ~fits[0][0]["mask"]).values
    assert hidden.any((1, 2)).all()
    assert hidden.any((0, 1)).all()
    # Whole time courses; every unit in the trials of one of three groups.
    assert (hidden.all(1) == hidden.any(1)).all()
    assert set(hidden[:, 0].sum(0)) == {3, 4}
    assert (fits[0][0]["counts"].values[hidden] == 0).all()
    entries, counts = fits[0][0]["mask"].values, data["counts"].values
    assert selection["rank"].values.tolist() == [1, 2, 3]
    assert selection["trial"].values.tolist() == data["trial"].values.tolist()
    best = bits_per_spike(rate, counts, mean_rates(counts, entries), hidden)
    assert float(selection["score"].max()) == pytest.approx(best)


def test_the_smallest_rank_as_good_as_any_is_chosen_and_said(fits):
    _, selection = run(fits)
    assert selection.attrs["chosen"] == 2
    assert selection.attrs["verdict"] == "plateau"
    assert selection.attrs["message"] == "Rank 2 suffices: larger ones predict hidden units no better."
    assert selection["difference"].values.tolist()[1:] == [0.0, 0.0, 0.0]
    assert float(selection["difference"][0]) < -2 * float(selection["difference_error"][0])


@pytest.mark.parametrize("end", ["raise", "interrupted"])
def test_an_interruption_keeps_the_ranks_that_were_finished(fits, end):
    data, selection = run(fits, ends=["finished", "finished", end])
    assert selection["rank"].values.tolist() == [1, 2]
    assert selection.attrs["status"] == "interrupted"
    fits.clear()
    with pytest.raises(KeyboardInterrupt, match="before two ranks"):
        select_rank(data, show_progress=False, ends=["finished", end])


def test_a_rank_whose_fit_diverged_is_left_out(fits):
    with pytest.warns(UserWarning, match="The fit of a rank diverged"):
        _, selection = run(fits, ends=["finished", "finished", "diverged"])
    assert np.isnan(selection["score"].values).tolist() == [False, False, True, False]
    assert selection.attrs["chosen"] == 2


def test_every_rank_has_a_checkpoint_of_its_own_and_other_engines_their_own_defaults(fits, tmp_path):
    run(fits, ranks=(1, 2), checkpoint=tmp_path, engine="svi")
    assert [options["checkpoint"] for _, options in fits] == [tmp_path / "rank_1", tmp_path / "rank_2"]
    assert "warmup" not in fits[0][1]


def gains(*leads, spread=0.1, trials=40):
    """Gains whose totals lead that of the first rank by these, the same in all trials but for balanced noise."""
    noise = np.resize([spread, -spread], trials)
    return np.stack([1.0 + lead + noise * i for i, lead in enumerate(leads)])


@pytest.mark.parametrize(
    ("gain", "chosen", "verdict", "message"),
    [
        pytest.param(gains(0, 0.5, 0.5), 2, "plateau", "Rank 2 suffices", id="plateau"),
        pytest.param(gains(0, 0.5, 1.0), 3, "no plateau", "Rank 3, the largest .* Try larger", id="no-plateau"),
        # 0.015 is more than 0.3 % and less than an error of 0.1 / sqrt(39).
        pytest.param(gains(0, 0.015), 1, "undecided", "Rank 2 scores 1.5% better .* no evidence", id="uncertain"),
        # 0.002 is certain and yet nothing.
        pytest.param(gains(0, 0.002, spread=1e-6), 1, "plateau", "Rank 1 suffices", id="negligible"),
        pytest.param(gains(-1.0, -0.99, spread=0.5), 1, "undecided", "No rank predicts", id="nothing"),
    ],
)
def test_the_rule_in_cases_counted_by_hand(gain, chosen, verdict, message):
    choice = choose_rank(range(1, 1 + len(gain)), gain, np.ones(gain.shape[1]))
    assert (choice.chosen, choice.verdict) == (chosen, verdict)
    assert re.search(message, choice.message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": [2]}, r"at least two ranks, each at least 1; got \[2\]"),
        ({"ranks": [0, 1]}, r"each at least 1; got \[0, 1\]"),
        ({"folds": 7}, "between 2 and the number of trials and units, 10 and 6; got 7"),
    ],
)
def test_impossible_requests_are_refused(fits, options, message):
    with pytest.raises(ValueError, match=message):
        run(fits, **options)


@pytest.mark.slow
def test_a_model_of_the_zoo_is_scored_rank_by_rank():
    data = load_model("low_rank_rnn_poisson").example(jax.random.key(0))
    selection = select_rank(data, (1, 2), folds=3, warmup=10, draws=10, show_progress=False)
    assert np.isfinite(selection["score"]).all()
    assert selection.attrs["chosen"] in (1, 2)
