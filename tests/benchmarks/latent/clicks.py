"""Rats that accumulate clicks, eight sessions: hidden units of test trials, by this package and by others."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import compile_once, measured
from peer_paths import factor_analysis, gaussian_process_factors, histogram, histogram_by
from poisson_lds import poisson_lds
from real_data import SHORT, click_sessions, open_clicks
from trial_folds import Fold, trial_folds

from connectinfer.diagnostics.held_out_scores import held_out_scores
from connectinfer.inference.fit import fit
from connectinfer.inference.infer_paths import infer_paths
from connectinfer.statistics.co_smoothing import Gain, ratio_score

CLAIM = "clicks"
TARGET = (
    "8 sessions of 8 rats, 5 folds over trials, a fifth of units hidden: at least 0.97 of the bits/spike of the best "
    "of histogram, factor analysis, GPFA and a Poisson LDS of the same rank in every session; more than the histogram "
    "by choice in the median one. Ours and the Poisson LDS learn from all units of training trials, factor analysis "
    "and GPFA their paths from the others and read-outs of the hidden ones afterwards"
)
_SESSIONS, _FOLDS = 8, 5
# Of every method with latent paths.
_RANK = 2
_PATH_DRAWS, _FEW_SHOTS = 40, (10, 50)
# A Gaussian of 90 ms.
_SMOOTHING = 3.0
_MODEL = "low_rank_rnn_poisson"


def _ours(fold: Fold) -> np.ndarray:
    result = fit(_MODEL, fold.training, rank=_RANK, **SHORT)
    return infer_paths(result, fold.seen, draws=_PATH_DRAWS)["expected/counts"].values[..., fold.held_out]


_METHODS: dict[str, Callable[[Fold], np.ndarray]] = {
    "ours": _ours,
    "histogram": histogram,
    "histogram by choice": lambda fold: histogram_by(fold, "choice"),
    "factor analysis": lambda fold: factor_analysis(fold, _RANK, smoothing=_SMOOTHING),
    "GPFA": lambda fold: gaussian_process_factors(fold, _RANK),
    "Poisson LDS": lambda fold: poisson_lds(fold, _RANK),
}
_PEERS = ("histogram", "factor analysis", "GPFA", "Poisson LDS")
_INFORMED = "histogram by choice"


def run(quick: bool) -> dict:
    """All sessions, folds and methods; `quick` one fold of the session with fewest units."""
    compile_once()
    sessions = click_sessions(_SESSIONS)[-1:] if quick else click_sessions(_SESSIONS)
    lines, ratios, leads = [], [], []
    for session in sessions:
        found = _found(session, 1 if quick else _FOLDS)
        # Of all test trials: every one is in one fold.
        gains = {n: Gain(*(np.concatenate([x[p] for x in each]) for p in Gain._fields)) for n, each in found.items()}
        score = {name: ratio_score(*gain)[0] for name, gain in gains.items()}
        best = max(_PEERS, key=lambda name: score[name])
        # A ratio to what is no better than the mean rate says nothing, and passes nothing.
        ratios.append(score["ours"] / score[best] if score[best] > 0 else float("nan"))
        leads.append(score["ours"] - score[_INFORMED])
        seconds = ", ".join(f"{name} {np.mean([x['seconds'] for x in each]):.1f}" for name, each in found.items())
        lines += [f"{session}: {ratios[-1]:.3f} of {best}", *_table(gains), f"  seconds a fold: {seconds}"]
        if not quick:
            lines.append(_further(session))
    return {
        "value": f"rank {_RANK}: {min(ratios):.3f} to {max(ratios):.3f} of the best, median {np.median(ratios):.3f}; "
        f"over the histogram by choice in {sum(lead > 0 for lead in leads)} of {len(leads)} sessions, "
        f"median lead {np.median(leads):+.4f} bits/spike",
        "passed": bool(np.all(np.array(ratios) >= 0.97) and np.median(leads) > 0),
        "details": "\n".join(lines),
    }


def _found(session: str, n_folds: int) -> dict[str, list[dict[str, Any]]]:
    """By method and fold."""
    folds = trial_folds(open_clicks(session), folds=_FOLDS)[:n_folds]
    return {
        name: [
            measured(CLAIM, f"{session} {k} {name}", lambda: _scored(fold, expected))  # noqa: B023
            for k, fold in enumerate(folds)
        ]
        for name, expected in _METHODS.items()
    }


def _scored(fold: Fold, expected: Callable[[Fold], np.ndarray]) -> dict[str, Any]:
    """Gains by test trial, and the seconds it took, compilation included where nothing of this shape was compiled."""
    started = time.perf_counter()
    gain = fold.gain(expected(fold))
    seconds = time.perf_counter() - started
    return {name: part.tolist() for name, part in gain._asdict().items()} | {"seconds": seconds}


def _table(gains: dict[str, Gain]) -> list[str]:
    """Scores, and how far ours is ahead; errors are over trials, paired where methods are compared."""
    rows, ours = [], gains["ours"]
    for name, gain in gains.items():
        score, error = ratio_score(*gain)
        lead, lead_error = ratio_score(ours.gain - gain.gain, gain.scale)
        ahead = "" if name == "ours" else f", ours ahead by {lead:+.4f} ± {lead_error:.4f}"
        rows.append(f"  {name} {score:.4f} ± {error:.4f}{ahead}")
    return rows


def _further(session: str) -> str:
    """What the package's own scores say of one more fit, in which no peer takes part."""

    def found() -> dict[str, Any]:
        options = SHORT | {"rank": _RANK, "few_shot": _FEW_SHOTS, "condition": "choice"}
        scores = held_out_scores(_MODEL, open_clicks(session), **options)
        rows = zip(scores["score"].values.tolist(), scores["standard_error"].values.tolist(), strict=True)
        return dict(zip(scores["measure"].values.tolist(), rows, strict=True))

    rows = measured(CLAIM, f"{session} further", found)
    return "  " + ", ".join(f"{name} {score:.4f} ± {error:.4f}" for name, (score, error) in rows.items())
