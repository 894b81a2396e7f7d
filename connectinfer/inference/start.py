"""Where inference starts: values of the latent sites in the unconstrained space in which samplers move."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from scipy.stats import chi2

from connectinfer.inference.laplace import Laplace, laplace
from connectinfer.inference.trace import Sites

_JITTER = 0.1
_RADIUS = 2.0
_ROUNDS = 20
_HALVINGS = 12
_MOST_WHITENED = 1000
# Where chains settled, the curvature is looked at in so many points.
_POINTS = 16


def constrain(bound: Callable, arrays: Mapping[str, Any], free: Sites) -> Sites:
    """Values of the latent sites from their unconstrained values."""
    return constrain_fn(bound, (arrays,), {}, free)


def potential(bound: Callable, arrays: Mapping[str, Any], free: Sites) -> Array:
    """Minus the log joint density in the unconstrained space."""
    return jnp.asarray(potential_energy(bound, (arrays,), {}, free))


def central_start(bound: Callable, arrays: Mapping[str, Any], prior: Sites, initial: Mapping[str, Any]) -> Sites:
    """Unconstrained start: `initial` (constrained values) for the sites it names, the prior median for the others.

    `prior` holds prior draws `(draw, ...)` of the latent sites.

    Raises:
        ValueError: `initial` names a site that is not latent, has another shape, or has values outside the support.
    """
    for name, value in initial.items():
        if name not in prior or np.shape(value) != prior[name].shape[1:]:
            found = (
                prior[name].shape[1:] if name in prior else f"not a latent site; those are {', '.join(sorted(prior))}"
            )
            raise ValueError(f"`initial[{name!r}]` has shape {np.shape(value)}; the model's site: {found}.")
    fixed = {name: jnp.asarray(value, float) for name, value in initial.items()}
    drawn = {name: value for name, value in prior.items() if name not in fixed}

    def unconstrain(draw: Sites, fixed: Sites, arrays: Mapping[str, Any]) -> Sites:
        return unconstrain_fn(bound, (arrays,), {}, draw | fixed)

    def median(drawn: Sites, fixed: Sites, arrays: Mapping[str, Any]) -> Sites:
        free = jax.vmap(unconstrain, in_axes=(0, None, None), axis_size=next(iter(prior.values())).shape[0])(
            drawn, fixed, arrays
        )
        return {n: jnp.nanmedian(jnp.where(jnp.isfinite(x), x, jnp.nan), axis=0) for n, x in free.items()}

    centre = jax.jit(median)(drawn, fixed, dict(arrays))
    if outside := [name for name in fixed if not jnp.isfinite(centre[name]).all()]:
        raise ValueError(f"`initial` has values outside the support of {outside}, or on its edge. Give others.")
    return centre


class Coordinates(NamedTuple):
    """Coordinates in which chains move: their starts `(chain, ...)`; the map `to_free(transform, x)` to unconstrained
    sites, with `transform` its arrays; and the Laplace approximation that they come from, if any."""

    starts: PyTree
    transform: PyTree
    to_free: Callable[[PyTree, PyTree], Sites]
    approximation: Laplace | None

    def settled(
        self, transform: PyTree, visited: Float[Array, "chain step size"], arrays: Mapping[str, Any]
    ) -> "Coordinates":
        """Whitened by the curvature where chains were in the second half of a run, `visited` in the coordinates of
        `transform`, and by how far they spread; starting where it ended."""
        assert self.approximation is not None
        mode, scale = transform
        late = visited[:, visited.shape[1] // 2 :].reshape(-1, visited.shape[-1])
        points = late[np.linspace(0, len(late) - 1, _POINTS).astype(int)]
        recurved = self.approximation._replace(mode=mode, scale=scale).recurved(points, dict(arrays))
        change = jnp.linalg.solve(recurved.scale, scale)
        stretch = _stretch(late @ change.T)
        starts = jnp.linalg.solve(stretch, (visited[:, -1] @ change.T).T).T
        return self._replace(starts=starts, transform=(recurved.mode, recurved.scale @ stretch))


def _stretch(visited: Float[Array, "point size"]) -> Float[Array, "size size"]:
    """Symmetric; long where the points spread more than as many standard normal ones would.

    Where curvature turns from place to place, no direction is flat in its mean, and yet the posterior may be wide.
    Points count as independent: chains that hardly moved make a few directions too long, which costs sampling steps.
    """
    n_points, size = visited.shape
    if n_points < 2:
        return jnp.eye(size, dtype=visited.dtype)
    variance, axes = jnp.linalg.eigh(jnp.atleast_2d(jnp.cov(visited.T)))
    # The largest eigenvalue of a standard normal sample's covariance (Marchenko & Pastur).
    edge = (1 + (size / n_points) ** 0.5) ** 2
    return (axes * jnp.sqrt(jnp.maximum(variance / edge, 1.0))) @ axes.T


def chain_coordinates(
    key: PRNGKeyArray,
    bound: Callable,
    arrays: Mapping[str, Any],
    prior: Sites,
    initial: Mapping[str, Any] | None,
    chains: int,
) -> Coordinates:
    """Coordinates and starts for NUTS, with finite log density and gradient at every start.

    Without `initial`, the unconstrained sites themselves, uniform within 2 of zero. With it, the Laplace
    approximation at the mode that is reached from there: chains move in coordinates where it is a standard normal, and
    start at draws of it, each halved towards the mode until its density is plausible under the posterior itself. For
    more than 1,000 unconstrained values, whose Hessian would cost too much, the start plus normal noise of sd 0.1.

    Raises:
        ValueError: fewer finite starts than chains in 20 rounds of tries.
    """
    centre = central_start(bound, arrays, prior, initial or {})
    density = partial(_joint_potential, bound)
    size = sum(leaf.size for leaf in jax.tree.leaves(centre))
    if initial is not None and size <= _MOST_WHITENED:
        approximation = laplace(density, dict(arrays), centre)
        transform, unravel = (approximation.mode, approximation.scale), approximation.unravel
        to_free = lambda transform, x: unravel(transform[0] + transform[1] @ x)  # noqa: E731
        propose = partial(_plausible, size)
    else:
        approximation, transform, to_free = None, (), lambda _, free: free
        radius = None if initial is not None else _RADIUS
        propose = lambda key, _: _scatter(centre, radius, key)  # noqa: E731

    def attempt(key: PRNGKeyArray, transform: PyTree, arrays: Mapping[str, Any]) -> tuple[PyTree, Array]:
        energy = lambda x: density(to_free(transform, x), arrays)  # noqa: E731
        proposed = propose(key, energy)
        leaves = jax.tree.leaves(jax.value_and_grad(energy)(proposed))
        return proposed, jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()

    run = jax.jit(lambda keys, *args: jax.lax.map(lambda k: attempt(k, *args), keys))
    rounds: list[tuple[PyTree, Array]] = []
    for batch in jax.random.split(key, _ROUNDS):
        rounds.append(run(jax.random.split(batch, chains), transform, dict(arrays)))
        proposed, finite = jax.tree.map(lambda *parts: jnp.concatenate(parts), *rounds)
        if finite.sum() >= chains:
            starts = jax.tree.map(partial(jnp.take, indices=jnp.flatnonzero(finite)[:chains], axis=0), proposed)
            return Coordinates(starts, transform, to_free, approximation)
    found = f"{int(finite.sum())} of {_ROUNDS * chains} tries had a finite log density and gradient"
    needed = f"{chains} chains need as many starts. Narrow the priors"
    if initial is None:
        raise ValueError(f"{found}; {needed}, or pass start values with `initial=`.")
    raise ValueError(f"{found}, and a density not far below that of the mode; {needed}, or start elsewhere.")


def _plausible(size: int, key: PRNGKeyArray, energy: Callable[[Array], Array]) -> Array:
    """A standard normal draw, halved until its energy exceeds that of the mode by no more than in 999 of 1,000 draws
    from a normal posterior; NaN if halving does not help.

    From a start that is far off the posterior a chain may never come back: the slope there is too large for any step
    size.
    """
    draw = jax.random.normal(key, (size,))
    scales = 0.5 ** jnp.arange(_HALVINGS, dtype=draw.dtype)
    excess = jax.lax.map(lambda scale: energy(scale * draw), scales) - energy(jnp.zeros_like(draw))
    widest = jnp.max(jnp.where(excess <= chi2.ppf(0.999, size) / 2, scales, 0.0))
    return jnp.where(widest > 0, widest * draw, jnp.nan)


def _joint_potential(bound: Callable, free: Sites, arrays: Mapping[str, Any]) -> Array:
    return potential(bound, arrays, free)


def _scatter(centre: Sites, radius: float | None, key: PRNGKeyArray) -> Sites:
    keys = jax.random.split(key, len(centre))
    return {
        name: x + _JITTER * jax.random.normal(k, x.shape, x.dtype)
        if radius is None
        else jax.random.uniform(k, x.shape, x.dtype, -radius, radius)
        for k, (name, x) in zip(keys, centre.items(), strict=True)
    }
