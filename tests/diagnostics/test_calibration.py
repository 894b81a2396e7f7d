import arviz_plots
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.diagnostics.calibration import calibrate, calibration_coverage, ecdf_band, judge_calibration
from connectinfer.inference.replicates import fit_replicates, nuts_posterior, simulate_replicates
from connectinfer.inference.trace import bind

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


def test_a_batch_of_fits_equals_the_fits_one_by_one():
    def model(response):
        import numpyro
        import numpyro.distributions as dist

        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
        numpyro.sample("response", dist.Normal(mean, 1.0).expand([5]).to_event(1), obs=response)

    bound, arrays = bind(model, {"response": np.arange(5.0)})
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


def test_data_that_are_no_input_of_the_model_are_refused():
    def model(response):
        import numpyro
        import numpyro.distributions as dist

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
    assert "7 of 300 fits gave draws that are not finite" in found.verdicts[0].explanation


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
