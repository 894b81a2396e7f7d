"""What Gibbs sampling needs of a state-space model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key, PyTree

from connectinfer.latent.state_space import Seen, StateSpace

Arrays = Mapping[str, Any]
Paths = Float[Array, "trial time dim"]


class NoiseProposal(NamedTuple):
    """Other parameters under which the same standard normal numbers make other paths; `gauge` is the matrix by which
    paths turn, with determinant 1, and `log_ratio` that of the prior, corrected for the proposal."""

    parameters: PyTree
    gauge: Float[Array, "dim dim"]
    log_ratio: Float[Array, ""]


class Conditionals(NamedTuple):
    """How the parameters of a state-space model, a pytree, move given its paths.

    `begin(arrays)` are parameters and paths to start from. `space(parameters, arrays)` is the law of paths and
    observations. `update(key, parameters, paths, seen, arrays)` are parameters, and paths in another gauge, that leave
    their posterior invariant, and shares of accepted moves by name. `propose_noise(key, step, parameters, arrays)`
    changes what paths and noise determine together, by steps of relative size `step`; None if nothing is of that kind.
    `sites(key, parameters, paths, arrays)` are the sites of the NumPyro model, `paths` those of `"latent"`.
    `space_of(draw, arrays)` is the law of paths and observations from what a result keeps of one draw, by name, in the
    coordinates of the result; arrays of the same units and inputs, of any trials, serve.
    """

    begin: Callable[[Arrays], tuple[PyTree, Paths]]
    space: Callable[[PyTree, Arrays], StateSpace]
    update: Callable[[Key[Array, ""], PyTree, Paths, Seen, Arrays], tuple[PyTree, Paths, dict[str, Array]]]
    propose_noise: Callable[[Key[Array, ""], Array, PyTree, Arrays], NoiseProposal] | None
    sites: Callable[[Key[Array, ""], PyTree, Paths, Arrays], dict[str, Array]]
    space_of: Callable[[Arrays, Arrays], StateSpace]
