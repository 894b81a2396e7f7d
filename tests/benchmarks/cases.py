"""Cases of a claim that are measured once for every commit: a run that ended goes on where it was."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def measured(claim: str, case: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` found of this case, numbers and texts, at the present commit of a clean tree; without one, it is
    measured every time."""
    status = subprocess.run(["git", "status", "--porcelain"], cwd=_ROOT, capture_output=True, text=True, check=True)
    if status.stdout.strip():
        return measure()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=True)
    file = _ROOT / ".benchmarks" / head.stdout.strip() / claim / f"{case}.json"
    if not file.exists():
        found = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1))
    return json.loads(file.read_text())
