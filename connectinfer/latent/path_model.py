"""State-space models as NumPyro models: with the paths as sites, or integrated out."""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float
from numpyro import handlers
from numpyro.primitives import Messenger

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.distributions.poisson_log_rate import PoissonLogRate
from connectinfer.dynamics.observation import Gaussian, NegativeBinomial, Observation
from connectinfer.latent.state_space import Seen, StateSpace, log_marginal


def sample_paths(
    site: str,
    space: StateSpace,
    activity: Float[Array, "trial time unit"] | None,
    mask: Bool[Array, "trial time unit"],
    path_site: str = "latent",
) -> Float[Array, "trial time dim"]:
    """Samples the paths, as `path_site`, and what is observed of them, as `site`; without `activity` it is drawn."""
    path = LatentPath(space.transition, space.noise_tril, space.initial_tril, space.inputs, space.initial_mean)
    about = {"path_site": path_site, "space": space, "mask": mask}
    latent = jnp.asarray(numpyro.sample(path_site, path.to_event(1), infer=dict(about)))
    law = observation_law(space.observation, space.predictor(latent))
    n_trials, n_bins, n_units = mask.shape
    with (
        numpyro.plate("trial", n_trials, dim=-3),
        numpyro.plate("time", n_bins, dim=-2),
        numpyro.plate("unit", n_units, dim=-1),
    ):
        numpyro.sample(site, law.mask(mask), obs=activity, infer=dict(about))
    return latent


def observation_law(observation: Observation, predictor: Float[Array, "*batch unit"]) -> dist.Distribution:
    """The law of an observation as a NumPyro distribution."""
    if isinstance(observation, NegativeBinomial):
        return dist.NegativeBinomial2(jnp.exp(predictor), observation.concentration)
    if isinstance(observation, Gaussian):
        return dist.Normal(predictor, observation.noise)
    return PoissonLogRate(predictor)


class PathsInside(NamedTuple):
    """The paths in a model at given parameters: their site and that of the observations, and the law of both."""

    path_site: str
    observed_site: str
    space: StateSpace
    seen: Seen


def integrate_paths(model: Callable[..., Any]) -> Callable[..., None]:
    """The model without its paths, which must come from `sample_paths`: its other sites, and the factor `"paths"`, the
    Laplace approximation of the log likelihood with the paths integrated out.

    Raises:
        ValueError: when it runs, if the model has no paths or no data.
    """

    def integrated(*args: Any, **kwargs: Any) -> None:
        inside = paths_inside(model)(*args, **kwargs)
        start = jnp.zeros((*inside.seen.alive.shape, len(inside.space.initial_mean)))
        numpyro.factor("paths", log_marginal(inside.space, inside.seen, start).sum())

    return integrated


def paths_inside(model: Callable[..., Any]) -> Callable[..., PathsInside]:
    """The model as a function that returns the law of its paths and hides their sites from whatever runs it.

    Raises:
        ValueError: when it runs, if the model has no paths or no data.
    """

    def inside(*args: Any, **kwargs: Any) -> PathsInside:
        with handlers.block(hide_fn=_of_paths), handlers.trace() as trace, _NoPath():
            model(*args, **kwargs)
        found = {name: site for name, site in trace.items() if _of_paths(site)}
        paths = [name for name in found if name in {site["infer"]["path_site"] for site in found.values()}]
        if len(paths) != 1:
            raise ValueError(
                f"Integrating paths out needs one path that `sample_paths` draws; the model has {len(paths)}. Its "
                f"sites: {', '.join(trace)}."
            )
        (observed,) = (name for name in found if name not in paths)
        activity = trace[observed]["value"]
        if not trace[observed]["is_observed"]:
            raise ValueError("Integrating paths out needs data; got activity=None.")
        about = trace[observed]["infer"]
        return PathsInside(paths[0], observed, about["space"], Seen.of(activity, about["mask"]))

    return inside


def _of_paths(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and "path_site" in site["infer"]


class _NoPath(Messenger):
    """Puts zeros in place of a path: nobody looks at it."""

    def process_message(self, msg: dict[str, Any]) -> None:
        """Gives a path its value before anything draws it."""
        if _of_paths(msg) and not msg["is_observed"] and msg["value"] is None:
            msg["value"] = jnp.zeros(msg["fn"].shape())
