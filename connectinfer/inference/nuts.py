"""The No-U-Turn sampler of NumPyro, on chains that can be stopped and go on."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PRNGKeyArray, PyTree
from numpyro.infer.hmc import hmc

from connectinfer.inference.chains import CHUNK, Keeping, Sampler, Schedule, run_chains
from connectinfer.inference.integrated_paths import add_paths_to_all, path_sites, without
from connectinfer.inference.preflight import check_model
from connectinfer.inference.result import Labels, build_result, check_labels, store_dims
from connectinfer.inference.start import chain_coordinates, constrain, potential
from connectinfer.inference.trace import bind, describe_sites
from connectinfer.latent.path_model import integrate_paths as paths_integrated
from connectinfer.optimisation.checkpoint import fingerprint
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.progress import timed

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

# While coordinates are poor, longer trajectories only cost time.
_WARMUP_DEPTH = 7


class _Chunk(NamedTuple):
    """Coordinates and statistics, stacked as (chain, step, ...)."""

    coordinates: PyTree
    stats: dict[str, Any]


@terminations_interrupt()
def sample_nuts(
    key: PRNGKeyArray,
    model: Callable,
    inputs: Mapping[str, Any],
    *,
    labels: Labels | None = None,
    initial: Mapping[str, Any] | None = None,
    integrate_paths: bool = False,
    warmup: int = 500,
    draws: int = 500,
    chains: int = 4,
    chain_method: str = "vectorized",
    max_tree_depth: int = 10,
    checkpoint: str | Path | None = None,
    show_progress: bool = True,
    **kernel_options: Any,
) -> xr.DataTree:
    """Posterior draws by NumPyro's NUTS.

    With `integrate_paths`, chains move in the parameters alone, under Laplace's approximation of the likelihood with
    the latent paths integrated out; the paths of every draw are then drawn given its parameters, by Metropolis moves
    whose chance `sample_stats` holds. The model's paths must come from `latent.path_model.sample_paths`.

    `initial` holds start values of sites (constrained space); sites it does not name begin at their prior median. With
    it, chains start as plausible draws of the Laplace approximation at the mode reached from there, and move in
    coordinates where that is a standard normal; three times, after 50 steps or a few more (`warmup`, if that is less)
    that do not count, the coordinates are chosen anew by the curvature where the chains were, and how far they spread.
    Trajectories of this warm-up have at most 127 steps. Models of more than 1,000 unconstrained values start at
    `initial` plus noise of sd 0.1, in their own coordinates. Without `initial`, chains start uniformly within two units
    of zero, unconstrained.
    `chain_method` is `"vectorized"` (one batch), `"parallel"` (one device a chain; not for models with a diffrax solve,
    whose reverse mode JAX cannot shard) or `"sequential"`.
    Ctrl-C or SIGTERM ends the run and returns the draws so far. With `checkpoint`, a folder, the state is saved every
    ten steps, warm-up included: the same call goes on where the run ended, however it ended, and takes the same steps
    bit for bit; with more `draws` it goes on further. The draws are in `draws.zarr` there, for xarray to open
    meanwhile.
    `kernel_options` are those of `numpyro.infer.NUTS` that `NUTS_OPTIONS` lists, such as `target_accept_prob` and
    `dense_mass`.

    Raises:
        ValueError: an unknown option or chain method, an option out of range, fewer devices than chains or a model that
            JAX cannot divide under `"parallel"`, no paths to integrate out, labels or start values that do not fit the
            model, a model that fails its pre-flight check, too few starts of finite density, or a checkpoint of other
            work.
        OSError: the checkpoint cannot be written; what was saved before is intact.
        KeyboardInterrupt: interrupted before the end of the warm-up, when there is nothing to keep.
    """
    started = time.time()
    if unknown := set(kernel_options) - NUTS_OPTIONS:
        raise ValueError(f"Unknown options {sorted(unknown)}; NUTS takes {', '.join(sorted(NUTS_OPTIONS))}.")
    _check_chains(chain_method, chains, warmup, draws)
    labels = labels or Labels.of(model)
    key_check, key_chains, key_result, key_paths = jax.random.split(key, 4)
    bound, arrays = bind(model, inputs)
    moved_in = paths_integrated(bound) if integrate_paths else bound
    sites = describe_sites(moved_in, arrays)
    check_labels(describe_sites(bound, arrays), labels)
    with timed("checking the model on draws from its prior", show_progress):
        preflight = check_model(key_check, bound, arrays)
    key_start, key_kernel = jax.random.split(key_chains)
    prior = {name: preflight.prior[name] for name, site in sites.items() if site.kind == "latent"}
    if integrate_paths and initial is not None:
        initial = without(path_sites(bound, arrays), initial)
    with timed("finding where chains start", show_progress):
        coordinates = chain_coordinates(key_start, moved_in, arrays, prior, initial, chains)
    depths = (min(max_tree_depth, _WARMUP_DEPTH) if coordinates.approximation else max_tree_depth, max_tree_depth)
    options = {"num_warmup": warmup, "max_tree_depth": depths} | kernel_options
    sampler = _sampler(moved_in, coordinates.to_free, options, chain_method, chains)
    work = {
        "model": labels.model,
        "inputs": {name: repr(x) for name, x in inputs.items() if name not in arrays},
        "data": fingerprint(arrays),
        "start": fingerprint(dict(initial or {})),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "options": repr(options),
        "chains": f"{chains} {chain_method}",
    }
    keeping = Keeping(None if checkpoint is None else Path(checkpoint), store_dims(sites, labels), work)
    schedule = Schedule.of(warmup, draws, coordinates)
    run = run_chains(key_kernel, sampler, coordinates, arrays, schedule, keeping, show_progress)
    samples, stats = (
        {name.removeprefix(f"{group}/"): x for name, x in run.draws.items() if name.startswith(f"{group}/")}
        for group in ("posterior", "sample_stats")
    )
    stats["tree_depth"] = np.floor(np.log2(stats["n_steps"])).astype(int) + 1
    # Only a tree of full size was cut: a smaller one ended by a U-turn in its last doubling.
    stats["reached_max_tree_depth"] = stats["n_steps"] >= 2**max_tree_depth - 1
    if integrate_paths:
        with timed("drawing the paths", show_progress):
            samples, more = add_paths_to_all(key_paths, bound, arrays, samples)
        stats |= more
    attrs = {
        "engine": "nuts",
        "status": run.status,
        "chain_method": chain_method,
        "warmup": warmup,
        "max_tree_depth": max_tree_depth,
        "wall_time": time.time() - started,
    } | ({"went_on_after": run.went_on_after} if run.went_on_after else {})
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


def _sampler(bound: Callable, to_free: Callable, options: Mapping[str, Any], chain_method: str, chains: int) -> Sampler:
    init_kernel, sample_kernel = hmc(
        potential_fn_gen=lambda arrays, transform: lambda x: potential(bound, arrays, to_free(transform, x)),
        algo="NUTS",
    )
    start = jax.jit(
        jax.vmap(lambda x, key, args: init_kernel(x, rng_key=key, model_args=args, **options), (0, 0, None))
    )
    run = _chunk_runner(sample_kernel, chain_method, chains)

    def draws(transform: PyTree, chunk: _Chunk, arrays: PyTree) -> dict[str, Array]:
        n_chains, n_draws = chunk.stats["n_steps"].shape
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), chunk.coordinates)
        sites = jax.lax.map(lambda x: constrain(bound, arrays, to_free(transform, x)), flat)
        kept = {f"posterior/{name}": x.reshape(n_chains, n_draws, *x.shape[1:]) for name, x in sites.items()}
        return kept | {f"sample_stats/{name}": x for name, x in chunk.stats.items()}

    return Sampler(
        begin=lambda key, arrays, found: start(found.starts, jax.random.split(key, chains), (arrays, found.transform)),
        step=lambda state, transform, arrays: run(state, (arrays, transform)),
        draws=draws,
        name="NUTS",
        remark=lambda chunk: f"{chunk.stats['n_steps'].mean():.0f} leapfrog steps a draw",
        chain_by_chain=False,
    )


_STATISTICS: dict[str, Callable[[Any], Array]] = {
    "diverging": lambda state: state.diverging,
    "acceptance_rate": lambda state: state.accept_prob,
    "n_steps": lambda state: state.num_steps,
    "energy": lambda state: state.energy,
    "lp": lambda state: -state.potential_energy,
    "step_size": lambda state: state.adapt_state.step_size,
}


def _chunk_runner(
    sample_kernel: Callable, chain_method: str, chains: int
) -> Callable[[PyTree, PyTree], tuple[PyTree, _Chunk]]:
    def run(state: PyTree, args: PyTree) -> tuple[PyTree, _Chunk]:
        def step(state: PyTree, _: None) -> tuple[PyTree, _Chunk]:
            state = jax.vmap(lambda s: sample_kernel(s, args))(state)
            return state, _Chunk(state.z, {name: read(state) for name, read in _STATISTICS.items()})

        state, chunk = jax.lax.scan(step, state, None, length=CHUNK)
        return state, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), chunk)

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

    def run_sharded(state: PyTree, args: PyTree) -> tuple[PyTree, _Chunk]:
        try:
            return sharded(state, args)
        # The model itself has been traced before: what fails here is dividing it.
        except ValueError as error:
            raise ValueError(
                "JAX cannot divide this model's gradient among devices, for example because of a differential equation "
                "solved by diffrax. Use chain_method='vectorized'."
            ) from error

    return run_sharded
