"""How long `import connectinfer` and `connectinfer --help` take in a process of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path

CLAIM = "start_up"
TARGET = "each at most 0.5 s (best of five)"

LIMIT, REPEATS = 0.5, 5
COMMANDS = {
    "import": [sys.executable, "-c", "import connectinfer"],
    "--help": [str(Path(sys.executable).with_name("connectinfer")), "--help"],
}
NOTHING = [sys.executable, "-c", "pass"]


def run(quick: bool) -> dict:
    """Times both; `quick` makes no difference."""
    del quick
    seconds = {name: _best(command) for name, command in {"python itself": NOTHING, **COMMANDS}.items()}
    # Elapsed time counts; processor time, which other processes disturb less, says how much of it was waiting.
    lines = [
        f"{name}: {elapsed:.3f} s elapsed, {busy:.3f} s of processor time" for name, (elapsed, busy) in seconds.items()
    ]
    return {
        "value": ", ".join(f"{name} {seconds[name][0]:.2f} s" for name in COMMANDS),
        "passed": all(seconds[name][0] <= LIMIT for name in COMMANDS),
        "details": "\n".join(lines),
    }


def _best(command: list[str]) -> tuple[float, float]:
    """The least elapsed and the least processor time of five runs, after one that fills the caches."""
    runs = [_time(command) for _ in range(REPEATS + 1)][1:]
    return min(elapsed for elapsed, _ in runs), min(busy for _, busy in runs)


def _time(command: list[str]) -> tuple[float, float]:
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - started, os.times()
    return elapsed, after.children_user + after.children_system - before.children_user - before.children_system
