"""One quantity over sessions and animals: a random-effects model of what fits of single sessions found."""

import warnings
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import xarray as xr
from scipy.special import ndtr

from connectinfer.inference.result import LATENT_AXES, provenance
from connectinfer.statistics.random_effects import (
    SPREAD_SD,
    RandomEffects,
    random_effects_unit,
    sample_random_effects,
)

# Largest distance of a posterior's distribution function from a normal one, and largest share of the prior in it.
_NORMAL, _PRIOR_SHARE = 0.1, 0.1
# Fewer prior draws say too little of its width.
_LEAST_PRIOR_DRAWS = 20
# An sd whose posterior is so much of its prior is not known.
_UNKNOWN = 0.5
_SAMPLES = ("chain", "draw")

Quantity = str | Callable[[xr.DataTree], xr.DataArray]


def pool(
    results: Mapping[str, xr.DataTree],
    quantity: Quantity,
    *,
    groups: Mapping[str, Hashable] | None = None,
    draws: int = 4000,
    seed: int = 0,
) -> xr.DataTree:
    r"""The posterior of a quantity's mean over sessions, of how it varies, and of its value in every session.

    $$y_s \sim N(\theta_s, e_s), \qquad \theta_s \sim N(\mu_{a(s)}, \sigma), \qquad \mu_a \sim N(\mu, \tau)$$

    where $y_s$ and $e_s$ are mean and sd of the quantity in the posterior of session s. Without `groups`, all
    $\mu_a = \mu$. In the unit U, the root of the variance of $y_s$ plus the mean of $e_s^2$, the priors are: $\mu$
    normal about the average of $y_s$ with sd 2.5 U; $\sigma$ and $\tau$ half-normal with scale U. Draws are
    independent: all but $\sigma$ and $\tau$ is integrated out in closed form, and these on a grid.

    Args:
        results: Fits of one model, by session.
        quantity: A variable of the posterior, or a function of a tree with a group `posterior`, with dims `(chain,
            draw)` and at most one more, whose entries are pooled one by one. It must mean the same in every session, as
            no coordinate of latent space does.
        groups: From session to animal.
        draws: Of the pooled posterior.
        seed: Of the draws.

    Returns:
        A tree whose group `posterior` has `population_mean`, `session_sd` ($\sigma$), `session_value (session)`
        ($\theta$) and, with groups, `animal_sd` ($\tau$) and `animal_mean (animal)`. The group `measurements` holds
        what went in, `(session)`: `value`, `error`, `normal_distance` (largest distance of the posterior's distribution
        function from the normal one that stands for it) and `prior_share` (prior relative to posterior precision; NaN
        without prior draws). Attribute `message` says which sds the sessions do not tell.

    A posterior far from normal and one to which the session's own prior, which is counted as if it were data,
    contributes much are warned of.

    Raises:
        ValueError: fewer than two sessions, a quantity that a posterior lacks, that has a latent dimension, or whose
            dims do not fit or differ, draws that are not finite or do not vary, or groups that do not name every
            session's animal, name one animal only, or only animals of one session, whose variation is that of sessions.
    """
    animals = _checked_groups(results, groups)
    measured = _measurements(results, quantity)
    _warn_of_approximation(measured)
    of = np.unique(animals, return_inverse=True)[1] if animals else None
    value, error = (measured[name].transpose("session", ...) for name in ("value", "error"))
    rng, shape = np.random.default_rng(seed), value.shape[1:]
    found, untold = [], np.zeros(2)
    for entry in np.ndindex(shape):
        y, e = value.values[:, *entry], error.values[:, *entry]
        unit = random_effects_unit(y, e)
        found.append(sample_random_effects(rng, y, e, of, y.mean(), unit, draws))
        untold = np.maximum(untold, [found[-1].within.std() / unit, found[-1].between.std() / unit])
    # Entries go behind members and groups.
    stacked = {name: np.stack([getattr(x, name) for x in found], -1) for name in RandomEffects._fields}
    tree = xr.DataTree.from_dict(
        {"posterior": _labelled(stacked, value, sorted(set(animals))), "measurements": measured}
    )
    tree.attrs = provenance("pool") | {"seed": seed, "message": _message(untold)}
    return tree


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
            f"{len(animals)} sessions of {len(set(animals))} animal(s) cannot tell how animals differ from how "
            "sessions of one animal do, which takes two animals, one of them with two sessions. Leave `groups` out."
        )
    return animals


def _measurements(results: Mapping[str, xr.DataTree], quantity: Quantity) -> xr.Dataset:
    """Mean and sd of the quantity, session by session, and how well these stand for its posterior."""
    found: list[xr.Dataset] = []
    for name, result in results.items():
        draws = _evaluated(result["posterior"].to_dataset(), quantity, name)
        entries = {dim: draws[dim].values.tolist() for dim in draws.dims[2:]}
        if found and entries != (first := {dim: found[0][dim].values.tolist() for dim in found[0]["value"].dims}):
            raise ValueError(
                f"The quantity has entries {entries} in session {name!r}, and {first} in the first; they must mean the "
                "same in all."
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
        draws = quantity(xr.DataTree.from_dict({"posterior": posterior}))
    if not isinstance(draws, xr.DataArray) or not set(_SAMPLES) <= set(draws.dims) or draws.ndim > 3:
        got = draws.dims if isinstance(draws, xr.DataArray) else type(draws).__name__
        raise ValueError(f"The quantity must be a DataArray with dims (chain, draw) and at most one more; got {got}.")
    if turning := [dim for dim in draws.dims if dim in LATENT_AXES]:
        raise ValueError(
            f"The quantity has dims {draws.dims}; {turning[0]!r} has another meaning in every session. Pool what no "
            "turn of latent space changes, such as eigenvalues."
        )
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


def _labelled(stacked: Mapping[str, np.ndarray], value: xr.DataArray, animals: list[str]) -> xr.Dataset:
    """Draws `(draw, ..., entry)` under the names of results, those of animals only where there are any."""
    rest = value.dims[1:]
    names = {"mean": ("population_mean", ()), "within": ("session_sd", ()), "value": ("session_value", ("session",))}
    if animals:
        names |= {"between": ("animal_sd", ()), "group": ("animal_mean", ("animal",))}
    draws = {
        shown: (
            (*_SAMPLES, *dims, *rest),
            stacked[name].reshape(1, *stacked[name].shape[: 1 + len(dims)], *value.shape[1:]),
        )
        for name, (shown, dims) in names.items()
    }
    dataset = xr.Dataset(draws, value.coords)
    numbers = {dim: np.arange(size) for dim, size in dataset.sizes.items() if dim in _SAMPLES}
    return dataset.assign_coords(numbers | ({"animal": animals} if animals else {}))


def _message(sds: np.ndarray) -> str:
    """Which sds have posteriors hardly narrower than their priors."""
    ratios = dict(zip(("session_sd", "animal_sd"), sds / (SPREAD_SD * (1 - 2 / np.pi) ** 0.5), strict=True))
    return " ".join(
        f"{name} has a posterior whose sd is {ratio:.0%} of that of its prior, which decides: report it so, or add "
        f"{'sessions' if name == 'session_sd' else 'animals'}."
        for name, ratio in ratios.items()
        if ratio > _UNKNOWN
    )
