"""Neural posterior estimation: calibrated, close to NUTS, and found out where it is wrong."""

import jax
import numpy as np
from calibration import tiny_recording
from reference.posteriors import POSTERIORS, inputs_of, sample_posterior
from two_sample import classifier_accuracy, sampled_values

from connectinfer.diagnostics.calibration import calibrate, calibration_coverage, judge_calibration
from connectinfer.diagnostics.checks import diagnose
from connectinfer.inference import flow_posterior
from connectinfer.inference.flow_posterior import fit_flow_posterior

CLAIM = "flow_posterior"
TARGET = "ranks inside 99 % bands; classifier accuracy at most 0.6 against NUTS on two models; wrong flows flagged"

# A hierarchy with a funnel, and a Gaussian process behind counts.
MODELS = ("eight_schools-eight_schools_noncentered", "gp_pois_regr-gp_pois_regr")
CALIBRATED = "low_rank_rnn_ode"
SHIFT = 1.0


def run(quick: bool) -> dict:
    """All of it; fewer simulations and steps, and one model, if `quick`."""
    size = {"simulations": 2000, "steps": 1000} if quick else {"simulations": 50_000, "steps": 12_000}
    found = calibrate(
        CALIBRATED,
        tiny_recording(CALIBRATED),
        engine="flow_posterior",
        rank=1,
        data_sets=100 if quick else 500,
        show_progress=False,
        **size,
    )
    judged = judge_calibration(found)
    wrong = [f"{v.concern} ({v.explanation})" for v in judged.verdicts if v.verdict == "fail"]
    lines = [f"{CALIBRATED}: {calibration_coverage(found, 0.9)}; " + ("; ".join(wrong) or "all inside their bands")]
    size = {"simulations": 2000, "steps": 1000, "rounds": 1} if quick else {"simulations": 20_000, "steps": 12_000}
    accuracies, flagged = [], []
    for name in MODELS[: 1 if quick else None]:
        reference = sampled_values(sample_posterior(name))
        sound = _fit(name, **size)
        accuracies.append(classifier_accuracy(sampled_values(sound), reference))
        seconds = sound.attrs["wall_time"]
        lines.append(f"{name}: accuracy {accuracies[-1]:.3f}, {seconds:.0f} s, {_verdicts(sound)}")
        shifted = _shifted(name, **size)
        flagged.append(not diagnose(shifted).passed)
        lines.append(f"{name}, simulations labelled with other parameters: {_verdicts(shifted)}")
    worst = float(np.max(accuracies))
    caught = f"{sum(flagged)} of {len(flagged)} wrong flows flagged"
    value = f"{len(wrong)} sites outside; accuracy at most {worst:.3f}; {caught}"
    return {"value": value, "passed": not wrong and worst <= 0.6 and all(flagged), "details": "\n".join(lines)}


def _fit(name: str, **options):
    posterior = POSTERIORS[name]
    inputs = inputs_of(posterior)
    with jax.enable_x64(posterior.float64):
        return fit_flow_posterior(
            jax.random.key(0), posterior.model, inputs, draws=2000, show_progress=False, **options
        )


def _shifted(name: str, **options):
    """A flow that learns from parameters other than those that were simulated with."""
    original = flow_posterior.simulate_features

    def simulate(*arguments):
        drawn = original(*arguments)
        return drawn._replace(free=drawn.free + SHIFT)

    flow_posterior.simulate_features = simulate
    try:
        return _fit(name, **options)
    finally:
        flow_posterior.simulate_features = original


def _verdicts(result) -> str:
    return ", ".join(f"{v.concern} {v.value:.3g} ({v.verdict})" for v in diagnose(result).verdicts)
