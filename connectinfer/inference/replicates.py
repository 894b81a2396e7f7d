"""Posteriors of many simulated data sets at once: whole fits as pure functions, vmapped in batches."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree
from numpyro.infer.hmc import hmc
from numpyro.infer.util import unconstrain_fn

from connectinfer.inference.amortised import FlowPosterior
from connectinfer.inference.chains import check_thinning
from connectinfer.inference.guides import build_guide, guide_constructor, guide_parameters
from connectinfer.inference.integrated_paths import add_paths, path_sites, without
from connectinfer.inference.path_gibbs import Chain, drawn_sites, first_link, sweep
from connectinfer.inference.simulations import check_unweighted
from connectinfer.inference.start import constrain, potential
from connectinfer.inference.svi import adam_with_warmup, check_options, draw_from_guide, negative_elbo
from connectinfer.inference.trace import (
    Sites,
    check_proper,
    describe_sites,
    draw_joint,
    map_draws,
    observed_values,
)
from connectinfer.latent.conditionals import Conditionals
from connectinfer.latent.path_model import integrate_paths as paths_integrated
from connectinfer.latent.state_space import Seen
from connectinfer.optimisation.loop import minimised
from connectinfer.optimisation.progress import compile_timed, progress_bar, trace_timed

_MOST_TRIES = 20

Posterior = Callable[[PRNGKeyArray, Mapping[str, Any], PyTree], tuple[Sites, dict[str, Array]]]
"""`posterior(key, arrays, start)`: draws `(draw, ...)` of the latent sites given one data set, from start values (of
sites, constrained; or what else an engine starts from), and statistics `(draw,)`."""


class Replicates(NamedTuple):
    """`truth` holds latent sites drawn from the prior, `data` the inputs of the model with what was simulated from
    them, `arrays` all inputs that the data decide, each `(data_set, ...)` by name.

    Sites may be coordinates whose meaning `arrays` fixes: those of `truth` go with the original inputs and `data`."""

    truth: Sites
    data: dict[str, Array]
    arrays: dict[str, Array]


def simulate_replicates(
    key: PRNGKeyArray,
    bound: Callable,
    arrays: Mapping[str, Any],
    n: int,
    prepare: Callable[[dict[str, np.ndarray]], Mapping[str, Any]] = dict,
) -> Replicates:
    """`n` data sets drawn from a model's prior, in place of the inputs that hold its data.

    `prepare` makes the array inputs of one data set from those that hold its data, and may refuse it by a ValueError:
    then another is drawn. Calibration stays valid, because only the data decide. Parameters that the model rejects, or
    whose data have no density, are drawn again, too: no posterior holds them.

    Raises:
        ValueError: the data of an observed site are not among the inputs, fewer than one data set in 20 is usable, or
            the model has improper priors or weights its parameters by factors, of which simulations know nothing.
    """
    check_proper(describe_sites(bound, arrays))
    holders = _data_inputs(bound, arrays)
    kept: list[tuple[Sites, dict[str, np.ndarray], Mapping[str, Any]]] = []
    refusal: object = "its simulation failed"
    for batch in jax.random.split(key, _MOST_TRIES):
        drawn = map_draws(
            lambda k, _, arrays: draw_joint(k, bound, arrays, {}), jax.random.split(batch, n), {}, dict(arrays)
        )
        check_unweighted(drawn.log_factor)
        held = {holders[site]: np.asarray(x, arrays[holders[site]].dtype) for site, x in drawn.data.items()}
        for i in np.flatnonzero(drawn.sound):
            own, data = jax.tree.map(lambda x, i=i: np.asarray(x[i]), (drawn.latent, held))
            try:
                kept.append((own, data, prepare(data)))
            except ValueError as error:
                refusal = error
        if len(kept) >= n:
            stack = lambda *parts: jnp.stack([jnp.asarray(x) for x in parts])  # noqa: E731
            return Replicates(*(jax.tree.map(stack, *each) for each in zip(*kept[:n], strict=True)))
    raise ValueError(
        f"Of {_MOST_TRIES * n} data sets drawn from the prior, the model takes only {len(kept)}; the last was refused: "
        f"{refusal}"
    )


def nuts_posterior(
    bound: Callable,
    *,
    warmup: int = 300,
    draws: int = 500,
    thinning: int = 5,
    max_tree_depth: int = 8,
    target_accept_prob: float = 0.8,
    integrate_paths: bool = False,
) -> Posterior:
    """One chain of NumPyro's NUTS with a dense mass matrix; every `thinning`-th draw is kept.

    Unlike `sample_nuts`, which whitens its coordinates and runs several chains, it moves in the model's own.

    Raises:
        ValueError: `warmup` below 0, `thinning` below 1, or fewer `draws` than `thinning`, of which none would be kept.
    """
    check_thinning(warmup, draws, thinning)
    whole, bound = bound, paths_integrated(bound) if integrate_paths else bound

    def posterior(key: PRNGKeyArray, arrays: Mapping[str, Any], start: Sites) -> tuple[Sites, dict[str, Array]]:
        free = unconstrain_fn(bound, (arrays,), {}, start)
        init_kernel, sample_kernel = hmc(lambda x: potential(bound, arrays, x), algo="NUTS")
        state = init_kernel(
            free,
            warmup,
            dense_mass=True,
            rng_key=key,
            max_tree_depth=max_tree_depth,
            target_accept_prob=target_accept_prob,
        )
        state = jax.lax.fori_loop(0, warmup, lambda _, s: sample_kernel(s), state)

        def kept(state: Any, _: None) -> tuple[Any, tuple[PyTree, dict[str, Array]]]:
            diverging = jnp.array(False)
            step = lambda _, carry: _advance(sample_kernel, *carry)  # noqa: E731
            state, diverging = jax.lax.fori_loop(0, thinning, step, (state, diverging))
            return state, (state.z, {"diverging": diverging})

        _, (unconstrained, stats) = jax.lax.scan(kept, state, None, length=draws // thinning)
        return jax.lax.map(lambda x: constrain(bound, arrays, x), unconstrained), stats

    return _with_paths(whole, posterior) if integrate_paths else posterior


def gibbs_posterior(
    conditionals: Conditionals,
    fixed: Mapping[str, Any],
    *,
    warmup: int = 200,
    draws: int = 500,
    thinning: int = 5,
) -> Posterior:
    """One chain of `fit_state_space`; every `thinning`-th draw is kept. `fixed` are inputs that are not arrays; fits
    start at parameters and paths.

    Raises:
        ValueError: `warmup` below 0, `thinning` below 1, or fewer `draws` than `thinning`, of which none would be kept.
    """
    check_thinning(warmup, draws, thinning)

    def posterior(key: PRNGKeyArray, arrays: Mapping[str, Any], start: PyTree) -> tuple[Sites, dict[str, Array]]:
        inputs, seen = {**fixed, **arrays}, Seen.of(arrays["activity"], arrays["mask"])
        step = lambda _, chain: sweep(chain, conditionals, seen, inputs, warmup)[0]  # noqa: E731

        def kept(chain: Chain, _: None) -> tuple[Chain, tuple[Sites, dict[str, Array]]]:
            chain = jax.lax.fori_loop(0, thinning - 1, step, chain)
            chain, stats = sweep(chain, conditionals, seen, inputs, warmup)
            return chain, (drawn_sites(chain, conditionals, seen, inputs), stats)

        chain = jax.lax.fori_loop(0, warmup, step, first_link(key, *start))
        return jax.lax.scan(kept, chain, None, length=draws // thinning)[1]

    return posterior


def svi_posterior(
    bound: Callable,
    arrays: Mapping[str, Any],
    *,
    guide: str | Callable = "normal",
    steps: int = 2000,
    learning_rate: float = 0.01,
    particles: int = 1,
    draws: int = 100,
    integrate_paths: bool = False,
) -> Posterior:
    """Draws from a guide that was fitted as `fit_svi` does it.

    Raises:
        ValueError: an option out of range, or an unknown guide.
    """
    check_options(steps, learning_rate, particles, draws)
    constructor, optimizer = guide_constructor(guide), adam_with_warmup(learning_rate, steps)
    whole, bound = bound, paths_integrated(bound) if integrate_paths else bound
    sites = describe_sites(bound, arrays)

    def posterior(key: PRNGKeyArray, arrays: Mapping[str, Any], start: Sites) -> tuple[Sites, dict[str, Array]]:
        key_init, key_run, key_draws = jax.random.split(key, 3)
        guide_function = build_guide(constructor, sites, start)
        parameters, constrain_parameters = guide_parameters(key_init, guide_function, arrays)
        loss = negative_elbo(bound, guide_function, constrain_parameters, particles)
        found = minimised(key_run, loss, parameters, arrays, optimizer=optimizer, steps=steps)
        fitted = constrain_parameters(found)
        values, log_weight = jax.lax.map(
            lambda k: draw_from_guide(k, fitted, bound, guide_function, arrays), jax.random.split(key_draws, draws)
        )
        return values, {"log_weight": log_weight}

    return _with_paths(whole, posterior) if integrate_paths else posterior


def _with_paths(bound: Callable, parameters: Posterior) -> Posterior:
    """Draws of the parameters of a model whose paths are integrated out, and the paths that belong to them."""

    def posterior(key: PRNGKeyArray, arrays: Mapping[str, Any], start: Sites) -> tuple[Sites, dict[str, Array]]:
        key_parameters, key_paths = jax.random.split(key)
        draws, stats = parameters(key_parameters, arrays, without(path_sites(bound, arrays), start))
        keys = jax.random.split(key_paths, len(next(iter(draws.values()))))
        draws, more = jax.lax.map(lambda each: add_paths(each[0], bound, arrays, each[1]), (keys, draws))
        return draws, stats | more

    return posterior


def flow_posterior(trained: FlowPosterior, *, draws: int = 100) -> Posterior:
    """Draws from a flow that was trained once for all data sets.

    Raises:
        ValueError: `draws` below 1.
    """
    check_draws(draws)

    def posterior(key: PRNGKeyArray, arrays: Mapping[str, Any], _: Sites) -> tuple[Sites, dict[str, Array]]:
        return trained.sample(key, arrays, draws), {}

    return posterior


def check_draws(draws: int) -> None:
    """Raise unless anything would be drawn.

    Raises:
        ValueError: `draws` below 1.
    """
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1; got {draws}.")


def fit_replicates(
    key: PRNGKeyArray,
    posterior: Posterior,
    summary: Callable[[Mapping[str, Any], Sites], dict[str, Array]],
    arrays: Mapping[str, Any],
    replicates: Replicates,
    starts: PyTree,
    *,
    batch: int,
    show_progress: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """`summary(arrays, latent sites of one draw)` of every posterior draw, and statistics, `(data_set, draw, ...)`.

    `starts` are `(data_set, ...)`. `batch` fits run as one program. Ctrl-C returns the batches that were finished,
    those of the first data sets.

    Raises:
        KeyboardInterrupt: interrupted before the first batch was finished.
    """

    def one(key: PRNGKeyArray, data: Sites, start: PyTree, arrays: Mapping[str, Any]) -> tuple[Sites, Sites]:
        own = {**arrays, **data}
        draws, stats = posterior(key, own, start)
        return jax.lax.map(lambda draw: summary(own, draw), draws), stats

    many = jax.vmap(one, in_axes=(0, 0, 0, None))
    n = len(jax.tree.leaves(starts)[0])
    keys, chunks = jax.random.split(key, n), []
    with progress_bar("fits", n, show_progress) as advance, suppress(KeyboardInterrupt):
        compiled = None
        for first in range(0, n, batch):
            # The last batch is filled with the last data set, so that one program serves all.
            taken = np.minimum(np.arange(first, first + batch), n - 1)
            cases = jax.tree.map(lambda x, taken=taken: x[taken], (keys, replicates.arrays, starts))
            if compiled is None:
                lowered = trace_timed(many, *cases, dict(arrays), name="a batch of fits", show=show_progress)
                compiled = compile_timed(lowered, "a batch of fits", show_progress)
            size = min(batch, n - first)
            chunks.append(jax.tree.map(lambda x, size=size: np.asarray(x)[:size], compiled(*cases, dict(arrays))))
            advance(size, "")
    if not chunks:
        raise KeyboardInterrupt("Interrupted before the first batch of fits was finished: nothing to keep.")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def _advance(sample_kernel: Callable, state: Any, diverging: Array) -> tuple[Any, Array]:
    state = sample_kernel(state)
    return state, diverging | state.diverging


def _data_inputs(bound: Callable, arrays: Mapping[str, Any]) -> dict[str, str]:
    """From observed sites to the inputs that hold their data."""
    holders: dict[str, str] = {}
    for site, value in observed_values(bound, arrays).items():
        same = [name for name, x in arrays.items() if x.shape == value.shape and bool((x == value).all())]
        if len(same) != 1:
            raise ValueError(
                f"Simulated data cannot take the place of those of the observed site {site!r}: they should be one of "
                f"the model's inputs {sorted(arrays)}, but {len(same)} of them equal the data. Hand the data to the "
                "model as an argument of its own."
            )
        holders[site] = same[0]
    return holders
