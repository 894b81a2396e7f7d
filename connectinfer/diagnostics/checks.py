"""`diagnose`: one verdict per concern, in plain words, each with its number, its threshold and what to do next."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from connectinfer.diagnostics.importance import k_hat, largest_k_hat
from connectinfer.diagnostics.invariants import fixed_point_kinds, invariants
from connectinfer.diagnostics.predictive import STATISTICS, Extremes, extremes, predictive_statistics
from connectinfer.diagnostics.verdict import FAIL, NOT_CERTIFIED, PASS, Diagnosis, Verdict

# With fewer, the tail that k-hat is fitted to has fewer than 20 draws.
_LEAST_WEIGHTS = 100
_LEAST_STEPS = 200
_LEAST_PREDICTIVE_DRAWS = 20
_JUDGED_BINS = 30
_LARGEST_SHIFT = 0.35
_FAILING_SHIFT = 0.6
_LEAST_UNLIKE = 0.001


def diagnose(result: xr.DataTree) -> Diagnosis:
    """Judges a result of any engine.

    Loadings were brought to one gauge when the result was built, so R-hat and effective sample sizes are those of
    aligned draws; the spectrum of the weights, which needs no gauge, and the drift where the data have been, in the
    same gauge, are judged beside them.

    Raises:
        ValueError: the tree has no `posterior` and `sample_stats` groups.
    """
    missing = {"posterior", "sample_stats"} - set(result.children)
    if missing:
        raise ValueError(f"A result needs the groups posterior and sample_stats; missing: {sorted(missing)}.")
    checks: list[Callable[[xr.DataTree], list[Verdict]]] = [_completion, _finite_draws]
    sampled = "diverging" in result["sample_stats"]
    checks += [_chains, _divergences, _energy, _tree_depth] if sampled else [_convergence, _importance, _simulations]
    checks += [_solves, _prediction]
    return Diagnosis(tuple(verdict for check in checks for verdict in check(result)))


def _verdict(concern: str, good: bool, value: float, threshold: str, fine: str, wrong: str) -> Verdict:
    return Verdict(concern, PASS if good else FAIL, float(value), threshold, fine if good else wrong)


def _completion(result: xr.DataTree) -> list[Verdict]:
    status = str(result.attrs.get("status", "finished"))
    if status == "finished":
        return []
    n_draws = result["posterior"].sizes["draw"]
    if status == "interrupted":
        said = "The run was interrupted; these are the draws so far. Run it to its end for the planned precision."
        return [Verdict("completion", NOT_CERTIFIED, float(n_draws), "planned draws", said)]
    said = "The loss stopped being finite; the best state before that was kept. Lower `learning_rate`."
    return [Verdict("completion", FAIL, float(n_draws), "a finite loss", said)]


def _finite_draws(result: xr.DataTree) -> list[Verdict]:
    posterior = result["posterior"].to_dataset()
    bad = {str(name): int((~np.isfinite(np.asarray(x, float))).sum()) for name, x in posterior.data_vars.items()}
    bad = {name: count for name, count in bad.items() if count}
    if not bad:
        return []
    said = f"Values of {', '.join(bad)} are not finite: no summary of them means anything. Look at the model there."
    return [Verdict("finite draws", FAIL, float(sum(bad.values())), "none that are not finite", said)]


def _chains(result: xr.DataTree) -> list[Verdict]:
    from arviz_stats.sampling_diagnostics import ess, rhat

    n_chains = result["posterior"].sizes["chain"]
    judged = result["posterior"].to_dataset().drop_vars("gauge", errors="ignore")
    if "latent" in judged:
        # Neighbouring bins say the same: an even choice of them judges the paths.
        bins = judged["latent"].stack(bin=("trial", "time")).reset_index("bin", drop=True)
        judged["latent"] = bins.isel(bin=np.unique(np.linspace(0, bins.sizes["bin"] - 1, _JUDGED_BINS).astype(int)))
    groups = {"parameters": judged, "invariants": invariants(result)}
    found = []
    for label, dataset in groups.items():
        if not dataset.data_vars:
            continue
        if n_chains > 1:
            # Zero variance within every chain: infinite if the chains differ, undefined if they do not.
            with np.errstate(divide="ignore", invalid="ignore"):
                worst, where = _extreme(rhat(dataset, sample_dims=["chain", "draw"]), np.nanargmax)
            found.append(
                _verdict(
                    f"R-hat of {label}",
                    worst <= 1.01,
                    worst,
                    "at most 1.01",
                    "Chains agree.",
                    f"Chains disagree, most about {where}. Run longer; if it stays, look for several modes.",
                )
            )
        else:
            said = "One chain cannot be compared with others. Run at least four."
            found.append(Verdict(f"R-hat of {label}", NOT_CERTIFIED, float("nan"), "at most 1.01", said))
        for method in ("bulk", "tail"):
            least, where = _extreme(ess(dataset, sample_dims=["chain", "draw"], method=method), np.nanargmin)
            found.append(
                _verdict(
                    f"ESS ({method}) of {label}",
                    least >= 100 * n_chains,
                    least,
                    f"at least {100 * n_chains}",
                    "Enough effective draws for stable " + ("means." if method == "bulk" else "90 % intervals."),
                    f"Too few effective draws, fewest for {where}. Draw more, or ask for less precision.",
                )
            )
    kinds = fixed_point_kinds(result) if n_chains > 1 else None
    return found if kinds is None else [*found, _fixed_points(kinds)]


def _fixed_points(kinds: xr.DataArray) -> Verdict:
    common = [Counter(chain).most_common(1)[0][0] for chain in kinds.values]
    (first, count), *others = Counter(kinds.values.ravel()).most_common()
    agree = len(set(common)) == 1
    said = f"{first} in most draws of every chain." if agree else f"Chains differ: {', '.join(common)} (most often)."
    if others:
        said += (
            f" Of {kinds.size} draws: " + "; ".join(f"{n} with {kind}" for kind, n in [(first, count), *others]) + "."
        )
    return Verdict(
        "fixed points", PASS if agree else NOT_CERTIFIED, count / kinds.size, "one kind in most draws of a chain", said
    )


def _extreme(values: xr.Dataset, pick: Callable[[np.ndarray], Any]) -> tuple[float, str]:
    best: tuple[float, str] | None = None
    for name, array in values.data_vars.items():
        flat = np.asarray(array, float)
        # A constant has no R-hat; it cannot disagree.
        if np.isnan(flat).all():
            continue
        index = np.unravel_index(pick(flat), flat.shape)
        place = ", ".join(
            f"{d}={array[d].values[i] if d in array.coords else i}" for d, i in zip(array.dims, index, strict=True)
        )
        candidate = (float(flat[index]), f"{name}[{place}]" if place else str(name))
        if best is None or pick(np.array([best[0], candidate[0]])) == 1:
            best = candidate
    return best or (float("nan"), "nothing that varies")


def _divergences(result: xr.DataTree) -> list[Verdict]:
    count = int(result["sample_stats"].to_dataset()["diverging"].sum())
    return [
        _verdict(
            "divergences",
            count == 0,
            float(count),
            "none",
            "The sampler followed the posterior everywhere it went.",
            "Some regions were too curved for the step size, and draws may miss them. Raise `target_accept_prob` "
            "(0.95), or narrow the priors.",
        )
    ]


def _energy(result: xr.DataTree) -> list[Verdict]:
    from arviz_stats.sampling_diagnostics import bfmi

    least = float(np.min(np.asarray(bfmi(result)["energy"])))
    return [
        _verdict(
            "E-BFMI",
            least >= 0.3,
            least,
            "at least 0.3",
            "Energy is explored well.",
            "The sampler moves slowly between energy levels, a sign of heavy tails or funnels. Reparametrise, or draw "
            "more.",
        )
    ]


def _tree_depth(result: xr.DataTree) -> list[Verdict]:
    share = float(result["sample_stats"].to_dataset()["reached_max_tree_depth"].mean())
    fine = share <= 0.01
    said = (
        "Trajectories ended by themselves."
        if fine
        else "Trajectories were cut short: draws are correlated, not wrong; judge them by R-hat and ESS. A larger "
        "`max_tree_depth` lets them end."
    )
    return [Verdict("tree depth", PASS if fine else NOT_CERTIFIED, share, "at most 1 % of draws at the limit", said)]


def _convergence(result: xr.DataTree) -> list[Verdict]:
    """The fall of the loss over the second half of the run, as a mean shift of the latent values in posterior sds.

    Moving every one of k independent Gaussian values by s posterior sds costs k s^2 / 2 nats.
    """
    if "optimisation" not in result.children:
        return []
    loss = np.asarray(result["optimisation"]["loss"], float)
    concern = "convergence"
    asked = f"at most {_LARGEST_SHIFT} posterior sd; above {_FAILING_SHIFT} it fails"
    if len(loss) < _LEAST_STEPS:
        said = "Too few steps for a verdict. Take more `steps`."
        return [Verdict(concern, NOT_CERTIFIED, float(len(loss)), f"at least {_LEAST_STEPS} steps", said)]
    tenth = len(loss) // 10
    middle, end = loss[len(loss) // 2 : len(loss) // 2 + tenth], loss[-tenth:]
    rise = middle.mean() - end.mean()
    # Between neighbouring steps, so that a trend does not count as noise.
    variance = sum(np.mean(np.diff(part) ** 2) / 2 for part in (middle, end))
    noise = 3 * np.sqrt(variance / tenth)
    shift = float(np.sqrt(2 * max(rise - noise, 0.0) / result["optimisation"].attrs["latent_values"]))
    if shift <= _LARGEST_SHIFT:
        return [Verdict(concern, PASS, shift, asked, "The second half of the run changed little.")]
    said = (
        "The loss still fell in the second half of the run, in part because the learning rate did. Take more `steps` "
        "and see whether what you report changes."
    )
    # A loss that is not finite gives no shift, and fails.
    if shift <= _FAILING_SHIFT:
        return [Verdict(concern, NOT_CERTIFIED, shift, asked, said)]
    said = (
        "The fit was still improving when it stopped: what it says of dynamics and connectivity may be far off. Take "
        "more `steps`."
    )
    return [Verdict(concern, FAIL, shift, asked, said)]


def _importance(result: xr.DataTree) -> list[Verdict]:
    weights = result["sample_stats"].to_dataset()["log_weight"].values.ravel().astype(float)
    n_bad = int((~np.isfinite(weights)).sum())
    if n_bad:
        said = f"{n_bad} of {weights.size} draws have no finite density under the model. Lower `learning_rate`."
        return [Verdict("k-hat of the guide", FAIL, float(n_bad), "finite weights", said)]
    if weights.size < _LEAST_WEIGHTS:
        said = "Too few draws for a verdict. Ask for more `draws`."
        asked = f"at least {_LEAST_WEIGHTS} draws"
        return [Verdict("k-hat of the guide", NOT_CERTIFIED, float(weights.size), asked, said)]
    k, threshold = k_hat(weights), largest_k_hat(weights.size)
    concern, asked = "k-hat of the guide", f"at most {threshold:.2f}"
    paths = str(result.attrs.get("path_sites", ""))
    if k <= threshold:
        return [Verdict(concern, PASS, k, asked, "Importance weights are stable: the guide covers the posterior.")]
    if paths:
        n_values = sum(
            int(np.prod(result["posterior"][name].shape[2:]))
            for name in paths.split(",")
            if name in result["posterior"]
        )
        said = (
            f"Importance weights over {n_values} path values say nothing either way in so many dimensions. Judge the "
            "fit by its predictions, and do not rely on the width of its intervals."
        )
        return [Verdict(concern, NOT_CERTIFIED, k, asked, said)]
    said = (
        "Draws miss part of the posterior. Try guide='low_rank' or 'flow', more steps or simulations, or engine='nuts'."
    )
    return [Verdict(concern, FAIL, k, asked, said)]


def _simulations(result: xr.DataTree) -> list[Verdict]:
    """Whether the data are among those that a flow has learned from, and how many simulations failed."""
    if "optimisation" not in result.children or "unlike" not in result["optimisation"].attrs:
        return []
    share, n_failed = float(result["optimisation"].attrs["unlike"]), int(result.attrs["failed_simulations"])
    found = [
        _verdict(
            "data among simulations",
            share >= _LEAST_UNLIKE,
            share,
            f"at least {_LEAST_UNLIKE:.1%} of simulations farther off",
            "The flow has seen data like these.",
            "The data are unlike any simulation: the flow extrapolates, and the model may not describe them at all. "
            "Compare simulated data with yours.",
        )
    ]
    if n_failed:
        said = "Simulations failed and were left out: the posterior is that given that a simulation succeeds."
        found.append(Verdict("failed simulations", NOT_CERTIFIED, float(n_failed), "none", said))
    return found


def _solves(result: xr.DataTree) -> list[Verdict]:
    if "failed_solves" not in result["sample_stats"]:
        return []
    failed = int(result["sample_stats"].to_dataset()["failed_solves"].sum())
    return [
        _verdict(
            "failed solves",
            failed == 0,
            float(failed),
            "none",
            "Every differential equation was solved.",
            "Some draws rest on failed solves. Narrow the priors of the dynamics or shorten the time step.",
        )
    ]


def _prediction(result: xr.DataTree) -> list[Verdict]:
    if not {"posterior_predictive", "observed_data", "constant_data"} <= set(result.children):
        return []
    sites = predictive_statistics(result)
    if not sites.children:
        said = (
            "No observed site has the dims trial, time and unit beside a `mask`, so simulated data were not compared "
            "with the recording. Compare the group posterior_predictive with observed_data yourself."
        )
        return [Verdict("prediction", NOT_CERTIFIED, float("nan"), "a comparison", said)]
    return [
        _of_statistic(f"{site}, {STATISTICS[name].name}", name, extremes(compared.to_dataset()))
        for site, groups in sites.children.items()
        for name, compared in groups.children.items()
    ]


def _of_statistic(concern: str, name: str, found: Extremes) -> Verdict:
    concern, items = f"prediction of {concern}", {"unit": "units", "pair": "pairs", "time": "bins", "lag": "lags"}
    kind = items[STATISTICS[name].dim]
    left_out = f" {found.left_out} {kind} without a value in all data sets are left out." if found.left_out else ""
    asked = f"at most {found.allowed} of {found.judged} {kind} in the outer 1 %"
    number = float(len(found.items))
    if found.draws < _LEAST_PREDICTIVE_DRAWS or number == found.judged <= found.allowed:
        said = f"Too few {kind} or predictive draws to tell from chance.{left_out}"
        return Verdict(concern, NOT_CERTIFIED, number, asked, said)
    fine = f"Simulated data look like the recording.{left_out}"
    missed = f"The model misses this statistic, e.g. for {kind} {', '.join(found.items[:5])}. {STATISTICS[name].remedy}"
    return _verdict(concern, number <= found.allowed, number, asked, fine, missed + left_out)
