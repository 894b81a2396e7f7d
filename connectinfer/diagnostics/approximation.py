"""What an approximation of the posterior is worth: convergence, importance weights, what a flow has learned from."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import norm

from connectinfer.diagnostics.importance import k_hat, largest_k_hat, path_sites, smoothed_weights
from connectinfer.diagnostics.verdict import FAIL, NOT_CERTIFIED, PASS, Verdict

# With fewer, the tail that k-hat is fitted to has fewer than 20 draws.
_LEAST_WEIGHTS = 100
_LEAST_STEPS = 200
_ENOUGH_STEPS = 1000
_LEAST_CHUNKS = 4
_LARGEST_MOVEMENT = 0.5
_LARGEST_SHIFT = 0.35
_FAILING_SHIFT = 0.6
_LEAST_UNLIKE = 0.001
_MOST_FAILED = 0.1
# That of a normal guide whose sd is 1.28 of the posterior's, or 1 / 1.28 of it.
_LARGEST_DISTANCE = 0.3
# 90 % intervals that are too narrow by this factor hold the truth 81 % of the time.
_LARGEST_RATIO = 1.25


def approximation_verdicts(result: xr.DataTree) -> list[Verdict]:
    """Verdicts on draws of a guide or a flow."""
    return [*_convergence(result), *_movement(result), *_importance(result), *_simulations(result)]


def _convergence(result: xr.DataTree) -> list[Verdict]:
    """The fall of the loss over the second half of the run, as a mean shift of the latent values in posterior sds.

    Moving every one of k independent Gaussian values by s posterior sds costs k s^2 / 2 nats.
    """
    if "optimisation" not in result.children:
        return []
    loss = np.asarray(result["optimisation"]["loss"], float)
    if "validation" in result["optimisation"]:
        return [_learned(np.asarray(result["optimisation"]["validation"], float), result)]
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
    if shift <= _LARGEST_SHIFT and (unsure := _too_early(result)):
        return [Verdict(concern, NOT_CERTIFIED, shift, asked, unsure)]
    if shift <= _LARGEST_SHIFT:
        return [Verdict(concern, PASS, shift, asked, "The loss changed little in the second half of the run.")]
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


def _too_early(result: xr.DataTree) -> str:
    """Why a loss that hardly changes proves nothing; empty where it does."""
    if result.attrs.get("status") == "interrupted":
        return "The run was interrupted: the loss had changed little, as it does early in a descent, too."
    if result["optimisation"]["loss"].size < _ENOUGH_STEPS:
        return f"So short a run says little: its loss is mostly noise. Take at least {_ENOUGH_STEPS} `steps`."
    return ""


def _movement(result: xr.DataTree) -> list[Verdict]:
    """Whether sites still moved in the second half of the run: the loss, shared by all values of all paths, hides
    single parameters that drift."""
    if "optimisation" not in result.children or "moved" not in result["optimisation"].data_vars:
        return []
    moved = result["optimisation"].to_dataset()["moved"]
    if result.attrs.get("status") != "finished" or not moved.size:
        return []
    worst = moved.isel(site=int(np.argmax(np.nan_to_num(moved.values, nan=np.inf))))
    value, asked = float(worst), f"at most {_LARGEST_MOVEMENT:g} posterior sd in the second half"
    if value <= _LARGEST_MOVEMENT:
        return [Verdict("movement of parameters", PASS, value, asked, "All sites had come to rest.")]
    said = (
        f"{worst['site'].item()} moved most, by more than its interval allows for. Double the `steps` and compare what "
        "you report; what goes on moving, this guide does not determine."
    )
    return [Verdict("movement of parameters", NOT_CERTIFIED, value, asked, said)]


def _learned(validation: Float[np.ndarray, " chunk"], result: xr.DataTree) -> Verdict:
    """The same for a flow, by what held-out simulations say of the state that is kept: the best so far, at the end of
    the run and halfway."""
    best = np.minimum.accumulate(validation)
    asked = f"at most {_LARGEST_SHIFT} posterior sd; above {_FAILING_SHIFT} it fails"
    if len(best) < _LEAST_CHUNKS:
        said = "Too few steps for a verdict. Take more `steps`."
        return Verdict("convergence", NOT_CERTIFIED, float(len(best)), f"at least {_LEAST_CHUNKS} validations", said)
    fall = best[len(best) // 2 - 1] - best[-1]
    shift = float(np.sqrt(2 * fall / result["optimisation"].attrs["latent_values"]))
    if shift <= _LARGEST_SHIFT and (unsure := _too_early(result)):
        return Verdict("convergence", NOT_CERTIFIED, shift, asked, unsure)
    if shift <= _LARGEST_SHIFT:
        kept = int(np.argmin(validation)) + 1
        said = (
            "In the second half of the run the flow learned little that held for simulations it had not seen."
            if kept > len(best) // 2
            else f"Simulations that it had not seen say that the flow was best after {kept} of {len(best)} chunks of "
            "steps, and then learned others by heart; the best is kept. More `simulations` help, more `steps` do not."
        )
        return Verdict("convergence", PASS, shift, asked, said)
    # A loss that is not finite gives no shift, and fails.
    verdict = NOT_CERTIFIED if shift <= _FAILING_SHIFT else FAIL
    return Verdict("convergence", verdict, shift, asked, "The flow was still learning when it stopped. More `steps`.")


def _importance(result: xr.DataTree) -> list[Verdict]:
    weights = result["sample_stats"].to_dataset()["log_weight"].values.ravel().astype(float)
    n_bad = int((np.isnan(weights) | np.isposinf(weights)).sum())
    if n_bad:
        said = f"{n_bad} of {weights.size} draws have no density under the model. Lower `learning_rate`."
        return [Verdict("k-hat of the guide", FAIL, float(n_bad), "none without a density", said)]
    # Draws that the model rules out have a weight of zero, which is finite.
    n_possible = int(np.isfinite(weights).sum())
    if n_possible < _LEAST_WEIGHTS:
        said = f"Too few draws for a verdict ({weights.size}, {n_possible} of them possible). Ask for more `draws`."
        asked = f"at least {_LEAST_WEIGHTS} draws"
        return [Verdict("k-hat of the guide", NOT_CERTIFIED, float(n_possible), asked, said)]
    k, threshold = k_hat(weights), largest_k_hat(weights.size)
    concern, asked = "k-hat of the guide", f"at most {threshold:.2f}"
    paths = str(result.attrs.get("path_sites", ""))
    if k <= threshold:
        found = Verdict(concern, PASS, k, asked, "Importance weights are stable: the guide covers the posterior.")
        return [found, *_distance(result, weights), *_moments(result, weights)]
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
        "Draws miss part of the posterior. Try guide='low_rank' or 'flow', more steps or simulations, or a sampler "
        "(engine='state_space' or 'nuts')."
    )
    return [Verdict(concern, FAIL, k, asked, said)]


def _distance(result: xr.DataTree, log_weights: Float[np.ndarray, " draw"]) -> list[Verdict]:
    """The total variation distance of the guide from the posterior, half the mean of |weight - 1|, as the shift by
    which every one of k independent normal values would have to be off.

    k-hat says whether reweighted draws are the posterior's (Yao et al., ICML 2018, arXiv:1802.02538); draws as they are
    may still be too narrow by a factor of 0.6, or too wide by any. A single draw far off adds 1/n, however far.
    """
    if "optimisation" not in result.children:
        return []
    variation = np.abs(len(log_weights) * smoothed_weights(log_weights) - 1).mean() / 2
    # Normal laws whose means are d sd apart have a total variation distance of 2 Phi(d / 2) - 1.
    shift = float(2 * norm.ppf((1 + variation) / 2) / np.sqrt(result["optimisation"].attrs["latent_values"]))
    good = shift <= _LARGEST_DISTANCE
    said = (
        "The guide is close to the posterior."
        if good
        else "The guide covers the posterior but is not close to it. Take more `steps` or simulations, try another "
        "guide, or a sampler (engine='state_space' or 'nuts')."
    )
    asked = f"at most {_LARGEST_DISTANCE} posterior sd"
    return [Verdict("distance of the guide", PASS if good else FAIL, shift, asked, said)]


def _moments(result: xr.DataTree, log_weights: Float[np.ndarray, " draw"]) -> list[Verdict]:
    """Means and sds of the draws beside those of the draws reweighted, which are the posterior's where weights are
    stable: one value far off among many leaves the distance small.

    What chance explains, two standard errors, does not count.
    """
    draws, names = _scalars(result)
    if not names:
        return []
    weights = smoothed_weights(log_weights)[:, None]
    n, excess = len(draws), len(draws) * weights - 1
    mean = (weights * draws).sum(0)
    square = (draws - mean) ** 2
    variance, own_variance = (weights * square).sum(0), draws.var(0)
    # Every draw's part in the differences, and hence their standard errors.
    noise = 2 * (excess * (draws - mean)).std(0) / np.sqrt(n * variance)
    shift = np.maximum(np.abs(mean - draws.mean(0)) / np.sqrt(variance) - noise, 0.0)
    log_noise = (excess * square).std(0) / (np.sqrt(n) * variance)
    log_ratio = np.log(own_variance / variance) / 2
    ratio = np.exp(np.sign(log_ratio) * np.maximum(np.abs(log_ratio) - log_noise, 0.0))
    return [_mean_of_guide(shift, names), _width_of_guide(ratio, names)]


def _mean_of_guide(shift: Float[np.ndarray, " value"], names: list[str]) -> Verdict:
    worst = int(np.argmax(shift))
    good, asked = shift[worst] <= _LARGEST_SHIFT, f"at most {_LARGEST_SHIFT} posterior sd"
    said = (
        "Draws lie where the posterior does."
        if good
        else f"Draws lie beside the posterior, most in {names[worst]}. Take more `steps`, or a sampler "
        "(engine='state_space' or 'nuts')."
    )
    return Verdict("mean of the guide", PASS if good else FAIL, float(shift[worst]), asked, said)


def _width_of_guide(ratio: Float[np.ndarray, " value"], names: list[str]) -> Verdict:
    worst = int(np.argmax(np.abs(np.log(ratio))))
    good = 1 / _LARGEST_RATIO <= ratio[worst] <= _LARGEST_RATIO
    asked = f"sds within a factor of {_LARGEST_RATIO} of the posterior's"
    said = (
        "Intervals are about as wide as the posterior's."
        if good
        else f"Intervals are too {'narrow' if ratio[worst] < 1 else 'wide'}, most of {names[worst]}. Take more `steps` "
        "or simulations, another guide, or a sampler (engine='state_space' or 'nuts')."
    )
    return Verdict("width of the guide", PASS if good else FAIL, float(ratio[worst]), asked, said)


def _scalars(result: xr.DataTree) -> tuple[Float[np.ndarray, "draw value"], list[str]]:
    """All values of the sites that vary, without paths, whose many bins would make chance extremes certain."""
    posterior, paths = result["posterior"].to_dataset(), path_sites(result)
    columns, names = [], []
    for name, values in posterior.data_vars.items():
        if name == "gauge" or name in paths or "time" in values.dims:
            continue
        flat = values.transpose("chain", "draw", ...).values.reshape(values.sizes["chain"] * values.sizes["draw"], -1)
        places = np.ndindex(values.shape[2:])
        for place, column in zip(places, flat.T.astype(float), strict=True):
            if np.isfinite(column).all() and np.ptp(column) > 0:
                columns.append(column)
                names.append(f"{name}{list(place)}" if place else str(name))
    return np.stack(columns, 1) if columns else np.empty((0, 0)), names


def _simulations(result: xr.DataTree) -> list[Verdict]:
    """Whether the data are among those that a flow has learned from, and how many simulations failed."""
    if "optimisation" not in result.children or "unlike" not in result["optimisation"].attrs:
        return []
    share, n_failed = float(result["optimisation"].attrs["unlike"]), int(result.attrs["failed_simulations"])
    found = [
        Verdict(
            "data among simulations",
            PASS if share >= _LEAST_UNLIKE else FAIL,
            share,
            f"at least {_LEAST_UNLIKE:.1%} of simulations farther off",
            "The flow has seen data like these."
            if share >= _LEAST_UNLIKE
            else "The data are unlike any simulation: the flow extrapolates, and the model may not describe them at "
            "all. Compare simulated data with yours.",
        )
    ]
    share_failed, asked = n_failed / int(result.attrs["simulations"]), f"at most {_MOST_FAILED:.0%} of simulations"
    said = (
        "Parameters whose simulations fail cannot have given finite data: leaving them out changes no posterior."
        if share_failed <= _MOST_FAILED
        else "Many simulations failed: close to parameters that fail, the flow has learned from few. Narrow the priors."
    )
    verdict = PASS if share_failed <= _MOST_FAILED else NOT_CERTIFIED
    return [*found, Verdict("failed simulations", verdict, share_failed, asked, said)]
