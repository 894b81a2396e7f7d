"""Draws of a run as they come, `(chain, draw, ...)`: a Zarr group in memory, or on disk for xarray to open any time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.storage import MemoryStore

DRAWS_FOLDER = "draws.zarr"
"""Name of the Zarr group in the folder of a resumable run."""

# Written for every draw, and never 0: where it is, a piece of the store is missing.
_WITNESS = "sample_stats/n_steps"


class DrawStore(NamedTuple):
    """`group` holds arrays named "posterior/SITE" and "sample_stats/NAME"; `place` is what messages call it."""

    group: zarr.Group
    place: str

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
        names = [f"{group}/{name}" for group in sorted(self.group) for name in sorted(self.group[group])]  # pyright: ignore
        try:
            values = {name: np.asarray(self._array(name)[:, start:stop]) for name in names}
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"The draws in {self.place} are damaged ({error}). Delete the folder to start afresh."
            ) from error
        missing = int((values[_WITNESS] == 0).any(0).sum()) if values else stop - start
        if missing or values[_WITNESS].shape[1] < stop - start:
            raise ValueError(f"{missing} draws in {self.place} are missing. Delete the folder to start afresh.")
        return values

    def _array(self, name: str) -> zarr.Array:
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        return array


def open_draws(
    folder: Path | None, like: Mapping[str, Any], dims: Mapping[str, Sequence[str]], n_draws: int
) -> DrawStore:
    """The store of a run, made if it is not there and lengthened if it is shorter than `n_draws`.

    `like` has shapes and types of what is written at a time, `(chain, draw, ...)` by name, `dims` the names of its
    axes. Without `folder`, the store is in memory.

    Raises:
        OSError: the folder cannot be written to.
    """
    place = "memory" if folder is None else repr(str(folder / DRAWS_FOLDER))
    with _explained(place):
        group = zarr.open_group(MemoryStore() if folder is None else folder / DRAWS_FOLDER, mode="a")
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
    return DrawStore(group, place)


@contextmanager
def _explained(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"Cannot write draws to {place}: {error}. What was saved before is intact: with room and the right to "
            "write, the same call goes on from there."
        ) from error
