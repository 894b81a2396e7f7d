"""Claim: `diagnose` fails fits that are wrong and passes those that are right; all are run, none is made up.

`sound_fits` has those that are right, each verified beside what no check computed, and `unsound_fits` those that are
wrong, each with the concerns that must say so. A sound fit that its reference contradicts fails the claim as well: the
bank is then wrong.
"""

import tempfile
import time
import warnings
from collections.abc import Callable

import jax
import xarray as xr
from sound_fits import SOUND, Sound, disagreement
from unsound_fits import BROKEN, Broken

from connectinfer.diagnostics.checks import diagnose
from connectinfer.diagnostics.verdict import FAIL, Diagnosis

CLAIM = "broken_fits"
TARGET = "at least 95 % of the broken fits found, at most 5 % of the sound ones failed, and all of these verified"

FOUND, FALSE_ALARMS = 0.95, 0.05
QUICK_SOUND = ("regression, nuts 0", "regression, svi 0", "steady counts, svi 6", "steady signal, svi 5")
QUICK_BROKEN = (
    "chains of 30 draws 0",
    "svi of independent normals on 0.99 0",
    "overdispersed counts, svi",
    "noise a tenth larger",
)


def run(quick: bool) -> dict:
    """Runs and judges the whole bank; four sound and four broken fits if `quick`."""
    sound = {name: SOUND[name] for name in QUICK_SOUND} if quick else SOUND
    broken = {name: BROKEN[name] for name in QUICK_BROKEN} if quick else BROKEN
    with tempfile.TemporaryDirectory() as cache:
        # Fits of one shape compile the same programs.
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        judged_sound = [_report(name, lambda fit=fit: _judge_sound(fit)) for name, fit in sound.items()]
        judged_broken = [_report(name, lambda fit=fit: _judge_broken(fit)) for name, fit in broken.items()]
        jax.config.update("jax_compilation_cache_dir", None)
    alarms, found = (sum(flag for flag, _, _ in judged) for judged in (judged_sound, judged_broken))
    contradicted = sum(wrong for _, wrong, _ in judged_sound)
    passed = found >= FOUND * len(broken) and alarms <= FALSE_ALARMS * len(sound) and not contradicted
    value = f"{found} of {len(broken)} found, {alarms} of {len(sound)} false alarms, {contradicted} not verified"
    lines = [line for _, _, line in (*judged_sound, *judged_broken)]
    return {"value": value, "passed": passed, "details": "\n".join(lines)}


def _report(name: str, judge: Callable[[], tuple[bool, bool, str]]) -> tuple[bool, bool, str]:
    """`judge` without the warnings of fits that are meant to go wrong, its line with the name and the seconds."""
    started, busy = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flag, wrong, said = judge()
    line = f"{name}: {said} ({time.perf_counter() - started:.1f} s, {time.process_time() - busy:.1f} s of processor)"
    print(line, flush=True)
    return flag, wrong, line


def _judge_sound(sound: Sound) -> tuple[bool, bool, str]:
    result, reference = sound.fit(), sound.reference()
    alarms, wrong = _failed(diagnose(result)), disagreement(result, reference)
    verified = f"CONTRADICTED by {reference.source}: {wrong}" if wrong else f"verified by {reference.source}"
    return bool(alarms), bool(wrong), f"sound, {verified}; " + (f"FALSE ALARM: {alarms}" if alarms else "no alarm")


def _judge_broken(broken: Broken) -> tuple[bool, bool, str]:
    result: xr.DataTree = broken.fit()
    diagnosis = diagnose(result)
    fired = [v for v in diagnosis.verdicts if v.verdict == broken.verdict and v.concern.startswith(broken.by)]
    said = "; ".join(f"{v.concern} {v.value:.3g}" for v in fired)
    others = f"MISSED (failed: {_failed(diagnosis) or 'nothing'})"
    return bool(fired), False, f"broken, {f'{broken.verdict}: {said}' if fired else others}"


def _failed(diagnosis: Diagnosis) -> str:
    return ", ".join(f"{v.concern} {v.value:.3g}" for v in diagnosis.verdicts if v.verdict == FAIL)
