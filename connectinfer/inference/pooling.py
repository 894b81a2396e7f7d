"""One quantity over sessions and animals: a random-effects model of what fits of single sessions found."""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float
from scipy.special import ndtr

from connectinfer.inference.nuts import sample_nuts
from connectinfer.inference.result import Labels

MEAN_SD, SPREAD_SD = 2.5, 1.0
"""Prior sds of the population mean about the sessions' average, and of half-normal sds, in units of the root of the
variance of the sessions' posterior means plus their mean posterior variance."""

# Largest distance of a posterior's distribution function from a normal one, and largest share of the prior in it.
_NORMAL, _PRIOR_SHARE = 0.1, 0.1
# Fewer prior draws say too little of its width.
_LEAST_PRIOR_DRAWS = 20
# An sd whose posterior is so much of its prior is not known.
_UNKNOWN = 0.5
_SAMPLES = ("chain", "draw")

Quantity = str | Callable[[xr.Dataset], xr.DataArray]


def pool(
    results: Mapping[str, xr.DataTree],
    quantity: Quantity,
    *,
    groups: Mapping[str, Hashable] | None = None,
    seed: int = 0,
    **options: Any,
) -> xr.DataTree:
    r"""The posterior of a quantity's mean over sessions, of how it varies, and of its value in every session.

    $$y_s \sim N(\theta_s, e_s), \qquad \theta_s \sim N(\mu_{a(s)}, \sigma), \qquad \mu_a \sim N(\mu, \tau)$$

    where $y_s$ and $e_s$ are mean and sd of the quantity in the posterior of session s. Without `groups`, all
    $\mu_a = \mu$. Priors, in the unit U that `MEAN_SD` explains: $\mu$ is normal about the average of $y_s$ with sd
    2.5 U, $\sigma$ and $\tau$ are half-normal with scale U.

    Args:
        results: Fits of one model, by session.
        quantity: A variable of the posterior, or a function of the posterior's Dataset, with dims `(chain, draw)` and
            at most one more, whose entries are pooled one by one. It must mean the same in every session: no gauge may
            change it.
        groups: From session to animal.
        seed: Of the sampling.
        **options: Those of `sample_nuts`.

    Returns:
        A result of `sample_nuts` whose posterior has `population_mean`, `session_sd` ($\sigma$), `session_value
        (session)` ($\theta$) and, with groups, `animal_sd` ($\tau$) and `animal_mean (animal)`. The group
        `measurements` holds what went in, `(session)`: `value`, `error`, `normal_distance` (largest distance of the
        posterior's distribution function from the normal one that stands for it) and `prior_share` (prior relative to
        posterior precision; NaN without prior draws). Attribute `message` says which sds the sessions do not tell.

    A posterior far from normal and one to which the session's own prior, which is counted as if it were data,
    contributes much are warned of.

    Raises:
        ValueError: fewer than two sessions, a quantity that a posterior lacks or whose dims do not fit, draws that are
            not finite or do not vary, or groups that do not name every session's animal, name one animal only, or only
            animals of one session, whose variation is that of sessions.
    """
    animals = _checked_groups(results, groups)
    measured = _measurements(results, quantity)
    _warn_of_approximation(measured)
    values, errors = measured["value"].values, measured["error"].values
    rest = [str(dim) for dim in measured["value"].dims if dim != "session"]
    centre = values.mean(0)
    unit = np.sqrt(values.var(0, ddof=1) + (errors**2).mean(0))
    named = np.unique(np.asarray(animals)) if animals else np.array([])
    members = np.equal.outer(np.asarray(animals), named).astype(float) if animals else np.zeros((len(values), 0))
    inputs = {
        "measured": ((values - centre) / unit).T,
        "error": (errors / unit).T,
        "members": members,
        "centre": centre,
        "unit": unit,
    }
    dims = {name: rest for name in ("population_mean", "session_sd", "animal_sd")}
    internal = dict.fromkeys(("mean", "within", "between", "standard"))
    labels = Labels("pool", dims | internal, {dim: measured[dim].values for dim in rest})
    key = jax.random.key(seed)
    result = sample_nuts(key, _random_effects, inputs, labels=labels, **{"target_accept_prob": 0.95} | options)
    drawn = _effects(result["posterior"].to_dataset(), measured, members, named, np.random.default_rng(seed))
    result["posterior"] = xr.DataTree(drawn)
    result["measurements"] = xr.DataTree(measured)
    result.attrs |= {"seed": seed, "message": _untold(drawn, unit)}
    return result


def _random_effects(
    measured: Float[Array, "*entry session"] | None,
    error: Float[Array, "*entry session"],
    members: Float[Array, "session animal"],
    centre: Float[Array, "*entry"],
    unit: Float[Array, "*entry"],
) -> None:
    """The measurements, of unit size, with the values of sessions and animals integrated out."""

    def of_entry(name: str, law: dist.Distribution) -> Array:
        return numpyro.sample(name, law.expand(unit.shape).to_event(unit.ndim))

    mean = of_entry("mean", dist.Normal(0.0, MEAN_SD))
    within = of_entry("within", dist.HalfNormal(SPREAD_SD))
    numpyro.deterministic("population_mean", centre + unit * mean)
    numpyro.deterministic("session_sd", unit * within)
    spread = error**2 + within[..., None] ** 2
    loc = jnp.broadcast_to(mean[..., None], error.shape)
    if members.shape[1]:
        between = of_entry("between", dist.HalfNormal(SPREAD_SD))
        numpyro.deterministic("animal_sd", unit * between)
        law = dist.LowRankMultivariateNormal(loc, between[..., None, None] * members, spread)
    else:
        law = dist.Normal(loc, jnp.sqrt(spread)).to_event(1)
    numpyro.sample("standard", law.to_event(unit.ndim), obs=measured)


def _checked_groups(results: Mapping[str, xr.DataTree], groups: Mapping[str, Hashable] | None) -> list[str]:
    if len(results) < 2:
        raise ValueError(f"Pooling needs at least two sessions; got {list(results)}.")
    if groups is None:
        return []
    if missing := [name for name in results if name not in groups]:
        raise ValueError(f"`groups` must name the animal of every session; missing: {missing}.")
    animals = [str(groups[name]) for name in results]
    if not 1 < len(set(animals)) < len(animals):
        raise ValueError(
            f"{len(animals)} sessions of {len(set(animals))} animal(s) cannot tell how animals differ from how sessions "
            "of one animal do: that takes two animals, one of them with two sessions. Leave `groups` out."
        )
    return animals


def _measurements(results: Mapping[str, xr.DataTree], quantity: Quantity) -> xr.Dataset:
    """Mean and sd of the quantity, session by session, and how well these stand for its posterior."""
    found: list[xr.Dataset] = []
    for name, result in results.items():
        draws = _evaluated(result["posterior"].to_dataset(), quantity, name)
        if found and (draws.dims[2:], draws.shape[2:]) != (found[0]["value"].dims, found[0]["value"].shape):
            raise ValueError(
                f"The quantity has dims {draws.dims[2:]} of sizes {draws.shape[2:]} in session {name!r}, and "
                f"{found[0]['value'].dims} of {found[0]['value'].shape} in the first; entries must mean the same."
            )
        found.append(_summary(draws, result, quantity, name))
    return xr.concat(found, xr.DataArray(list(results), dims="session", name="session"), join="override")


def _evaluated(posterior: xr.Dataset, quantity: Quantity, session: str) -> xr.DataArray:
    if isinstance(quantity, str):
        if quantity not in posterior:
            raise ValueError(
                f"The posterior of session {session!r} has no {quantity!r}; it has {', '.join(map(str, posterior))}."
            )
        draws = posterior[quantity]
    else:
        draws = quantity(posterior)
    if not isinstance(draws, xr.DataArray) or not set(_SAMPLES) <= set(draws.dims) or draws.ndim > 3:
        got = draws.dims if isinstance(draws, xr.DataArray) else type(draws).__name__
        raise ValueError(f"The quantity must be a DataArray with dims (chain, draw) and at most one more; got {got}.")
    return draws.transpose(*_SAMPLES, ...)


def _summary(draws: xr.DataArray, result: xr.DataTree, quantity: Quantity, session: str) -> xr.Dataset:
    values = np.asarray(draws.values, float)
    flat = values.reshape(-1, *values.shape[2:])
    sd = flat.std(0, ddof=1) if len(flat) > 1 else np.zeros(flat.shape[1:])
    if not (np.isfinite(flat).all() and (sd > 0).all()):
        raise ValueError(
            f"The quantity has {(~np.isfinite(flat)).sum()} draws that are not finite in session {session!r}, and sds "
            f"from {np.min(sd):g}; pooling needs draws that are finite and vary."
        )
    ordered = np.sort((flat - flat.mean(0)) / sd, axis=0)
    below = (np.arange(1, len(flat) + 1) / len(flat)).reshape(-1, *[1] * (flat.ndim - 1))
    distance = np.maximum(abs(below - ndtr(ordered)), abs(below - 1 / len(flat) - ndtr(ordered))).max(0)
    share = np.full(sd.shape, np.nan)
    if "prior" in result.children:
        prior = _evaluated(result["prior"].to_dataset(), quantity, session).values.reshape(-1, *sd.shape)
        if len(prior) >= _LEAST_PRIOR_DRAWS:
            # Half the width of the middle two thirds: single draws far out must not pass for a wide prior.
            low, high = np.nanquantile(prior, [0.1587, 0.8413], axis=0)
            share = (2 * sd / (high - low)) ** 2
    kept, coords = draws.dims[2:], {dim: draws[dim] for dim in draws.dims[2:]}
    each = {"value": flat.mean(0), "error": sd, "normal_distance": distance, "prior_share": share}
    return xr.Dataset({name: (kept, x) for name, x in each.items()}, coords)


def _warn_of_approximation(measured: xr.Dataset) -> None:
    for name, most, what in (
        ("normal_distance", _NORMAL, "posteriors far from normal ones, which stand for them; transform the quantity"),
        ("prior_share", _PRIOR_SHARE, "posteriors that their own prior narrows, which is counted in every session"),
    ):
        worst = measured[name].max([dim for dim in measured[name].dims if dim != "session"])
        high = {
            str(s): round(float(x), 2) for s, x in zip(worst["session"].values, worst.values, strict=True) if x > most
        }
        if high:
            warnings.warn(f"Sessions with {what}: {name} {high}, above {most}.", stacklevel=3)


def _effects(
    posterior: xr.Dataset, measured: xr.Dataset, members: np.ndarray, named: np.ndarray, rng: np.random.Generator
) -> xr.Dataset:
    """The posterior with the values of animals and sessions, drawn given mean and sds."""
    value, error = (measured[name] for name in ("value", "error"))
    mean, within = posterior["population_mean"], posterior["session_sd"] ** 2
    around = mean
    if len(named):
        belongs = xr.DataArray(members, {"session": measured["session"], "animal": named}, ("session", "animal"))
        weight = belongs / (error**2 + within)
        precision = weight.sum("session") + posterior["animal_sd"] ** -2
        centre = ((weight * value).sum("session") + mean * posterior["animal_sd"] ** -2) / precision
        posterior = posterior.assign(animal_mean=_normal(rng, centre, precision**-0.5))
        around = (belongs * posterior["animal_mean"]).sum("animal")
    precision = error**-2 + 1 / within
    theta = _normal(rng, (value * error**-2 + around / within) / precision, precision**-0.5)
    return posterior.assign(session_value=theta)


def _normal(rng: np.random.Generator, mean: xr.DataArray, sd: xr.DataArray) -> xr.DataArray:
    drawn = mean + sd * rng.normal(size=mean.shape)
    return drawn.transpose(*_SAMPLES, ...)


def _untold(posterior: xr.Dataset, unit: np.ndarray) -> str:
    """Which sds have posteriors hardly narrower than their priors."""
    prior = SPREAD_SD * unit * (1 - 2 / np.pi) ** 0.5
    said = []
    for name in ("session_sd", "animal_sd"):
        if name in posterior and np.max(ratio := posterior[name].std(_SAMPLES).values / prior) > _UNKNOWN:
            said.append(
                f"{name} has a posterior whose sd is {np.max(ratio):.0%} of that of its prior, which decides: report it so, or add sessions."
            )
    return " ".join(said)
