"""The door for files: `open_recording` and `open_connectome`; the suffix of the file decides how it is read."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from scipy.sparse import issparse

from connectinfer._typing import FilePath
from connectinfer.data.assembly import DEFAULT_BIN_WIDTH, RECORDING_FIELDS, assemble_recording
from connectinfer.data.columns import joined_columns
from connectinfer.data.connectome import check_connectome, connectome, from_dense, from_sparse
from connectinfer.data.field_groups import unfold
from connectinfer.data.field_tree import FieldTree, select
from connectinfer.data.files import (
    LABELLED,
    PROPOSALS,
    as_tree,
    find_file,
    labelled_fields,
    note_source,
    read_tree,
)
from connectinfer.data.graph_files import GRAPHS, is_node_link, open_graph, open_node_link
from connectinfer.data.json_files import json_fields, parse_json
from connectinfer.data.labelled import read_labelled
from connectinfer.data.matlab import exact_integers
from connectinfer.data.naming import naming
from connectinfer.data.recording import KINDS, check_recording, observed_kind
from connectinfer.data.sonata import is_sonata_config, is_sonata_edges, open_circuit

HDF5 = (".h5", ".hdf5")
NEURON_FIELDS = ("population", "cell_type", "sign", "x", "y", "z", "axon_observed", "dendrite_observed")

RECORDING_EXAMPLE = """Say which field holds what, for example
    open_recording(path, fields={"counts": "trials.spikes", "unit": "unit_ids"}, bin_width=0.01)
or with a function of the file's fields, which can also reorder axes to (trial, time, unit):
    open_recording(path, fields={"counts": lambda file: file["spikes"].transpose(2, 1, 0)}, bin_width=0.01)"""
CONNECTOME_EXAMPLE = """Say which field holds what, for example
    open_connectome(path, fields={"pre": "pre_root_id", "post": "post_root_id", "weight": "synapses"})"""


def open_recording(path: FilePath, *, fields: Mapping[str, Any] | None = None, **values: Any) -> xr.Dataset:
    """The recording in a file: NWB, SONATA spikes, MATLAB, NPZ/NPY, CSV/TSV/Parquet, JSON, HDF5, netCDF or Zarr.

    Args:
        path: The file; its suffix decides how it is read.
        fields: From our names to the file's. Ours are `counts`, `rates`, `fluorescence` or `spike_times`; `time` or
            `bin_width` (0.01 s by default for spike times); `unit`, `trial`, `inputs`, `mask`; `events`, `stops` and
            `window`, which cut trials as in `align_spikes` and `cut_at_events`; and for spike times `start`, `stop` as
            in `bin_spikes` and `observed` as in `mask_unobserved`. The file's are dotted paths ("trials.spikes"),
            patterns of columns ("unit_*"), functions of the file's fields, or for `inputs` a mapping from input names
            to these. `(time, unit)` data is one trial, unless `trial` gives the trial of each row. `spike_times` is a
            list with one array per unit, or one array beside `unit`, the unit of each spike. A table of units, a table
            of intervals as `events` or a time series may be picked whole, see `unfold`. Any other name becomes a
            coordinate, written `"choice": ("trial", "trials.choice")`. Not needed where the file uses our names or
            its format says what is what, as NWB and SONATA do: then `fields` may name what differs, such as
            `{"events": "intervals.encoding_table"}`.
        **values: Any of our names given as a value, such as `bin_width=0.01`; None for what is not to be read, as in
            `events=None` for one long trial.

    Returns:
        A recording whose attrs `source`, `read` and `left_out` say what was read and what was not. Units that never
        fire are still in it: see `drop_silent_units`.

    Raises:
        FileNotFoundError, ValueError: say what is wrong and list the fields of the file.
    """
    file, suffix = find_file(path)
    labelled = read_labelled(file) if suffix in LABELLED else None
    if labelled is not None and "mask" in labelled and fields is None and not values:
        with naming(file):
            check_recording(labelled)
        kept = {name: labelled.attrs.get(name, "") for name in ("read", "left_out")}
        return note_source(labelled, file, kept["read"] or observed_kind(labelled), kept["left_out"])
    tree = read_tree(file) if labelled is None else as_tree(file, labelled_fields(labelled))
    with naming(file):
        fields, note = _completed(tree, suffix, fields, values)
        extra = {name: each for name, each in (fields or {}).items() if name not in RECORDING_FIELDS}
        _check_coordinates(extra)
        chosen = _chosen(tree, fields, values, RECORDING_FIELDS, (*KINDS, "spike_times"), RECORDING_EXAMPLE)
        parts = {name: select(tree, each) for name, each in chosen.items() if name not in extra} | values
        parts, brought = unfold({name: each for name, each in parts.items() if each is not None})
        if suffix == ".mat":
            parts |= {name: exact_integers(parts[name]) for name in ("unit", "trial") if name in parts}
        named = {name: (dim, np.asarray(select(tree, each))) for name, (dim, each) in extra.items()}
        dataset = assemble_recording(parts).assign_coords(brought | named)
        check_recording(dataset)
    from_start = f" from {dataset['time'].values[0]:g} s" if "spike_times" in parts and "events" not in parts else ""
    sizes = ", ".join(f"{n} {dim}s" if dim != "time" else f"{n} bins{from_start}" for dim, n in dataset.sizes.items())
    default = "spike_times" in parts and "bin_width" not in parts
    binned = f"binned at {DEFAULT_BIN_WIDTH} s (default; `bin_width=` changes it)" if default else ""
    read = "; ".join(filter(None, [f"{_spelled(chosen)} ({sizes})", binned, note]))
    return note_source(dataset, file, read, ", ".join(tree.left_out()))


def open_connectome(
    path: FilePath, *, fields: Mapping[str, Any] | None = None, neurons: ArrayLike | pd.DataFrame | None = None
) -> xr.Dataset:
    """The connectome in a file: an edge list, a square matrix, a graph, or a SONATA network.

    Args:
        path: The file, whose suffix decides how it is read, or a folder with the `circuit_config.json` of a network.
        fields: From our names to the file's. Ours are `pre` and `post`, the ids of each edge's neurons, and any edge
            variable (`weight`, `synapse_count`, `kind`); or `weight` alone, a matrix `(post, pre)`. `neuron` lists all
            ids, and `population`, `cell_type`, `sign`, `x`, `y`, `z`, `axon_observed`, `dendrite_observed` describe
            them. The file's are dotted paths or functions of its fields: for a matrix with pre in the rows,
            `{"weight": lambda file: file["adjacency"].T}`, or `file.matrix().T` where it is a table. Not needed where
            the file uses our names, nor for graphs (GraphML, GEXF, GML, Pajek, edge lists, node-link JSON) and SONATA
            (the JSON config of a circuit or simulation, or an edges file alone; `open_sonata` takes other files).
        neurons: All ids, or a table of the neurons indexed by id, if the file does not describe them.

    Raises:
        FileNotFoundError, ValueError: say what is wrong and list the fields of the file. A table with one row per
            synapse has repeated edges: read it with `read_table` and use `connectome(**sum_synapses(...))`.
    """
    file, suffix = find_file(path)
    parsed = parse_json(file) if suffix == ".json" else None
    whole = _whole_connectome(file, suffix, parsed) if fields is None else None
    if whole is not None:
        if neurons is not None:
            raise ValueError(
                f"{file.name} lists its neurons itself; leave out `neurons`, or say with `fields` what to read."
            )
        return note_source(whole, file, whole.attrs.get("read", "connectome"), whole.attrs.get("left_out", ""))
    tree = read_tree(file) if suffix != ".json" else as_tree(file, json_fields(file, parsed))
    own = tuple(tree) if fields is None else ()
    with naming(file):
        chosen = _chosen(tree, fields, {}, ("pre", "post", *own), ("pre", "weight"), CONNECTOME_EXAMPLE)
        parts = {name: select(tree, each) for name, each in chosen.items()}
        if suffix == ".mat":
            parts |= {name: exact_integers(parts[name]) for name in ("pre", "post", "neuron") if name in parts}
        orientation = "" if "pre" in parts else ", rows taken for post, columns for pre"
        dataset = _assembled_connectome(parts, neurons)
    sizes = f"{dataset.sizes['edge']} edges, {dataset.sizes['neuron']} neurons{orientation}"
    return note_source(dataset, file, f"{_spelled(chosen)} ({sizes})", ", ".join(tree.left_out()))


def _assembled_connectome(parts: dict[str, Any], neurons: Any) -> xr.Dataset:
    described = {name: parts.pop(name) for name in NEURON_FIELDS if name in parts}
    listed = parts.pop("neuron", None)
    if neurons is None:
        if described and listed is None:
            raise ValueError(f"{sorted(described)} describe neurons; say with `neuron` which field holds their ids.")
        neurons = listed if not described else pd.DataFrame(described, index=pd.Index(listed))
    if "pre" in parts and "post" in parts:
        return connectome(parts.pop("pre"), parts.pop("post"), neurons=neurons, **parts)
    if list(parts) == ["weight"]:
        return _from_matrix(parts["weight"], neurons)
    raise ValueError(f"give `pre` and `post`, or a matrix `weight` alone; got {list(parts)}. {CONNECTOME_EXAMPLE}")


def _from_matrix(weight: Any, neurons: Any) -> xr.Dataset:
    """From a matrix `(post, pre)`, dense, sparse, or as the columns of a table."""
    if isinstance(weight, Mapping):
        weight = joined_columns(weight, "weight")
    return from_sparse(weight, neurons=neurons) if issparse(weight) else from_dense(weight, neurons=neurons)


def _whole_connectome(file: Path, suffix: str, parsed: Any) -> xr.Dataset | None:
    """The connectome of a file whose format says what is what; None where `fields` must say it.

    `parsed` is what a JSON file holds.
    """
    if suffix in LABELLED:
        dataset = read_labelled(file)
        with naming(file):
            check_connectome(dataset)
        return dataset
    if suffix in GRAPHS:
        return open_graph(file)
    if is_node_link(parsed):
        return open_node_link(file, parsed)
    if is_sonata_config(parsed) or (suffix in HDF5 and is_sonata_edges(file)):
        return open_circuit(file)
    return None


def _completed(
    tree: FieldTree, suffix: str, fields: Mapping[str, Any] | None, values: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, str]:
    """`fields`, with what the file's format proposes unless the caller names the data; and the format's note."""
    given = {*(fields or {}), *values}
    if suffix not in PROPOSALS or given & {*KINDS, "spike_times"}:
        return fields, ""
    proposal = PROPOSALS[suffix](tree)
    if proposal is None:
        return fields, ""
    # Trials and a stretch exclude each other, and the ends of the file's trials are not those of the caller's.
    dropped = given | ({"events", "stops"} if given & {"events", "start", "stop"} else set())
    proposed = {name: each for name, each in proposal.fields.items() if name not in dropped}
    return proposed | dict(fields or {}), proposal.note


def _chosen(
    tree: FieldTree,
    fields: Mapping[str, Any] | None,
    values: Mapping[str, Any],
    ours: tuple[str, ...],
    needed: tuple[str, ...],
    example: str,
) -> dict[str, Any]:
    """From our names to selectors; the file's own names where they are ours and no mapping is given."""
    for name in values:
        if name not in ours:
            near = get_close_matches(name, ours, 1)
            raise ValueError(f"unknown option {name!r}.{f' Did you mean {near[0]!r}?' if near else ''} Known: {ours}.")
    chosen = {name: name for name in ours if name in tree and name not in values} if fields is None else dict(fields)
    twice = sorted(set(chosen) & set(values))
    if twice:
        raise ValueError(f"{twice} are given both as fields and as values; keep one of them.")
    if not set(needed) & (set(chosen) | set(values)):
        raise ValueError(f"none of {needed} is among the fields of the file:\n{tree.describe()}\n{example}")
    return chosen


def _check_coordinates(extra: Mapping[str, Any]) -> None:
    for name, each in extra.items():
        if not (isinstance(each, tuple) and len(each) == 2 and each[0] in ("trial", "time", "unit")):
            near = get_close_matches(name, RECORDING_FIELDS, 1)
            raise ValueError(
                f"unknown field {name!r}.{f' Did you mean {near[0]!r}?' if near else ''} A further coordinate "
                f'names its dimension: {{"{name}": ("trial", "path.in.the.file")}}.'
            )


def _spelled(chosen: Mapping[str, Any]) -> str:
    """The mapping in words: "counts from trials.spikes, unit from a function"."""
    words = []
    for name, selector in chosen.items():
        _, source = selector if isinstance(selector, tuple) else (None, selector)
        words.append(f"{name} from {source}" if isinstance(source, str) else f"{name} from a function")
    return ", ".join(words)
