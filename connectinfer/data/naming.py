"""Errors that name the file they are about."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """A ValueError about what a file holds gets the file's name in front, unless it has it already."""
    try:
        yield
    except ValueError as error:
        if file.name in str(error):
            raise
        raise ValueError(f"{file.name}: {error}") from error
