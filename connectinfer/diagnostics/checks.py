"""`diagnose`: one verdict per concern, in plain words, each with its number, its threshold and what to do next."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import chi2

from connectinfer.diagnostics.approximation import approximation_verdicts
from connectinfer.diagnostics.invariants import fixed_point_kinds, invariants
from connectinfer.diagnostics.predictive import STATISTICS, Extremes, extremes, predictive_statistics
from connectinfer.diagnostics.verdict import FAIL, NOT_CERTIFIED, PASS, Diagnosis, Verdict

_LEAST_PREDICTIVE_DRAWS = 20
_JUDGED_BINS = 30
_MOST_LOST = 0.01
_LEAST_PATH_ACCEPTANCE = 0.1
_LEAST_DETERMINED = 0.5
_LEAST_ESS = 100.0  # of each chain, as Vehtari et al. (2021) ask


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
    if "diverging" in result["sample_stats"]:
        checks += [_chains, _repeated_chains, _divergences, _energy, _tree_depth]
    elif "failed_updates" in result["sample_stats"]:
        checks += [_chains, _repeated_chains, _path_moves, _failed_updates]
    else:
        checks += [approximation_verdicts]
    if "lost_modes" in result["sample_stats"]:
        checks += [_integrated_paths]
    checks += [_dimensions, _solves, _prediction, _recording]
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
        effective = {m: ess(dataset, sample_dims=["chain", "draw"], method=m) for m in ("bulk", "tail")}
        least = {method: _extreme(values, np.nanargmin) for method, values in effective.items()}
        if n_chains > 1:
            # Zero variance within every chain: infinite if the chains differ, undefined if they do not.
            with np.errstate(divide="ignore", invalid="ignore"):
                values = rhat(dataset, sample_dims=["chain", "draw"])
            (worst, where), count = _extreme(values, np.nanargmax), sum(int(x.notnull().sum()) for x in values.values())
            most = max(1.01, _chance_rhat(max(least["bulk"][0], _LEAST_ESS * n_chains), n_chains, count))
            found.append(
                _verdict(
                    f"R-hat of {label}",
                    worst <= most,
                    worst,
                    f"at most {most:.3f}" + (f", chance for {count:,} values" if most > 1.01 else ""),
                    "Chains agree.",
                    f"Chains disagree, most about {where}. Run longer; if it stays, look for several modes.",
                )
            )
        else:
            said = "One chain cannot be compared with others. Run at least four."
            found.append(Verdict(f"R-hat of {label}", NOT_CERTIFIED, float("nan"), "at most 1.01", said))
        for method, (fewest, where) in least.items():
            found.append(
                _verdict(
                    f"ESS ({method}) of {label}",
                    fewest >= _LEAST_ESS * n_chains,
                    fewest,
                    f"at least {_LEAST_ESS * n_chains:.0f}",
                    "Enough effective draws for stable " + ("means." if method == "bulk" else "90 % intervals."),
                    f"Too few effective draws, fewest for {where}. Draw more, or ask for less precision.",
                )
            )
    kinds = fixed_point_kinds(result) if n_chains > 1 else None
    return found if kinds is None else [*found, _fixed_points(kinds)]


def _chance_rhat(effective: float, n_chains: int, n_values: int) -> float:
    """The split R-hat that the worst of `n_values` reaches in one run of a hundred, though its chains agree.

    Means of the 2 M half chains differ by chance: their variance, times the effective draws of a half, over the
    variance of a draw is chi-squared with 2 M - 1 degrees of freedom, over these. R-hat is the worse of two (Vehtari et
    al. 2021: of locations and of scales)."""
    degrees = 2 * n_chains - 1
    worst = chi2.isf(0.01 / (2 * max(n_values, 1)), degrees) / degrees
    return float(np.sqrt(1 + worst * 2 * n_chains / effective))


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


def _repeated_chains(result: xr.DataTree) -> list[Verdict]:
    """Whether chains hold the same draws, as runs of one seed do; listed only if so."""
    posterior = result["posterior"].to_dataset()
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    digests = [hashlib.sha256() for _ in range(n_chains)]
    for values in posterior.data_vars.values():
        for digest, chain in zip(digests, values.transpose("chain", "draw", ...).values, strict=True):
            digest.update(np.ascontiguousarray(chain))
    different = len({digest.digest() for digest in digests})
    if different == n_chains:
        return []
    said = (
        f"Only {different} of {n_chains} chains of {n_draws} draws differ, so R-hat and ESS say nothing. Were runs of "
        "one seed put together? Give every run a `seed` of its own, or one run all `chains`."
    )
    return [Verdict("repeated chains", FAIL, float(n_chains - different), "none that equals another", said)]


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


def _path_moves(result: xr.DataTree) -> list[Verdict]:
    least = float(result["sample_stats"].to_dataset()["path_acceptance"].mean("draw").min())
    return [
        _verdict(
            "paths",
            least >= _LEAST_PATH_ACCEPTANCE,
            least,
            f"at least {_LEAST_PATH_ACCEPTANCE:.0%} of proposed paths accepted in every chain",
            "Paths move; R-hat and ESS say whether the chains are long enough.",
            "Paths hardly move: their posterior is far from the normal law that they are proposed from. Draw more, "
            "and compare with a lower rank.",
        )
    ]


def _integrated_paths(result: xr.DataTree) -> list[Verdict]:
    """Whether Laplace's approximation, by which paths were integrated out, is theirs."""
    stats = result["sample_stats"].to_dataset()
    least, lost = float(stats["path_acceptance"].mean("draw").min()), float(stats["lost_modes"].mean())
    found = [
        _verdict(
            "paths",
            least >= _LEAST_PATH_ACCEPTANCE,
            least,
            f"at least {_LEAST_PATH_ACCEPTANCE:.0%} of proposed paths accepted in every chain",
            "Paths are drawn from around their modes. Whether they have other modes, which the likelihood of the "
            "parameters would lack, this does not say.",
            "The posterior of paths given parameters is far from the normal law by which they were integrated out, and "
            "the likelihood of the parameters with it. Use engine='state_space', which does not rely on it.",
        )
    ]
    if lost > 0:
        said = (
            "Newton's method did not find the mode of the posterior of these paths, so their likelihood is wrong. Use "
        )
        said += "engine='state_space'."
        found.append(Verdict("modes of paths", FAIL if lost > _MOST_LOST else NOT_CERTIFIED, lost, "none lost", said))
    return found


def _dimensions(result: xr.DataTree) -> list[Verdict]:
    """Whether the data determine every dimension of the latent paths."""
    posterior = result["posterior"].to_dataset()
    if "latent" not in posterior or posterior["latent"].dims[2:] != ("trial", "time", "latent_dim"):
        return []
    latent = posterior["latent"]
    if "constant_data" in result.children and "mask" in result["constant_data"]:
        latent = latent.where(result["constant_data"]["mask"].any("unit"))
    mean, bins = latent.mean(("chain", "draw")), ("trial", "time")
    determined, left = mean.var(bins), latent.var(("chain", "draw")).mean(bins)
    share = determined / (determined + left)
    least = float(share.min())
    loose = [str(dim) for dim in share["latent_dim"].values[(share < _LEAST_DETERMINED).values]]
    if not loose:
        return []
    said = (
        f"The data hardly determine the paths along latent dimension {', '.join(loose)}: draws differ more from each "
        "other than the path varies. The rank may be too high; `select_rank` compares lower ones."
    )
    asked = f"at least {_LEAST_DETERMINED:.0%} of the variance of every dimension shared by all draws"
    return [Verdict("rank", NOT_CERTIFIED, least, asked, said)]


def _recording(result: xr.DataTree) -> list[Verdict]:
    """What `fit` found the recording cannot tell."""
    limits = json.loads(result.attrs.get("limits", "{}"))
    return [
        Verdict(concern, NOT_CERTIFIED, float(limit["value"]), limit["asked"], limit["said"])
        for concern, limit in limits.items()
    ]


def _failed_updates(result: xr.DataTree) -> list[Verdict]:
    failed = int(result["sample_stats"].to_dataset()["failed_updates"].sum())
    if failed == 0:
        return []
    said = "Some regressions failed numerically, and their sweeps left the parameters as they were. Use --precision "
    said += "float64 (JAX_ENABLE_X64=1)."
    return [Verdict("failed updates", FAIL, float(failed), "none", said)]


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
