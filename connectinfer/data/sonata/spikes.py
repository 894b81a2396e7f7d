"""Spike files of SONATA, with a group of spikes for each population or, in old files, one for all; and its reports.

Units are called "population:node_id", such as "v1:12", as in connectomes; old files do not name populations, so theirs
are node ids. A node that never fired is not in the file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from connectinfer.data.field_tree import FieldTree, Leaf, Proposal

# Times are in milliseconds unless a file says otherwise.
SECONDS = {"": 1e-3, "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3, "s": 1.0, "second": 1.0, "seconds": 1.0}
NODES = ("node_ids", "gids")


def propose_spikes(tree: FieldTree) -> Proposal | None:
    """The spikes of a SONATA file in seconds, and whose they are; None where the file has none.

    Raises:
        ValueError: for a report, which holds voltages or currents; for times in an unknown unit.
    """
    _refuse_report(tree)
    populations = _populations(tree)
    if not populations:
        return None
    known = {name: _unit_of_time(name, group) for name, group in populations.items()}
    turned = {"ms": " (ms, turned to s)", "s": " (s)"}
    notes = [f"{name or 'nodes without population'}{turned[unit]}" for name, unit in known.items()]
    return Proposal({"spike_times": lambda _: _trains(populations, known)}, f"SONATA spikes of {', '.join(notes)}")


def _populations(tree: FieldTree) -> dict[str, FieldTree]:
    """The groups that hold spikes, by population; in old files one called ""."""
    spikes = _branch(tree, "spikes")
    if spikes is None:
        return {}
    groups = {name: _branch(spikes, name) for name in spikes}
    if "timestamps" in spikes:
        groups = {"": spikes}
    return {name: each for name, each in groups.items() if each is not None and "timestamps" in each and _nodes(each)}


def _branch(tree: FieldTree, name: str) -> FieldTree | None:
    return tree[name] if name in tree and isinstance(tree.peek(name), Mapping) else None


def _nodes(group: Mapping[str, Any]) -> str:
    return next((name for name in NODES if name in group), "")


def _unit_of_time(name: str, group: FieldTree) -> str:
    leaf = group.peek("timestamps")
    unit = leaf.unit.strip().lower() if isinstance(leaf, Leaf) else ""
    if unit not in SECONDS:
        raise ValueError(f"the spike times of {name!r} are in {unit!r}; SONATA has ms. Known are {[*SECONDS][1:]}.")
    return "s" if SECONDS[unit] == 1 else "ms"


def _trains(groups: Mapping[str, FieldTree], units: Mapping[str, str]) -> dict[Any, np.ndarray]:
    """Sorted times in s by unit, units in the order of their node ids."""
    trains: dict[Any, np.ndarray] = {}
    for name, group in groups.items():
        stamps, ids = np.asarray(group["timestamps"]), np.asarray(group[_nodes(group)])
        numeric = stamps.dtype.kind in "iuf" and ids.dtype.kind in "iu"
        if stamps.ndim != 1 or stamps.shape != ids.shape or not numeric:
            raise ValueError(
                f"spikes of {name or 'this file'!r} need one time and one integer node id each; got {stamps.dtype} of "
                f"shape {stamps.shape} and {ids.dtype} of shape {ids.shape}."
            )
        order = np.lexsort((stamps, ids))
        found, starts = np.unique(ids[order], return_index=True)
        times = np.split(stamps[order] * SECONDS[units[name]], starts)[1:]
        trains |= {f"{name}:{node}" if name else node: train for node, train in zip(found.tolist(), times, strict=True)}
    return trains


def _refuse_report(tree: FieldTree) -> None:
    reports = _branch(tree, "report") or FieldTree({})
    groups = {"data": tree} | {f"report.{name}.data": _branch(reports, name) for name in reports}
    for path, group in groups.items():
        mapping = None if group is None else _branch(group, "mapping")
        is_report = mapping is not None and "index_pointer" in mapping
        data = group.peek("data") if group is not None and is_report and "data" in group else None
        if isinstance(data, Leaf):
            raise ValueError(
                f"this is a SONATA report: {path} holds a simulated variable, such as the membrane potential, "
                f"{data.shape} for (time, element), neither spikes, rates nor fluorescence. If it is to be taken for "
                f'one of them: `open_recording(path, fields={{"fluorescence": "{path}"}}, bin_width=...)`.'
            )
