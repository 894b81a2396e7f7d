import json

import jax
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.diagnostics import power as power_module
from connectinfer.diagnostics.power import power, simulate_fitted

UNITS, TRIALS, BINS = 6, 4, 30
RNG = np.random.default_rng(0)


def truth(process_noise=0.1, m=0.5):
    """One posterior draw of a network that decays, with a rate of e spikes per bin at rest."""
    shaped = {"m": np.full((UNITS, 2), m), "n": np.zeros((UNITS, 2)), "b": np.full((UNITS, 1), 1.0)}
    of_units = {"d": np.zeros(UNITS), "gain": np.ones(UNITS), "bias": np.ones(UNITS), "noise": np.full(UNITS, 0.2)}
    variables = {name: (("chain", "draw", "unit", "latent_dim"), x[None, None]) for name, x in shaped.items()}
    variables["b"] = (("chain", "draw", "unit", "input"), shaped["b"][None, None])
    variables |= {name: (("chain", "draw", "unit"), x[None, None]) for name, x in of_units.items()}
    variables["initial_scale"] = (("chain", "draw"), [[1.0]])
    variables |= {} if process_noise is None else {"process_noise": (("chain", "draw"), [[process_noise]])}
    constants = xr.Dataset(attrs={"tau": 0.1, "alpha": 0.1, "nonlinearity": "tanh"})
    return xr.DataTree.from_dict({"posterior": xr.Dataset(variables), "constant_data": constants})


def recorded(kind="counts", input_value=0.0):
    lengths = [BINS, BINS, 20, 20]
    values = [RNG.poisson(1.0, (n, UNITS)) for n in lengths]
    inputs = {"light": [np.full(n, input_value) for n in lengths]}
    return recording(**{kind: values if kind == "counts" else [x * 1.0 for x in values]}, time=0.01, inputs=inputs)


def test_simulated_trials_have_the_lengths_and_inputs_of_recorded_ones():
    simulated = simulate_fitted(jax.random.key(0), truth(), recorded(input_value=0.5), n_trials=40, n_units=3)
    assert dict(simulated.sizes) == {"trial": 40, "time": BINS, "unit": 3, "input": 1}
    lengths = simulated["mask"].values[:, :, 0].sum(1)
    assert set(lengths) == {20, BINS}
    assert simulated["input"].values.tolist() == ["light"]
    np.testing.assert_array_equal(simulated["inputs"].values[lengths == 20, 20:], 0.0)
    np.testing.assert_array_equal(simulated["inputs"].values[:, :20], 0.5)


def test_counts_have_the_mean_of_the_law():
    """Without recurrence, gain times the potential is normal: its exponential has a log-normal mean.

    The state of bin t has variance 0.81^t + 0.01 (1 - 0.81^t) / 0.19 in each of two dimensions.
    """
    simulated = simulate_fitted(jax.random.key(1), truth(), recorded(), n_trials=4000, n_units=UNITS)
    variance = 0.81 ** np.arange(20) + 0.01 * (1 - 0.81 ** np.arange(20)) / 0.19
    expected = np.exp(1 + 0.5 * (2 * 0.25 * variance))
    mean = simulated["counts"].values[:, :20].mean((0, 2))
    # The sd over trials of the rate is at most 2.2 in the first bin: 4 standard errors.
    np.testing.assert_allclose(mean, expected, atol=4 * 2.6 / np.sqrt(4000))


def test_without_process_noise_the_equation_is_solved_and_signals_get_their_noise():
    """From standard normal starts, the state decays by e^-t/tau; noise of sd 0.2 is added."""
    made = simulate_fitted(
        jax.random.key(2), truth(process_noise=None), recorded("fluorescence"), n_trials=3000, n_units=2
    )
    values = made["fluorescence"].values[:, :20]
    expected = 2 * 0.25 * np.exp(-2 * 0.1 * np.arange(20)) + 0.04
    np.testing.assert_allclose(values.var((0, 2)), expected, rtol=4 * np.sqrt(2 / 3000))
    np.testing.assert_allclose(values.mean(), 1.0, atol=0.05)


def test_more_units_than_the_fit_has_are_drawn_twice_and_silent_ones_refused():
    assert simulate_fitted(jax.random.key(0), truth(), recorded(), n_trials=2, n_units=20).sizes["unit"] == 20
    silent = truth()
    silent["posterior"]["bias"][:] = -30.0
    with pytest.raises(ValueError, match="In 20 tries, some of 3 units stayed silent in 2 trials"):
        simulate_fitted(jax.random.key(0), silent, recorded(), n_trials=2, n_units=3)


def test_a_result_of_another_model_is_refused():
    other = xr.DataTree.from_dict({"posterior": xr.Dataset({"x": (("chain", "draw"), [[1.0]])})})
    with pytest.raises(ValueError, match=r"this one lacks \['bias', 'd', 'gain'"):
        simulate_fitted(jax.random.key(0), other, recorded(), n_trials=2, n_units=3)


def test_a_fit_whose_data_vary_more_is_refused():
    other = truth()
    other["posterior"]["concentration"] = other["posterior"]["bias"] + 1.0
    with pytest.raises(ValueError, match=r"This fit has \['concentration'\], and only Poisson counts"):
        simulate_fitted(jax.random.key(0), other, recorded(), n_trials=2, n_units=3)


@pytest.fixture
def exact_fits(monkeypatch):
    """Fits that know the quantity up to an error of sd 1 / sqrt(trials), and say so."""
    asked = []

    def fit(model, data, **options):
        given = {n: x for n, x in options.items() if n not in ("seed", "show_progress")}
        asked.append((model, dict(data.sizes), given))
        sd = data.sizes["trial"] ** -0.5
        rng = np.random.default_rng(len(asked))
        draws = rng.normal() * sd + sd * rng.normal(size=(1, 4000))
        again = xr.DataTree.from_dict({"posterior": xr.Dataset({"x": (("chain", "draw"), draws)})})
        again.attrs["status"] = "finished"
        return again

    monkeypatch.setattr(power_module, "fit", fit)
    return asked


def fitted(**attrs):
    """The result of a fit; `attrs` are those that `fit` leaves."""
    result = truth()
    result.attrs = {"model": "low_rank_rnn_poisson", "engine": "svi"} | attrs
    return result


FEW = {"trials": (2,), "units": (3,), "replicates": 2, "show_progress": False}


def quantity(tree):
    """The truth is 0."""
    posterior = tree["posterior"].to_dataset()
    return posterior["x"] if "x" in posterior else 0 * posterior["initial_scale"]


@pytest.mark.slow
def test_widths_errors_and_coverage_are_those_of_the_refits(exact_fits):
    options = {"trials": (4, 16), "units": (3,), "replicates": 40, "show_progress": False}
    found = power(fitted(), recorded(), quantity=quantity, **options)
    assert found["width"].sizes == {"n_trials": 2, "n_units": 1, "replicate": 40}
    # 90 % of a normal law lies within 1.645 sd.
    np.testing.assert_allclose(found["width"].mean("replicate").values.ravel(), 3.29 / np.sqrt([4, 16]), rtol=0.05)
    # Binomial(80, 0.9) is below 0.8 once in 200 seeds.
    assert found["covered"].mean() > 0.8
    assert found.attrs["status"] == "finished"
    _, sizes, _ = exact_fits[0]
    assert (sizes["trial"], sizes["unit"]) == (4, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, {"engine": "nuts", "rank": 2, "warmup": 50}, id="as-the-fit"),
        pytest.param({"warmup": 70}, {"engine": "nuts", "rank": 2, "warmup": 70}, id="option-changed"),
        # Options of one engine would be refused by another.
        pytest.param({"engine": "svi", "steps": 9}, {"engine": "svi", "rank": 2, "steps": 9}, id="other-engine"),
    ],
)
def test_refits_have_the_engine_and_the_options_of_the_fit(exact_fits, options, expected):
    result = fitted(engine="nuts", options='{"rank": 2, "warmup": 50}')
    power(result, recorded(), quantity=quantity, **FEW, **options)
    assert [(model, given) for model, _, given in exact_fits] == [("low_rank_rnn_poisson", expected)] * 2


@pytest.mark.parametrize(
    ("attrs", "again", "message"),
    [
        pytest.param({"model": "mine"}, {"model": "mine.py"}, r"name 'mine' .* `model='mine\.py'`", id="model"),
        pytest.param(
            {"options": '{"rank": 2, "summary": "rates"}', "options_by_name": "summary"},
            {"summary": np.mean},
            r"'summary' .* text 'rates'.* again: `summary=",
            id="function",
        ),
    ],
)
def test_what_a_result_keeps_only_by_name_has_to_be_given_again(exact_fits, attrs, again, message):
    with pytest.raises(ValueError, match=message):
        power(fitted(**attrs), recorded(), quantity=quantity, **FEW)
    assert not exact_fits
    power(fitted(**attrs), recorded(), quantity=quantity, **FEW, **again)
    model, _, given = exact_fits[0]
    assert again.items() <= ({"model": model} | given).items()


def test_options_that_are_words_are_taken_over(exact_fits):
    stored = {"guide": "low_rank", "nonlinearity": "tanh"}
    power(fitted(options=json.dumps(stored)), recorded(), quantity=quantity, **FEW)
    assert exact_fits[0][2] == {"engine": "svi"} | stored


def test_every_refit_has_a_checkpoint_of_its_own(exact_fits, tmp_path):
    power(fitted(), recorded(), quantity=quantity, checkpoint=tmp_path, **FEW)
    folders = [given["checkpoint"].name for _, _, given in exact_fits]
    assert folders == ["2_trials_3_units_0", "2_trials_3_units_1"]


@pytest.mark.parametrize("end", ["raise", "return"])
def test_an_interruption_ends_it_and_keeps_the_refits_that_were_finished(exact_fits, monkeypatch, end):
    """Engines that have something to keep return a worse fit, instead of raising."""
    original = power_module.fit

    def interrupted(*arguments, **options):
        again = original(*arguments, **options)
        if len(exact_fits) in (3, 4):
            if end == "raise":
                raise KeyboardInterrupt
            again.attrs["status"] = "interrupted"
        return again

    monkeypatch.setattr(power_module, "fit", interrupted)
    partial = power(fitted(), recorded(), quantity=quantity, **FEW | {"trials": (2, 3)})
    assert len(exact_fits) == 3
    assert partial.attrs["status"] == "interrupted"
    assert partial["width"].notnull().values.tolist() == [[[True, True]], [[False, False]]]
    with pytest.raises(KeyboardInterrupt, match="nothing to keep"):
        power(fitted(), recorded(), quantity=quantity, **FEW)


def test_a_refit_that_diverged_is_left_out(exact_fits, monkeypatch):
    original = power_module.fit

    def second_diverges(*arguments, **options):
        again = original(*arguments, **options)
        again.attrs["status"] = "diverged" if len(exact_fits) == 2 else "finished"
        return again

    monkeypatch.setattr(power_module, "fit", second_diverges)
    with pytest.warns(UserWarning, match="The refit with 2 trials, 3 units diverged and is left out"):
        found = power(fitted(), recorded(), quantity=quantity, **FEW)
    assert found.attrs["status"] == "finished"
    assert found["covered"].isnull().values.tolist() == [[[False, True]]]


def test_sizes_given_twice_are_fitted_once_and_the_model_is_that_of_the_refits(exact_fits):
    found = power(fitted(), recorded(), quantity=quantity, model="own/other.py", **FEW | {"trials": (2, 2)})
    assert len(exact_fits) == 2
    assert (found.attrs["status"], found.attrs["model"]) == ("finished", "other")


@pytest.mark.usefixtures("exact_fits")
def test_a_refit_that_is_refused_is_named():
    silent = fitted()
    silent["posterior"]["bias"][:] = -30.0
    with pytest.raises(ValueError, match="With 2 trials, 3 units: In 20 tries"):
        power(silent, recorded(), quantity=quantity, **FEW)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="must be at least 1"):
        power(truth(), recorded(), trials=(0,), units=(3,))
    with pytest.raises(ValueError, match="must be at least 1"):
        power(truth(), recorded(), trials=(), units=(3,))
