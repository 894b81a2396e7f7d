"""Draws of a run as they come, `(chain, draw, ...)`: a Zarr group in memory, or on disk for xarray to open any time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.storage import MemoryStore

DRAWS_FOLDER = "draws.zarr"
"""Name of the Zarr group in the folder of a resumable run."""

_AFRESH = "Delete the whole folder of the run to start afresh."


class DrawStore(NamedTuple):
    """`group` holds arrays named "posterior/SITE" and "sample_stats/NAME", in `folder` or in memory."""

    group: zarr.Group
    folder: Path | None

    @property
    def place(self) -> str:
        """What messages call it."""
        return _place(self.folder)

    def append(self, at: int, values: Mapping[str, np.ndarray]) -> None:
        """Writes `values`, `(chain, draw, ...)` by name, as draws `at`, `at` + 1, ...

        Raises:
            OSError: the disk is full or read-only.
        """
        with _explained(self.place):
            for name, value in values.items():
                self._array(name)[:, at : at + value.shape[1]] = value

    def read(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Draws `start` to `stop` of all arrays.

        Raises:
            ValueError: some of them are missing.
        """
        with _damage_explained(self.place):
            self.check(stop)
            return {name: np.asarray(self._array(name)[:, start:stop]) for name in self._names()}

    def check(self, stop: int) -> None:
        """Raise unless every array in the folder has its pieces up to draw `stop`.

        Raises:
            ValueError: names an array that lacks some.
        """
        for name in [] if self.folder is None else self._names():
            array = self._array(name)
            # A piece that is not there would read as the fill value.
            found, needed = array.nchunks_initialized, ceil(stop / array.chunks[1])
            if found < needed or array.shape[1] < stop:
                raise ValueError(
                    f"{needed - found} of {needed} pieces of {name} in {self.place} are missing. {_AFRESH}"
                )

    def _names(self) -> list[str]:
        return [f"{group}/{name}" for group in sorted(self.group) for name in sorted(self.group[group])]  # pyright: ignore

    def _array(self, name: str) -> zarr.Array:
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        # Otherwise pieces that hold nothing but the fill value, as of `diverging`, are not written.
        return array.with_config({"write_empty_chunks": True})


def open_draws(
    folder: Path | None,
    like: Mapping[str, Any],
    dims: Mapping[str, Sequence[str]],
    n_draws: int,
    n_stored: int | None = None,
) -> DrawStore:
    """The store of a run, new unless it should hold `n_stored` draws; lengthened if it is shorter than `n_draws`.

    `like` has shapes and types of what is written at a time, `(chain, draw, ...)` by name, `dims` the names of its
    axes. Without `folder`, the store is in memory.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: stored draws are missing or damaged.
    """
    target, mode = MemoryStore() if folder is None else folder / DRAWS_FOLDER, "w" if n_stored is None else "a"
    place = _place(folder)
    with _explained(place), _damage_explained(place):
        group = zarr.open_group(target, mode=mode)
        for name, each in like.items():
            shape = (each.shape[0], n_draws, *each.shape[2:])
            if name not in group:
                # All draws are there from the beginning, as fill values: writing some touches no file of the others.
                group.create_array(
                    name,
                    shape=shape,
                    dtype=each.dtype,
                    chunks=each.shape,
                    fill_value=np.array(np.nan if np.issubdtype(each.dtype, np.floating) else 0, each.dtype)[()],
                    compressors=None,
                    dimension_names=dims[name],
                )
            elif group[name].shape[1] < n_draws:  # pyright: ignore
                group[name].resize(shape)  # pyright: ignore
        store = DrawStore(group, folder)
        store.check(n_stored or 0)
    return store


def _place(folder: Path | None) -> str:
    return "memory" if folder is None else repr(str(folder / DRAWS_FOLDER))


@contextmanager
def _damage_explained(place: str) -> Iterator[None]:
    try:
        yield
    # What zarr meets in damaged files: among them those of JSON, and of names that are not there.
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        if _AFRESH in str(error):
            raise
        raise ValueError(f"The draws in {place} are damaged ({error}). {_AFRESH}") from error


@contextmanager
def _explained(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"Cannot write draws to {place}: {error}. What was saved before is intact: with room and the right to "
            "write, the same call goes on from there."
        ) from error
