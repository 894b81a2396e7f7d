"""A sweep of small fits: how much faster on two workers than on one, and whether a killed worker leaves a trace."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import jax
import xarray as xr

from connectinfer.data.results import open_result
from connectinfer.inference.sweep import local_workers, sweep
from connectinfer.zoo import load_model

CLAIM = "sweep"
TARGET = (
    "24 small fits on 2 workers at least 1.7 times as fast as on one; a worker killed in the middle changes nothing"
)

MODEL, STEPS = "low_rank_rnn_gaussian", 2000


def run(quick: bool) -> dict:
    """Workers are started, with everything imported, before the clock; 6 fits if `quick`."""
    over = {"rank": [1, 2], "seed": list(range(3 if quick else 12))}
    recording = load_model(MODEL).example(jax.random.key(0))
    tables, seconds = {}, {}
    with tempfile.TemporaryDirectory() as work:
        for name, workers in (("one worker", 1), ("two workers", 2), ("two workers, one killed", 2)):
            folder = Path(work) / name
            with local_workers(workers) as client:
                pids = client.run(_ready)
                if name.endswith("killed"):
                    threading.Thread(target=_kill_in_the_middle, args=(folder, min(pids.values())), daemon=True).start()
                started = time.perf_counter()
                options = {"engine": "svi", "steps": STEPS, "draws": 50, "show_progress": False}
                tables[name] = sweep(MODEL, recording, folder, over=over, client=client, **options)
                seconds[name] = time.perf_counter() - started
                lost = len(set(pids.values()) - set(client.run(os.getpid).values()))
        differ = _different(tables["two workers"], tables["two workers, one killed"])
        left = [each.name for each in Path(work).rglob("*.partial")]
    finished = all(bool((table["status"] == "finished").all()) for table in tables.values())
    ratio = seconds["one worker"] / seconds["two workers"]
    lines = [f"{name}: {each:.0f} s" for name, each in seconds.items()]
    lines.append(f"{lost} worker lost; results that differ: {differ or 'none'}; checkpoints left: {left or 'none'}")
    return {
        "value": f"{ratio:.2f} times as fast; {tables['one worker']['status'].size - len(differ)} results the same",
        "passed": finished and ratio >= 1.7 and lost == 1 and not differ and not left,
        "details": "\n".join(lines),
    }


def _ready() -> int:
    """The process, once it has imported what fits need."""
    import connectinfer.inference.sweep  # noqa: F401

    return os.getpid()


def _kill_in_the_middle(folder: Path, pid: int) -> None:
    """Kills a worker once some fits are done and others have a checkpoint."""
    while len(list(folder.glob("*.zarr"))) < 2 or not list(folder.glob("*.partial/state.npz")):
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def _different(calm: xr.Dataset, disturbed: xr.Dataset) -> list[str]:
    """Files that are not the very same."""
    found = []
    for name, other in zip(calm["file"].values.ravel(), disturbed["file"].values.ravel(), strict=True):
        trees = [open_result(Path(table.attrs["folder"]) / each) for table, each in ((calm, name), (disturbed, other))]
        same = name == other and all(
            trees[0][group].to_dataset().identical(trees[1][group].to_dataset()) for group in trees[0].children
        )
        found += [] if same else [name]
    return found
