"""Would other priors have given another answer? Power-scaling, without another fit.

Source: Kallioinen et al., Statistics and Computing 34, 57 (2024), by ArviZ.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from connectinfer.diagnostics.importance import at_draws_of, k_hat, largest_k_hat, path_sites
from connectinfer.diagnostics.verdict import NOT_CERTIFIED, PASS, Diagnosis, Verdict

# The paper's threshold: the distance, per doubling of the power, of a normal mean that shifts by 0.3 sd.
_SENSITIVE = 0.05
_POWERS = (0.99, 1.01)
_MOST_VALUES = 6
# With fewer, the tail that k-hat is fitted to has fewer than 20 draws.
_LEAST_DRAWS = 100
_GROUPS = ("prior", "likelihood")
# Axes of data along which a network has parameters rather than repetitions.
_OF_NEURONS = {"unit", "neuron", "post", "pre"}


def prior_sensitivity(result: xr.DataTree, *, priors: Sequence[str] | None = None) -> Diagnosis:
    """One verdict per site of the posterior: how much it follows the priors, and how much the data.

    The `priors`, and then the likelihood, are raised to powers near one, and the draws reweighted accordingly; the
    value is the larger sensitivity to the priors of up to six evenly chosen values of the site. Nothing fails: where
    the priors matter, the verdict is "not certified" and says whether they are in conflict with the data or speak where
    the data are silent. Results of svi are judged only where their importance weights are stable.

    By default the priors of all sites are scaled but those with an axis of the data that counts repetitions (trials,
    time bins, subjects; not neurons). Their priors say how such values vary about parameters that have priors of their
    own: what scaling them does depends on how the model writes them (centred or not). Latent paths are not judged.

    Raises:
        ValueError: the result lacks one of the groups posterior, log_prior and log_likelihood, `priors` names a site
            without a prior, or there is no prior to scale.
    """
    needed = ("posterior", "log_prior", "log_likelihood")
    if missing := [name for name in needed if name not in result.children]:
        raise ValueError(f"Sensitivity to the prior needs the groups {', '.join(needed)}; missing: {missing}.")
    result = _where_likelihood_is_known(result)
    scaled = _top_level(result) if priors is None else list(priors)
    known = [str(name) for name in result["log_prior"].data_vars]
    if unknown := [name for name in scaled if name not in known]:
        raise ValueError(f"`priors` must be sites with a prior ({', '.join(known)}); got {unknown}.")
    if not scaled:
        repeated = f"all of {', '.join(known) or 'no site'} have an axis of repetitions in the data"
        because = repeated if priors is None else "none is named"
        raise ValueError(f"There is no prior to scale: {because}. Name those that are meant: `priors=[...]`.")
    judged = _few_values(result["posterior"].to_dataset())
    if obstacle := _obstacle(result, scaled):
        return Diagnosis((obstacle,))
    found = {group: _sensitivity(result, judged, group, scaled) for group in _GROUPS}
    return Diagnosis(tuple(_of_site(str(name), *(found[group][name].values for group in _GROUPS)) for name in judged))


def _where_likelihood_is_known(result: xr.DataTree) -> xr.DataTree:
    likelihood, groups = result["log_likelihood"].to_dataset(), {}
    for name, group in result.children.items():
        dataset = group.to_dataset()
        groups[name] = (
            at_draws_of(likelihood, dataset) if name in ("posterior", "log_prior", "sample_stats") else dataset
        )
    found = xr.DataTree.from_dict(groups)
    found.attrs = result.attrs
    return found


def _top_level(result: xr.DataTree) -> list[str]:
    """Sampled sites without an axis of repetitions; those that the result does not show are not known to have one."""
    repeated = {"time", "trial"}
    if "observed_data" in result.children:
        repeated |= {str(dim) for x in result["observed_data"].data_vars.values() for dim in x.dims} - _OF_NEURONS
    posterior, paths = result["posterior"].to_dataset(), path_sites(result)
    dims = {
        str(name): set(posterior[name].dims) if name in posterior else set() for name in result["log_prior"].data_vars
    }
    return [name for name, own in dims.items() if name not in paths and not own & repeated]


def _few_values(posterior: xr.Dataset) -> xr.Dataset:
    """Every site as `(chain, draw, value)`, evenly chosen; without paths and the gauge, which describe no parameter."""
    found = {}
    for name, values in posterior.data_vars.items():
        if name == "gauge" or "time" in values.dims or not values.size:
            continue
        flat = values.transpose("chain", "draw", ...).values.reshape(*values.shape[:2], -1)
        chosen = flat[..., np.unique(np.linspace(0, flat.shape[-1] - 1, _MOST_VALUES).astype(int))]
        # A constant follows nothing, and its distribution has no distances.
        varies = np.ptp(chosen, axis=(0, 1)) > 0
        if varies.any():
            found[name] = (("chain", "draw", f"{name}_value"), chosen[..., varies])
    return xr.Dataset(found)


def _obstacle(result: xr.DataTree, scaled: list[str]) -> Verdict | None:
    """Why the draws cannot be reweighted, if so."""
    n_draws = result["posterior"].sizes["chain"] * result["posterior"].sizes["draw"]
    concern, asked = "reweighting the draws", f"k-hat at most {largest_k_hat(n_draws):.2f}"
    if n_draws < _LEAST_DRAWS:
        said = "Too few draws for a verdict. Ask for more `draws`."
        return Verdict(concern, NOT_CERTIFIED, float(n_draws), f"at least {_LEAST_DRAWS} draws", said)
    if "sample_stats" in result.children and "log_weight" in result["sample_stats"]:
        weights = result["sample_stats"].to_dataset()["log_weight"].values.ravel().astype(float)
        k = k_hat(weights) if np.isfinite(weights).all() else float("inf")
        if k > largest_k_hat(n_draws):
            said = (
                "The draws are those of a guide that is not known to cover the posterior, so reweighting them says "
                "nothing of the posterior. Fit with a sampler (engine='state_space' or 'nuts'), or fit again "
                "with other priors and compare."
            )
            return Verdict(concern, NOT_CERTIFIED, k, asked, said)
    k = max(k_hat(sign * 0.01 * _total(result, group, scaled)) for group in _GROUPS for sign in (-1, 1))
    if k > largest_k_hat(n_draws):
        said = "Even powers of 0.99 and 1.01 change the weights too much. Fit again with other priors and compare."
        return Verdict(concern, NOT_CERTIFIED, k, asked, said)
    return None


def _total(result: xr.DataTree, group: str, scaled: list[str]) -> np.ndarray:
    """Log prior of the scaled sites, or log likelihood, of every draw."""
    dataset = result[f"log_{group}"].to_dataset()
    parts = [dataset[name].transpose("chain", "draw", ...) for name in (scaled if group == "prior" else dataset)]
    flat = [np.asarray(x, float).reshape(x.sizes["chain"] * x.sizes["draw"], -1) for x in parts]
    return np.concatenate(flat, axis=1).sum(1)


def _sensitivity(result: xr.DataTree, judged: xr.Dataset, group: str, scaled: list[str]) -> xr.Dataset:
    from arviz_stats.psense import psense

    total = _total(result, group, scaled).reshape(judged.sizes["chain"], judged.sizes["draw"])
    density = xr.Dataset({"total": (("chain", "draw"), total)})
    tree = xr.DataTree.from_dict({"posterior": judged, f"log_{group}": density})
    return psense(tree, group=group, alphas=_POWERS)


def _of_site(name: str, prior: np.ndarray, likelihood: np.ndarray) -> Verdict:
    worst = int(np.argmax(prior))
    by_prior, by_data = float(prior.flat[worst]), float(likelihood.flat[worst])
    asked = f"below {_SENSITIVE} (to the likelihood: {by_data:.2g})"
    if by_prior < _SENSITIVE:
        said = "Other priors of similar width would give the same answer."
    elif by_data >= _SENSITIVE:
        said = (
            "Prior and data may pull in different directions, with the answer in between. Ask whether the prior is "
            "meant, and fit again with a wider one."
        )
    else:
        said = "The data say little here: what you read is mostly the prior. Report it as such, or record more."
    return Verdict(f"prior of {name}", PASS if by_prior < _SENSITIVE else NOT_CERTIFIED, by_prior, asked, said)
