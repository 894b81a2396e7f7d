"""Runs killed at random moments: how much is lost, and whether the continuation is that of an unbroken run."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLAIM = "resume"
TARGET = "20 SIGKILLs: at most one chunk lost, continuations bit-identical to an unbroken run"

N_KILLS = 20
# Settling, warm-up and sampling of NUTS, in chunks of ten steps; SVI in chunks of a hundred.
CHUNKS = {"nuts": 15 + 60 + 60, "svi": 120}

# Writes a byte whenever a chunk of steps has been computed, and prints a digest of the result.
SCRIPT = """
import hashlib, json, sys
import jax
import numpy as np
from conjugate import INPUTS, linear_model
from connectinfer.inference import chains
from connectinfer.inference.nuts import sample_nuts
from connectinfer.inference.svi import fit_svi
from connectinfer.optimisation import loop

engine, folder, computed = sys.argv[1], sys.argv[2], open(sys.argv[3], "ab", buffering=0)

def counting(compile_timed):
    def compiled_and_counted(*arguments):
        compiled = compile_timed(*arguments)
        def run(*values):
            found = jax.block_until_ready(compiled(*values))
            computed.write(b".")
            return found
        return run
    return compiled_and_counted

for module in (chains, loop):
    module.compile_timed = counting(module.compile_timed)
fit, options = {
    "nuts": (sample_nuts, dict(warmup=600, draws=600, chains=2)),
    "svi": (fit_svi, dict(steps=12_000, guide="low_rank", draws=100)),
}[engine]
result = fit(
    jax.random.key(0), linear_model, INPUTS, initial={"beta": np.array([3.0, -2.0])}, show_progress=False,
    checkpoint=None if folder == "none" else folder, **options,
)
digest = hashlib.sha256()
for group in sorted(result.children):
    dataset = result[group].to_dataset()
    for name in sorted(map(str, dataset.variables)):
        digest.update(name.encode() + dataset[name].values.tobytes())
print(digest.hexdigest())
"""


def run(quick: bool) -> dict:
    """Half of the kills hit NUTS, half SVI; two of each if `quick`."""
    lines, worst, different = [], 0, 0
    n_kills = 2 if quick else N_KILLS // len(CHUNKS)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as work:
        script = Path(work) / "fit.py"
        script.write_text(SCRIPT)
        for engine, n_chunks in CHUNKS.items():
            unbroken = _finish(_start(script, engine, "none"))
            for index, chunk in enumerate(rng.integers(1, n_chunks - 1, n_kills)):
                folder = Path(work) / f"{engine}-{index}"
                computed, saved = _killed(script, engine, folder, int(chunk), rng.uniform(0, 0.05))
                same = _finish(_start(script, engine, str(folder))) == unbroken
                worst, different = max(worst, computed - saved), different + (not same)
                said = "the very same result" if same else "ANOTHER RESULT"
                lines.append(f"{engine}: killed with {computed} of {n_chunks} chunks computed, {saved} saved; {said}")
    n = n_kills * len(CHUNKS)
    value = f"{n - different} of {n} bit-identical, at most {worst} chunk lost"
    return {"value": value, "passed": not different and worst <= 1, "details": "\n".join(lines)}


def _start(script: Path, engine: str, folder: str) -> subprocess.Popen:
    paths = [str(Path(__file__).parents[2] / "inference"), *sys.path]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        # The continuation must not depend on what the first process compiled, but compiling is most of the time.
        "JAX_COMPILATION_CACHE_DIR": str(script.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(script), engine, folder, str(_counter(script, folder))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _counter(script: Path, folder: str) -> Path:
    return script.parent / f"{Path(folder).name}.computed"


def _finish(process: subprocess.Popen) -> str:
    printed, errors = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(errors)
    return printed.strip()


def _killed(script: Path, engine: str, folder: Path, chunk: int, wait: float) -> tuple[int, int]:
    """Chunks computed and saved when the process was killed, a moment after it had computed `chunk` of them."""
    process, counter = _start(script, engine, str(folder)), _counter(script, str(folder))
    while not (counter.exists() and counter.stat().st_size >= chunk):
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1] or "ended before it was killed")
        time.sleep(0.001)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with np.load(folder / "state.npz") as state:
        if engine == "svi":
            saved = int(state["leaf.step"]) // 100
        else:
            # Three settling rounds of fifty steps come before step 0.
            done = int(state["leaf.done"])
            settled = 50 * (3 - int(state["leaf.rounds"])) + (50 + done if done < 0 else done)
            saved = settled // 10
    return counter.stat().st_size, saved
