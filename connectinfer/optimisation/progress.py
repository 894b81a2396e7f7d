"""What a waiting user sees: a first line within a second, compilation announced and timed, then a bar with an ETA."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def _console() -> Console:
    return Console(stderr=True, file=sys.stderr)


def announce(text: str) -> None:
    """What a user must not overlook, on standard error."""
    _console().print(text, style="bold")


@contextmanager
def timed(doing: str, show: bool = True) -> Iterator[None]:
    """Says on standard error what is being done, and when it is done how long it took."""
    started = time.perf_counter()
    if show:
        _console().print(f"{doing} ...", style="dim")
    yield
    if show:
        _console().print(f"{doing} took {time.perf_counter() - started:.1f} s", style="dim")


def trace_timed(function: Callable, *arguments: Any, name: str, show: bool = True) -> jax.stages.Lowered:
    """`function` traced for `arguments`, ready to be compiled; says how long that took.

    Array leaves of `arguments` are traced; the compiled function takes arguments of the same structure and shapes.
    """
    with timed(f"tracing {name}", show):
        return jax.jit(function).lower(*arguments)


def compile_timed(lowered: jax.stages.Lowered, name: str, show: bool = True) -> Callable:
    """Compiles ahead of time and says how long that took."""
    with timed(f"compiling {name}", show):
        return lowered.compile()


@contextmanager
def progress_bar(name: str, total: int, show: bool = True) -> Iterator[Callable[[int, str], None]]:
    """A bar of `total` steps on standard error; yields `advance(steps, text)`, which also shows `text` at its end."""
    if not show:
        yield lambda _steps, _text: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=_console()) as bar:
        task = bar.add_task(name, total=total, text="")

        def advance(steps: int, text: str) -> None:
            bar.update(task, advance=steps, text=text)

        yield advance
