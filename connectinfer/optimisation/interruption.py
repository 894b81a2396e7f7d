"""Ctrl-C at a moment when stopping would lose finished work."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def interruption_held(doing: str) -> Iterator[None]:
    """The first Ctrl-C within the block is answered by saying what is being done, and dropped; a second one interrupts.

    Signals reach the main thread only; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def first(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        Console(stderr=True, file=sys.stderr).print(f"{doing}; Ctrl-C once more stops it and loses the fit")

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
