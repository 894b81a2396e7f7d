"""What the fuzz starts from: small sound files of every format, kept as bytes."""

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import samples_arrays
import samples_text
from sample import Sample


def sound_samples() -> dict[str, list[Sample]]:
    """The sound files of every reader."""
    with tempfile.TemporaryDirectory() as root, _same_names():
        return {reader: list(make(Path(root))) for reader, make in _MAKERS.items()}


@contextmanager
def _same_names() -> Iterator[None]:
    """HDF5 files of pynwb hold random names; the same ones make every mutation repeatable."""
    numbers, real = np.random.default_rng(0), uuid.uuid4
    uuid.uuid4 = lambda: uuid.UUID(bytes=numbers.bytes(16), version=4)
    try:
        yield
    finally:
        uuid.uuid4 = real


SONATA_TEXTS = (
    "config.json",
    "circuit_config.json",
    "simulation_config.json",
    "network/node_types.csv",
    "network/edge_types.csv",
)
_MAKERS: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "nwb": samples_arrays.nwb,
    "sonata edges": samples_arrays.sonata("network/edges.h5"),
    "sonata nodes": samples_arrays.sonata("network/nodes.h5"),
    "sonata config": samples_arrays.sonata(*SONATA_TEXTS),
    "sonata spikes": samples_arrays.spike_files,
    "matlab 5": samples_arrays.matlab_5,
    "matlab 7.3": samples_arrays.matlab_73,
    "npz": samples_arrays.npz,
    "npy": samples_arrays.npy,
    "sparse npz": samples_arrays.sparse_npz,
    "csv": samples_text.delimited(".csv", ","),
    "tsv": samples_text.delimited(".tsv", "\t"),
    "parquet": samples_text.parquet,
    "json graph": samples_text.json_graph,
    "json table": samples_text.json_table,
    "json tree": samples_text.json_tree,
    "graphml": samples_text.written_graph(".graphml"),
    "gml": samples_text.written_graph(".gml"),
    "gexf": samples_text.gexf,
    "pajek": samples_text.pajek,
    "edge list": samples_text.written_graph(".edgelist"),
    "hdf5": samples_arrays.hdf5,
    "netcdf": samples_arrays.labelled(".nc"),
    "zarr": samples_arrays.labelled(".zarr"),
    "gzip": samples_text.gzipped,
}  # fmt: skip
