"""Which model predicts better, and is the difference more than chance?"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from connectinfer.diagnostics.importance import at_draws_of, path_sites
from connectinfer.statistics.co_smoothing import ratio_score

_REFIT = "Refit with parts hidden: `leave_out(model, recording)`, and compare what it returns."


def compare(models: Mapping[str, xr.Dataset | xr.DataTree]) -> pd.DataFrame:
    """The models from best to worst, each with its distance from the best and the standard error of that distance.

    `models` holds, by name, either what `leave_out` returned, or results of `fit` on the same data. Scores of the
    former are bits per spike or explained variance; those of the latter the expected log predictive density of trials
    that are left out (elpd, in nats, their sum), which ArviZ estimates by reweighting the draws (PSIS); where the
    likelihood has no trials, of its items. Columns: `score` and `standard_error`; `difference` to the best, zero or
    negative, and `difference_error`, its standard error over trials or units, paired; `items`, their number. A
    difference of less than two standard errors is no evidence; with fewer than about 20 items it takes more, since
    the errors are uncertain themselves. They do not know that folds share their training data.

    Raises:
        ValueError: fewer than two models, scores and results mixed, other data, folds or measures, or results that
            cannot be reweighted, as those with latent paths that are not integrated out of the likelihood.
    """
    if len(models) < 2:
        raise ValueError(f"A comparison needs at least two models; got {list(models)}.")
    results = {name: given for name, given in models.items() if isinstance(given, xr.DataTree)}
    scores = {name: given for name, given in models.items() if isinstance(given, xr.Dataset)}
    if results and scores:
        raise ValueError(
            f"{', '.join(results)}: results of `fit`. {', '.join(scores)}: scores of `leave_out`. Give one kind only."
        )
    return _table(_from_results(results) if results else _from_scores(scores))


class _Scored(NamedTuple):
    """Additive scores of the items that all models were scored on, by model, and what their sum is divided by."""

    gains: dict[str, np.ndarray]
    scale: np.ndarray
    measure: str


def _table(scored: _Scored) -> pd.DataFrame:
    overall = {name: ratio_score(gain, scored.scale) for name, gain in scored.gains.items()}
    order = sorted(overall, key=lambda name: -overall[name][0])
    rows = []
    for name in order:
        difference, error = ratio_score(scored.gains[name] - scored.gains[order[0]], scored.scale)
        row = dict(zip(("score", "standard_error"), overall[name], strict=True))
        rows.append(row | {"difference": difference, "difference_error": error, "items": scored.scale.size})
    table = pd.DataFrame(rows, index=pd.Index(order, name="model"))
    table.attrs["measure"] = scored.measure
    return table


def _from_scores(models: Mapping[str, xr.Dataset]) -> _Scored:
    first_name, first = next(iter(models.items()))
    for name, scores in models.items():
        if not {"gain", "scale", "fold"} <= set(scores.data_vars):
            raise ValueError(f"{name!r} is neither a result of `fit` nor scores of `leave_out`: it has {list(scores)}.")
        same_items = dict(scores.sizes) == dict(first.sizes) and all(scores[d].equals(first[d]) for d in first.dims)
        if not same_items or scores.attrs["measure"] != first.attrs["measure"]:
            raise ValueError(
                f"{name!r} scores {dict(scores.sizes)} in {scores.attrs['measure']} and {first_name!r} "
                f"{dict(first.sizes)} in {first.attrs['measure']}, or their labels differ. Leave out the same part of "
                "the same recording."
            )
    done = np.all([scores["fold"].values >= 0 for scores in models.values()], axis=0)
    if not done.any():
        raise ValueError("No trial or unit was scored for all models, since folds were interrupted. Let them finish.")
    for name, scores in models.items():
        folds = (scores["fold"].values == first["fold"].values)[done].all()
        # What signals are divided by is the error of the mean over what was seen, the same for all models.
        if not folds or not np.allclose(scores["scale"].values[done], first["scale"].values[done]):
            raise ValueError(
                f"{name!r} and {first_name!r} had other folds or data. Call `leave_out` with the same recording, "
                "`folds` and `seed`."
            )
    gains = {name: scores["gain"].values[done] for name, scores in models.items()}
    return _Scored(gains, first["scale"].values[done].astype(float), str(first.attrs["measure"]))


def _from_results(models: Mapping[str, xr.DataTree]) -> _Scored:
    first_name, first = next(iter(models.items()))
    for name, result in models.items():
        _check_same_data(name, result, first_name, first)
        integrated = result["log_likelihood"].attrs.get("paths") == "integrated out"
        if (paths := path_sites(result)) and not integrated:
            raise ValueError(
                f"{name!r} has latent paths ({', '.join(paths)}): each trial's path was fitted to the trial itself, so "
                f"no reweighting of the draws says what would have been predicted without it. {_REFIT}"
            )
        if "log_weight" in result["sample_stats"]:
            raise ValueError(
                f"The draws of {name!r} are those of a variational guide; reweighting needs draws from the posterior. "
                f"Fit it with a sampler (engine='state_space' or 'nuts'), or refit: {_REFIT[0].lower()}{_REFIT[1:]}"
            )
    gains = {name: _pointwise(name, result) for name, result in models.items()}
    n_items = next(iter(gains.values())).size
    # The elpd is a sum, not a mean.
    return _Scored(gains, np.full(n_items, 1 / n_items), "elpd")


def _check_same_data(name: str, result: xr.DataTree, first_name: str, first: xr.DataTree) -> None:
    for group in ("log_likelihood", "observed_data", "constant_data", "sample_stats"):
        if group not in result.children:
            raise ValueError(f"{name!r} lacks the group {group}; give the result that `fit` returned.")
    same = result["observed_data"].to_dataset().equals(first["observed_data"].to_dataset())
    masks = [tree["constant_data"].to_dataset().get("mask", xr.DataArray(True)) for tree in (result, first)]
    if not same or not masks[0].equals(masks[1]):
        raise ValueError(
            f"{name!r} and {first_name!r} were not fitted to the same data: their observed_data or masks differ. Fit "
            "both to one recording."
        )


def _pointwise(name: str, result: xr.DataTree) -> np.ndarray:
    """The elpd of every left-out trial; of every item where the likelihood has no trials."""
    from arviz_stats.loo.loo import loo

    likelihood = result["log_likelihood"].to_dataset()
    groups = {group: at_draws_of(likelihood, result[group].to_dataset()) for group in ("posterior", "sample_stats")}
    groups["log_likelihood"] = xr.Dataset({"total": _by_trial(name, likelihood)})
    if n_lost := int(likelihood.attrs.get("lost_modes", 0)):
        raise ValueError(
            f"The log likelihood of {name!r} is unknown for {n_lost} trials of draws: Newton's method did not find the "
            f"mode of their path's posterior. {_REFIT}"
        )
    with warnings.catch_warnings():
        # What it warns of, large k-hat, is refused below in words that say what to do.
        warnings.simplefilter("ignore")
        left_out: Any = loo(xr.DataTree.from_dict(groups), pointwise=True)
    k, largest = left_out.pareto_k.values.ravel(), float(left_out.good_k)
    if n_bad := int((~(k <= largest)).sum()):
        raise ValueError(
            f"Reweighting cannot leave out {n_bad} of the {k.size} items of {name!r}: their k-hat reaches "
            f"{k.max():.2f}, above {largest:.2f}, so single items decide what the posterior is. {_REFIT}"
        )
    return left_out.elpd_i.values.ravel()


def _by_trial(name: str, likelihood: xr.Dataset) -> xr.DataArray:
    parts = list(likelihood.data_vars.values())
    if all("trial" in x.dims for x in parts):
        parts = [x.sum([dim for dim in x.dims if dim not in ("chain", "draw", "trial")]) for x in parts]
        return sum(parts[1:], parts[0])
    if len(parts) > 1:
        raise ValueError(
            f"{name!r} has the likelihoods {', '.join(map(str, likelihood))}, not all of which have trials, so what is "
            "left out together is not known. Give all of them a plate named `trial`."
        )
    return parts[0]
