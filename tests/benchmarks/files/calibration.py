"""Simulation-based calibration of every zoo model by its engine and by NUTS; its time beside simuk's on one model.

`python tests/benchmarks/files/calibration.py MODEL ENGINE DATA_SETS` calibrates one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from inference.conjugate import INPUTS, linear_model

from connectinfer.data.recording import observed_kind
from connectinfer.diagnostics.calibration import calibrate, calibration_coverage, judge_calibration
from connectinfer.inference.replicates import fit_replicates, nuts_posterior, simulate_replicates
from connectinfer.inference.trace import bind
from connectinfer.zoo import list_models, load_model

CLAIM = "calibration"
TARGET = "all zoo models by their engine and NUTS, 500 data sets each, inside 99 % bands; 20 times as fast as simuk"

N_UNITS, N_TRIALS, N_BINS = 4, 2, 8
OPTIONS = {
    "nuts": {"warmup": 300, "draws": 600, "thinning": 6, "max_tree_depth": 6, "target_accept_prob": 0.9},
    "svi": {"steps": 3000, "draws": 100},
    "state_space": {"warmup": 500, "draws": 2000, "thinning": 10},
}
# Of paths with process noise, short chains do not come into the narrow part of the posterior, where the noise is small.
LONGER = {"warmup": 500, "draws": 1500, "thinning": 15, "max_tree_depth": 7, "target_accept_prob": 0.95}
WITH_PROCESS_NOISE = ("low_rank_rnn_gaussian", "low_rank_rnn_poisson")
# The same work for both: a two-parameter regression, so many warm-up steps and draws.
WARMUP, DRAWS = 300, 500

SIMUK = """
import json, sys, time
import numpy as np, numpyro, numpyro.distributions as dist, jax.numpy as jnp, simuk
from numpyro.infer import NUTS

design, response, n = np.array(json.loads(sys.argv[1])), np.array(json.loads(sys.argv[2])), int(sys.argv[3])

def model(design, response=None):
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("observation", design.shape[0]):
        numpyro.sample("response", dist.Normal(design @ beta, 0.5), obs=response)

started = time.perf_counter()
sbc = simuk.SBC(
    NUTS(model), data_dir={"design": design, "response": response}, num_simulations=n,
    sample_kwargs={"num_warmup": int(sys.argv[4]), "num_samples": int(sys.argv[5]), "progress_bar": False},
)
sbc.run_simulations()
print((time.perf_counter() - started) / n)
"""


def run(quick: bool) -> dict:
    """All models; 100 data sets of the first alone if `quick`."""
    pairs = _pairs()[: 1 if quick else None]
    # A fit of so few numbers keeps one core busy.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        judged = list(pool.map(lambda pair: _in_own_process(*pair, 100 if quick else 500), pairs))
    lines = [line for line, _ in judged]
    failed = [f"{model} by {engine}" for (model, engine), (_, passed) in zip(pairs, judged, strict=True) if not passed]
    n_ours, n_theirs, repeats = (50, 3, 1) if quick else (500, 10, 3)
    ours = [_seconds_a_fit(seed, n_ours) for seed in range(repeats)]
    theirs = _seconds_of_simuk(n_theirs, repeats)
    ratio = float(np.median(theirs) / np.median(ours))
    # It traces and compiles every fit anew: what ten take for each, five hundred do.
    lines.append(
        f"one regression: {np.median(ours):.4f} s of {n_ours}, by simuk {np.median(theirs):.2f} s of {n_theirs}"
    )
    value = f"outside: {', '.join(failed) or 'none'}; {ratio:.0f} times as fast as simuk"
    return {"value": value, "passed": not failed and ratio >= 20, "details": "\n".join(lines)}


def _pairs() -> list[tuple[str, str]]:
    """Every model with its engine, and with NUTS, whose ranks say whether the model file is right."""
    return [(card.name, engine) for card in list_models() for engine in dict.fromkeys([card.engine, "nuts"])]


def _in_own_process(model: str, engine: str, data_sets: int) -> tuple[str, bool]:
    command = [sys.executable, __file__, model, engine, str(data_sets)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{model} by {engine} ended with {done.returncode}: {done.stderr[-2000:]}")
    print(done.stdout, end="", file=sys.stderr, flush=True)
    return done.stdout.rstrip("\n"), done.returncode == 0


def _judged(model: str, engine: str, data_sets: int) -> tuple[str, bool]:
    """What was found, as one line, and whether all ranks are inside their bands."""
    started = time.perf_counter()
    options = LONGER if engine == "nuts" and model in WITH_PROCESS_NOISE else OPTIONS[engine]
    size = {"data_sets": data_sets, "batch": min(data_sets, 250), "rank": 1}
    found = calibrate(model, tiny_recording(model), engine=engine, show_progress=False, **size, **options)
    verdicts = judge_calibration(found).verdicts
    wrong = [f"{v.concern} ({v.explanation})" for v in verdicts if v.verdict == "fail"]
    said = "; ".join(wrong) or "all inside their bands"
    seconds, coverage = time.perf_counter() - started, calibration_coverage(found, 0.9)
    return f"{model} by {engine}: {seconds:.0f} s; {coverage}; {said}", not wrong


def tiny_recording(model: str) -> xr.Dataset:
    """A few bins of the units of the model's example that vary most."""
    data = load_model(model).example(jax.random.key(0)).isel(trial=slice(N_TRIALS), time=slice(8, 8 + N_BINS))
    spread = data[observed_kind(data)].values.var((0, 1))
    return data.isel(unit=np.sort(np.argsort(-spread)[:N_UNITS]))


def _seconds_a_fit(seed: int, n: int) -> float:
    """Tracing and compilation included."""
    started = time.perf_counter()
    bound, arrays = bind(linear_model, INPUTS)
    key_data, key_start, key_fit = jax.random.split(jax.random.key(seed), 3)
    replicates = simulate_replicates(key_data, bound, arrays, n)
    starts = simulate_replicates(key_start, bound, arrays, n).truth
    posterior = nuts_posterior(bound, warmup=WARMUP, draws=DRAWS, thinning=1)
    fit_replicates(
        key_fit, posterior, lambda _, draw: draw, arrays, replicates, starts, batch=min(n, 250), show_progress=False
    )
    return (time.perf_counter() - started) / n


def _seconds_of_simuk(n: int, repeats: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "simuk", "numpyro"], check=True)
        script = Path(folder) / "sbc.py"
        script.write_text(SIMUK)
        data = [json.dumps(np.asarray(INPUTS[name]).tolist()) for name in ("design", "response")]
        command = [str(python), str(script), *data, str(n), str(WARMUP), str(DRAWS)]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(repeats)]
    return [float(printed.split()[-1]) for printed in runs]


if __name__ == "__main__":
    line, passed = _judged(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(line)
    sys.exit(0 if passed else 3)
