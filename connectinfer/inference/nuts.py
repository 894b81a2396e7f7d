"""The No-U-Turn sampler, driven in chunks so that progress shows and an interruption keeps what was sampled."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PRNGKeyArray, PyTree
from numpyro.infer.hmc import hmc

from connectinfer.inference.preflight import check_model
from connectinfer.inference.result import Labels, build_result, check_labels
from connectinfer.inference.start import Coordinates, chain_coordinates, constrain, potential
from connectinfer.inference.trace import bind, describe_sites, map_draws
from connectinfer.optimisation.progress import compile_timed, progress_bar, timed

NUTS_OPTIONS = {
    "target_accept_prob",
    "dense_mass",
    "step_size",
    "inverse_mass_matrix",
    "adapt_step_size",
    "adapt_mass_matrix",
    "regularize_mass_matrix",
}
"""Options of NumPyro's kernel that `sample_nuts` passes on."""

_CHUNKS = 40
_SETTLING, _ROUNDS = 50, 3
# While coordinates are poor, longer trajectories only cost time.
_WARMUP_DEPTH = 7


class _Draws(NamedTuple):
    """Coordinates and statistics, stacked as (chain, step, ...)."""

    coordinates: PyTree
    stats: dict[str, Any]


def sample_nuts(
    key: PRNGKeyArray,
    model: Callable,
    inputs: Mapping[str, Any],
    *,
    labels: Labels | None = None,
    initial: Mapping[str, Any] | None = None,
    warmup: int = 500,
    draws: int = 500,
    chains: int = 4,
    chain_method: str = "vectorized",
    max_tree_depth: int = 10,
    show_progress: bool = True,
    **kernel_options: Any,
) -> xr.DataTree:
    """Posterior draws by NumPyro's NUTS.

    `initial` holds start values of sites (constrained space); sites it does not name begin at their prior median. With
    it, chains start as plausible draws of the Laplace approximation at the mode reached from there, and move in
    coordinates where that is a standard normal; three times, after 50 steps or a few more (`warmup`, if that is less)
    that do not count, the coordinates are chosen anew by the curvature where the chains were, and how far they spread.
    Trajectories of this warm-up have at most 127 steps. Models of more than 1,000 unconstrained values start at
    `initial` plus noise of sd 0.1, in their own coordinates. Without `initial`, chains start uniformly within two units
    of zero, unconstrained.
    `chain_method` is `"vectorized"` (one batch), `"parallel"` (one device a chain; not for models with a diffrax solve,
    whose reverse mode JAX cannot shard) or `"sequential"`. Ctrl-C ends the run and returns the draws so far.
    `kernel_options` are those of `numpyro.infer.NUTS` that `NUTS_OPTIONS` lists, such as `target_accept_prob` and
    `dense_mass`.

    Raises:
        ValueError: an unknown option or chain method, an option out of range, fewer devices than chains or a model that
            JAX cannot divide under `"parallel"`, labels or start values that do not fit the model, a model that fails
            its pre-flight check, or too few starts of finite density.
        KeyboardInterrupt: interrupted before the end of the warm-up, when there is nothing to keep.
    """
    started = time.time()
    if unknown := set(kernel_options) - NUTS_OPTIONS:
        raise ValueError(f"Unknown options {sorted(unknown)}; NUTS takes {', '.join(sorted(NUTS_OPTIONS))}.")
    _check_chains(chain_method, chains, warmup, draws)
    labels = labels or Labels.of(model)
    key_check, key_chains, key_result = jax.random.split(key, 3)
    bound, arrays = bind(model, inputs)
    sites = describe_sites(bound, arrays)
    check_labels(sites, labels)
    with timed("checking the model on draws from its prior", show_progress):
        preflight = check_model(key_check, bound, arrays)
    key_start, key_kernel = jax.random.split(key_chains)
    prior = {name: value for name, value in preflight.prior.items() if sites[name].kind == "latent"}
    with timed("finding where chains start", show_progress):
        coordinates = chain_coordinates(key_start, bound, arrays, prior, initial, chains)
    to_free = coordinates.to_free
    init_kernel, sample_kernel = hmc(
        potential_fn_gen=lambda arrays, transform: lambda x: potential(bound, arrays, to_free(transform, x)),
        algo="NUTS",
    )
    depths = (min(max_tree_depth, _WARMUP_DEPTH) if coordinates.approximation else max_tree_depth, max_tree_depth)
    initialise = partial(init_kernel, num_warmup=warmup, max_tree_depth=depths, **kernel_options)
    start_chains = jax.jit(jax.vmap(lambda x, key, args: initialise(x, rng_key=key, model_args=args), (0, 0, None)))
    chunk = max(min((warmup + draws) // _CHUNKS, 50), 1)
    run = _chunk_runner(sample_kernel, chain_method, chains, chunk)
    begin = lambda key, found: start_chains(found.starts, jax.random.split(key, chains), (arrays, found.transform))  # noqa: E731
    collected, coordinates, status = _drive(
        key_kernel, run, begin, coordinates, arrays, warmup, draws, chunk, show_progress
    )
    samples = _constrain(bound, arrays, partial(to_free, coordinates.transform), collected.coordinates)
    stats = {name: np.asarray(x) for name, x in collected.stats.items()}
    stats["tree_depth"] = np.floor(np.log2(stats["n_steps"])).astype(int) + 1
    # Only a tree of full size was cut: a smaller one ended by a U-turn in its last doubling.
    stats["reached_max_tree_depth"] = stats["n_steps"] >= 2**max_tree_depth - 1
    attrs = {
        "engine": "nuts",
        "status": status,
        "chain_method": chain_method,
        "warmup": warmup,
        "max_tree_depth": max_tree_depth,
        "wall_time": time.time() - started,
    }
    with timed("evaluating the draws and predicting", show_progress):
        return build_result(key_result, bound, arrays, inputs, samples, preflight.prior, stats, labels, attrs)


def _check_chains(chain_method: str, chains: int, warmup: int, draws: int) -> None:
    if chain_method not in ("vectorized", "parallel", "sequential"):
        raise ValueError(f"`chain_method` must be 'vectorized', 'parallel' or 'sequential'; got {chain_method!r}.")
    if min(chains, draws) < 1 or warmup < 0:
        raise ValueError(
            f"`chains` and `draws` must be at least 1, `warmup` at least 0; got {chains}, {draws} and {warmup}."
        )
    if chain_method == "parallel" and jax.local_device_count() < chains:
        raise ValueError(
            f"{chains} parallel chains need {chains} devices; JAX sees {jax.local_device_count()}. Use "
            f"chain_method='vectorized', or set XLA_FLAGS=--xla_force_host_platform_device_count={chains} before "
            "JAX starts."
        )


def _chunk_runner(
    sample_kernel: Callable, chain_method: str, chains: int, chunk: int
) -> Callable[[PyTree, PyTree], tuple[PyTree, _Draws]]:
    def run(state: PyTree, args: PyTree) -> tuple[PyTree, _Draws]:
        def step(state: PyTree, _: None) -> tuple[PyTree, _Draws]:
            state = jax.vmap(lambda s: sample_kernel(s, args))(state)
            stats = {
                "diverging": state.diverging,
                "acceptance_rate": state.accept_prob,
                "n_steps": state.num_steps,
                "energy": state.energy,
                "lp": -state.potential_energy,
                "step_size": state.adapt_state.step_size,
            }
            return state, _Draws(state.z, stats)

        state, draws = jax.lax.scan(step, state, None, length=chunk)
        return state, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), draws)

    if chain_method == "vectorized":
        return run
    if chain_method == "sequential":
        one = lambda state, args: jax.tree.map(lambda x: x[0], run(jax.tree.map(lambda x: x[None], state), args))  # noqa: E731
        return lambda state, args: jax.lax.map(lambda s: one(s, args), state)
    mesh = Mesh(np.array(jax.local_devices()[:chains]), ("chain",))
    by_chain = PartitionSpec("chain")
    sharded = jax.shard_map(
        run, mesh=mesh, in_specs=(by_chain, PartitionSpec()), out_specs=(by_chain, by_chain), check_vma=False
    )

    def run_sharded(state: PyTree, args: PyTree) -> tuple[PyTree, _Draws]:
        try:
            return sharded(state, args)
        # The model itself has been traced before: what fails here is dividing it.
        except ValueError as error:
            raise ValueError(
                "JAX cannot divide this model's gradient among devices, for example because of a differential equation "
                "solved by diffrax. Use chain_method='vectorized'."
            ) from error

    return run_sharded


def _drive(
    key: PRNGKeyArray,
    run: Callable,
    begin: Callable,
    coordinates: Coordinates,
    arrays: PyTree,
    warmup: int,
    draws: int,
    chunk: int,
    show_progress: bool,
) -> tuple[_Draws, Coordinates, str]:
    state, args = begin(key, coordinates), (arrays, coordinates.transform)
    compiled = compile_timed(run, state, args, name="NUTS", show=show_progress)
    whole = lambda steps: ceil(steps / chunk) * chunk  # noqa: E731
    settling, rounds = whole(min(_SETTLING, warmup)), _ROUNDS if coordinates.approximation else 0
    total, done, chunks, status = warmup + draws, -settling if rounds else 0, [], "finished"
    with progress_bar("NUTS", whole(total) + rounds * settling, show_progress) as advance:
        try:
            while done < total:
                state, new = jax.block_until_ready(compiled(state, args))
                chunks.append(jax.tree.map(np.asarray, new))
                phase = "settling" if done < 0 else "warm-up" if done < warmup else "sampling"
                advance(chunk, f"{phase}, {float(new.stats['n_steps'].mean()):.0f} leapfrog steps a draw")
                if done < 0 <= done + chunk:
                    visited = np.concatenate([part.coordinates for part in chunks], axis=1)
                    coordinates, chunks, rounds = coordinates.settled(jnp.asarray(visited), arrays), [], rounds - 1
                    state, args = (
                        begin(jax.random.fold_in(key, rounds + 1), coordinates),
                        (arrays, coordinates.transform),
                    )
                    done = -settling if rounds else 0
                else:
                    done += chunk
        except KeyboardInterrupt:
            status = "interrupted"
            if done <= warmup:
                raise KeyboardInterrupt(
                    f"Interrupted after {max(done, 0)} of {warmup} warm-up steps: no draws to keep."
                ) from None
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, warmup:total], *chunks)
    return joined, coordinates, status


def _constrain(bound: Callable, arrays: PyTree, to_free: Callable, coordinates: PyTree) -> dict[str, np.ndarray]:
    n_chains, n_draws = jax.tree.leaves(coordinates)[0].shape[:2]
    flat = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), coordinates)
    keys = jax.random.split(jax.random.key(0), n_chains * n_draws)
    constrained = map_draws(lambda _, x, arrays: constrain(bound, arrays, to_free(x)), keys, flat, arrays)
    return {n: np.asarray(x).reshape(n_chains, n_draws, *x.shape[1:]) for n, x in constrained.items()}
