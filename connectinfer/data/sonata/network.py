"""SONATA networks: nodes and edges of any populations, read as one connectome and written back.

Ids are always "population:node_id", such as "v1:12"; pre is the source, post the target. Attributes keep the names of
the file, those of the HDF5 groups before those of the type tables; what an edge or neuron does not have is NaN or "".
A name that means something else here, or is an edge's and a neuron's, gets the prefix `edge_` or `node_`; `nsyns` is
called `synapse_count`. Derived are, per neuron, `population`, `cell_type` (from `cell_type`, `pop_name`, `model_name`
or `mtype`, the first that says something) and `sign` (from `ei` or `synapse_class`), and per edge `edge_population`
and, where several edges join the same two neurons and the file does not number them, `contact`. What writing back needs
(file names, type tables, groups, number formats) is kept as JSON in `attrs["sonata"]`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.data.hdf5_text import check_text_storage
from connectinfer.data.replacement import written_beside
from connectinfer.data.sonata.assembly import assemble, nodes_with_edges
from connectinfer.data.sonata.config import CONFIG, Circuit, TableFiles, read_circuit_config
from connectinfer.data.sonata.disassembly import disassemble
from connectinfer.data.sonata.hdf5 import child_dataset, child_group, names
from connectinfer.data.sonata.tables import Population, read_populations
from connectinfer.data.sonata.writing import Table, write_tables, write_types

type Files = FilePath | tuple[FilePath, FilePath | None]


def is_sonata_config(parsed: Any) -> bool:
    """Whether what a JSON file holds is a config of a SONATA circuit or simulation."""
    return isinstance(parsed, Mapping) and not {"networks", "network", "manifest", "components"}.isdisjoint(parsed)


def is_sonata_edges(path: FilePath) -> bool:
    """Whether a file is HDF5 with edges as SONATA lays them out."""
    try:
        check_text_storage(Path(path))
        with h5py.File(path, "r") as content:
            tables = child_group(content, "edges")
            inside = [] if tables is None else [child_group(tables, name) for name in names(tables)]
            return any(each is not None and child_dataset(each, "source_node_id") is not None for each in inside)
    # Whatever is wrong with the file is said by the reader that opens it.
    except Exception:
        return False


def open_circuit(path: FilePath) -> xr.Dataset:
    """The connectome of a SONATA config (circuit, simulation or both), or of an edges file alone.

    An edges file alone gives neither neurons without an edge, nor anything about neurons or types.

    Raises:
        ValueError: if a file is damaged or missing, or the files do not fit together.
    """
    file = Path(path)
    if is_sonata_edges(file):
        return _assembled(Circuit([], [TableFiles(file)], ["nodes and types (their files were not given)"]), file.name)
    return _assembled(read_circuit_config(file), file.name)


def open_sonata(nodes: Sequence[Files], edges: Sequence[Files]) -> xr.Dataset:
    """The connectome of SONATA files that no config names: HDF5 files, or pairs (HDF5, CSV of types).

        open_sonata(nodes=[("v1_nodes.h5", "v1_node_types.csv")], edges=[("v1_edges.h5", "v1_edge_types.csv")])

    Without `nodes`, the neurons are those that have an edge.

    Raises:
        FileNotFoundError: names a file that is not there.
        ValueError: if a file is damaged, or the files do not fit together.
    """
    circuit = Circuit([_table_files(each) for each in nodes], [_table_files(each) for each in edges], [])
    return _assembled(circuit, ", ".join(each.file.name for each in circuit.edges))


def to_sonata(dataset: xr.Dataset, folder: FilePath) -> Path:
    """Writes a connectome as a SONATA network; returns the path of its `circuit_config.json`, which opens it.

    What was read from SONATA comes back in the same files, groups and number formats, with the present values; contacts
    are written only where the order of edges does not give them. In other connectomes neurons whose ids are not of the
    form "population:number" are numbered within their `population` ("neurons" where there is none) and keep their id as
    `neuron_id`; types are made from `cell_type` and `sign`, and `synapse_count` is called `nsyns`.

    Raises:
        FileExistsError: if the folder holds anything.
        ValueError: if this is no connectome, or edges of one `edge_population` join several populations.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty. Choose another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(target) as part:
        write_sonata(dataset, part)
    return target / CONFIG


def write_sonata(dataset: xr.Dataset, folder: Path) -> None:
    """Writes a network as `to_sonata` does into a new folder, which stays half-written if writing fails.

    Raises:
        FileExistsError, ValueError: as `to_sonata`.
    """
    nodes, edges = disassemble(dataset)
    (folder / "network").mkdir(parents=True)
    networks = {"nodes": _written("node", nodes, folder), "edges": _written("edge", edges, folder)}
    manifest = {"$BASE_DIR": ".", "$NETWORK_DIR": "$BASE_DIR/network"}
    described = json.dumps({"manifest": manifest, "networks": networks}, indent=2)
    (folder / CONFIG).write_text(described + "\n", encoding="utf-8")


def _written(kind: str, tables: list[Table], folder: Path) -> list[dict[str, str]]:
    """Writes the files of nodes or edges; returns their entries in the config."""
    files: dict[str, list[Table]] = {}
    for table in tables:
        files.setdefault(_file_name(table.layout.get("file"), f"{table.name}_{kind}s.h5"), []).append(table)
    entries: list[dict[str, str]] = []
    typed: dict[str, list[Table]] = {}
    for name, inside in files.items():
        write_tables(folder / "network" / name, inside)
        entries.append({f"{kind}s_file": f"$NETWORK_DIR/{name}"})
        for table in inside:
            if "types" in table.layout:
                types = _file_name(table.layout.get("types_file"), f"{table.name}_{kind}_types.csv")
                typed.setdefault(types, []).append(table)
                entries[-1][f"{kind}_types_file"] = f"$NETWORK_DIR/{types}"
    for name, inside in typed.items():
        write_types(folder / "network" / name, inside)
    return entries


def _file_name(kept: Any, default: str) -> str:
    # Attributes may come from any file: they choose a name, never a folder.
    return Path(kept).name if isinstance(kept, str) and Path(kept).name else default


def _table_files(given: Files) -> TableFiles:
    file, types = given if isinstance(given, tuple) else (given, None)
    for each in filter(None, (file, types)):
        if not Path(each).is_file():
            raise FileNotFoundError(f"there is no file {each}.")
    return TableFiles(Path(file), None if types is None else Path(types))


def _assembled(circuit: Circuit, source: str) -> xr.Dataset:
    nodes, edges = _populations("node", circuit.nodes), _populations("edge", circuit.edges)
    try:
        dataset, notes = assemble(nodes or nodes_with_edges(edges), edges)
    except ValueError as error:
        raise ValueError(f"{source} does not describe a connectome: {error}") from error
    read = [*_counted("neurons", nodes), *_counted("edges", edges)] or ["nothing"]
    left_out = [*circuit.left_out, *(each for population in (*nodes, *edges) for each in population.left_out)]
    return dataset.assign_attrs(source=source, read="; ".join([", ".join(read), *notes]), left_out=", ".join(left_out))


def _populations(kind: str, files: list[TableFiles]) -> list[Population]:
    """All populations of the files, which get names to be written under that tell them apart."""
    populations = []
    for at, each in enumerate(files):
        for population in read_populations(kind, each):
            if any(other.file.name == each.file.name and other is not each for other in files):
                population.layout["file"] = f"{at}_{each.file.name}"
            if any(_differ(other.types, each.types) for other in files):
                population.layout["types_file"] = f"{at}_{population.layout['types_file']}"
            populations.append(population)
    return populations


def _differ(types: Path | None, others: Path | None) -> bool:
    return types is not None and others is not None and types.name == others.name and types != others


def _counted(what: str, populations: list[Population]) -> Iterator[str]:
    for population in populations:
        yield f"{population.size} {what} of {population.name}"
