"""Models with their paths integrated out: what engines move in, and the paths that belong to their draws."""

from collections.abc import Callable, Container, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpyro import handlers

from connectinfer.inference.path_gibbs import draw_paths
from connectinfer.inference.trace import Sites, map_draws, trace_model
from connectinfer.latent.path_model import PathsInside, paths_inside
from connectinfer.latent.state_space import find_mode, log_marginal_at

PATH_ACCEPTANCE, LOST_MODES = "path_acceptance", "lost_modes"
"""Statistics of draws: the mean chance of Metropolis moves of paths, and the share of trials in which Newton's method
did not reach the mode of the paths' posterior."""

# Away from what a draw of the approximation is off by.
_MOVES = 10


def path_sites(bound: Callable, arrays: Mapping[str, Any]) -> set[str]:
    """The latent paths of a model that can be integrated out: those that `sample_paths` draws."""
    found: set[str] = set()

    def run(key: PRNGKeyArray, arrays: Mapping[str, Any]) -> None:
        trace = trace_model(key, bound, arrays, {})
        found.update(site["infer"]["path_site"] for site in trace.values() if "path_site" in site.get("infer", {}))

    jax.eval_shape(run, jax.random.key(0), dict(arrays))
    return found


def without(paths: Container[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of sites but `paths`."""
    return {name: value for name, value in values.items() if name not in paths}


def add_paths(
    key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], draw: Mapping[str, Any]
) -> tuple[Sites, dict[str, Array]]:
    """The sites of a draw of the parameters together with paths drawn given them, and statistics of these."""
    inside = _inside(bound, arrays, draw)
    seen, space = inside.seen, inside.space
    found = find_mode(space, seen, jnp.zeros((*seen.alive.shape, len(space.initial_mean))))
    paths, chances = draw_paths(key, space, seen, found.posterior, _MOVES)
    stats = {PATH_ACCEPTANCE: chances.mean(), LOST_MODES: (~found.converged).mean()}
    return {**draw, inside.path_site: paths}, stats


def add_paths_to_all(
    key: PRNGKeyArray, bound: Callable, arrays: Mapping[str, Any], samples: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """`add_paths` to all of `samples (chain, draw, ...)`."""
    n_chains, n_draws = next(iter(samples.values())).shape[:2]
    flat = {name: jnp.asarray(x).reshape(-1, *x.shape[2:]) for name, x in samples.items()}
    keys = jax.random.split(key, n_chains * n_draws)
    found = map_draws(lambda k, draw, arrays: add_paths(k, bound, arrays, draw), keys, flat, arrays)
    return jax.tree.map(lambda x: np.asarray(x).reshape(n_chains, n_draws, *x.shape[1:]), found)


def trial_likelihood(bound: Callable, arrays: Mapping[str, Any], draw: Mapping[str, Any]) -> Sites:
    """Log likelihood `(trial,)` of a draw of parameters and paths with the paths integrated out, by observed site; NaN
    where the mode of a path's posterior was not found."""
    inside = _inside(bound, arrays, draw)
    found = find_mode(inside.space, inside.seen, draw[inside.path_site])
    value = log_marginal_at(inside.space, inside.seen, found.posterior)
    return {inside.observed_site: jnp.where(found.converged, value, jnp.nan)}


def _inside(bound: Callable, arrays: Mapping[str, Any], draw: Mapping[str, Any]) -> PathsInside:
    # Handlers are typed as what they wrap, not as what a call of it returns.
    run: Any = handlers.substitute(handlers.seed(paths_inside(bound), 0), data=dict(draw))
    return run(arrays)
