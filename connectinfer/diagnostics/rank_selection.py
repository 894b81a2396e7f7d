"""How many latent dimensions do the data ask for? Co-smoothing of hidden neurons and trials, rank by rank."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from connectinfer.data.identifiers import listing
from connectinfer.data.objects import as_recording
from connectinfer.data.recording import drop_silent_units, observed_kind
from connectinfer.inference.fit import fit, option_names
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.progress import progress_bar
from connectinfer.statistics.co_smoothing import Gain, mean_rates, rate_gain, ratio_score, signal_gain
from connectinfer.zoo import load_model, model_name

_DIMS = ("trial", "time", "unit")
# Scores need posterior means of rates only.
_SHORT = {"engine": "state_space", "warmup": 60, "draws": 40, "chains": 2}
# A gain of less is no reason for another dimension, however certain it is.
_LEAST_GAIN = 0.003
# What is uncertain and yet larger than this share of the best score is said.
_NOTABLE = 0.01


class Choice(NamedTuple):
    """The `chosen` and the `best` rank; `verdict`: `"plateau"`, `"no plateau"` or `"undecided"`; and that in words."""

    chosen: int
    best: int
    verdict: str
    message: str


@terminations_interrupt()
def select_rank(
    data: Any,
    ranks: Sequence[int] = (1, 2, 3, 4),
    *,
    model: str | Path | ModuleType = "low_rank_rnn_poisson",
    folds: int = 5,
    seed: int = 0,
    show_progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """The smallest rank whose prediction of hidden neurons is as good as that of any.

    Trials and units are split into `folds` random groups each, and the units of a group are hidden in the trials of the
    same group: every trial is predicted from other units there, every unit from its read-out in other trials, and one
    fit a rank scores all. `options` are those of `connectinfer.fit`; by default fits are short (60 sweeps of warm-up,
    40 draws, 2 chains of `state_space`). In a folder `checkpoint`, every rank keeps its state in a folder of its own.

    Chosen is the smallest rank whose score is less than one standard error, paired by trials, or less than 0.3 % below
    the best. Returns, with dims `rank` and `trial`: `gain (rank, trial)` and `scale (trial)`, whose sums divided
    make the `score (rank)`, in bits per spike over the units' means for counts and explained variance for signals;
    `standard_error`; `difference` to the best score, 0 or negative, and its paired `difference_error`. Attributes:
    `chosen`, `best`; `verdict`, `"plateau"`, `"no plateau"` (the largest rank was chosen: try larger ones) or
    `"undecided"` (the data cannot tell), and `message`, the same in words. Ranks whose fit diverged are NaN, and a
    warning tells. Ctrl-C returns the ranks that were finished, with `status` "interrupted".

    Errors are those of hiding other trials; they do not know that all ranks share the fitted data.

    Raises:
        ValueError: fewer than two ranks, a model without `rank`, impossible `folds`, a fit that is refused, or no rank
            whose fit did not diverge.
        KeyboardInterrupt: interrupted before two ranks were finished.
    """
    ranks, recording = _checked(ranks, model), as_recording(data).transpose(*_DIMS, ...)
    hidden = _hidden(recording, folds, seed)
    kind, mask = observed_kind(recording), recording["mask"] & ~hidden
    training = recording.assign({kind: recording[kind].where(mask, 0).astype(recording[kind].dtype), "mask": mask})
    # Units that are silent in what is left cannot be predicted.
    training, gains = drop_silent_units(training), {}
    options = _SHORT | options if options.get("engine", "state_space") == "state_space" else options
    with progress_bar("ranks", len(ranks), show_progress) as advance:
        for rank in ranks:
            try:
                result = fit(model, training, rank=rank, seed=seed, show_progress=False, **_options_of(rank, options))
            except KeyboardInterrupt:
                break
            if result.attrs["status"] == "interrupted":
                break
            gains[rank] = _gain(result, recording, training, hidden)
            advance(1, f"rank {rank}: {ratio_score(*gains[rank])[0]:.4f}")
    if len(gains) < 2:
        raise KeyboardInterrupt("Interrupted before two ranks were finished: nothing to compare.")
    about = {"model": model_name(model), "folds": folds, "seed": seed}
    status = "finished" if len(gains) == len(ranks) else "interrupted"
    units = "bits per spike" if kind == "counts" else "explained variance"
    return _labelled(gains, recording, about | {"status": status, "units": units})


def choose_rank(
    ranks: Sequence[int], gain: Float[np.ndarray, "rank item"], scale: Float[np.ndarray, " item"]
) -> Choice:
    """The smallest rank that is as good as the best, by additive scores of items such as trials."""
    scores = [ratio_score(each, scale) for each in gain]
    known = [i for i, (score, _) in enumerate(scores) if np.isfinite(score)]
    if not known:
        raise ValueError("The fits of all ranks diverged, so none can be chosen; see `diagnose` of one of them.")
    best = max(known, key=lambda i: scores[i][0])
    top, error = scores[best]
    behind = {i: ratio_score(gain[best] - gain[i], scale) for i in known}
    chosen = next(i for i in known if behind[i][0] <= max(behind[i][1], _LEAST_GAIN * top))
    at = int(ranks[chosen]), int(ranks[best])
    if not top > 2 * error:
        message = f"No rank predicts hidden units better than their means ({top:.4f} ± {error:.4f} at most)."
        return Choice(*at, "undecided", f"{message} The data cannot tell ranks apart.")
    lead, lead_error = behind[chosen]
    if lead > _NOTABLE * top:
        message = f"Rank {at[1]} scores {lead / top:.1%} better than rank {at[0]}, but {lead:.4f} ± {lead_error:.4f}"
        return Choice(*at, "undecided", f"{message} is no evidence. More trials would tell.")
    if chosen == known[-1]:
        message = f"Rank {at[0]}, the largest that was tried, is better than all smaller ones: no plateau is reached."
        return Choice(*at, "no plateau", f"{message} Try larger ranks.")
    return Choice(*at, "plateau", f"Rank {at[0]} suffices: larger ones predict hidden units no better.")


def _checked(ranks: Sequence[int], model: str | Path | ModuleType) -> list[int]:
    if len(set(ranks)) < 2 or min(ranks) < 1:
        raise ValueError(f"`ranks` must name at least two ranks, each at least 1; got {list(ranks)}.")
    if "rank" not in option_names(load_model(model).inputs):
        raise ValueError(f"The model {model_name(model)!r} has no `rank` to select; use a low-rank one.")
    return sorted(set(ranks))


def _hidden(recording: xr.Dataset, folds: int, seed: int) -> xr.DataArray:
    """True at observed entries of trials and units of the same group."""
    sizes = [recording.sizes["trial"], recording.sizes["unit"]]
    if not 2 <= folds <= min(sizes):
        raise ValueError(
            f"`folds` must lie between 2 and the number of trials and units, {sizes[0]} and {sizes[1]}; got {folds}."
        )
    rng = np.random.default_rng(seed)
    trial, unit = (np.arange(size) % folds for size in sizes)
    same = rng.permutation(trial)[:, None, None] == rng.permutation(unit)
    hidden = recording["mask"] & same
    lost = (recording["mask"].any(("time", "unit")) & ~(recording["mask"] & ~hidden).any(("time", "unit"))).values
    if lost.any():
        raise ValueError(
            f"trials {listing(recording['trial'].values[lost])} would keep no observed bin. Leave them out with `.sel`."
        )
    return hidden


def _options_of(rank: int, options: Mapping[str, Any]) -> dict[str, Any]:
    if options.get("checkpoint") is None:
        return dict(options)
    return {**options, "checkpoint": Path(options["checkpoint"]) / f"rank_{rank}"}


def _gain(result: xr.DataTree, recording: xr.Dataset, training: xr.Dataset, hidden: xr.DataArray) -> Gain:
    """By trial."""
    if result.attrs["status"] == "diverged":
        warnings.warn("The fit of a rank diverged; its score is left out.", stacklevel=4)
        return Gain(*(np.full(recording.sizes["trial"], np.nan),) * 2)
    units = training["unit"]
    expected = next(iter(result["expected"].to_dataset().data_vars.values())).transpose(*_DIMS).values
    kind = observed_kind(recording)
    observed, seen = recording[kind].sel(unit=units).values, training["mask"].values
    if kind == "counts":
        gained = rate_gain(expected, observed, mean_rates(observed, seen))
    else:
        mean = (observed * seen).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
        gained = signal_gain(expected, observed, np.broadcast_to(mean, observed.shape))
    return gained.summed(hidden.sel(unit=units).values, (1, 2))


def _labelled(gains: Mapping[int, Gain], recording: xr.Dataset, attrs: dict[str, Any]) -> xr.Dataset:
    ranks, gain = list(gains), np.stack([each.gain for each in gains.values()])
    # The same for all ranks that have a score.
    scale = np.nanmax(np.stack([each.scale for each in gains.values()]), axis=0)
    choice = choose_rank(ranks, gain, scale)
    best = gain[ranks.index(choice.best)]
    scores, differences = (
        np.array([ratio_score(each, scale) for each in compared]).T for compared in (gain, gain - best)
    )
    variables = {
        "gain": (("rank", "trial"), gain),
        "scale": ("trial", scale),
        "score": ("rank", scores[0]),
        "standard_error": ("rank", scores[1]),
        "difference": ("rank", differences[0]),
        "difference_error": ("rank", differences[1]),
    }
    return xr.Dataset(variables, {"rank": ranks, "trial": recording["trial"].values}, attrs | choice._asdict())
