"""Pre-flight: simulate a model from its prior and score its data, before hours are spent on a model that cannot run."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from connectinfer.inference.trace import Site, Sites, describe_sites, evaluate, map_draws

FAILED_SOLVES = "failed_solves"
"""Deterministic site by which a model reports solver failures; true where a solve failed."""


class Preflight(NamedTuple):
    """Prior draws of the sites `(draw, ...)`, the share of draws in which a solve failed, and by site the share of
    draws whose value, log likelihood or factor is not finite (a factor of minus infinity is: it rejects a draw)."""

    prior: Sites
    failed_solves: float
    not_finite: dict[str, float]


def check_model(key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], *, draws: int = 50) -> Preflight:
    """Draws the sites of a model (see `connectinfer.inference.trace.bind`) from their prior and scores its data.

    Warns, with the shares, where some draws fail.

    Raises:
        ValueError: more than half of the draws fail to solve, or give a site, likelihood or factor that is not finite;
            the message names the sites, with the share of draws, and says what to do. Also when the model has no
            latent or no observed site, observations of fewer values than their law, discrete latent sites, parameters
            without a prior, or weighted log densities.
    """
    sites = describe_sites(bound, arrays)
    _check_structure(sites)
    kinds = {name: site.kind for name, site in sites.items()}
    drawn = map_draws(lambda k, _, a: evaluate(k, bound, a, {}), jax.random.split(key, draws), {}, arrays)
    latent = {name: value for name, value in drawn.sites.items() if kinds[name] == "latent"}
    factors = {name: np.where(np.isneginf(value), 0.0, value) for name, value in drawn.log_factor.items()}
    scored = {**latent, **drawn.log_likelihood, **factors}
    not_finite = {name: _share_not_finite(value) for name, value in scored.items()}
    failed = float(np.asarray(drawn.sites.get(FAILED_SOLVES, np.zeros(draws))).reshape(draws, -1).any(1).mean())
    _refuse(failed, not_finite, list(drawn.log_likelihood), draws)
    _warn(failed, not_finite, draws)
    return Preflight(drawn.sites, failed, not_finite)


def _check_structure(sites: Mapping[str, Site]) -> None:
    kinds = {site.kind for site in sites.values()}
    names = ", ".join(sorted(sites)) or "none"
    if "latent" not in kinds:
        raise ValueError(f"The model has no latent site: there is nothing to infer. Its sites: {names}.")
    if not kinds & {"observed", "factor"}:
        raise ValueError(f"The model has no observed site: no data reaches it. Its sites: {names}.")
    if discrete := [n for n, s in sites.items() if s.kind == "latent" and s.support.is_discrete]:
        raise ValueError(f"Latent sites must be continuous; {discrete} are discrete. Sum them out of the likelihood.")
    if scaled := [n for n, s in sites.items() if s.scaled]:
        raise ValueError(
            f"Log densities are weighted (`handlers.scale`, or a plate that takes a subsample) at {scaled}: neither "
            "engine fits that. Give the whole data, with weight one."
        )
    if bare := [n for n, s in sites.items() if s.kind == "param"]:
        raise ValueError(f"The model has `numpyro.param` sites without a prior: {bare}. Use `numpyro.sample`.")


def _share_not_finite(value: Any) -> float:
    finite = np.isfinite(np.asarray(value))
    return float(1 - finite.reshape(len(finite), -1).all(1).mean())


def _refuse(failed: float, not_finite: Mapping[str, float], observed: list[str], draws: int) -> None:
    if failed > 0.5:
        raise ValueError(
            f"Pre-flight: an ODE solve failed in {failed:.0%} of {draws} draws from the prior. Narrow the priors of "
            "the dynamics, use a bounded nonlinearity such as 'tanh', or shorten the time step."
        )
    offending = {name: share for name, share in not_finite.items() if share > 0.5}
    if not offending:
        return
    first = next(iter(offending))
    advice = (
        "check that the data lie in the support of that site (counts are whole and not negative, no NaN outside the "
        "mask) and that its parameters stay finite under the prior"
        if first in observed
        else "its prior draws overflow: narrow the priors it depends on, or use a bounded nonlinearity such as 'tanh'"
    )
    raise ValueError(
        f"Pre-flight: not finite in {draws} draws from the prior: {_shares(offending)}. For {first!r}, {advice}."
    )


def _warn(failed: float, not_finite: Mapping[str, float], draws: int) -> None:
    found = [f"an ODE solve failed in {failed:.0%}"] if failed else []
    if offending := {name: share for name, share in not_finite.items() if share}:
        found.append(f"not finite: {_shares(offending)}")
    if found:
        warnings.warn(
            f"Pre-flight, of {draws} draws from the prior: {'; '.join(found)}. NUTS rejects such values, and svi ends "
            "early where it meets them; if many fail, narrow the priors.",
            stacklevel=4,
        )


def _shares(not_finite: Mapping[str, float]) -> str:
    return ", ".join(f"{name!r} in {share:.0%}" for name, share in not_finite.items())
