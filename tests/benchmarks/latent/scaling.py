"""Time and memory of sweeps against neurons, bins and rank, and of one large fit; each in a process of its own.

`python tests/benchmarks/latent/scaling.py sweeps|fit UNITS TRIALS BINS RANK` measures one.
"""

import json
import os
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from cases import measured

from connectinfer.data.recording import recording
from connectinfer.dynamics.low_rank import LowRankRNN, gaussian_network
from connectinfer.dynamics.simulate import simulate_bins
from connectinfer.inference.fit import fit
from connectinfer.inference.path_gibbs import first_link, sweep
from connectinfer.latent.state_space import Seen
from connectinfer.statistics.latent_recovery import latent_r2
from connectinfer.zoo import load_model

CLAIM = "scaling"
TARGET = (
    "time of a sweep at most linear in neurons (50 to 2,000) and bins (1,000 to 1,000,000), measured for rank 1 to 8; "
    "1,000 neurons in 100,000 bins, rank 3: 20 sweeps of two chains, from recording to result, in 15 minutes and 24 GiB"
)

# Units, trials, bins of a trial, rank.
_BASE = (200, 20, 500, 2)
NEURONS = [(units, *_BASE[1:]) for units in (50, 100, 200, 500, 1000, 2000)]
BINS = [(50, trials, 500, 2) for trials in (2, 20, 200, 2000)]
RANKS = [(*_BASE[:3], rank) for rank in (1, 2, 3, 4, 6, 8)]
_LARGE = (1000, 100, 1000, 3)
_SWEEPS, _FIT = 7, {"warmup": 10, "draws": 10, "chains": 2}
_ALPHA, _TAU = 0.1, 0.1
# Above one, time grows faster than in proportion; of single runs on shared cores, slopes are uncertain by some 0.1.
_STEEPEST = 1.1


def run(quick: bool) -> dict:
    """All sizes; `quick` the first three of each series and no large fit."""
    series = {"neurons": (NEURONS, 0), "bins": (BINS, 1), "rank": (RANKS, 3)}
    lines, slopes = [], {}
    for name, (sizes, axis) in series.items():
        own = sizes[: 3 if quick else None]
        rows = [_kept("sweeps", size, quick) for size in own]
        seconds = [row["seconds"] for row in rows]
        # Of the largest three sizes: small ones are all overhead.
        large = slice(-3, None)
        slopes[name] = float(np.polyfit(np.log([size[axis] for size in own])[large], np.log(seconds)[large], 1)[0])
        for size, row in zip(own, rows, strict=True):
            units, trials, bins, rank = size
            lines.append(
                f"{units} neurons, {trials * bins} bins, rank {rank}: {row['seconds'] * 1e3:.1f} ms a sweep "
                f"(compiled in {row['compiled']:.0f} s), {row['gib']:.1f} GiB at most"
            )
    value = ", ".join(f"time grows with {name} to the power {slope:.2f}" for name, slope in slopes.items())
    passed = slopes["neurons"] <= _STEEPEST and slopes["bins"] <= _STEEPEST
    if not quick:
        large = _kept("fit", _LARGE, quick)
        minutes, gib, r2 = large["seconds"] / 60, large["gib"], large["r2"]
        value += f"; 20 sweeps of the largest in {minutes:.1f} min, {gib:.1f} GiB, latent R2 {r2:.3f}"
        passed &= large["seconds"] <= 900 and large["gib"] <= 24 and large["r2"] >= 0.95
    return {"value": value, "passed": passed, "details": "\n".join(lines)}


def _kept(what: str, size: tuple[int, ...], quick: bool) -> dict:
    def in_own_process() -> dict:
        command = [sys.executable, __file__, what, *map(str, size)]
        environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{what} of {size} ended with {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    name = " ".join(map(str, (what, *size)))
    return in_own_process() if quick else measured(CLAIM, name, in_own_process)


def _simulated(units: int, trials: int, bins: int, rank: int) -> tuple[xr.Dataset, np.ndarray]:
    """Spikes of all neurons of a network that decays slowly, 0.1 a bin, and its paths."""
    key_network, key_path = jax.random.split(jax.random.key(0))
    network: LowRankRNN = gaussian_network(key_network, 1.2 * np.eye(rank), np.ones(rank), units, tau=_TAU)
    path = np.asarray(simulate_bins(key_path, network, jnp.zeros((trials, rank)), bins, _ALPHA, 0.1).latent)
    rng, m = np.random.default_rng(0), np.asarray(network.m, np.float32)
    counts = np.stack([rng.poisson(0.1 * np.exp(np.clip(z @ m.T, -4, 4))).astype(np.int16) for z in path])
    return recording(time=_ALPHA * _TAU * np.arange(bins), counts=counts), path


def _of_sweeps(*size: int) -> dict:
    """Median time of a sweep of one chain, all cores its own."""
    data, _ = _simulated(*size)
    module = load_model("low_rank_rnn_poisson")
    inputs, _ = module.inputs(data, rank=size[-1], tau=_TAU)
    arrays = {name: x for name, x in inputs.items() if isinstance(x, jax.Array)}
    fixed = {name: x for name, x in inputs.items() if name not in arrays}
    seen = Seen.of(inputs["activity"], inputs["mask"])
    chain = first_link(jax.random.key(1), *module.CONDITIONALS.begin(inputs))
    step = jax.jit(lambda chain, arrays: sweep(chain, module.CONDITIONALS, seen, {**fixed, **arrays}, 0)[0])
    started = time.perf_counter()
    compiled = step.lower(chain, arrays).compile()
    spent, seconds = time.perf_counter() - started, []
    for _ in range(_SWEEPS):
        started = time.perf_counter()
        chain = jax.block_until_ready(compiled(chain, arrays))
        seconds.append(time.perf_counter() - started)
    return {"seconds": float(np.median(seconds[1:])), "compiled": spent, "gib": _most_memory()}


def _of_fit(*size: int) -> dict:
    """A whole fit, from the recording to the result."""
    data, path = _simulated(*size)
    started = time.perf_counter()
    result = fit(
        "low_rank_rnn_poisson", data, engine="state_space", rank=size[-1], tau=_TAU, show_progress=False, **_FIT
    )
    seconds = time.perf_counter() - started
    found = result["posterior"]["latent"].mean(("chain", "draw")).values
    return {"seconds": seconds, "gib": _most_memory(), "r2": float(latent_r2(found, path))}


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    measure = {"sweeps": _of_sweeps, "fit": _of_fit}[sys.argv[1]]
    print(json.dumps(measure(*map(int, sys.argv[2:]))))
