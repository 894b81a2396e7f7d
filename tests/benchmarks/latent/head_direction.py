"""Head-direction cells of a mouse: the angle in two latents, against a supervised decoder; sleep with the loadings of
wake."""

from typing import Any

import numpy as np
import xarray as xr
from angle_decoder import angle_errors, curves_at, decode, mean_angle, train_decoder
from cases import compile_once, measured
from peer_paths import factor_analysis
from real_data import SHORT, open_head_direction
from ring_drift import describe_ring
from trial_folds import Fold, trial_folds, without

from connectinfer.inference.fit import fit
from connectinfer.inference.infer_paths import infer_paths
from connectinfer.statistics.co_smoothing import Gain, ratio_score

CLAIM = "head_direction"
TARGET = (
    "five contiguous blocks, a fifth of cells hidden: median angle error from two latents at most 20 degrees and 1.5 "
    "times that of a supervised decoder with memory on the same cells; at least 90 % of its bits/spike; in REM sleep, "
    "with the loadings of wake, at least 80 % of the bits/spike of a fit to REM"
)
_FOLDS = 5
# Of the angle, and of co-smoothing.
_RANKS = (2, 4)
_PATH_DRAWS, _LEVEL_ROUNDS = 50, 2
_MODEL, _TAU = "low_rank_rnn_poisson", 0.2
# Of factor analysis, 200 ms.
_SMOOTHING = 2.0


def run(quick: bool) -> dict:
    """All blocks; `quick` the first, with two latents alone and a third of the recording."""
    compile_once()
    wake, rem = (_folds(state, 70 if quick else None) for state in ("run", "rem"))
    ranks, n_folds = _RANKS[: 1 if quick else None], 1 if quick else _FOLDS
    found = [
        measured(CLAIM, f"fold {k}" + " quick" * quick, lambda: _fold(wake[k], rem[k], ranks))  # noqa: B023
        for k in range(n_folds)
    ]
    gains = {name: Gain(*(np.concatenate([f["gains"][name][part] for f in found]) for part in (0, 1)))
             for name in found[0]["gains"]}  # fmt: skip
    errors = {name: np.concatenate([f["errors"][name] for f in found]) for name in found[0]["errors"]}
    score = {name: ratio_score(*gain) for name, gain in gains.items()}
    median = {name: float(np.median(each)) for name, each in errors.items()}
    ours, supervised = median[f"rank {ranks[0]}"], median["decoder"]
    share = max(score[f"rank {rank}"][0] for rank in ranks) / score["decoder"][0]
    refit = score["REM, refit"][0]
    # A share of what is no better than the mean rate says nothing, and passes nothing.
    frozen = score["REM, wake loadings"][0] / refit if refit > 0 else float("nan")
    lines = [f"{name}: median error {each:.1f} degrees" for name, each in median.items()]
    lines += [f"{name}: {value:.4f} ± {error:.4f} bits/spike" for name, (value, error) in score.items()]
    lines += [f"block {k}: {f['ring']}" for k, f in enumerate(found)]
    return {
        "value": f"median error {ours:.1f} degrees, {ours / supervised:.2f} times the decoder's; co-smoothing "
        f"{share:.2f} of the decoder's; REM with wake loadings {frozen:.2f} of a refit",
        "passed": bool(ours <= 20 and ours <= 1.5 * supervised and share >= 0.9 and frozen >= 0.8),
        "details": "\n".join(lines),
    }


def _folds(state: str, n_trials: int | None) -> list[Fold]:
    """Of both states the same units are hidden in the same fold."""
    return trial_folds(open_head_direction(state).isel(trial=slice(n_trials)), folds=_FOLDS, blocks=True)


def _fold(wake: Fold, rem: Fold, ranks: tuple[int, ...]) -> dict[str, Any]:
    """Gains by trial and angle errors by bin, by method, and what the ring of the smallest rank is like."""
    angle, gains, errors, fits = wake.test["angle"].values, {}, {}, {}
    for name, memory in (("decoder", True), ("decoder without memory", False)):
        decoder = train_decoder(wake.training["counts"].values, wake.training["angle"].values, memory=memory)
        probability = decode(decoder, wake.test["counts"].values, ~wake.held_out)
        gains[name] = wake.gain(probability @ decoder.tuning[:, wake.held_out])
        errors[name] = angle_errors(mean_angle(probability), angle)
        gains["tuning curves at the measured angle"] = wake.gain(curves_at(decoder, angle)[..., wake.held_out])
    gains[f"factor analysis, rank {ranks[-1]}"] = wake.gain(factor_analysis(wake, ranks[-1], smoothing=_SMOOTHING))
    for rank in ranks:
        fits[rank] = fit(_MODEL, wake.training, rank=rank, tau=_TAU, **SHORT)
        test = infer_paths(fits[rank], wake.seen, draws=_PATH_DRAWS)
        gains[f"rank {rank}"] = wake.gain(_expected(test, wake))
        training = infer_paths(fits[rank], without(wake.training, wake.held_out), draws=_PATH_DRAWS)
        errors[f"rank {rank}"] = angle_errors(_angle(training, wake.training["angle"].values, test), angle)
    gains |= _sleep(fits[ranks[-1]], rem, ranks[-1])
    return {
        "gains": {name: [x.tolist() for x in gain] for name, gain in gains.items()},
        "errors": {name: each.ravel().tolist() for name, each in errors.items()},
        "ring": describe_ring(fits[ranks[0]], wake.training["angle"].values),
    }


def _sleep(awake: xr.DataTree, rem: Fold, rank: int) -> dict[str, Gain]:
    """Of REM sleep: all of wake's parameters, its loadings and dynamics at the rates of REM, and a fit to REM."""
    levelled = awake
    for _ in range(_LEVEL_ROUNDS):
        levelled = _levelled(levelled, rem.training)
    refit = fit(_MODEL, rem.training, rank=rank, tau=_TAU, **SHORT)
    results = {"REM, all of wake": awake, "REM, wake loadings": levelled, "REM, refit": refit}
    found = {name: infer_paths(result, rem.seen, draws=_PATH_DRAWS) for name, result in results.items()}
    return {name: rem.gain(_expected(paths, rem)) for name, paths in found.items()}


def _levelled(result: xr.DataTree, trials: xr.Dataset) -> xr.DataTree:
    """With the biases at which units fire as often as they do in these trials."""
    expected = infer_paths(result, trials, draws=_PATH_DRAWS)["expected/counts"]
    shift = np.log(trials["counts"].sum(("trial", "time")) / expected.sum(("trial", "time")))
    moved = result.copy()
    moved["posterior"] = result["posterior"].to_dataset().assign(bias=lambda x: x["bias"] + shift)
    return moved


def _expected(paths: xr.DataTree, fold: Fold) -> np.ndarray:
    return paths["expected/counts"].values[..., fold.held_out]


def _angle(training: xr.DataTree, angle: np.ndarray, test: xr.DataTree) -> np.ndarray:
    """Angles `(trial, time)` read from paths by the regression of cosine and sine on their squares and products."""
    weights = np.linalg.lstsq(
        _quadratic(training).reshape(angle.size, -1), np.exp(1j * angle).ravel(), rcond=None
    )[0]  # fmt: skip
    return np.angle(_quadratic(test) @ weights)


def _quadratic(paths: xr.DataTree) -> np.ndarray:
    z = paths["posterior/latent"].mean(("chain", "draw")).transpose("trial", "time", "latent_dim").values
    rows, columns = np.triu_indices(z.shape[-1])
    return np.concatenate([np.ones((*z.shape[:2], 1)), z, z[..., rows] * z[..., columns]], -1)
