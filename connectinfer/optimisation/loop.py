"""The training loop: one compiled, chunked scan that reports progress, keeps the best state and can be resumed."""

from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from connectinfer.optimisation.checkpoint import (
    PROGRAM,
    fingerprint,
    load_checkpoint,
    program_fingerprint,
    save_checkpoint,
)
from connectinfer.optimisation.interruption import interruption_deferred
from connectinfer.optimisation.progress import compile_timed, progress_bar, trace_timed

LossFunction = Callable[[PyTree, PRNGKeyArray, PyTree], Scalar]


class Minimum(NamedTuple):
    """Where a minimisation ended.

    `parameters` are those at the end of the chunk of steps with the lowest mean loss (or validation loss), `best_loss`;
    those at the start, with a `best_loss` of infinity, if no chunk was completed. `status` is `"finished"`,
    `"interrupted"` (Ctrl-C) or `"diverged"` (a loss or parameter that is not finite; `parameters` are from before
    that), `halfway` those at the end of the last chunk of the first half, `last` those at the end. `scores` are what
    decides between chunks: their mean, or validation, losses.
    """

    parameters: PyTree
    halfway: PyTree
    last: PyTree
    losses: Float[np.ndarray, " step"]
    scores: Float[np.ndarray, " chunk"]
    best_loss: float
    status: str


class _State(NamedTuple):
    parameters: PyTree
    optimizer: PyTree
    best_parameters: PyTree
    halfway: PyTree
    best_loss: Array
    losses: Array
    scores: Array
    step: Array
    diverged: Array


def minimise(
    key: PRNGKeyArray,
    loss: LossFunction,
    parameters: PyTree,
    data: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    chunk: int = 100,
    name: str = "optimisation",
    checkpoint: str | Path | None = None,
    work: Mapping[str, Any] | None = None,
    validation: Callable[[PyTree, PyTree], Scalar] | None = None,
    show_progress: bool = True,
) -> Minimum:
    """Minimises the mean of a (possibly stochastic) loss by stochastic gradient steps.

    `loss(parameters, key, data)` is a scalar; the inexact-array leaves of `parameters` are trained, the array leaves
    of `data` are passed to the compiled step rather than baked into it. Steps run `chunk` at a time inside one
    compiled scan, and step k always uses the key `fold_in(key, k)`: a run that was interrupted and resumed from
    `checkpoint` takes the same steps, bit for bit, as one that was not. `work` (what JSON can hold) describes it in
    words, for the message about a checkpoint of other work. `validation(parameters, data)`, evaluated once a
    chunk, decides in place of the chunk's mean loss which parameters are best.

    Raises:
        ValueError: `steps` or `chunk` below 1, or a checkpoint that belongs to other work (other steps, key, data,
            start, `work`, or another program, which the loss and the optimizer compile to).
        OSError: the checkpoint cannot be written.
    """
    if steps < 1 or chunk < 1:
        raise ValueError(f"`steps` and `chunk` must be at least 1; got steps={steps}, chunk={chunk}.")
    chunk = min(chunk, steps)
    trained, fixed = eqx.partition(parameters, eqx.is_inexact_array)
    dynamic_data, static_data = eqx.partition(data, eqx.is_array)
    state = _first_state(trained, optimizer, steps, chunk)

    def total(trained, key, dynamic_data):
        return loss(eqx.combine(trained, fixed), key, eqx.combine(dynamic_data, static_data))

    def validated(trained, dynamic_data):
        assert validation is not None
        return validation(eqx.combine(trained, fixed), eqx.combine(dynamic_data, static_data))

    run_chunk = _chunk_runner(total, optimizer, steps, chunk, None if validation is None else validated)
    lowered = trace_timed(run_chunk, state, key, dynamic_data, name=name, show=show_progress)
    save = lambda _state: None  # noqa: E731
    if checkpoint is not None:
        description = {
            "steps": steps,
            "chunk": chunk,
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "data": fingerprint(dynamic_data),
            "start": fingerprint(trained),
            PROGRAM: program_fingerprint(lowered),
        } | dict(work or {})
        save = lambda state: save_checkpoint(checkpoint, state, description)  # noqa: E731
        if Path(checkpoint).exists():
            state = load_checkpoint(checkpoint, state, description)
    if int(state.step) < steps:
        run_chunk = compile_timed(lowered, name, show_progress)
    with progress_bar(name, steps, show_progress) as advance:
        state, status = _drive(lambda state: run_chunk(state, key, dynamic_data), state, steps, save, advance)
    losses = np.asarray(state.losses)[: int(state.step)]
    scores = np.asarray(state.scores)[: ceil(len(losses) / chunk)]
    kept = (state.best_parameters, state.halfway, state.parameters)
    best, halfway, last = (eqx.combine(each, fixed) for each in kept)
    return Minimum(best, halfway, last, losses, scores, float(state.best_loss), status)


def minimised(
    key: PRNGKeyArray,
    loss: LossFunction,
    parameters: PyTree,
    data: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    chunk: int = 100,
) -> PyTree:
    """The `parameters` that `minimise` finds, all of them trained, as a pure function: to be vmapped over many data
    sets, without progress, checkpoints or interruptions."""
    run_chunk = _chunk_runner(loss, optimizer, steps, chunk)
    state = _first_state(parameters, optimizer, steps, chunk)
    state = jax.lax.fori_loop(0, ceil(steps / chunk), lambda _, state: run_chunk(state, key, data), state)
    return state.best_parameters


def _first_state(parameters: PyTree, optimizer: optax.GradientTransformation, steps: int, chunk: int) -> _State:
    return _State(
        parameters=parameters,
        optimizer=optimizer.init(parameters),
        best_parameters=parameters,
        halfway=parameters,
        best_loss=jnp.array(jnp.inf),
        losses=jnp.full((steps,), jnp.nan),
        scores=jnp.full((ceil(steps / chunk),), jnp.nan),
        step=jnp.array(0),
        diverged=jnp.array(False),
    )


def _chunk_runner(
    total: Callable,
    optimizer: optax.GradientTransformation,
    steps: int,
    chunk: int,
    validated: Callable | None = None,
) -> Callable:
    def one_step(carry: tuple, key: PRNGKeyArray, data: PyTree, step: Array) -> tuple[tuple, Array]:
        parameters, optimizer_state = carry
        value, gradient = jax.value_and_grad(total)(parameters, jax.random.fold_in(key, step), data)
        updates, updated = optimizer.update(gradient, optimizer_state, parameters)
        # The last chunk may be longer than what is left: the surplus steps change nothing.
        todo = step < steps
        new = (optax.apply_updates(parameters, updates), updated)
        return jax.tree.map(lambda a, b: jnp.where(todo, a, b), new, carry), value

    def run_chunk(state: _State, key: PRNGKeyArray, data: PyTree) -> _State:
        indices = state.step + jnp.arange(chunk)
        (parameters, optimizer_state), values = jax.lax.scan(
            lambda carry, step: one_step(carry, key, data, step), (state.parameters, state.optimizer), indices
        )
        taken = indices < steps
        values = jnp.where(taken, values, 0.0)
        score = values.sum() / taken.sum() if validated is None else validated(parameters, data)
        # A finite loss can have a gradient that is not: the parameters decide too.
        leaves = (values, score, *jax.tree.leaves(parameters))
        finite = jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
        better = finite & (score < state.best_loss)
        keep = lambda new, old: jnp.where(better, new, old)  # noqa: E731
        in_first_half = state.step + chunk <= steps // 2
        return _State(
            parameters=parameters,
            optimizer=optimizer_state,
            best_parameters=jax.tree.map(keep, parameters, state.best_parameters),
            halfway=jax.tree.map(lambda new, old: jnp.where(in_first_half, new, old), parameters, state.halfway),
            best_loss=keep(score, state.best_loss),
            losses=state.losses.at[indices].set(values.astype(state.losses.dtype), mode="drop"),
            scores=state.scores.at[state.step // chunk].set(score.astype(state.scores.dtype)),
            step=jnp.minimum(state.step + chunk, steps),
            diverged=~finite,
        )

    return run_chunk


def _drive(
    run_chunk: Callable[[_State], _State],
    state: _State,
    steps: int,
    save: Callable[[_State], None],
    advance: Callable[[int, str], None],
) -> tuple[_State, str]:
    advance(int(state.step), "")
    try:
        while (done := int(state.step)) < steps:
            following = jax.block_until_ready(run_chunk(state))
            with interruption_deferred():
                state = following
                if not state.diverged:
                    save(state)
            recent = np.asarray(state.losses)[done : int(state.step)]
            advance(int(state.step) - done, f"loss {recent.mean():.6g}")
            if state.diverged:
                return state, "diverged"
    except KeyboardInterrupt:
        return state, "interrupted"
    return state, "finished"
