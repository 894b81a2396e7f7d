"""Markov chains that can be stopped at any moment and go on: chunks of steps, each stored and its end saved."""

from collections.abc import Callable, Mapping, Sequence
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
    arrays)` what is kept of that, by name. A chunk has `coordinates` and `stats`, among them `n_steps`."""

    begin: Callable[[PRNGKeyArray, PyTree, Coordinates], PyTree]
    step: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, Any]]
    draws: Callable[[PyTree, Any, PyTree], dict[str, Array]]


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
    """Where a run is kept: a `folder` or None; axis names `dims` of what is stored; a description `work` of the run,
    by which a folder of another one is recognised."""

    folder: Path | None
    dims: Mapping[str, Sequence[str]]
    work: Mapping[str, Any]


class Chains(NamedTuple):
    """Draws `(chain, draw, ...)` by name, of a run whose `status` is "finished" or "interrupted"; `went_on_after` is
    how many steps, settling included, an earlier run had taken."""

    draws: dict[str, np.ndarray]
    status: str
    went_on_after: int


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

    def step(run: _Run, arrays: PyTree) -> tuple[PyTree, Any]:
        return sampler.step(run.kernel, run.transform, arrays)

    def settle(run: _Run) -> _Run:
        settled = coordinates.settled(run.transform, run.visited, arrays)
        return begin(settled, int(run.rounds) - 1)

    like = _shapes(key, lambda: begin(coordinates, schedule.rounds))
    lowered = trace_timed(step, like, arrays, name="NUTS", show=show_progress)
    kept = jax.eval_shape(sampler.draws, like.transform, lowered.out_info[1], arrays)
    work = {PROGRAM: program_fingerprint(lowered)} | dict(keeping.work)
    folder = None if keeping.folder is None else checkpoint_folder(keeping.folder)
    if folder is not None and (folder / STATE_FILE).exists():
        run = load_checkpoint(folder / STATE_FILE, like, work)
        stored = max(int(run.done) - schedule.first_stored, 0)
    else:
        run, stored = begin(coordinates, schedule.rounds), None
    store = open_draws(folder, kept, keeping.dims, schedule.total - schedule.first_stored, stored)
    draws, taken = jax.jit(sampler.draws), schedule.taken(run)

    def keep(run: _Run, chunk: Any, following: _Run) -> None:
        at = int(run.done) - schedule.first_stored
        if at >= 0:
            store.append(at, {n: np.asarray(x) for n, x in draws(run.transform, chunk, arrays).items()})
        if folder is not None:
            save_checkpoint(folder / STATE_FILE, following, work)

    run, status = _drive(run, lowered, arrays, schedule, settle, keep, show_progress)
    if status == "interrupted" and int(run.done) <= schedule.warmup:
        raise KeyboardInterrupt(_nothing_to_keep(max(int(run.done), 0), schedule.warmup, folder))
    start = schedule.warmup - schedule.first_stored
    n_draws = min(int(run.done) - schedule.warmup, schedule.draws)
    return Chains(store.read(start, start + n_draws), status, taken)


def _drive(
    run: _Run,
    lowered: jax.stages.Lowered,
    arrays: PyTree,
    schedule: Schedule,
    settle: Callable[[_Run], _Run],
    keep: Callable[[_Run, Any, _Run], None],
    show_progress: bool,
) -> tuple[_Run, str]:
    """The run at its end, or where it was interrupted."""
    try:
        # Nothing is left to do when a finished run is asked for again.
        step = compile_timed(lowered, "NUTS", show_progress) if int(run.done) < schedule.total else None
        with progress_bar("NUTS", schedule.total + schedule.rounds * schedule.settling, show_progress) as advance:
            advance(schedule.taken(run), "")
            while step is not None and (done := int(run.done)) < schedule.total:
                kernel, chunk = jax.block_until_ready(step(run, arrays))
                following = _after(run, kernel, chunk, schedule)
                if done < 0 == int(following.done):
                    following = settle(following)
                with interruption_deferred():
                    keep(run, chunk, following)
                    run = following
                advance(CHUNK, f"{schedule.phase(done)}, {chunk.stats['n_steps'].mean():.0f} leapfrog steps a draw")
    except KeyboardInterrupt:
        return run, "interrupted"
    return run, "finished"


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


def _shapes(key: PRNGKeyArray, begin: Callable[[], _Run]) -> _Run:
    """A run as shapes and types; keys as keys."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: jax.random.split(key, x.shape) if is_key(x) else x, jax.eval_shape(begin))


def _whole(steps: int) -> int:
    return ceil(steps / CHUNK) * CHUNK


def _nothing_to_keep(done: int, warmup: int, folder: Path | None) -> str:
    said = f"Interrupted after {done} of {warmup} warm-up steps: no draws to keep."
    return said if folder is None else f"{said} The same call with checkpoint={str(folder)!r} goes on from there."
