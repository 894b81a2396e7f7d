"""Held-out units of the limit cycle's recipe, against time: this package, variational SMC, dynamax, dynestyx and LINT.

Every setting runs in a process of its own, one after the other, all with the same threads; the clock starts when data
and packages are loaded and includes compilation. Peers take the best of two learning rates (the SMC: of two proposals),
and their test scores end them. They start from the principal components from which our own fits start, which is a gift;
the SMC also from random weights, as in its source. The goal is a score within 0.1 % of the best that any setting of the
SMC reaches until its limit: waiting for the last digit would lengthen its time.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from cases import measured
from methods.track import RISE, Point, best, reached

CLAIM = "peers"
TARGET = "to within 0.1 % of the SMC's best bits/spike at least 10 times faster than it, and no peer sooner"

_PACKAGES = ("dynamax", "dynestyx")
# Learning rates; the SMC, which takes longest, has the first and two ways to propose particles.
_RATES = (0.01, 0.03)
# Seconds for one setting of the SMC; other peers have as long as our fit that reaches the goal.
_LIMIT, _QUICK_LIMIT = 420.0, 6.0
_LENGTHS, _QUICK_LENGTHS = (20, 40, 80, 150), (10,)
_HERE = Path(__file__).parent


class Setting(NamedTuple):
    """A method (the name that the table gives it), the module and function that run it, and their options."""

    method: str
    module: str
    function: str
    options: dict


def run(quick: bool) -> dict:
    """All settings; `quick` a third of the trials, every package once, few steps: compilation, mostly."""
    _check_installed()
    smc_limit = _QUICK_LIMIT if quick else _LIMIT
    proposals, rates = ((False,), _RATES[:1]) if quick else ((True, False), _RATES)
    tracks = [(setting, _track(setting, smc_limit, quick)) for setting in _smc(proposals)]
    goal = (1 - RISE) * max(best(points) for _, points in tracks)
    for length in _QUICK_LENGTHS if quick else _LENGTHS:
        setting = Setting("connectinfer", "connectinfer", "run", {"warmup": length, "draws": length})
        tracks.append((setting, _track(setting, 0.0, quick)))
        if reached(tracks[-1][1], goal):
            break
    limit = _QUICK_LIMIT if quick else tracks[-1][1][-1].wall
    tracks += [(setting, _track(setting, limit, quick)) for setting in _others(rates)[:: 2 if quick else 1]]
    times = _times(tracks, goal)
    own, smc = times.pop("connectinfer"), times["SMC"]
    ended = min(points[-1].wall for setting, points in tracks if setting.method == "SMC")
    ratio = (smc.wall if smc else ended) / own.wall if own else 0.0
    sooner = [name for name, point in times.items() if point and own and point.wall < own.wall]
    value = (
        f"{'' if smc else 'more than '}{ratio:.1f} times faster than the SMC; sooner: {', '.join(sooner) or 'no peer'}"
        if own
        else "never there"
    )
    lines = [
        f"The SMC's best: {goal / (1 - RISE):.4f} bits/spike; the goal: {goal:.4f}. A setting of the SMC has "
        f"{smc_limit:g} s, of another peer {limit:.0f} s."
    ]
    lines += [_line(setting, points, goal) for setting, points in tracks]
    return {"value": value, "passed": bool(ratio >= 10 and not sooner), "details": "\n".join(lines + _better(tracks))}


def _check_installed() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"The peers {' and '.join(missing)} are not installed; install them with `uv sync --group peers`."
        )


def _smc(proposals: tuple[bool, ...]) -> list[Setting]:
    starts = {"SMC": False, "SMC, our start": True}
    return [
        Setting(name, "smc", "run", {"rate": _RATES[0], "encoded": encoded, "principal": principal})
        for name, principal in starts.items()
        for encoded in proposals
    ]


def _others(rates: tuple[float, ...]) -> list[Setting]:
    learned = {
        "LINT": ("lint", "run"),
        "dynamax, network": ("dynamax", "run"),
        "dynestyx, particles": ("dynestyx", "run"),
        "dynestyx, variational": ("dynestyx", "run_variational"),
    }
    each = [Setting(name, *where, {"rate": rate}) for name, where in learned.items() for rate in rates]
    return [*each, Setting("dynamax, linear", "dynamax", "run_linear", {})]


def _track(setting: Setting, limit: float, quick: bool) -> list[Point]:
    """Points of a setting, kept between calls unless `quick`."""
    sizes = {"n_training": 20, "n_test": 10} if quick else {}
    arguments = [setting.module, setting.function, json.dumps(sizes), str(limit), json.dumps(setting.options)]
    folders = [str(_HERE), str(_HERE.parent), str(_HERE.parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}

    def points() -> dict:
        command = [sys.executable, "-W", "ignore", "-m", "methods.door", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{_name(setting)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return {"points": json.loads(done.stdout.splitlines()[-1])}

    found = points() if quick else measured(CLAIM, _name(setting), points)
    print(f"{_name(setting)}: best {best([Point(*p) for p in found['points']]):.4f}", file=sys.stderr, flush=True)
    return [Point(*point) for point in found["points"]]


def _times(tracks: list[tuple[Setting, list[Point]]], goal: float) -> dict[str, Point | None]:
    """When each method first reaches the goal, by its best setting; None if never."""
    found: dict[str, Point | None] = {}
    for setting, points in tracks:
        at = [point for point in (found.get(setting.method), reached(points, goal)) if point]
        found[setting.method] = min(at, default=None)
    return found


def _name(setting: Setting) -> str:
    return ", ".join([setting.method, *(f"{name} {value:g}" for name, value in setting.options.items())])


def _line(setting: Setting, points: list[Point], goal: float) -> str:
    top = max((point for point in points if point.score == best(points)), default=None)
    first = reached(points, goal)
    scored = f"best {top.score:.4f} at {top.wall:.1f} s" if top else "no finite score"
    when = f"goal in {first.wall:.1f} s ({first.processor:.1f} s of processor)" if first else "goal never"
    return f"{_name(setting)}: {scored}; {when}, {len(points)} scores in {points[-1].wall:.0f} s"


def _better(tracks: list[tuple[Setting, list[Point]]]) -> list[str]:
    """Where a peer is better than we: a score before our first, or a score above our best."""
    own = [point for setting, points in tracks if setting.method == "connectinfer" for point in points]
    first, highest, lines = min(own).wall, best(own), []
    for name in dict.fromkeys(setting.method for setting, _ in tracks if setting.method != "connectinfer"):
        points = [point for setting, points in tracks if setting.method == name for point in points]
        early = best([point for point in points if point.wall < first])
        if math.isfinite(early):
            lines.append(f"{name} has {early:.4f} bits/spike before our shortest fit ends ({first:.1f} s).")
        if best(points) > highest:
            lines.append(
                f"{name} ends higher: {best(points):.4f} bits/spike; our fits, which end at the goal, {highest:.4f}."
            )
    return lines or ["No peer is better in any of this."]
