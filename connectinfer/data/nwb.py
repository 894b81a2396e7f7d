"""NWB files (Neurodata Without Borders), through pynwb; arrays stay in the file until they are asked for.

The fields are `units` and `electrodes` by column, `intervals.<table>` by column (trials, epochs, ...), and by name
`acquisition`, `stimulus`, `stimulus_template`, `processing.<module>`, `analysis` and `scratch`. A time series holds
`data` in its `unit` (the file's conversion and offset are applied), `timestamps` in s (made from the rate where only
that is stored) and, for regions of interest, `roi`, their ids. Ragged columns are lists with one array per row,
references the names of what they lead to. What is none of these, or lies in another file, is None.
"""

import logging
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np

from connectinfer._typing import FilePath
from connectinfer.data.field_tree import FieldTree, Leaf, Proposal
from connectinfer.data.hdf5 import check_stored_size, leaf
from connectinfer.data.hdf5_text import check_text_storage

RAGGED = "list"


def read_nwb(path: FilePath) -> dict[str, Any]:
    """The fields of an NWB file, version 2, with its extensions. Nothing in the file is run as code.

    Raises:
        ImportError: without the extra `nwb`.
        ValueError: if the file is damaged or not NWB.
    """
    file = Path(path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pynwb = _import_pynwb(file)
        try:
            check_text_storage(file)
            _check_regions(file)
            # Extensions describe their types inside the file, as JSON; without it their objects could not be read.
            with pynwb.NWBHDF5IO(str(file), "r", load_namespaces=True) as source:
                tree = _tree(file, source.read())
        # pynwb, hdmf and h5py meet damage wherever they happen to look next, and raise whatever that breaks.
        except Exception as error:
            raise ValueError(
                f"{file.name} cannot be read as NWB ({type(error).__name__}: {_in_brief(error)}). "
                "It is damaged, cut short, of another format, or uses an extension that it does not describe itself."
            ) from error
    for each in said:
        logging.getLogger("connectinfer").info("%s: pynwb says: %s", file.name, each.message)
    return tree


def propose_nwb(tree: FieldTree) -> Proposal | None:
    """Spikes of all units, or else the only fluorescence of regions of interest; a trial per row of `trials`.

    Raises:
        ValueError: if there are no units and several such signals; names them.
    """
    tables = list(tree.get("intervals", ()))
    trials = {"events": "intervals.trials"} if "trials" in tables else {}
    others = [name for name in tables if name not in ("trials", "invalid_times")]
    notes = []
    if others:
        example = f'`fields={{"events": "intervals.{others[0]}"}}`'
        notes.append(f"interval tables that can cut trials: {', '.join(others)} ({example})")
    if "invalid_times" in tables:
        notes.append("what lies in intervals.invalid_times is not masked")
    note = "; ".join(notes)
    if "spike_times" in tree.get("units", ()):
        return Proposal({"spike_times": "units"} | trials, note)
    signals = list(_roi_signals(tree))
    if len(signals) > 1:
        raise ValueError(
            f"the file has no spike times and {len(signals)} signals of regions of interest; choose one, for example "
            f'`fields={{"fluorescence": "{signals[0]}"}}`. There are: {", ".join(signals)}.'
        )
    return Proposal({"fluorescence": signals[0]} | trials, note) if signals else None


def _import_pynwb(file: Path) -> ModuleType:
    try:
        import pynwb
    except ImportError as error:
        raise ImportError(
            f"{file.name} needs the extra `nwb`: python -m pip install 'connectinfer[nwb]', or '.[nwb]' in a clone."
        ) from error
    return pynwb


def _check_regions(file: Path) -> None:
    """Raise unless lists of table rows, which pynwb loads unasked, are stored as long as they claim to be."""
    found: list[h5py.Dataset] = []
    with h5py.File(file, "r") as content:
        content.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        for item in found:
            if item.attrs.get("neurodata_type") == "DynamicTableRegion":
                try:
                    check_stored_size(item)
                except ValueError as error:
                    raise ValueError(f"{item.name}: {error}") from error


def _in_brief(error: Exception) -> str:
    # hdmf's errors spell out the whole object that they could not make.
    return textwrap.shorten(str(error), 300, placeholder=" ...")


def _roi_signals(fields: FieldTree, prefix: str = "") -> Iterator[str]:
    for name in fields:
        if isinstance(group := fields.peek(name), Mapping):
            path = f"{prefix}{name}"
            if {"data", "roi"} <= set(group):
                yield path
            else:
                yield from _roi_signals(fields[name], f"{path}.")


def _tree(file: Path, content: Any) -> dict[str, Any]:
    tables = {"units": content.units, "electrodes": content.electrodes}
    tree = {name: _node(file, table) for name, table in tables.items() if table is not None}
    for name in ("intervals", "acquisition", "stimulus", "stimulus_template", "processing", "analysis", "scratch"):
        members = getattr(content, name)
        if members:
            tree[name] = {each.name: _node(file, each) for each in members.values()}
    return tree


def _node(file: Path, item: Any) -> Any:
    from hdmf.common import DynamicTable
    from pynwb import TimeSeries

    if isinstance(item, DynamicTable):
        columns = {name: _column(file, item[name]) for name in item.colnames}
        return {"id": _field(file, item.id.data), **columns}
    if isinstance(item, TimeSeries):
        return _series(file, item)
    return {each.name: _node(file, each) for each in item.children} or None


def _column(file: Path, column: Any) -> Any:
    from hdmf.common import VectorIndex

    if not isinstance(column, VectorIndex):
        return _field(file, column.data)
    ends = []
    while isinstance(column, VectorIndex):
        ends.append(_field(file, column.data))
        column = column.target
    values = _field(file, column.data)
    if not all(isinstance(each, Leaf) for each in (values, *ends)):
        return None
    return Leaf(ends[0].shape, RAGGED, lambda: _ragged(file, values, ends))


def _ragged(file: Path, values: Leaf, ends: list[Leaf]) -> Any:
    """The values cut at the innermost ends, these lists at the next, and so on outwards."""
    cut = values.load()
    for each in reversed(ends):
        stops = np.asarray(each.load()).astype(np.int64)
        if (np.diff(stops, prepend=0) < 0).any() or (stops.size and stops[-1] > len(cut)):
            raise ValueError(f"a ragged column of {file.name} ends beyond its {len(cut)} values. The file is damaged.")
        cut = [cut[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
    return cut


def _field(file: Path, data: Any) -> Any:
    from hdmf.backends.hdf5.h5_utils import ContainerH5ReferenceDataset

    if isinstance(data, ContainerH5ReferenceDataset):
        return np.array([str(getattr(each, "name", "")) for each in data])
    if not isinstance(data, h5py.Dataset) or not Path(data.file.filename).samefile(file):
        return None
    return leaf(file, data)


def _series(file: Path, series: Any) -> dict[str, Any]:
    from pynwb.ophys import RoiResponseSeries

    data = _field(file, series.data)
    fields = {"data": data, "timestamps": None, "unit": series.unit}
    if data is None:
        return fields
    shape = data.shape
    if (series.conversion, series.offset) != (1.0, 0.0):
        data = _scaled(data, series.conversion, series.offset)
    if series.timestamps is not None:
        fields["timestamps"] = _field(file, series.timestamps)
    elif series.rate:
        fields["timestamps"] = _regular(shape[0], series.starting_time or 0.0, series.rate)
    if isinstance(series, RoiResponseSeries):
        fields["roi"] = _roi_ids(file, series.rois)
        if len(shape) == 1:
            data = _one_column(data)
    return fields | {"data": data}


def _scaled(data: Leaf, conversion: float, offset: float) -> Leaf:
    return data._replace(dtype="float64", load=lambda: data.load() * conversion + offset)


def _regular(n: int, start: float, rate: float) -> Leaf:
    return Leaf((n,), "float64", lambda: start + np.arange(n) / rate)


def _one_column(data: Leaf) -> Leaf:
    return data._replace(shape=(*data.shape, 1), load=lambda: data.load()[:, None])


def _roi_ids(file: Path, rois: Any) -> Leaf | None:
    rows, ids = _field(file, rois.data), _field(file, rois.table.id.data)
    if rows is None or ids is None:
        return None

    def load() -> np.ndarray:
        known, chosen = ids.load(), rows.load()
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(known)):
            raise ValueError(f"{rois.name} of {file.name} names rows beyond the {len(known)} regions of its table.")
        return known[chosen]

    return Leaf(rows.shape, ids.dtype, load)
