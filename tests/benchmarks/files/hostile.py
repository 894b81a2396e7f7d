"""Files made by hand to do harm: to run code, to read other files, to unfold or to run without end."""

import hostile_arrays
import hostile_text
from sample import Sample
from traps import BOMB, SECRET, SECRET_TEXT


def hostile_samples() -> dict[str, list[Sample]]:
    """Hostile files by reader."""
    return {reader: [_sample(*each) for each in make()] for reader, make in _MAKERS.items()}


def _sample(
    name: str, content: bytes | str | dict[str, bytes | str], kind: str, fields: dict[str, str] | None = None
) -> Sample:
    """A sample of one file, or of several by name, of which `name` is opened."""
    files = content if isinstance(content, dict) else {name: content}
    packed = {
        each: inner.encode("utf-8", "surrogatepass") if isinstance(inner, str) else inner
        for each, inner in files.items()
    }
    values = (
        {"bin_width": 0.1}
        if kind == "recording" and fields is None and not name.endswith((".nwb", ".nc", ".zarr"))
        else {}
    )
    unpacked = BOMB if name.startswith("bomb") else 0
    return Sample({SECRET: SECRET_TEXT.encode()} | packed, name, kind, fields, values, unpacked=unpacked)


_MAKERS = {
    "nwb": hostile_arrays.nwb,
    "sonata edges": hostile_arrays.sonata_edges,
    "sonata config": hostile_arrays.sonata_config,
    "sonata spikes": hostile_arrays.spikes,
    "matlab 5": hostile_arrays.matlab_5,
    "matlab 7.3": hostile_arrays.matlab_73,
    "npz": hostile_arrays.npz,
    "npy": hostile_arrays.npy_files,
    "sparse npz": hostile_arrays.sparse,
    "hdf5": hostile_arrays.hdf5_files,
    "netcdf": hostile_arrays.netcdf,
    "zarr": hostile_arrays.zarr,
    "csv": hostile_text.tables(".csv", ","),
    "tsv": hostile_text.tables(".tsv", "\t"),
    "parquet": hostile_text.parquet,
    "json graph": hostile_text.json_graph,
    "json table": hostile_text.json_table,
    "json tree": hostile_text.json_tree,
    "graphml": hostile_text.xml(".graphml", hostile_text.GRAPHML),
    "gexf": hostile_text.xml(".gexf", hostile_text.GEXF),
    "gml": hostile_text.gml,
    "pajek": hostile_text.pajek,
    "edge list": hostile_text.edge_list,
    "gzip": hostile_text.gzipped,
}
