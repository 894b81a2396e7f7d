"""What can a fit predict that it has not seen? Neurons, neurons new to it, the future, and histograms by condition."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped

from connectinfer.data.objects import as_recording
from connectinfer.data.recording import drop_silent_units, observed_kind
from connectinfer.inference.fit import fit
from connectinfer.inference.infer_paths import check_other_trials, infer_paths
from connectinfer.latent.principal_path import poisson_regression
from connectinfer.statistics.co_smoothing import (
    Gain,
    histogram_r2,
    mean_rates,
    rate_gain,
    ratio_score,
    signal_gain,
)

_DIMS = ("trial", "time", "unit")
_TEST_TRIALS, _HELD_OUT_UNITS = 0.25, 0.2
_FEW_SHOT_CHOICES = 10
# Of histograms, in bins.
_SMOOTHING = 2.0


def held_out_scores(
    model: str | Path | ModuleType,
    data: Any,
    *,
    few_shot: Sequence[int] = (),
    forward_from: float = 0.5,
    condition: str | None = None,
    seed: int = 0,
    show_progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """One fit to three quarters of the trials, and how well it predicts the others in several respects.

    * `co_smoothing`: a fifth of the units, hidden in the test trials, from the others there.
    * `few_shot_k`, for every k of `few_shot`: another fifth of the units, which the fit never saw. Their read-outs are
      learned from the paths of k training trials, by regression, for ten random choices, whose scores are averaged. The
      paths are seen through the units of co-smoothing's predictors. High co-smoothing with low few-shot scores points
      to dynamics with needless parts. Source: Dabholkar & Barak, When predict can also explain (2024).
    * `forward_over_mean` and `forward_over_held`: all units, hidden after the share `forward_from` of every test trial;
      over each unit's mean, and over what is expected in the last seen bin, held from there.
    * `histogram_r2`, where a trial coordinate `condition` names conditions: the peristimulus histograms of the units
      that co-smoothing hides, in the test trials, smoothed by two bins. Few trials a condition leave them noisy, and no
      prediction explains that noise.

    The model must have latent paths. `options` are those of `connectinfer.fit`. Returns, with dim `measure`: `score`
    and `standard_error` over test trials, in bits per spike for counts and explained variance for signals and
    histograms; `gain` and `scale (measure, trial)`, whose sums divided make the score (NaN for histograms); and
    `role (unit)`, "held in", "held out" or "few shot". Units that are silent in the training trials are left out.

    Raises:
        ValueError: too few trials or units, k larger than the number of training trials, `forward_from` outside (0, 1),
            no such coordinate, a fit that is refused or diverged.
        KeyboardInterrupt: interrupted; nothing is kept.
    """
    split = _split(as_recording(data), few_shot, forward_from, condition, seed)
    check_other_trials(model, options)
    result = fit(model, split.fitted(split.training), seed=seed, show_progress=show_progress, **options)
    if result.attrs["status"] != "finished":
        if result.attrs["status"] == "interrupted":
            raise KeyboardInterrupt("Interrupted before the fit was finished: nothing to keep.")
        raise ValueError(f"The fit is {result.attrs['status']}, so there is nothing to score; see `diagnose`.")

    def paths(trials: xr.Dataset) -> xr.DataTree:
        return infer_paths(result, trials, seed=seed, model=model)

    seen = paths(split.without_held_out(split.test))
    gains = {"co_smoothing": _co_smoothing(split, seen)}
    if few_shot:
        training = paths(split.without_held_out(split.training))
        rng = np.random.default_rng(seed)
        gains |= {f"few_shot_{k}": _few_shot(rng, split, training, seen, k) for k in few_shot}
    gains |= _forward(split, forward_from, paths)
    scores = {name: ratio_score(*gain) for name, gain in gains.items()}
    if condition is not None:
        scores["histogram_r2"] = _histograms(split, seen, condition)
    return _labelled(split, gains, scores, {"model": result.attrs["model"], "seed": seed, "forward_from": forward_from})


class _Split(NamedTuple):
    """Training and test trials of the same units, and what these are for: `role (unit,)`."""

    training: xr.Dataset
    test: xr.Dataset
    role: np.ndarray

    @property
    def kind(self) -> str:
        """What was observed."""
        return observed_kind(self.test)

    def fitted(self, trials: xr.Dataset) -> xr.Dataset:
        """Without the units that the fit never sees."""
        return trials.isel(unit=self.role != "few shot")

    def without_held_out(self, trials: xr.Dataset) -> xr.Dataset:
        """The fitted units, those of co-smoothing hidden."""
        return _hidden(self.fitted(trials), (self.role == "held out")[self.role != "few shot"])

    def observed(self, trials: xr.Dataset, role: str) -> tuple[np.ndarray, np.ndarray]:
        """Values and mask of the units of one role."""
        chosen = trials.isel(unit=self.role == role)
        return chosen[self.kind].values, chosen["mask"].values

    def baseline(self, values: np.ndarray, mask: np.ndarray, like: np.ndarray) -> np.ndarray:
        """Means of training values, in the shape of test values."""
        if self.kind == "counts":
            mean = mean_rates(values, mask)[0, 0]
        else:
            mean = (values * mask).sum((0, 1)) / np.maximum(mask.sum((0, 1)), 1)
        return np.broadcast_to(mean, like.shape)

    def gain(self, expected: np.ndarray, observed: np.ndarray, baseline: np.ndarray, entries: np.ndarray) -> Gain:
        """By trial."""
        return (rate_gain if self.kind == "counts" else signal_gain)(expected, observed, baseline).summed(
            entries, (1, 2)
        )


def _split(
    recording: xr.Dataset, few_shot: Sequence[int], forward_from: float, condition: str | None, seed: int
) -> _Split:
    recording = recording.transpose(*_DIMS, ...)
    n_trials = recording.sizes["trial"]
    n_test = max(round(_TEST_TRIALS * n_trials), 1)
    if n_trials - n_test < max([1, *few_shot]) or min([1, *few_shot]) < 1:
        raise ValueError(
            f"Of {n_trials} trials, {n_test} are for testing, which leaves {n_trials - n_test} for training and for "
            f"`few_shot`; got {list(few_shot)}."
        )
    if not 0 < forward_from < 1:
        raise ValueError(f"`forward_from` is a share of the trial, between 0 and 1; got {forward_from}.")
    if condition is not None and (condition not in recording.coords or recording[condition].dims != ("trial",)):
        known = [str(name) for name, x in recording.coords.items() if x.dims == ("trial",)]
        raise ValueError(f"`condition` names a coordinate of the trials, one of {known}; got {condition!r}.")
    rng = np.random.default_rng(seed)
    test = np.isin(np.arange(n_trials), rng.permutation(n_trials)[:n_test])
    training = drop_silent_units(recording.isel(trial=~test))
    n_units = training.sizes["unit"]
    n_each = max(round(_HELD_OUT_UNITS * n_units), 1)
    if n_units < n_each * (3 if few_shot else 2):
        raise ValueError(f"{n_units} units are too few to predict some from the others; record more.")
    order, role = rng.permutation(n_units), np.full(n_units, "held in", object)
    role[order[:n_each]] = "held out"
    if few_shot:
        role[order[n_each : 2 * n_each]] = "few shot"
    return _Split(training, recording.isel(trial=test).sel(unit=training["unit"]), role.astype(str))


def _hidden(trials: xr.Dataset, hidden: Bool[np.ndarray, "..."]) -> xr.Dataset:
    """With entries hidden; `hidden` broadcasts against `(trial, time, unit)`."""
    mask, kind = trials["mask"] & ~hidden, observed_kind(trials)
    return trials.assign({kind: trials[kind].where(mask, 0).astype(trials[kind].dtype), "mask": mask})


def _expected(paths: xr.DataTree) -> xr.DataArray:
    return next(iter(paths["expected"].to_dataset().data_vars.values()))


def _held_out(split: _Split, seen: xr.DataTree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was expected, observed, and observed at all, of the held-out units in test trials."""
    units = split.test["unit"].values[split.role == "held out"]
    return _expected(seen).sel(unit=units).values, *split.observed(split.test, "held out")


def _co_smoothing(split: _Split, seen: xr.DataTree) -> Gain:
    expected, observed, mask = _held_out(split, seen)
    return split.gain(expected, observed, split.baseline(*split.observed(split.training, "held out"), observed), mask)


def _histograms(split: _Split, seen: xr.DataTree, condition: str) -> tuple[float, float]:
    return histogram_r2(*_held_out(split, seen), split.test[condition].values, _SMOOTHING)


def _few_shot(rng: np.random.Generator, split: _Split, training: xr.DataTree, test: xr.DataTree, k: int) -> Gain:
    """Of units that the fit never saw, with read-outs learned from k trials, averaged over random choices of these."""
    design, test_design = (_design(paths) for paths in (training, test))
    values, mask = split.observed(split.training, "few shot")
    observed, entries = split.observed(split.test, "few shot")
    baseline, gains = split.baseline(values, mask, observed), []
    for _ in range(_FEW_SHOT_CHOICES):
        chosen = rng.choice(len(values), k, replace=False)
        regress = poisson_regression if split.kind == "counts" else _ridge_regression
        predictor = test_design @ regress(design[chosen], values[chosen], mask[chosen]).T
        # Read-outs learned from few spikes may overflow.
        expected = np.exp(np.clip(predictor, -20, 20)) if split.kind == "counts" else predictor
        gains.append(split.gain(expected, observed, baseline, entries))
    return Gain(np.mean([gained.gain for gained in gains], axis=0), gains[0].scale)


def _design(paths: xr.DataTree) -> Float[np.ndarray, "trial time feature"]:
    latent = paths["posterior/latent"].mean(("chain", "draw")).transpose("trial", "time", "latent_dim").values
    return np.concatenate([latent, np.ones((*latent.shape[:2], 1))], -1)


def _ridge_regression(
    design: Float[np.ndarray, "trial time feature"],
    values: Shaped[np.ndarray, "trial time unit"],
    mask: Bool[np.ndarray, "trial time unit"],
) -> Float[np.ndarray, "unit feature"]:
    """As `poisson_regression`, of signals of unit scale."""
    x, y, seen = (each.reshape(-1, each.shape[-1]) for each in (design, values, mask))
    ridge = np.diag(np.r_[np.ones(x.shape[1] - 1), 1e-6])
    gram = np.einsum("bu,bf,bg->ufg", seen, x, x, optimize=True) + ridge
    return np.linalg.solve(gram, ((seen * y).T @ x)[..., None])[..., 0]


def _forward(split: _Split, forward_from: float, paths: Any) -> dict[str, Gain]:
    test, training = split.fitted(split.test), split.fitted(split.training)
    observed, mask = test[split.kind].values, test["mask"].values
    bins = np.arange(mask.shape[1])
    begun, ended = (np.where(mask.any(-1), bins, fill) for fill in (len(bins), -1))
    # Of the observed part of every trial, at least its first bin.
    first, last = begun.min(1), ended.max(1)
    cut = first + np.maximum(np.floor(forward_from * (last - first + 1)), 1).astype(int)
    later = bins[None, :, None] >= cut[:, None, None]
    expected = _expected(paths(_hidden(test, later))).values
    held = np.broadcast_to(expected[np.arange(len(cut)), cut - 1][:, None], expected.shape)
    mean = split.baseline(training[split.kind].values, training["mask"].values, observed)
    return {
        "forward_over_mean": split.gain(expected, observed, mean, mask & later),
        "forward_over_held": split.gain(expected, observed, held, mask & later),
    }


def _labelled(
    split: _Split, gains: dict[str, Gain], scores: dict[str, tuple[float, float]], attrs: dict[str, Any]
) -> xr.Dataset:
    unknown = Gain(*(np.full(split.test.sizes["trial"], np.nan),) * 2)
    by_trial = [gains.get(name, unknown) for name in scores]
    variables = {
        "score": ("measure", [score for score, _ in scores.values()]),
        "standard_error": ("measure", [error for _, error in scores.values()]),
        "gain": (("measure", "trial"), np.stack([each.gain for each in by_trial])),
        "scale": (("measure", "trial"), np.stack([each.scale for each in by_trial])),
        "role": ("unit", split.role),
    }
    coords = {"measure": list(scores), "trial": split.test["trial"].values, "unit": split.test["unit"].values}
    unit = "bits per spike" if split.kind == "counts" else "explained variance"
    return xr.Dataset(variables, coords, {"units": unit, **attrs})
