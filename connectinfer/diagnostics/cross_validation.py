"""Which trials or neurons does a model predict that it has not seen? Refits with a part hidden, fold by fold."""

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm, poisson

from connectinfer.data.objects import as_recording
from connectinfer.data.recording import drop_silent_units, observed_kind
from connectinfer.data.splits import held_out_entries, hold_out
from connectinfer.inference.fit import fit
from connectinfer.inference.infer_paths import check_other_trials, infer_paths
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.progress import progress_bar
from connectinfer.statistics.co_smoothing import Gain, mean_rates, rate_gain, ratio_score, signal_gain
from connectinfer.zoo import load_model

_DIMS = ("trial", "time", "unit")
_FOLDED = ("trial", "unit")
# What scores are in: of counts or not, of likelihoods with paths integrated out or of expectations.
_MEASURES = {
    (True, False): "bits per spike",
    (False, False): "explained variance",
    (True, True): "bits per spike, paths integrated out",
    (False, True): "nats per entry, paths integrated out",
}


@terminations_interrupt()
def leave_out(
    model: str | Path | ModuleType,
    data: Any,
    *,
    by: str = "trial",
    folds: int = 5,
    seed: int = 0,
    show_progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Fits `model` `folds` times, each time with other trials or units hidden, and scores what was hidden.

    `by="trial"` hides whole trials. Models with latent paths are asked how probable a hidden trial is: its likelihood
    with the path integrated out (`connectinfer.infer_paths`), averaged over the draws of a fit to the other trials.
    That judges all about a trial, how units vary together included. Other models are asked what they expect, and see
    the first observed bin, without which they do not take a trial. `by="unit"` hides a group of units in a group of
    trials: the path in these trials is seen through the other units, and the loadings of the hidden ones in the other
    trials (co-smoothing). A unit hidden in all trials could not be predicted: nothing else says how it reads out the
    path. Every trial, or unit, is hidden in one fold; which ones follows from `seed` and the size of the recording, so
    that models can be compared pair by pair (`connectinfer.compare`). With more folds than trials, groups of trials
    serve several folds, each with other units. Units that are silent in what a fold has left are left out of it.
    `options` are those of `connectinfer.fit`; in a folder `checkpoint`, every fold keeps its state in a folder of its
    own (`fold_0`, ...).

    Returns, with dim `trial` or `unit`: `gain`, how much better the hidden entries were predicted than by the units'
    means over what was seen; `scale`, by which it is divided; `score`, their ratio (NaN where the scale is 0); and
    `fold`. Of counts, scores are in bits per spike; of signals, they are the explained variance. With paths integrated
    out, the gain of a signal is over a normal law with each unit's mean and sd, and its score in nats per entry. The
    attributes hold the `measure`; `score`, that of all together; and its `standard_error` over trials or units. Entries
    of a fold whose fit diverged are NaN, and a warning tells. Ctrl-C returns the folds that were finished, with status
    "interrupted"; entries of others are NaN, and their fold -1.

    Raises:
        ValueError: `by` or `folds` is not possible, or a fit or a hidden part is refused; folds that were finished
            before are kept by `checkpoint` only.
        KeyboardInterrupt: interrupted before the first fold was finished.
    """
    recording, whole = as_recording(data), by == "trial" and hasattr(load_model(model), "CONDITIONALS")
    if whole:
        check_other_trials(model, options)
    splits = _splits(recording, by, folds, seed, whole)
    found = {name: np.full(recording.sizes[by], np.nan) for name in Gain._fields}
    fold_of, fitted = np.full(recording.sizes[by], -1), ""
    with progress_bar(f"hiding {by}s", folds, show_progress) as advance:
        for number, split in enumerate(splits):
            try:
                # Units that are silent in what is left cannot be predicted.
                training = drop_silent_units(split.training)
                result = fit(model, training, seed=seed, show_progress=False, **_options_of(number, options))
                # What an engine returns when interrupted is a worse fit than those of the other folds.
                if result.attrs["status"] == "interrupted":
                    break
                diverged = result.attrs["status"] == "diverged"
                score = partial(_trial_gain, model=model) if whole else partial(_expected_gain, by=by)
                gained = None if diverged else score(result, recording, split)
            except KeyboardInterrupt:
                break
            except ValueError as error:
                if not fitted:
                    raise
                raise ValueError(f"Fold {number} of {folds} (counted from 0) was refused: {error}") from error
            fitted, fold_of[split.items] = result.attrs["model"], number
            if gained is None:
                warnings.warn(f"The fit of fold {number} diverged; what it hid is left out.", stacklevel=3)
            else:
                for name, values in gained._asdict().items():
                    found[name][split.items] = values
            advance(1, f"score {ratio_score(found['gain'], found['scale'])[0]:.3f}")
    if not fitted:
        raise KeyboardInterrupt("Interrupted before the first fold was finished: nothing to keep.")
    about = {"measure": _MEASURES[observed_kind(recording) == "counts", whole], "model": fitted}
    return _labelled(found, fold_of, recording, by, about | {"folds": folds, "seed": seed})


def _options_of(fold: int, options: Mapping[str, Any]) -> dict[str, Any]:
    if options.get("checkpoint") is None:
        return dict(options)
    # The state of one fold is that of other work to the next.
    return {**options, "checkpoint": Path(options["checkpoint"]) / f"fold_{fold}"}


class _Split(NamedTuple):
    """The recording with a part hidden, True at what is hidden, and the positions along `by` that are scored."""

    training: xr.Dataset
    hidden: np.ndarray
    items: np.ndarray


def _splits(recording: xr.Dataset, by: str, folds: int, seed: int, whole: bool) -> list[_Split]:
    if by not in _FOLDED:
        raise ValueError(f"`by` must be one of {_FOLDED}; got {by!r}.")
    n_trials, n_units = (recording.sizes[dim] for dim in _FOLDED)
    most = recording.sizes[by]
    if min(n_trials, most) < 2:
        raise ValueError(
            f"What is hidden of one trial or unit is predicted from others, but the recording has {n_trials} trials "
            f"and {n_units} units. Record more."
        )
    if not 2 <= folds <= most:
        raise ValueError(
            f"`folds` must lie between 2 and {most}, since every fold hides at least one {by}; got {folds}."
        )
    rng = np.random.default_rng(seed)
    trials = np.array_split(rng.permutation(n_trials), min(folds, n_trials))
    if by == "trial":
        return [(_in_other_trials if whole else _without_trials)(recording, chosen) for chosen in trials]
    units = np.array_split(rng.permutation(n_units), folds)
    return [_without_units(recording, trials[i % len(trials)], chosen) for i, chosen in enumerate(units)]


def _in_other_trials(recording: xr.Dataset, chosen: np.ndarray) -> _Split:
    others = ~np.isin(np.arange(recording.sizes["trial"]), chosen)
    hidden = recording["mask"].transpose(*_DIMS).values & ~others[:, None, None]
    return _Split(recording.isel(trial=others), hidden, chosen)


def _without_trials(recording: xr.Dataset, chosen: np.ndarray) -> _Split:
    mask = recording["mask"].transpose(*_DIMS).values
    hidden = np.zeros(mask.shape, bool)
    hidden[chosen] = mask[chosen]
    hidden[chosen, mask[chosen].any(-1).argmax(-1)] = False
    kept, kind = xr.DataArray(mask & ~hidden, dims=_DIMS), observed_kind(recording)
    training = recording.assign({kind: recording[kind].where(kept, 0).astype(recording[kind].dtype), "mask": kept})
    return _Split(training, hidden, chosen)


def _without_units(recording: xr.Dataset, trials: np.ndarray, units: np.ndarray) -> _Split:
    labels = {"trials": recording["trial"].values[trials], "units": recording["unit"].values[units]}
    hidden = held_out_entries(recording, **labels).transpose(*_DIMS).values
    return _Split(hold_out(recording, **labels), hidden, units)


def _trial_gain(result: xr.DataTree, recording: xr.Dataset, split: _Split, *, model: str | Path | ModuleType) -> Gain:
    """How much more probable the hidden trials are than under independent units with the means (and sds) seen."""
    units = result["constant_data"]["unit"].values
    hidden, training = (x.sel(unit=units) for x in (recording.isel(trial=split.items), split.training))
    likelihood = infer_paths(result, hidden, model=model)["log_likelihood"].to_dataset()
    draws = next(iter(likelihood.data_vars.values())).stack(sample=("chain", "draw")).transpose("trial", "sample")
    known = np.isfinite(draws.values)
    if not known.all():
        warnings.warn(
            f"Of {draws.size} likelihoods of hidden trials, {int((~known).sum())} have no mode that Newton's method "
            "found; they are left out, and trials without any are not scored.",
            stacklevel=2,
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        predictive = logsumexp(draws.values, axis=1, b=known) - np.log(known.sum(1))
    predictive = np.where(known.any(1), predictive, np.nan)
    kind, axes = observed_kind(recording), (1, 2)
    (observed, mask), (seen, seen_mask) = (
        (x[kind].transpose(*_DIMS).values, x["mask"].transpose(*_DIMS).values) for x in (hidden, training)
    )
    mean = (seen * seen_mask).sum((0, 1)) / seen_mask.sum((0, 1))
    if kind == "counts":
        baseline = np.where(mask, poisson.logpmf(observed, mean), 0.0).sum(axes)
        return Gain((predictive - baseline) / np.log(2), np.where(mask, observed, 0).sum(axes).astype(float))
    sd = np.sqrt((seen_mask * (seen - mean) ** 2).sum((0, 1)) / seen_mask.sum((0, 1)))
    baseline = np.where(mask, norm.logpdf(observed, mean, sd), 0.0).sum(axes)
    return Gain(predictive - baseline, mask.sum(axes).astype(float))


def _expected_gain(result: xr.DataTree, recording: xr.Dataset, split: _Split, *, by: str) -> Gain:
    expectation = next(iter(result["expected"].to_dataset().data_vars.values())).transpose(*_DIMS)
    kept = np.isin(recording["unit"].values, expectation["unit"].values)
    kind, hidden = observed_kind(recording), split.hidden & kept
    # Units that were not fitted are not scored; one keeps their logarithm finite.
    expected = np.ones(hidden.shape)
    expected[..., kept] = expectation.values
    observed = recording[kind].transpose(*_DIMS).values
    seen = split.training["mask"].transpose(*_DIMS).values
    if kind == "counts":
        gained = rate_gain(expected, observed, mean_rates(observed, seen))
    else:
        mean = (observed * seen).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
        gained = signal_gain(expected, observed, np.broadcast_to(mean, observed.shape))
    gained = gained.summed(hidden, tuple(axis for axis, dim in enumerate(_DIMS) if dim != by))
    return Gain(gained.gain[split.items], gained.scale[split.items])


def _labelled(
    found: Mapping[str, np.ndarray], fold_of: np.ndarray, recording: xr.Dataset, by: str, attrs: Mapping[str, Any]
) -> xr.Dataset:
    gain, scale = found["gain"], found["scale"]
    score, error = ratio_score(gain, scale)
    each = np.where(scale > 0, gain, np.nan) / np.where(scale > 0, scale, 1.0)
    about = {
        "status": "finished" if (fold_of >= 0).all() else "interrupted",
        "score": score,
        "standard_error": error,
    }
    variables = {"gain": (by, gain), "scale": (by, scale), "score": (by, each), "fold": (by, fold_of)}
    return xr.Dataset(variables, {by: recording[by].values}, {**about, **attrs})
