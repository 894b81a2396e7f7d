"""The one door to the benchmarks: `run.py TOPIC [--only CLAIM] [--quick] [--json FILE]`.

A claim is a file of the topic's folder with `CLAIM` (the file's name), `TARGET` (what is asked) and `run(quick)`, which
returns `{"value": ..., "passed": ..., "details": ...}`. With `--json` finished claims are kept, and a later call with
the same file goes on where this one ended. Claims that compare with methods of others need the group `peers`:
`python -m uv sync --group peers`.
"""

import argparse
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent


def main() -> int:
    """Runs the claims of a topic and prints the table; 0 if all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", choices=sorted(p.name for p in HERE.iterdir() if p.is_dir() and p.name[0].isalpha()))
    parser.add_argument("--only", help="run this claim alone")
    parser.add_argument("--quick", action="store_true", help="a reduced form of every claim")
    parser.add_argument("--json", type=Path, help="file that keeps finished claims")
    arguments = parser.parse_args()
    sys.path[:0] = [str(HERE / arguments.topic), str(HERE), str(HERE.parent)]
    # Others may need what is not installed.
    claims = [_load(path) for path in sorted((HERE / arguments.topic).glob(f"{arguments.only or '*'}.py"))]
    claims = [claim for claim in claims if hasattr(claim, "CLAIM")]
    if not claims:
        print(f"No claim {arguments.only!r} in {arguments.topic!r}.", file=sys.stderr)
        return 1
    finished = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for claim in claims:
        if claim.CLAIM not in finished:
            print(f"{claim.CLAIM} ...", file=sys.stderr, flush=True)
            finished[claim.CLAIM] = _run(claim, arguments.quick)
            if arguments.json:
                arguments.json.write_text(json.dumps(finished, indent=1))
    _print(finished)
    return 0 if all(outcome["passed"] for outcome in finished.values()) else 3


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(claim: ModuleType, quick: bool) -> dict:
    started = time.perf_counter()
    try:
        outcome = claim.run(quick)
    except Exception:
        outcome = {"value": "failed to run", "passed": False, "details": traceback.format_exc()}
    return {**outcome, "target": claim.TARGET, "quick": quick, "seconds": round(time.perf_counter() - started, 1)}


def _print(finished: dict[str, dict]) -> None:
    table = Table("claim", "measured", "asked", "passed", "seconds")
    for name, outcome in finished.items():
        passed = "yes" if outcome["passed"] else "NO"
        table.add_row(name, str(outcome["value"]), outcome["target"], passed, str(outcome["seconds"]))
    console = Console(width=140)
    console.print(table)
    for name, outcome in finished.items():
        console.print(f"[bold]{name}[/bold]" + (" (quick)" if outcome["quick"] else ""), outcome.get("details", ""))


if __name__ == "__main__":
    sys.exit(main())
