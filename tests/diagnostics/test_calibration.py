import arviz_plots
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.stats import ks_2samp

from connectinfer.data.recording import recording
from connectinfer.diagnostics import calibration as calibration_module
from connectinfer.diagnostics.calibration import calibrate, calibration_coverage, ecdf_band, judge_calibration
from connectinfer.inference import replicates as replicates_module
from connectinfer.inference.replicates import fit_replicates, nuts_posterior, simulate_replicates
from connectinfer.inference.trace import bind, evaluate
from connectinfer.zoo import load_model

MODEL = '''"""Two coefficients that the data determine only in their sum.

Generative story: coefficient ~ N(0, I), rates ~ N(coefficient_0 + 0.8 coefficient_1, 1)
Symbols: coefficient (2).
Source: none.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

CARD = {"system": "test", "engine": "nuts", "minutes": 1}
DIMS = {"coefficient": ["coefficient_entry"], "hidden": None}


def inputs(data, *, noise=1.0):
    return {"rates": data["rates"].values, "noise": noise}, {"trial": data["trial"].values}


def model(rates, noise):
    coefficient = numpyro.sample("coefficient", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    mean = coefficient @ jnp.array([1.0, 0.8])
    numpyro.deterministic("hidden", mean)
    with numpyro.plate("trial", rates.shape[0], dim=-3), numpyro.plate("time", rates.shape[1], dim=-2):
        with numpyro.plate("unit", rates.shape[2], dim=-1):
            numpyro.sample("signal", dist.Normal(mean, noise), obs=rates)
'''
DATA = recording(rates=np.random.default_rng(0).normal(size=(2, 4, 3)), time=0.01)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "summed.py"
    path.write_text(MODEL)
    return path


@pytest.fixture(scope="module")
def exact(model_file):
    """NUTS is exact: by chance one of a hundred seeds fails the verdict, and one the coverage."""
    options = {"data_sets": 200, "batch": 100, "warmup": 100, "draws": 400, "thinning": 4, "show_progress": False}
    return calibrate(model_file, DATA, **options)


def test_an_exact_engine_is_calibrated(exact):
    judged = judge_calibration(exact)
    assert judged.passed, str(judged)
    concerns = [verdict.concern for verdict in judged.verdicts]
    assert concerns == ["fits", "calibration of coefficient", "calibration of log_likelihood"]
    assert calibration_coverage(exact, 0.9).passed
    assert exact.attrs["failed_fits"] == 0
    assert {"model", "engine", "seed", "wall_time", "share_diverging"} <= set(exact.attrs)


def test_arviz_draws_it(exact):
    plot = arviz_plots.plot_ecdf_pit(exact, backend="none")
    assert "log_likelihood" in plot.viz["ecdf_lines"]


@pytest.mark.slow
def test_a_guide_without_correlations_is_found_too_narrow(model_file):
    """The two coefficients have a posterior correlation of -0.97."""
    options = {"data_sets": 150, "batch": 150, "steps": 500, "learning_rate": 0.05, "show_progress": False}
    found = calibrate(model_file, DATA, engine="svi", guide="normal", **options)
    narrow = judge_calibration(found)
    (verdict,) = [v for v in narrow.verdicts if v.concern == "calibration of coefficient"]
    assert verdict.verdict == "fail"
    assert verdict.value > 0
    assert "intervals are too narrow" in verdict.explanation
    assert not calibration_coverage(found, 0.9).passed
    full = judge_calibration(
        calibrate(model_file, DATA, engine="svi", guide="low_rank", particles=4, **options | {"steps": 1500})
    )
    assert full.passed, str(full)


@pytest.mark.slow
def test_a_flow_is_trained_once_and_finds_the_posterior_of_every_data_set(model_file):
    """Its draws follow the data: those of the prior are too wide for the log likelihood."""
    options = {"data_sets": 100, "batch": 100, "simulations": 1000, "steps": 300, "draws": 50, "show_progress": False}
    found = calibrate(model_file, DATA, engine="flow_posterior", learning_rate=3e-3, **options)
    judged = judge_calibration(found)
    assert judged.passed, str(judged)
    assert (found.attrs["engine"], found["prior_sbc"].sizes["draw"]) == ("flow_posterior", 100)


def test_what_is_ranked_has_one_prior_in_any_gauge():
    """Draws of the prior of a network of rank 2, in the coordinates that two recordings suggest, are compared value by
    value: by chance, one of a thousand pairs of seeds finds them different. The loadings themselves do differ."""
    network = load_model("low_rank_rnn_gaussian")
    two = [recording(rates=np.random.default_rng(i).normal(size=(2, 4, 5)), time=0.01) for i in range(2)]
    (inputs, _), (others, _) = (network.inputs(data, rank=2) for data in two)
    bound, arrays = bind(network.model, inputs)
    shown = {name: dims for name, dims in network.DIMS.items() if dims is not None}

    @jax.jit
    def draws(key, arrays):
        def of_one(key):
            found = evaluate(key, bound, arrays, {}).sites
            ranked = {
                n: calibration_module._without_gauge(found[n], dims).ravel() for n, dims in shown.items() if n in found
            }
            return ranked, found["m"].ravel()

        return jax.lax.map(of_one, jax.random.split(key, 1000), batch_size=1000)

    ranked, loadings = draws(jax.random.key(0), arrays)
    others = arrays | {name: others[name] for name in network.GAUGE}
    again, other_loadings = draws(jax.random.key(1), others)
    pairs = [(x, y) for name in ranked for x, y in zip(ranked[name].T, again[name].T, strict=True)]
    assert len(pairs) > 30
    assert min(ks_2samp(x, y).pvalue for x, y in pairs) > 0.001 / len(pairs)
    assert min(ks_2samp(x, y).pvalue for x, y in zip(loadings.T, other_loadings.T, strict=True)) < 1e-6


def test_every_data_set_has_the_gauge_that_it_suggests(monkeypatch):
    network, handed = load_model("low_rank_rnn_gaussian"), []

    def asked(_key, _posterior, _summary, _arrays, replicates, *_, **__):
        handed.append(replicates)
        raise LookupError

    monkeypatch.setattr(calibration_module, "fit_replicates", asked)
    # Start values take time.
    monkeypatch.delattr(network, "initial")
    data = recording(rates=np.random.default_rng(0).normal(size=(2, 4, 5)), time=0.01)
    with pytest.raises(LookupError):
        calibrate("low_rank_rnn_gaussian", data, data_sets=2, engine="svi", rank=2, show_progress=False)
    (replicates,) = handed
    for i in range(2):
        own, _ = network.inputs(data.assign(rates=(data["rates"].dims, replicates.arrays["activity"][i])), rank=2)
        for name in ("activity", *network.GAUGE):
            np.testing.assert_allclose(replicates.arrays[name][i], own[name], rtol=1e-5, atol=1e-6)
    assert set(replicates.data) == {"activity"}


def normal_mean(response):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    numpyro.sample("response", dist.Normal(mean, 1.0).expand([5]).to_event(1), obs=response)


def test_a_batch_of_fits_equals_the_fits_one_by_one():
    bound, arrays = bind(normal_mean, {"response": np.arange(5.0)})
    replicates = simulate_replicates(jax.random.key(0), bound, arrays, 3)
    assert replicates.arrays["response"].shape == (3, 5)
    options = {"warmup": 10, "draws": 10, "thinning": 2}
    posterior = nuts_posterior(bound, **options)
    starts = {"mean": jnp.array([0.0, 1.0, -1.0])}
    draws, stats = fit_replicates(
        jax.random.key(1), posterior, lambda _, draw: draw, arrays, replicates, starts, batch=2, show_progress=False
    )
    assert draws["mean"].shape == stats["diverging"].shape == (3, 5)
    for i, key in enumerate(jax.random.split(jax.random.key(1), 3)):
        alone, _ = jax.jit(posterior)(key, {"response": replicates.arrays["response"][i]}, {"mean": starts["mean"][i]})
        np.testing.assert_allclose(draws["mean"][i], alone["mean"], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": -1}, "got warmup=-1, thinning=5 and draws=500"),
        ({"thinning": 0}, "got warmup=300, thinning=0 and draws=500"),
        ({"draws": 4}, "at least as many as `thinning`; got warmup=300, thinning=5 and draws=4"),
        (
            {"engine": "svi", "draws": 0},
            "`steps`, `particles` and `draws` must be at least 1 .* got 2000, 1, 0 and 0.01",
        ),
        (
            {"engine": "svi", "steps": 0},
            "`steps`, `particles` and `draws` must be at least 1 .* got 0, 1, 100 and 0.01",
        ),
        ({"engine": "flow_posterior", "draws": 0}, "`draws` must be at least 1; got 0"),
        ({"data_sets": 0}, "`data_sets` and `batch` must be at least 1; got 0 and 50"),
        ({"batch": 0}, "`data_sets` and `batch` must be at least 1; got 500 and 0"),
    ],
)
def test_sizes_that_leave_nothing_to_rank_are_refused(model_file, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(model_file, DATA, show_progress=False, **options)


def test_no_fits_are_run_to_fill_a_batch(model_file, monkeypatch):
    def asked(*_, batch, **__):
        raise LookupError(f"{batch} fits at once")

    monkeypatch.setattr(calibration_module, "fit_replicates", asked)
    with pytest.raises(LookupError, match="2 fits at once"):
        calibrate(model_file, DATA, data_sets=2, batch=50, show_progress=False)


def test_an_interruption_keeps_the_batches_that_were_finished(model_file, monkeypatch):
    finished, allowed = [], 2

    def compile_timed(lowered, *_):
        compiled = lowered.compile()

        def run(*arguments):
            if len(finished) == allowed:
                raise KeyboardInterrupt
            finished.append(arguments)
            return compiled(*arguments)

        return run

    options = {"engine": "svi", "data_sets": 12, "batch": 4, "steps": 20, "draws": 20, "show_progress": False}
    whole = calibrate(model_file, DATA, **options)
    monkeypatch.setattr(replicates_module, "compile_timed", compile_timed)
    found = calibrate(model_file, DATA, **options)
    assert found.attrs["status"] == "interrupted"
    drawn, all_drawn = found["prior_sbc"]["coefficient"], whole["prior_sbc"]["coefficient"].isel(draw=slice(8))
    # Ties and ranks are broken by one generator, so only what lies within a rank may differ.
    np.testing.assert_allclose(drawn.values, all_drawn.values, atol=1 / 21)
    fits = judge_calibration(found).verdicts[0]
    assert (fits.verdict, fits.explanation) == ("pass", "All 8 fits gave draws. The run was interrupted there.")
    allowed = len(finished)
    with pytest.raises(KeyboardInterrupt, match="before the first batch of fits"):
        calibrate(model_file, DATA, **options)


def test_draws_that_the_data_rule_out_have_a_rank_and_those_that_are_nan_have_none(model_file, monkeypatch):
    """Leaving out whichever data sets have a draw of likelihood zero would leave a selection."""
    fits = calibration_module.fit_replicates

    def with_odd_draws(*arguments, **options):
        draws, stats = fits(*arguments, **options)
        likelihood = np.array(draws["log_likelihood"])
        likelihood[0], likelihood[1, 0] = -np.inf, np.nan
        return {**draws, "log_likelihood": likelihood}, stats

    monkeypatch.setattr(calibration_module, "fit_replicates", with_odd_draws)
    options = {"engine": "svi", "data_sets": 4, "batch": 4, "steps": 20, "draws": 20, "show_progress": False}
    found = calibrate(model_file, DATA, **options)
    assert found.attrs["failed_fits"] == 1
    shares = found["prior_sbc"]["log_likelihood"].values.ravel()
    assert np.isnan(shares).tolist() == [False, True, False, False]
    assert shares[0] > 20 / 21


def test_data_that_are_no_input_of_the_model_are_refused():
    def model(response):
        numpyro.sample("y", dist.Normal(numpyro.sample("mean", dist.Normal()), 1.0), obs=2 * response)

    bound, arrays = bind(model, {"response": np.array(1.0)})
    with pytest.raises(ValueError, match=r"observed site 'y'.*inputs \['response'\], but 0 of them equal the data"):
        simulate_replicates(jax.random.key(0), bound, arrays, 3)


def judged(pit, failed=0):
    tree = xr.DataTree.from_dict({"prior_sbc": xr.Dataset({"x": (("chain", "draw"), pit[None])})})
    tree.attrs["failed_fits"] = failed
    return judge_calibration(tree)


@pytest.mark.parametrize(
    ("distort", "said"),
    [
        (lambda u: u**2, "draws are too large"),
        (np.sqrt, "draws are too small"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 0.5, "intervals are too narrow"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 2, "intervals are too wide"),
    ],
)
def test_the_verdict_says_how_the_posterior_is_wrong(distort, said):
    uniform = np.random.default_rng(0).uniform(size=500)
    assert judged(uniform).passed
    wrong = judged(distort(uniform))
    assert not wrong.passed
    assert said in wrong.verdicts[1].explanation


def test_failed_fits_are_counted_and_left_out():
    pit = np.random.default_rng(0).uniform(size=300)
    pit[:7] = np.nan
    found = judged(pit, failed=7)
    assert [verdict.verdict for verdict in found.verdicts] == ["not certified", "pass"]
    assert "7 of 300 fits gave draws that are NaN" in found.verdicts[0].explanation


def test_without_finite_draws_there_is_nothing_to_judge():
    pit = np.random.default_rng(0).uniform(size=300)
    pit[1:] = np.nan
    only = judged(pit, failed=299)
    assert [verdict.verdict for verdict in only.verdicts] == ["fail", "not certified"]
    assert "Only one of 300 fits gave draws that are numbers" in only.verdicts[0].explanation
    none = judged(np.full(300, np.nan), failed=300)
    assert not none.passed
    assert "No fit gave draws that are numbers" in none.verdicts[0].explanation
    single = judged(np.array([0.5]))
    assert [verdict.verdict for verdict in single.verdicts] == ["pass", "not certified"]


def test_few_data_sets_can_fail_but_not_pass():
    uniform = np.random.default_rng(0).uniform(size=99)
    few = judged(uniform).verdicts[1]
    assert (few.verdict, few.value, few.threshold) == ("not certified", 99.0, "at least 100 data sets")
    assert "Too few data sets to tell; use 500." in few.explanation
    assert judged(np.append(uniform, 0.5)).verdicts[1].verdict == "pass"
    assert judged(uniform**2).verdicts[1].verdict == "fail"


def test_uniform_samples_stay_inside_the_band_as_often_as_it_says():
    """2,000 samples of 100; 95 % within four binomial standard errors."""
    lower, upper = ecdf_band(100, 0.95)
    points = np.arange(1, 100) / 100
    samples = np.sort(np.random.default_rng(3).uniform(size=(2000, 100)), 1)
    inside = [
        bool(np.all((lower <= (x := np.searchsorted(row, points, side="right") / 100)) & (x <= upper)))
        for row in samples
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_unknown_options_are_named(model_file):
    with pytest.raises(ValueError, match=r"Unknown option 'thining' .* Did you mean 'thinning'"):
        calibrate(model_file, DATA, thining=3)
    with pytest.raises(ValueError, match=r"Unknown engine 'nut'. Did you mean 'nuts'"):
        calibrate(model_file, DATA, engine="nut")
