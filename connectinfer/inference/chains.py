"""Markov chains that can be stopped at any moment and go on: chunks of steps, each stored and its end saved."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from connectinfer.inference.draw_store import open_draws
from connectinfer.inference.start import Coordinates
from connectinfer.optimisation.checkpoint import (
    PROGRAM,
    STATE_FILE,
    checkpoint_folder,
    load_checkpoint,
    program_fingerprint,
    save_checkpoint,
)
from connectinfer.optimisation.interruption import interruption_deferred
from connectinfer.optimisation.progress import compile_timed, progress_bar, trace_timed

CHUNK = 10
"""Steps at a time: what an interruption waits for, and the most that a crash loses."""

_SETTLING, _ROUNDS = 50, 3


class Sampler(NamedTuple):
    """What chains are made of: `begin(key, arrays, coordinates)` is a kernel state at their starts, `step(state,
    transform, arrays)` the state `CHUNK` steps later and what happened, `(chain, step, ...)`, `draws(transform, chunk,
    arrays)` what is kept of that, by name; `name` and `remark(chunk)` are shown with the progress.

    With `chain_by_chain`, `step` takes and returns one chain, without the axis, and chains run beside each other in
    threads. Where coordinates settle, a chunk has `coordinates`."""

    begin: Callable[[PRNGKeyArray, PyTree, Coordinates], PyTree]
    step: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, Any]]
    draws: Callable[[PyTree, Any, PyTree], dict[str, Array]]
    name: str
    remark: Callable[[Any], str]
    chain_by_chain: bool


class Schedule(NamedTuple):
    """How many steps: warm-up and draws, and before them `rounds` of `settling` steps that choose the coordinates."""

    warmup: int
    draws: int
    settling: int
    rounds: int

    @classmethod
    def of(cls, warmup: int, draws: int, coordinates: Coordinates) -> "Schedule":
        """Coordinates that come from an approximation settle."""
        return cls(warmup, draws, _whole(min(_SETTLING, warmup)), _ROUNDS if coordinates.approximation else 0)

    @property
    def first_stored(self) -> int:
        """The step at which the store begins; the chunk that holds the end of the warm-up is stored whole."""
        return self.warmup // CHUNK * CHUNK

    @property
    def total(self) -> int:
        """Steps after settling, in whole chunks."""
        return _whole(self.warmup + self.draws)

    def taken(self, run: "_Run") -> int:
        """Steps that a run has taken, those of settling included."""
        done = int(run.done)
        return (self.rounds - int(run.rounds)) * self.settling + (done + self.settling if done < 0 else done)

    def phase(self, done: int) -> str:
        """What step `done` belongs to."""
        return "settling" if done < 0 else "warm-up" if done < self.warmup else "sampling"


class Keeping(NamedTuple):
    """Where a run is kept: a `folder` or None; axis names `dims` of what is stored, but for numbers; a description
    `work` of the run, by which a folder of another one is recognised."""

    folder: Path | None
    dims: Mapping[str, Sequence[str]]
    work: Mapping[str, Any]


class Chains(NamedTuple):
    """Draws `(chain, draw, ...)` by name, of a run whose `status` is "finished" or "interrupted"; `went_on_after` is
    how many steps, settling included, an earlier run had taken."""

    draws: dict[str, np.ndarray]
    status: str
    went_on_after: int

    def group(self, name: str) -> dict[str, np.ndarray]:
        """The draws of one group of a result, as those of `posterior/overlap`, by what follows its name."""
        prefix = f"{name}/"
        return {key.removeprefix(prefix): x for key, x in self.draws.items() if key.startswith(prefix)}

    @property
    def attrs(self) -> dict[str, Any]:
        """What a result says of the run."""
        return {"status": self.status} | ({"went_on_after": self.went_on_after} if self.went_on_after else {})


class _Run(NamedTuple):
    """Where a run stands: with the stored draws, all that it needs to go on.

    `visited` holds the coordinates `(chain, step, size)` of the present settling round, `rounds` how many of these are
    left, `done` the steps since the last one, or negative within one.
    """

    kernel: PyTree
    transform: PyTree
    visited: Array
    rounds: Array
    done: Array


def check_thinning(warmup: int, draws: int, thinning: int) -> None:
    """Raise unless at least one draw would be kept.

    Raises:
        ValueError: `warmup` below 0, `thinning` below 1, or fewer `draws` than `thinning`.
    """
    if warmup < 0 or thinning < 1 or draws < thinning:
        raise ValueError(
            "`warmup` must be at least 0, `thinning` at least 1 and `draws` at least as many as `thinning`; got "
            f"warmup={warmup}, thinning={thinning} and draws={draws}."
        )


def run_chains(
    key: PRNGKeyArray,
    sampler: Sampler,
    coordinates: Coordinates,
    arrays: PyTree,
    schedule: Schedule,
    keeping: Keeping,
    show_progress: bool,
) -> Chains:
    """Runs chains to the end of `schedule` or to an interruption, from where a run in the same folder ended.

    Raises:
        KeyboardInterrupt: interrupted before the end of the warm-up.
        ValueError: the folder holds other work, or is damaged.
        OSError: the folder cannot be written to.
    """

    def begin(coordinates: Coordinates, rounds: int) -> _Run:
        kernel = sampler.begin(jax.random.fold_in(key, rounds), arrays, coordinates)
        return _fresh(kernel, coordinates, schedule, rounds)

    def settle(run: _Run) -> _Run:
        settled = coordinates.settled(run.transform, run.visited, arrays)
        return begin(settled, int(run.rounds) - 1)

    like, one_by_one = _shapes(lambda: begin(coordinates, schedule.rounds)), sampler.chain_by_chain
    stepped = _shapes(lambda: _chain_of(begin(coordinates, schedule.rounds).kernel, 0)) if one_by_one else like.kernel
    lowered = trace_timed(sampler.step, stepped, like.transform, arrays, name=sampler.name, show=show_progress)
    chunk = lowered.out_info[1]
    if one_by_one:
        n_chains = len(jax.tree.leaves(like.kernel)[0])
        chunk = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n_chains, *x.shape), x.dtype), chunk)
    kept = jax.eval_shape(sampler.draws, like.transform, chunk, arrays)
    work = {PROGRAM: program_fingerprint(lowered)} | dict(keeping.work)
    folder = None if keeping.folder is None else checkpoint_folder(keeping.folder)
    if folder is not None and (folder / STATE_FILE).exists():
        run = load_checkpoint(folder / STATE_FILE, like, work)
        stored = max(int(run.done) - schedule.first_stored, 0)
    else:
        run, stored = begin(coordinates, schedule.rounds), None
    dims = dict.fromkeys(kept, ("chain", "draw")) | dict(keeping.dims)
    store = open_draws(folder, kept, dims, schedule.total - schedule.first_stored, stored)
    draws, taken = jax.jit(sampler.draws), schedule.taken(run)

    def keep(run: _Run, chunk: Any, following: _Run) -> None:
        at = int(run.done) - schedule.first_stored
        if at >= 0:
            store.append(at, {n: np.asarray(x) for n, x in draws(run.transform, chunk, arrays).items()})
        if folder is not None:
            save_checkpoint(folder / STATE_FILE, following, work)

    run, status = _drive(run, sampler, lowered, arrays, schedule, settle, keep, show_progress)
    if status == "interrupted" and int(run.done) <= schedule.warmup:
        raise KeyboardInterrupt(_nothing_to_keep(max(int(run.done), 0), schedule.warmup, folder))
    start = schedule.warmup - schedule.first_stored
    n_draws = min(int(run.done) - schedule.warmup, schedule.draws)
    return Chains(store.read(start, start + n_draws), status, taken)


def _drive(
    run: _Run,
    sampler: Sampler,
    lowered: jax.stages.Lowered,
    arrays: PyTree,
    schedule: Schedule,
    settle: Callable[[_Run], _Run],
    keep: Callable[[_Run, Any, _Run], None],
    show_progress: bool,
) -> tuple[_Run, str]:
    """The run at its end, or where it was interrupted."""
    advanced = _side_by_side if sampler.chain_by_chain else _at_once
    try:
        # Nothing is left to do when a finished run is asked for again.
        step = compile_timed(lowered, sampler.name, show_progress) if int(run.done) < schedule.total else None
        with progress_bar(sampler.name, schedule.total + schedule.rounds * schedule.settling, show_progress) as advance:
            advance(schedule.taken(run), "")
            while step is not None and (done := int(run.done)) < schedule.total:
                kernel, chunk = advanced(step, run, arrays)
                following = _after(run, kernel, chunk, schedule)
                if done < 0 == int(following.done):
                    following = settle(following)
                with interruption_deferred():
                    keep(run, chunk, following)
                    run = following
                advance(CHUNK, f"{schedule.phase(done)}, {sampler.remark(chunk)}")
    except KeyboardInterrupt:
        return run, "interrupted"
    return run, "finished"


def _at_once(step: Callable, run: _Run, arrays: PyTree) -> tuple[PyTree, Any]:
    return jax.block_until_ready(step(run.kernel, run.transform, arrays))


def _chain_of(kernel: PyTree, chain: int) -> PyTree:
    return jax.tree.map(lambda x: x[chain], kernel)


def _side_by_side(step: Callable, run: _Run, arrays: PyTree) -> tuple[PyTree, Any]:
    def one(chain: int) -> tuple[PyTree, Any]:
        return jax.block_until_ready(step(_chain_of(run.kernel, chain), run.transform, arrays))

    n_chains = len(jax.tree.leaves(run.kernel)[0])
    with ThreadPoolExecutor(min(n_chains, os.cpu_count() or 1)) as threads:
        return jax.tree.map(lambda *parts: jnp.stack(parts), *threads.map(one, range(n_chains)))


def _fresh(kernel: PyTree, coordinates: Coordinates, schedule: Schedule, rounds: int) -> _Run:
    first = jax.tree.leaves(coordinates.starts)[0]
    size = first.shape[-1] if schedule.rounds else 0
    return _Run(
        kernel=kernel,
        transform=coordinates.transform,
        visited=jnp.zeros((len(first), schedule.settling, size), first.dtype),
        rounds=jnp.array(rounds),
        done=jnp.array(-schedule.settling if rounds else 0),
    )


def _after(run: _Run, kernel: PyTree, chunk: Any, schedule: Schedule) -> _Run:
    following = run._replace(kernel=kernel, done=run.done + CHUNK)
    if run.done >= 0:
        return following
    at = int(run.done) + schedule.settling
    return following._replace(visited=run.visited.at[:, at : at + CHUNK].set(chunk.coordinates))


def _shapes(begin: Callable[[], PyTree]) -> PyTree:
    """What `begin` would give, as shapes and types; keys as keys."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    some = jax.random.key(0)
    return jax.tree.map(lambda x: jax.random.split(some, x.shape) if is_key(x) else x, jax.eval_shape(begin))


def _whole(steps: int) -> int:
    return ceil(steps / CHUNK) * CHUNK


def _nothing_to_keep(done: int, warmup: int, folder: Path | None) -> str:
    said = f"Interrupted after {done} of {warmup} warm-up steps: no draws to keep."
    return said if folder is None else f"{said} The same call with checkpoint={str(folder)!r} goes on from there."
