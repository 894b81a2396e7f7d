"""The examples on real recordings at their default settings: held-out score against their baselines, and time."""

import runpy
import time
from pathlib import Path

CLAIM = "real_recordings"
TARGET = "each at most 10 minutes; held-out score above the mean rate (0) and the baseline"

EXAMPLES = Path(__file__).parents[3] / "examples"
# The baseline that each example computes, and the options of its quick form.
RUNS = {
    "rat_clicks.py": ("psth", ["--trials", "40", "--draws", "40"]),
    "head_direction.py": ("psth", ["--trials", "20", "--draws", "40"]),
    "worm.py": ("common", ["--rank", "2", "--draws", "40"]),
}


def run(quick: bool) -> dict:
    """Runs the examples; the rat's alone if `quick`."""
    passed, values, lines = True, [], []
    for name, (baseline, smaller) in list(RUNS.items())[: 1 if quick else None]:
        started = time.perf_counter()
        scores = runpy.run_path(str(EXAMPLES / name))["main"](smaller if quick else [])
        minutes = (time.perf_counter() - started) / 60
        passed &= minutes <= 10 and scores["model"] > max(scores[baseline], 0.0)
        values.append(f"{name} {scores['model']:.4f} ({baseline} {scores[baseline]:.4f})")
        lines.append(f"{name}: {minutes:.1f} min, {', '.join(f'{k} {v:.4f}' for k, v in scores.items())}")
    return {"value": "; ".join(values), "passed": passed, "details": "\n".join(lines)}
