"""Ctrl-C and SIGTERM: what a scheduler sends before it kills ends a run as Ctrl-C does, and neither loses work."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from rich.console import Console

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def terminations_interrupt() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, unless the program handles it already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def interruption_held(doing: str) -> Iterator[None]:
    """The first interruption within the block is answered by saying what is being done, and dropped; a second one
    interrupts.

    Signals reach the main thread only; in another one this does nothing.
    """

    def first(_signal: int, _frame: object) -> None:
        restore()
        Console(stderr=True, file=sys.stderr).print(f"{doing}; Ctrl-C once more stops it and loses the fit")

    restore = _handled_by(first)
    try:
        yield
    finally:
        restore()


@contextmanager
def interruption_deferred() -> Iterator[None]:
    """An interruption within the block arrives at its end: the block is done wholly or not at all."""
    caught: list[int] = []
    restore = _handled_by(lambda number, _frame: caught.append(number))
    try:
        yield
    finally:
        restore()
    if caught:
        signal.raise_signal(caught[0])


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _handled_by(handler: Handler) -> Callable[[], None]:
    """Hands interruptions to `handler`; the function that is returned gives them back to who had them before."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What the program ignores, as a shell makes its background jobs do, it goes on ignoring.
    if before[signal.SIGINT] in (signal.SIG_IGN, None):
        del before[signal.SIGINT]
    if before[signal.SIGTERM] is not _interrupt:
        del before[signal.SIGTERM]
    for number in before:
        signal.signal(number, handler)

    def restore() -> None:
        for number, original in before.items():
            signal.signal(number, original)

    return restore
