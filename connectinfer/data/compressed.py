"""Files that may be gzipped, opened so that a small one cannot unfold without end."""

import gzip
import io
from pathlib import Path
from typing import Any

# Small files may unfold to this much; gzip reaches 1000 to 1 on zeros, and 10 to 1 on tables of real numbers.
ALWAYS_ALLOWED = 2**24
LARGEST_RATIO = 100


def open_bytes(file: Path) -> io.BufferedReader:
    """A stream of the file's bytes, unpacked if its name ends in `.gz`.

    Reading beyond `largest_content(file)` raises ValueError.
    """
    if file.suffix.lower() != ".gz":
        return file.open("rb")
    return io.BufferedReader(_Bounded(gzip.open(file, "rb"), largest_content(file)))


def largest_content(file: Path) -> int:
    """Bytes that the content of a packed file may take in memory."""
    return ALWAYS_ALLOWED + LARGEST_RATIO * file.stat().st_size


class _Bounded(io.RawIOBase):
    """Another stream's bytes, refused beyond a limit."""

    def __init__(self, stream: Any, limit: int):
        super().__init__()
        self._stream = stream
        self._limit = limit
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size = self._stream.readinto(buffer)
        self._read += size
        if self._read > self._limit:
            raise ValueError(
                f"it unfolds to more than {self._limit / 1e6:.0f} MB, far more than its size lets expect; unpack it "
                "yourself if that is right"
            )
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()
