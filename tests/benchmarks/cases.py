"""Cases of a claim that are measured once for every commit: a run that ended goes on where it was. Nothing of one
shape need be compiled twice."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

_ROOT = Path(__file__).resolve().parents[2]
_KEPT = _ROOT / ".benchmarks"


def compile_once() -> None:
    """From here on, what was compiled is read again, in this run and in later ones."""
    jax.config.update("jax_compilation_cache_dir", str(_KEPT / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # JAX asks once whether there is a cache.
    compilation_cache.reset_cache()


def measured(claim: str, case: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` found of this case, numbers and texts, at the present commit of a clean tree; without one, it is
    measured every time."""
    status = subprocess.run(["git", "status", "--porcelain"], cwd=_ROOT, capture_output=True, text=True, check=True)
    if status.stdout.strip():
        return measure()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=True)
    file = _KEPT / head.stdout.strip() / claim / f"{case}.json"
    if not file.exists():
        found = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1))
    return json.loads(file.read_text())
