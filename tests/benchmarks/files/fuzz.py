"""Damaged and hostile files: every reader gives a clear error or a correct read.

`python tests/benchmarks/files/fuzz.py READER INDEX FOLDER` replays one: it is written to a new folder and opened.
"""

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from hostile import hostile_samples
from samples import sound_samples
from workers import Outcome, Source, judge, outcomes_of

CLAIM = "fuzz"
TARGET = ">= 2,000 files a reader: error or read; no hang, traceback, code; memory <= 4x"

FILES, QUICK_FILES, COMMANDS, BATCH = 2000, 40, 100, 500
KEPT = Path(__file__).parents[3] / ".benchmarks" / "fuzz"
FAILURES = ("wrong exception", "traceback", "hung", "crashed", "memory", "code executed", "leaked", "not sound")


def run(quick: bool) -> dict:
    """Hostile files first, then mutations, each in a process that is watched; failing files are kept to be replayed."""
    sources, per_reader = _sources(), QUICK_FILES if quick else FILES
    found: dict[str, list[Outcome]] = {name: _unsound(source) for name, source in sources.items()}
    jobs = [
        (name, list(range(start, min(start + BATCH, per_reader + len(source.hostile)))))
        for name, source in sources.items()
        for start in range(0, per_reader + len(source.hostile), BATCH)
    ]

    def work(job: tuple[str, list[int]]) -> tuple[str, list[Outcome]]:
        name, indices = job
        return name, list(outcomes_of(sources[name], indices, max(1, per_reader // COMMANDS)))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name, outcomes in pool.map(work, jobs):
            found[name] += outcomes
            print(f"  {name}: {len(found[name])} files", file=sys.stderr, flush=True)
    failures = {name: [each for each in outcomes if each.verdict in FAILURES] for name, outcomes in found.items()}
    for name, outcomes in failures.items():
        _keep(sources[name], outcomes)
    n_files, n_failures = sum(map(len, found.values())), sum(map(len, failures.values()))
    return {
        "value": f"{n_files} files of {len(found)} readers, {n_failures} failures",
        "passed": n_failures == 0,
        "details": _details(found, failures),
    }


def _sources() -> dict[str, Source]:
    hostile = hostile_samples()
    return {name: Source(name, sound, hostile.get(name, [])) for name, sound in sound_samples().items()}


def _unsound(source: Source) -> list[Outcome]:
    """The sound files of a reader that do not open: mutations of those would prove nothing."""
    opened = outcomes_of(source._replace(hostile=source.sound), list(range(len(source.sound))), 10**9)
    return [each._replace(index=-1 - each.index, verdict="not sound") for each in opened if each.verdict != "opened"]


def _keep(source: Source, failures: list[Outcome]) -> None:
    for each in failures[:20]:
        if each.index >= 0:
            source.file(each.index).write(KEPT / f"{source.reader} {each.index}".replace(" ", "_"))


def _details(found: dict[str, list[Outcome]], failures: dict[str, list[Outcome]]) -> str:
    table = Table(
        "reader", "files", "commands", "opened", "refused", *FAILURES, "slowest s", "most MB", "foreign warnings"
    )
    for name, outcomes in found.items():
        counts = [sum(each.verdict == verdict for each in outcomes) for verdict in ("opened", "refused", *FAILURES)]
        table.add_row(
            name,
            str(len(outcomes)),
            str(sum(each.by_command for each in outcomes)),
            *map(str, counts),
            f"{max(each.seconds for each in outcomes):.1f}",
            f"{max(each.megabytes for each in outcomes):.0f}",
            str(sum(bool(each.foreign_warning) for each in outcomes)),
        )
    shown = io.StringIO()
    Console(width=220, file=shown).print(table)
    lines = [
        f"{name} {each.index} {each.verdict}: {each.text[-400:]}" for name, some in failures.items() for each in some
    ]
    measured = (
        "Memory: growth of the peak of resident memory (VmHWM, reset before each file) over what was resident, in a "
        "process that has opened the sound files; allowed are 64 MB, or 4 times the unpacked size of the file."
    )
    return "\n".join([measured, shown.getvalue(), *lines[:200]])


def replay(reader: str, index: int, folder: Path) -> Outcome:
    """Writes the file of that number and opens it."""
    return judge(index, _sources()[reader].file(index), folder, by_command=False)


if __name__ == "__main__":
    print(*replay(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).resolve()), sep="\n")
