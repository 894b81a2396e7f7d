"""Connectomes: who connects to whom, as an xarray Dataset with dims `edge` and `neuron`.

Orientation, for the whole package: a matrix is `weight[post, pre]`, so that `weight @ rate` is the input current. A
networkx edge (u, v) is pre = u, post = v. Files and libraries that keep pre in the rows are transposed at the door.

The stored form is an edge list: `pre (edge)` and `post (edge)` are neuron ids, and any number of further edge
variables (weight, synapse_count, size, delay, kind) share their dim. Several edges may lead from one neuron to another
if `kind` (chemical, electrical) or `contact` (0, 1, ... within the pair and kind: one edge per synaptic contact) tells
them apart. NaN in a float edge variable says that it does not apply to the edge; `weight` and `synapse_count` apply to
all. The coordinate `neuron` lists all ids, also of neurons without edges. Per neuron, where known: `population`,
`cell_type` (str), `sign` (1 excitatory, -1 inhibitory, 0 unknown), `x`, `y`, `z` (micrometres), and always
`axon_observed` and `dendrite_observed` (bool). A pair is observed if the axon of `pre` and the dendrite of `post` are:
an unobserved pair is unknown, not zero. Several populations (LGN and V1) share the one `neuron` dim, with ids such as
"v1:12".
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Int
from numpy.typing import ArrayLike

from connectinfer.data.identifiers import as_identifiers, check_unique, listing
from connectinfer.data.padding import check_filled, text_array

POSITION = ("x", "y", "z")
OBSERVED = ("axon_observed", "dendrite_observed")
# Edge variables that every edge has.
COMPLETE = ("weight", "synapse_count")
NEURONS_PER_EDGE = 1000
# Micrometres; more than any brain measures, and less than 0.2 mm given in nanometres.
LARGEST_SPAN = 2e5


def connectome(
    pre: ArrayLike, post: ArrayLike, *, neurons: ArrayLike | pd.DataFrame | None = None, **edge_variables: ArrayLike
) -> xr.Dataset:
    """A connectome from the ids of each edge's `pre` and `post` neuron, `(edge,)`.

    Args:
        pre: Ids (int or str) of the sending neurons.
        post: Ids of the receiving neurons.
        neurons: All ids, or a table indexed by id whose columns become variables of the neurons (the module
            docstring names the usual ones). By default the neurons that have an edge, all observed.
        **edge_variables: Arrays `(edge,)`, such as `weight` or `synapse_count`. `kind` (chemical, electrical) and
            `contact` (whole numbers, see `number_contacts`) tell apart several edges between the same two neurons.

    Raises:
        ValueError: for float or duplicate ids, edges to unknown neurons, repeated edges, NaN weights, bad positions.
    """
    senders, receivers = as_identifiers(pre, "pre"), as_identifiers(post, "post")
    if senders.shape != receivers.shape or senders.dtype.kind != receivers.dtype.kind:
        raise ValueError(
            f"`pre` and `post` need one id of the same type per edge; got {senders.size} of {senders.dtype} and "
            f"{receivers.size} of {receivers.dtype}."
        )
    ids = _neuron_ids(neurons, senders, receivers)
    described = {str(name): neurons[name] for name in neurons.columns} if isinstance(neurons, pd.DataFrame) else {}
    variables: dict[str, Any] = {"pre": ("edge", senders), "post": ("edge", receivers)}
    for name, values in edge_variables.items():
        variables[name] = ("edge", _plain(values, name, senders.size))
    for name, values in (dict.fromkeys(OBSERVED, np.ones(ids.size, bool)) | described).items():
        variables[name] = ("neuron", _plain(values, name, ids.size))
    dataset = xr.Dataset(variables, {"neuron": ids})
    check_connectome(dataset)
    return dataset


def from_dense(
    weight: ArrayLike, *, neurons: ArrayLike | pd.DataFrame | None = None, variable: str = "weight"
) -> xr.Dataset:
    """A connectome from a square matrix `weight[post, pre]`: its non-zero entries become edges.

    `neurons` are the ids of rows and columns, or a table indexed by them; 0, 1, ... by default.

    Raises:
        ValueError: if the matrix is not square, or whatever `connectome` refuses.
    """
    matrix = np.asarray(weight)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`weight` must be a square matrix (post, pre); got shape {matrix.shape}.")
    listed, ids = _listed(neurons, len(matrix))
    post, pre = np.nonzero(matrix)
    return connectome(ids[pre], ids[post], neurons=listed, **{variable: matrix[post, pre]})


def from_sparse(
    weight: Any, *, neurons: ArrayLike | pd.DataFrame | None = None, variable: str = "weight"
) -> xr.Dataset:
    """A connectome from a square sparse matrix or array of scipy `weight[post, pre]`, which is never made dense.

    Stored zeros are no edges; entries stored several times are summed. `neurons` as in `from_dense`.

    Raises:
        ValueError: as `from_dense`.
    """
    entries = weight.tocoo(copy=True)
    if entries.ndim != 2 or entries.shape[0] != entries.shape[1]:
        raise ValueError(f"`weight` must be a square matrix (post, pre); got shape {entries.shape}.")
    check_filled(
        entries.shape[0],
        entries.nnz,
        NEURONS_PER_EDGE,
        f"`weight` has shape {entries.shape} and {entries.nnz} entries, so nearly all neurons would have no edge; give "
        "the edges as `pre` and `post`, or cut the matrix to the neurons that have any.",
    )
    entries.sum_duplicates()
    entries.eliminate_zeros()
    listed, ids = _listed(neurons, entries.shape[0])
    # By rows, as `from_dense` orders them.
    order = np.lexsort([entries.col, entries.row])
    pre, post, values = entries.col[order], entries.row[order], entries.data[order]
    return connectome(ids[pre], ids[post], neurons=listed, **{variable: values})


def check_connectome(dataset: xr.Dataset) -> None:
    """Raise unless `dataset` is a connectome as the module docstring describes.

    Raises:
        ValueError: says what is wrong, where, and what to do.
    """
    for name in ("pre", "post", *OBSERVED):
        dims = ("neuron",) if name in OBSERVED else ("edge",)
        if name not in dataset or dataset[name].dims != dims:
            raise ValueError(f"a connectome needs a variable `{name}` with dims {dims}; build it with `connectome`.")
    ids = as_identifiers(dataset["neuron"].values, "neuron")
    check_unique(ids, "neuron")
    positions = pd.Index(ids)
    for name in ("pre", "post"):
        used = as_identifiers(dataset[name].values, name)
        if used.size and used.dtype.kind != ids.dtype.kind:
            raise ValueError(
                f"`{name}` ids are {used.dtype} but neuron ids are {ids.dtype}; give all as int or as str."
            )
        unknown = pd.unique(used[positions.get_indexer(used) < 0])
        if unknown.size:
            raise ValueError(
                f"`{name}` names {unknown.size} neurons that are not in `neurons`: {listing(unknown)}. "
                "Add them to `neurons`, or leave out their edges."
            )
    _check_repeats(dataset)
    for name in _edge_variables(dataset):
        values = dataset[name].values
        if values.dtype.kind != "f":
            continue
        wrong = ~np.isfinite(values) if name in COMPLETE else np.isinf(values)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"`{name}` of edge {at} is {values[at]}; leave out edges whose {name} is not known.")
    _check_neurons(dataset)


def sum_synapses(pre: ArrayLike, post: ArrayLike, **sizes: ArrayLike) -> dict[str, np.ndarray]:
    """One edge per connected pair from a table of single synapses, ready for `connectome(**...)`.

    `pre`, `post` and any `sizes` are `(synapse,)`. The result holds `pre`, `post`, `synapse_count` and the summed
    sizes, each `(edge,)`, sorted by pre and post.

    Raises:
        ValueError: for float or missing ids, ids of two types, arrays of different lengths, or sizes not numeric.
    """
    senders, receivers = as_identifiers(pre, "pre"), as_identifiers(post, "post")
    columns = {"pre": senders, "post": receivers} | {name: np.asarray(values) for name, values in sizes.items()}
    shapes = {name: each.shape for name, each in columns.items()}
    if len(set(shapes.values())) > 1 or senders.dtype.kind != receivers.dtype.kind:
        raise ValueError(
            f"every synapse needs a `pre` and `post` of one type, and one value of each size; got {senders.dtype} and "
            f"{receivers.dtype} ids, and the shapes {shapes}."
        )
    if wrong := [name for name in sizes if columns[name].dtype.kind not in "biuf"]:
        raise ValueError(f"sizes that are summed must be numbers; {wrong} hold {columns[wrong[0]].dtype}.")
    ids, indices = np.unique(np.concatenate([senders, receivers]), return_inverse=True)
    pairs = indices[: senders.size] * ids.size + indices[senders.size :]
    found, first, synapse_count = np.unique(pairs, return_index=True, return_counts=True)
    order = np.argsort(pairs, kind="stable")
    starts = np.searchsorted(pairs[order], found)
    summed = {name: np.add.reduceat(columns[name][order], starts) for name in sizes}
    return {"pre": senders[first], "post": receivers[first], "synapse_count": synapse_count, **summed}


def number_contacts(pre: ArrayLike, post: ArrayLike, kind: ArrayLike | None = None) -> Int[np.ndarray, " edge"]:
    """0, 1, 2, ... for the edges that join the same two neurons (by the same kind), in their order.

    Raises:
        ValueError: unless there is one `pre`, `post` and `kind` for each edge.
    """
    columns = [np.asarray(each) for each in ([pre, post] if kind is None else [pre, post, kind])]
    shapes = [each.shape for each in columns]
    if columns[0].ndim != 1 or len(set(shapes)) > 1:
        raise ValueError(f"`pre`, `post` and `kind` need one value for each edge; got the shapes {shapes}.")
    return _grouped(*columns).cumcount().to_numpy(np.int64)


def merge_contacts(dataset: xr.Dataset) -> xr.Dataset:
    """One edge per connected pair (and kind), in the order of first contacts, with `synapse_count` for `contact`.

    `synapse_count` is the number of contacts, or the sum of theirs where each has a `synapse_count`. Summed are also
    `weight`, `size`, and what ends in `_weight` or `_size`. Other edge variables are kept where all contacts of every
    pair agree; `attrs["left_out"]` names those that do not.

    Raises:
        ValueError: if `dataset` is no connectome.
    """
    check_connectome(dataset)
    grouped = _grouped(*_identity(dataset, "pre", "post", "kind").values())
    pair, first = grouped.ngroup().to_numpy(), np.flatnonzero(grouped.cumcount() == 0)
    merged: dict[str, Any] = {}
    differing = []
    for name in _edge_variables(dataset):
        values = dataset[name].values
        leading = values[first]
        if _is_summed(name) and values.dtype.kind in "biuf":
            merged[name] = _sums(values, pair, first.size)
        elif name != "contact" and _agree(values, leading[pair]).all():
            merged[name] = leading
        elif name != "contact":
            differing.append(f"{name} (differs between contacts)")
    merged.setdefault("synapse_count", np.bincount(pair, minlength=first.size))
    left_out = ", ".join(filter(None, [dataset.attrs.get("left_out", ""), *differing]))
    result = dataset.drop_dims("edge").assign({name: ("edge", values) for name, values in merged.items()})
    result = result.assign_attrs(left_out=left_out) if left_out else result
    check_connectome(result)
    return result


def edge_indices(dataset: xr.Dataset) -> tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " edge"]]:
    """Positions on the `neuron` axis of each edge's pre and post neuron."""
    ids = pd.Index(dataset["neuron"].values)
    return ids.get_indexer(dataset["pre"].values), ids.get_indexer(dataset["post"].values)


def observed_pairs(dataset: xr.Dataset) -> xr.DataArray:
    """True where a connection would have been seen: `dendrite_observed[post] & axon_observed[pre]`, `(post, pre)`."""
    observed = np.outer(dataset["dendrite_observed"].values, dataset["axon_observed"].values)
    return _pairs(dataset, observed, "observed")


def to_dense(dataset: xr.Dataset, variable: str) -> xr.DataArray:
    """An edge variable as a float matrix `(post, pre)`: 0 where observed pairs have no edge, NaN where unknown.

    Raises:
        ValueError: if the variable is not numeric, or several contacts or kinds of edge join the same pair.
    """
    numeric = [n for n in _edge_variables(dataset) if n not in ("pre", "post") and dataset[n].dtype.kind in "biuf"]
    if variable not in numeric:
        raise ValueError(f"{variable!r} is no numeric edge variable; choose one of {numeric}.")
    pre, post = edge_indices(dataset)
    pairs = pre * dataset.sizes["neuron"] + post
    if len(np.unique(pairs)) < len(pairs):
        if _identity(dataset, "contact"):
            raise ValueError(
                "some pairs are joined by several contacts; sum them first, with `merge_contacts(dataset)`."
            )
        raise ValueError(
            "some pairs are joined by several kinds of edge; select one first, for example "
            "`dataset.isel(edge=(dataset['kind'] == 'chemical').values)`."
        )
    matrix = np.where(observed_pairs(dataset).values, 0.0, np.nan)
    matrix[post, pre] = dataset[variable].values
    return _pairs(dataset, matrix, variable)


def _pairs(dataset: xr.Dataset, values: np.ndarray, name: str) -> xr.DataArray:
    ids = dataset["neuron"].values
    return xr.DataArray(values, {"post": ids, "pre": ids}, ("post", "pre"), name=name)


def _listed(neurons: Any, size: int) -> tuple[Any, np.ndarray]:
    """The neurons of a matrix, numbered by default, and their ids."""
    listed = np.arange(size) if neurons is None else neurons
    ids = _neuron_ids(listed, np.zeros(0), np.zeros(0))
    if len(ids) != size:
        raise ValueError(f"`neurons` has {len(ids)} ids, the matrix {size} rows.")
    return listed, ids


def _neuron_ids(neurons: Any, senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
    if neurons is None:
        return np.union1d(senders, receivers)
    return as_identifiers(neurons.index if isinstance(neurons, pd.DataFrame) else neurons, "neuron")


def _plain(values: Any, name: str, size: int) -> np.ndarray:
    """Numbers, bools or str, `(size,)`; pandas' missing strings become ""."""
    array = np.asarray(values)
    if array.shape != (size,):
        raise ValueError(f"`{name}` has shape {array.shape}; expected one value for each of {size}.")
    if array.dtype.kind in "OT":
        array = text_array([str(each) for each in np.where(pd.isna(array), "", array)], name)
    return array


def _edge_variables(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name in dataset.data_vars if dataset[name].dims == ("edge",)]


def _identity(dataset: xr.Dataset, *names: str) -> dict[str, np.ndarray]:
    """Those of `names` that the edges have, which together tell them apart."""
    present = [name for name in names if name in dataset and dataset[name].dims == ("edge",)]
    return {name: dataset[name].values for name in present}


def _codes(*columns: np.ndarray) -> pd.DataFrame:
    """Equal values of a column as equal integers, which compare much faster than str."""
    return pd.DataFrame({at: pd.factorize(each)[0] for at, each in enumerate(columns)})


def _grouped(*columns: np.ndarray) -> Any:
    """Edges grouped by equal values of all columns, groups in order of appearance."""
    codes = _codes(*columns)
    return codes.groupby(list(codes.columns), sort=False)


def _is_summed(name: str) -> bool:
    return name in ("synapse_count", "weight", "size") or name.endswith(("_weight", "_size"))


def _sums(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    # Sums of small integers and of float32 over many contacts need more digits than a single contact.
    total = np.zeros(n_groups, np.float64 if values.dtype.kind == "f" else np.int64)
    np.add.at(total, group, values.astype(total.dtype))
    return total


def _agree(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    same = values == others
    return same | (np.isnan(values) & np.isnan(others)) if values.dtype.kind == "f" else same


def _check_repeats(dataset: xr.Dataset) -> None:
    columns = _identity(dataset, "pre", "post", "kind", "contact")
    if "contact" in columns and columns["contact"].dtype.kind not in "iu":
        raise ValueError(f"`contact` must be whole numbers 0, 1, ...; got {columns['contact'].dtype}.")
    repeated = np.flatnonzero(_codes(*columns.values()).duplicated())
    if repeated.size:
        example = tuple(values[repeated[0]].item() for values in columns.values())
        raise ValueError(
            f"{repeated.size} edges repeat another with the same {', '.join(columns)}, for example {example}. "
            "If rows are single synapses, sum them, `connectome(**sum_synapses(pre, post, ...))`, or keep each as an "
            "edge of its own, `connectome(pre, post, contact=number_contacts(pre, post), ...)`; if edges differ in "
            "kind, give `kind`."
        )


def _check_neurons(dataset: xr.Dataset) -> None:
    for name in OBSERVED:
        if dataset[name].dtype != bool:
            raise ValueError(f"`{name}` must be bool; got {dataset[name].dtype}. Use `.astype(bool)`.")
    for name in ("sign", *POSITION):
        if name in dataset and dataset[name].dims != ("neuron",):
            raise ValueError(f"`{name}` must have one value per neuron, dims ('neuron',); got {dataset[name].dims}.")
        if name in dataset and dataset[name].dtype.kind not in "iuf":
            raise ValueError(f"`{name}` must be numbers; got {dataset[name].dtype}.")
    if "sign" in dataset and not np.isin(dataset["sign"].values, (-1, 0, 1)).all():
        raise ValueError(
            f"`sign` must be 1 (excitatory), -1 (inhibitory) or 0 (unknown); got {np.unique(dataset['sign'].values)}."
        )
    given = [name for name in POSITION if name in dataset]
    if not given:
        return
    if len(given) < 3:
        raise ValueError(f"positions need x, y and z in micrometres; got {given} only.")
    xyz = np.stack([dataset[name].values.astype(float) for name in POSITION], axis=-1)
    bad = np.isinf(xyz).any(1) | (np.isnan(xyz).any(1) & ~np.isnan(xyz).all(1))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"bad position {xyz[at].tolist()} of neuron {dataset['neuron'].values[at]!s}: x, y and z must be finite, "
            "or all NaN where the position is unknown."
        )
    known = xyz[~np.isnan(xyz).any(1)]
    span = float(np.ptp(known, axis=0).max()) if len(known) else 0.0
    if span > LARGEST_SPAN:
        raise ValueError(f"positions span {span:.3g} micrometres, more than a brain; are they nm? Divide by 1000.")
