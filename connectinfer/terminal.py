"""What the commands say, and how errors leave them: one message for users, a traceback for defects."""

import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

_IN_THE_SHELL = (
    "In the shell, `fields` are --field counts=trials.spikes and values --value bin_width=0.01. What the shell cannot "
    "say, such as another order of axes, needs Python: open the file there, and `save` the recording as .nc."
)


class Commands(TyperGroup):
    """Without a command shows the help; what is mistyped leaves with 1 like any user error, not with click's 2."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        try:
            return super().main((sys.argv[1:] if args is None else list(args)) or ["--help"], *rest, **options)
        except SystemExit as stop:
            raise SystemExit(1 if stop.code == 2 else stop.code) from None


def console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error, as wide as it is now."""
    return Console(stderr=stderr)


def say(text: str) -> None:
    """What happens goes to standard error, what was found to standard output."""
    console(stderr=True).print(f"[bold]connectinfer[/bold] {escape(text)}", highlight=False)


NOTHING_KEPT = "nothing else was kept"


@contextmanager
def clear_errors(debug: bool, kept: str = NOTHING_KEPT) -> Iterator[None]:
    """Errors that connectinfer words for its users become one message and exit code 1; defects keep their traceback.

    Warnings become one line, without the place in the code; an interruption another, which ends with what is `kept`.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(f"Warning: {message}")
            yield
    except KeyboardInterrupt:
        say(f"interrupted; files reported as written are complete, {kept}")
        raise typer.Exit(130) from None
    except (ValueError, TypeError, OSError, ImportError) as error:
        if debug or not _is_for_users(error):
            raise
        console(stderr=True).print(
            f"[bold red]Error:[/bold red] {escape(_worded(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from None


@contextmanager
def shell_words(file: Path) -> Iterator[None]:
    """Errors about the mapping of fields also say how the shell spells it."""
    try:
        yield
    except ValueError as error:
        said = str(error).replace(file.name, "")
        if any(word in said for word in ("field", "open_recording", "open_connectome", "Transpose")):
            error.add_note(_IN_THE_SHELL)
        raise


def _worded(error: Exception) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def _is_for_users(error: Exception) -> bool:
    """A missing file or package speaks for itself; other errors do where connectinfer or a model file raised them."""
    if isinstance(error, OSError | ImportError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").startswith("connectinfer")
