"""Files and folders that get their name only once they are complete."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside `path`; what the block writes there then replaces `path`.

    If the block or the replacement fails, what was at `path` is still there, and nothing else is.
    """
    hidden = _hidden_folder(path)
    try:
        part = hidden / path.name
        yield part
        if path.is_dir() or (part.is_dir() and path.exists()):
            _swap(part, path)
        else:
            part.replace(path)
    finally:
        shutil.rmtree(hidden)


def _hidden_folder(path: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))


def _swap(part: Path, path: Path) -> None:
    """A folder cannot be replaced in one step: until the new one is in place, the old one is kept beside it."""
    hidden = _hidden_folder(path)
    old = hidden / path.name
    try:
        path.replace(old)
        part.replace(path)
    except BaseException:
        if old.exists():
            old.replace(path)
        hidden.rmdir()
        raise
    shutil.rmtree(hidden)
