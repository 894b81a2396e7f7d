"""Neural posterior estimation: calibrated, close to NUTS, and found out where it is wrong."""

from pathlib import Path

import jax
import numpy as np
from calibration import tiny_recording
from reference.posteriors import POSTERIORS, inputs_of, sample_posterior
from two_sample import classifier_accuracy, sampled_values

from connectinfer.data.recording import recording
from connectinfer.diagnostics.calibration import calibrate, calibration_coverage, judge_calibration
from connectinfer.diagnostics.checks import diagnose
from connectinfer.inference import flow_posterior
from connectinfer.inference.flow_posterior import fit_flow_posterior

CLAIM = "flow_posterior"
TARGET = "ranks inside 99 % bands; classifier accuracy at most 0.6 against NUTS on two models; wrong flows flagged"

# A hierarchy with a funnel, and a Gaussian process behind counts.
MODELS = ("eight_schools-eight_schools_noncentered", "gp_pois_regr-gp_pois_regr")
TREND = Path(__file__).with_name("trend.py")
SHIFT = 1.0


def run(quick: bool) -> dict:
    """All of it; fewer simulations and steps, and one model, if `quick`."""
    outside, lines = [], []
    for model, data, options in _calibrated():
        options |= {"simulations": 2000, "steps": 1000, "data_sets": 100} if quick else {"data_sets": 500}
        found = calibrate(model, data, engine="flow_posterior", show_progress=False, **options)
        wrong = [f"{v.concern} ({v.explanation})" for v in judge_calibration(found).verdicts if v.verdict == "fail"]
        outside += wrong
        name, seconds, coverage = found.attrs["model"], found.attrs["wall_time"], calibration_coverage(found, 0.9)
        lines.append(f"{name}, {seconds:.0f} s: {coverage}; " + ("; ".join(wrong) or "all inside their bands"))
    size = {"simulations": 2000, "steps": 1000} if quick else {"simulations": 20_000, "steps": 12_000}
    accuracies, flagged = [], []
    for name in MODELS[: 1 if quick else None]:
        reference = sampled_values(sample_posterior(name))
        sound = _fit(name, rounds=1 if quick else 2, **size)
        accuracies.append(classifier_accuracy(sampled_values(sound), reference))
        seconds = sound.attrs["wall_time"]
        lines.append(f"{name}: accuracy {accuracies[-1]:.3f}, {seconds:.0f} s, {_verdicts(sound)}")
        shifted = _shifted(name, rounds=1, **size)
        flagged.append(not diagnose(shifted).passed)
        lines.append(f"{name}, simulations labelled with other parameters: {_verdicts(shifted)}")
    worst = float(np.max(accuracies))
    caught = f"{sum(flagged)} of {len(flagged)} wrong flows flagged"
    value = f"{len(outside)} sites outside; accuracy at most {worst:.3f}; {caught}"
    return {"value": value, "passed": not outside and worst <= 0.6 and all(flagged), "details": "\n".join(lines)}


def _calibrated() -> list[tuple]:
    """A model that a flow can learn wholly, and one of the zoo; a recording of each; how long to train."""
    rates = np.random.default_rng(0).normal(size=(3, 4, 2))
    rnn = tiny_recording("low_rank_rnn_ode")
    of_rnn = {"rank": 1, "simulations": 100_000, "steps": 25_000, "learning_rate": 0.003}
    return [
        (TREND, recording(rates=rates, time=0.1), {"simulations": 250_000, "steps": 60_000, "learning_rate": 0.01}),
        ("low_rank_rnn_ode", rnn, of_rnn),
    ]


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
