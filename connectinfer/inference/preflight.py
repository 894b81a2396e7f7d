"""Pre-flight: simulate a model from its prior and score its data, before hours are spent on a model that cannot run."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from connectinfer.inference.trace import Site, Sites, describe_sites, evaluate, map_draws

FAILED_SOLVES = "failed_solves"
"""Deterministic site by which a model reports solver failures; true where a solve failed."""


class Preflight(NamedTuple):
    """Prior draws of the sites `(draw, ...)`, the share of failed solves, and by site the share of draws whose value
    or log likelihood is not finite."""

    prior: Sites
    failed_solves: float
    not_finite: dict[str, float]


def check_model(key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], *, draws: int = 50) -> Preflight:
    """Draws the sites of a model (see `connectinfer.inference.trace.bind`) from their prior and scores its data.

    Raises:
        ValueError: more than half of the draws fail to solve, or give a site or likelihood that is not finite; the
            message names the sites, with the share of draws, and says what to do. Also when the model has no latent
            or no observed site, discrete latent sites, or parameters without a prior.
    """
    sites = describe_sites(bound, arrays)
    _check_structure(sites)
    kinds = {name: site.kind for name, site in sites.items()}
    drawn = map_draws(lambda k, _, a: evaluate(k, bound, a, {}), jax.random.split(key, draws), {}, arrays)
    latent = {name: value for name, value in drawn.sites.items() if kinds[name] == "latent"}
    not_finite = {name: _share_not_finite(value) for name, value in {**latent, **drawn.log_likelihood}.items()}
    failed = float(np.mean(np.asarray(drawn.sites.get(FAILED_SOLVES, 0.0))))
    _refuse(failed, not_finite, list(drawn.log_likelihood), draws)
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
    if bare := [n for n, s in sites.items() if s.kind == "param"]:
        raise ValueError(f"The model has `numpyro.param` sites without a prior: {bare}. Use `numpyro.sample`.")


def _share_not_finite(value: Any) -> float:
    finite = np.isfinite(np.asarray(value))
    return float(1 - finite.reshape(len(finite), -1).all(1).mean())


def _refuse(failed: float, not_finite: Mapping[str, float], observed: list[str], draws: int) -> None:
    if failed > 0.5:
        raise ValueError(
            f"Pre-flight: {failed:.0%} of the ODE solves failed in {draws} draws from the prior. Narrow the priors of "
            "the dynamics, use a bounded nonlinearity such as 'tanh', or shorten the time step."
        )
    offending = {name: share for name, share in not_finite.items() if share > 0.5}
    if not offending:
        return
    shares = ", ".join(f"{name!r} in {share:.0%}" for name, share in offending.items())
    first = next(iter(offending))
    advice = (
        "check that the data lie in the support of that site (counts are whole and not negative, no NaN outside the "
        "mask) and that its parameters stay finite under the prior"
        if first in observed
        else "its prior draws overflow: narrow the priors it depends on, or use a bounded nonlinearity such as 'tanh'"
    )
    raise ValueError(f"Pre-flight: not finite in {draws} draws from the prior: {shares}. For {first!r}, {advice}.")
