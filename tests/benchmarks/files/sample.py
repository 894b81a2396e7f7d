"""Sound files: what they are, how they are kept, and what they hold."""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from connectinfer.data.connectome import connectome
from connectinfer.data.recording import recording

COUNTS = np.random.default_rng(0).poisson(1.0, (3, 8, 2))  # (trial, time, unit)
TIMES = np.sort(np.random.default_rng(1).uniform(0, 2, 30))
UNITS = np.random.default_rng(2).integers(3, 6, 30)


class Sample(NamedTuple):
    """Files by name under one folder, the one that is opened, those that are mutated, and how to open it.

    `content` is "recording" or "connectome"; `fields` and `values` are those of the doors. Without `mutable` the
    opened file is mutated, or all below it where it is a folder. `unpacked` are the bytes that compressed arrays hold.
    """

    files: dict[str, bytes]
    opened: str
    content: str
    fields: dict[str, str] | None = None
    values: dict[str, Any] = {}  # noqa: RUF012
    mutable: tuple[str, ...] = ()
    unpacked: int = 0

    def write(self, folder: Path) -> Path:
        """Writes all files; returns the path to be opened."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.opened


def taken(path: Path, content: str, fields: dict[str, str] | None = None, **values: Any) -> Sample:
    """A file or folder that was written, as a sample under its own name."""
    inside = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    files = {str(each.relative_to(path.parent)): each.read_bytes() for each in inside}
    return Sample(files, path.name, content, fields, values)


def text(name: str, text: str, content: str, fields: dict[str, str] | None = None, **values: Any) -> Sample:
    packed = gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode()
    return Sample({name: packed}, name, content, fields, values)


def wiring():
    neurons = pd.DataFrame(
        {"cell_type": ["L4", "PV", "é"], "sign": [1, -1, 0], "x": [0.0, 1, 2], "y": [0.0] * 3, "z": [3.0, np.nan, 1]},
        index=["a", "b", "c"],
    ).assign(x=[0.0, np.nan, 2], y=[0.0, np.nan, 0])
    return connectome(
        ["a", "a", "b"], ["b", "b", "c"], neurons=neurons, weight=[0.5, 1.5, -2.0], kind=["chemical", "gap", "chemical"]
    )


def plain_wiring():
    return connectome([1, 2, 2**60], [2, 1, 1], weight=[0.5, 1.5, 2.0], synapse_count=[1, 2, 3])


def sessions():
    return recording(
        time=0.02, counts=[COUNTS[0], COUNTS[1][:5]], unit=["a", "bb"], trial=[3, 5], inputs={"light": np.ones((2, 8))}
    ).assign_coords(area=("unit", ["V1", "LM"]))
