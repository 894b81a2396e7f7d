"""The ideal observer of spikes: the network that made them is known, the paths are not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from connectinfer.dynamics.low_rank import LowRankRNN, latent_step
from connectinfer.dynamics.observation import Poisson
from connectinfer.latent.conditionals import Arrays, Conditionals
from connectinfer.latent.path_model import sample_paths
from connectinfer.latent.state_space import StateSpace


class KnownNetwork(NamedTuple):
    """A `model` in which only the paths are unknown, and its `conditionals` for `fit_state_space`."""

    model: Callable[..., None]
    conditionals: Conditionals


def known_network(
    network: LowRankRNN,
    loading: Float[Array, "unit rank"],
    bias: Float[Array, " unit"],
    *,
    process_noise: float,
    initial_scale: float,
    alpha: float,
) -> KnownNetwork:
    """Counts are Poisson with log rate `loading @ z + bias`; `process_noise` is the sd per bin and `initial_scale` that
    of the first bin. The model takes the arrays of `recording_arrays`."""
    rank = network.m.shape[1]

    def space(_: Any, arrays: Arrays) -> StateSpace:
        return StateSpace(
            initial_mean=jnp.zeros(rank),
            initial_tril=initial_scale * jnp.eye(rank),
            transition=jax.tree_util.Partial(latent_step, network, alpha),
            noise_tril=process_noise * jnp.eye(rank),
            inputs=arrays["filtered"],
            loading=loading,
            offset=bias,
            observation=Poisson(),
        )

    def model(activity: Any, mask: Any, **arrays: Any) -> None:
        activity = None if activity is None else jnp.asarray(activity, float)
        sample_paths("counts", space((), arrays), activity, jnp.asarray(mask))

    conditionals = Conditionals(
        begin=lambda arrays: ((), jnp.zeros((*arrays["mask"].shape[:2], rank))),
        space=space,
        update=lambda _, parameters, paths, *__: (parameters, paths, {}),
        propose_noise=None,
        sites=lambda _, __, paths, ___: {"latent": paths},
        space_of=space,
    )
    return KnownNetwork(model, conditionals)
