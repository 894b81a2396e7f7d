"""Posteriors of state-space models by Gibbs sampling: paths whole, by Laplace proposals, and parameters given them."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray, PyTree

from connectinfer.inference.chains import CHUNK, Keeping, Sampler, Schedule, check_thinning, run_chains
from connectinfer.inference.path_gibbs import Chain, drawn_sites, first_link, sweep
from connectinfer.inference.preflight import check_model
from connectinfer.inference.result import Labels, build_result, check_labels, store_dims
from connectinfer.inference.start import Coordinates
from connectinfer.inference.trace import bind, describe_sites
from connectinfer.latent.conditionals import Conditionals
from connectinfer.latent.state_space import Seen
from connectinfer.optimisation.checkpoint import fingerprint
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.progress import timed


@terminations_interrupt()
def fit_state_space(
    key: PRNGKeyArray,
    model: Callable,
    inputs: Mapping[str, Any],
    *,
    conditionals: Conditionals,
    labels: Labels | None = None,
    warmup: int = 150,
    draws: int = 250,
    thinning: int = 1,
    chains: int = 4,
    checkpoint: str | Path | None = None,
    show_progress: bool = True,
) -> xr.DataTree:
    """Posterior draws of a model of latent dynamics, by blocked Gibbs sampling from a start by principal components.

    Every sweep draws the paths, as proposals from the Laplace approximation of their posterior that a Metropolis step
    accepts or rejects trial by trial (long trials piece by piece); moves the process noise together with the paths,
    because neither moves far alone; and draws the parameters given the paths, by the model's `conditionals`. The draws
    are exact: the approximation only proposes. In the first half of `warmup` sweeps, every path is accepted. Of `draws`
    sweeps of every chain, each `thinning`-th is kept: neighbours resemble each other, and kept draws take space.

    `sample_stats` holds the shares of accepted moves and `log_joint`, the log density of paths and observations given
    the parameters before these moved. Ctrl-C or
    SIGTERM ends the run and returns the draws so far; with `checkpoint`, a folder, the state is saved every ten sweeps,
    and the same call goes on where the run ended, bit for bit, or with more `draws` further.

    Raises:
        ValueError: an option out of range, labels that do not fit the model, a model that fails its pre-flight check,
            or a checkpoint of other work.
        OSError: the checkpoint cannot be written; what was saved before is intact.
        KeyboardInterrupt: interrupted before the end of the warm-up, when there is nothing to keep.
    """
    started = time.time()
    if chains < 1:
        raise ValueError(f"`chains` must be at least 1; got {chains}.")
    check_thinning(warmup, draws, thinning)
    labels = labels or Labels.of(model)
    key_check, key_chains, key_result = jax.random.split(key, 3)
    bound, arrays = bind(model, inputs)
    fixed = {name: x for name, x in inputs.items() if name not in arrays}
    sites = describe_sites(bound, arrays)
    check_labels(sites, labels)
    with timed("checking the model on draws from its prior", show_progress):
        preflight = check_model(key_check, bound, arrays)
    with timed("finding where chains start", show_progress):
        parameters, paths = conditionals.begin(inputs)
    seen = Seen.of(arrays["activity"], arrays["mask"])
    sampler = _sampler(conditionals, fixed, chains, warmup)
    start = Coordinates((parameters, paths), (), lambda _, x: x, None)
    work = {
        "model": labels.model,
        "inputs": {name: repr(x) for name, x in fixed.items()},
        "data": fingerprint(arrays),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "warmup": warmup,
        "chains": chains,
    }
    dims = store_dims(sites, labels)
    keeping = Keeping(None if checkpoint is None else Path(checkpoint), dims, work)
    schedule = Schedule(warmup, draws, 0, 0)
    run = run_chains(key_chains, sampler, start, (arrays, seen), schedule, keeping, show_progress)
    samples, stats = (
        {name: _thinned(x, thinning) for name, x in run.group(group).items()} for group in ("posterior", "sample_stats")
    )
    attrs = {
        **run.attrs,
        "engine": "state_space",
        "warmup": warmup,
        "thinning": thinning,
        "wall_time": time.time() - started,
    }
    with timed("evaluating the draws and predicting", show_progress):
        return build_result(key_result, bound, arrays, inputs, samples, preflight.prior, stats, labels, attrs)


def _thinned(x: np.ndarray, thinning: int) -> np.ndarray:
    """Counted from the last draw: of an interrupted run, at least one is kept."""
    return x[:, (x.shape[1] - 1) % thinning :: thinning]


class _Chunk(NamedTuple):
    """Chains after every sweep, and statistics."""

    chain: Chain
    stats: dict[str, Array]


def _sampler(conditionals: Conditionals, fixed: Mapping[str, Any], chains: int, warmup: int) -> Sampler:
    def begin(key: PRNGKeyArray, data: Any, start: Coordinates) -> Chain:
        del data
        return jax.vmap(lambda key: first_link(key, *start.starts))(jax.random.split(key, chains))

    def step(chain: Chain, transform: PyTree, data: tuple[Mapping[str, Any], Seen]) -> tuple[Chain, _Chunk]:
        del transform
        arrays, seen = {**fixed, **data[0]}, data[1]

        def one(chain: Chain, _: None) -> tuple[Chain, _Chunk]:
            chain, stats = sweep(chain, conditionals, seen, arrays, warmup)
            return chain, _Chunk(chain, stats)

        return jax.lax.scan(one, chain, None, length=CHUNK)

    def draws(transform: PyTree, chunk: _Chunk, data: tuple[Mapping[str, Any], Seen]) -> dict[str, Array]:
        del transform
        arrays, seen = {**fixed, **data[0]}, data[1]

        sites = lambda chain: drawn_sites(chain, conditionals, seen, arrays)  # noqa: E731
        n_chains, n_steps = chunk.chain.taken.shape
        flat = jax.tree.map(lambda x: x.reshape(n_chains * n_steps, *x.shape[2:]), chunk.chain)
        drawn = {n: x.reshape(n_chains, n_steps, *x.shape[1:]) for n, x in jax.lax.map(sites, flat).items()}
        kept = {f"posterior/{name}": x for name, x in drawn.items()}
        return kept | {f"sample_stats/{name}": x for name, x in chunk.stats.items()}

    return Sampler(begin, step, draws, "state space", _remark, chain_by_chain=True)


def _remark(chunk: _Chunk) -> str:
    return f"{chunk.stats['path_acceptance'].mean():.0%} of paths accepted"
