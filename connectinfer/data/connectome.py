"""Connectomes: who connects to whom, as an xarray Dataset with dims `edge` and `neuron`.

Orientation, for the whole package: a matrix is `weight[post, pre]`, so that `weight @ rate` is the input current. A
networkx edge (u, v) is pre = u, post = v. Files and libraries that keep pre in the rows are transposed at the door.

The stored form is an edge list: `pre (edge)` and `post (edge)` are neuron ids, and any number of further edge
variables (weight, synapse_count, size, delay, kind) share their dim. The coordinate `neuron` lists all ids, also of
neurons without edges. Per neuron, where known: `population`, `cell_type` (str), `sign` (1 excitatory, -1 inhibitory,
0 unknown), `x`, `y`, `z` (micrometres), and always `axon_observed` and `dendrite_observed` (bool). A pair is observed
if the axon of `pre` and the dendrite of `post` are: an unobserved pair is unknown, not zero. Several populations
(LGN and V1) share the one `neuron` dim, with ids such as "v1:12".
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Int
from numpy.typing import ArrayLike

from connectinfer.data.identifiers import as_identifiers, check_unique, listing

POSITION = ("x", "y", "z")
OBSERVED = ("axon_observed", "dendrite_observed")
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
        **edge_variables: Arrays `(edge,)`, such as `weight` or `synapse_count`. `kind` tells apart several edges
            between the same two neurons (chemical, electrical).

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
    listed = np.arange(len(matrix)) if neurons is None else neurons
    ids = _neuron_ids(listed, np.zeros(0), np.zeros(0))
    if len(ids) != len(matrix):
        raise ValueError(f"`neurons` has {len(ids)} ids, the matrix {len(matrix)} rows.")
    post, pre = np.nonzero(matrix)
    return connectome(ids[pre], ids[post], neurons=listed, **{variable: matrix[post, pre]})


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
    for name in ("pre", "post"):
        used = as_identifiers(dataset[name].values, name)
        if used.size and used.dtype.kind != ids.dtype.kind:
            raise ValueError(
                f"`{name}` ids are {used.dtype} but neuron ids are {ids.dtype}; give all as int or as str."
            )
        unknown = np.setdiff1d(used, ids)
        if unknown.size:
            raise ValueError(
                f"`{name}` names {unknown.size} neurons that are not in `neurons`: {listing(unknown)}. "
                "Add them to `neurons`, or leave out their edges."
            )
    _check_repeats(dataset)
    for name in dataset.data_vars:
        values = dataset[name].values
        if dataset[name].dims == ("edge",) and values.dtype.kind == "f" and not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"`{name}` of edge {at} is {values[at]}; leave out edges whose {name} is not known.")
    _check_neurons(dataset)


def sum_synapses(pre: ArrayLike, post: ArrayLike, **sizes: ArrayLike) -> dict[str, np.ndarray]:
    """One edge per connected pair from a table of single synapses, ready for `connectome(**...)`.

    `pre`, `post` and any `sizes` are `(synapse,)`. The result holds `pre`, `post`, `synapse_count` and the summed
    sizes, each `(edge,)`, sorted by pre and post.
    """
    senders, receivers = as_identifiers(pre, "pre"), as_identifiers(post, "post")
    ids, indices = np.unique(np.concatenate([senders, receivers]), return_inverse=True)
    pairs = indices[: senders.size] * ids.size + indices[senders.size :]
    found, first, synapse_count = np.unique(pairs, return_index=True, return_counts=True)
    order = np.argsort(pairs, kind="stable")
    starts = np.searchsorted(pairs[order], found)
    summed = {name: np.add.reduceat(np.asarray(values)[order], starts) for name, values in sizes.items()}
    return {"pre": senders[first], "post": receivers[first], "synapse_count": synapse_count, **summed}


def edge_indices(dataset: xr.Dataset) -> tuple[Int[np.ndarray, "edge"], Int[np.ndarray, "edge"]]:
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
        ValueError: if the variable is not numeric, or several kinds of edge join the same pair.
    """
    edge_variables = [str(name) for name in dataset.data_vars if dataset[name].dims == ("edge",)]
    numeric = [n for n in edge_variables if n not in ("pre", "post") and dataset[n].dtype.kind in "biuf"]
    if variable not in numeric:
        raise ValueError(f"{variable!r} is no numeric edge variable; choose one of {numeric}.")
    pre, post = edge_indices(dataset)
    pairs = pre * dataset.sizes["neuron"] + post
    if len(np.unique(pairs)) < len(pairs):
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
        array = np.where(pd.isna(array), "", array).astype(str)
    return array


def _check_repeats(dataset: xr.Dataset) -> None:
    columns = ["pre", "post"] + (["kind"] if "kind" in dataset else [])
    table = pd.DataFrame({name: dataset[name].values for name in columns})
    repeated = table[table.duplicated()]
    if len(repeated):
        raise ValueError(
            f"{len(repeated)} edges repeat another with the same {', '.join(columns)}, for example "
            f"{tuple(repeated.iloc[0])}. If rows are single synapses, use "
            "`connectome(**sum_synapses(pre, post, ...))`; if edges differ in kind, give `kind`."
        )


def _check_neurons(dataset: xr.Dataset) -> None:
    for name in OBSERVED:
        if dataset[name].dtype != bool:
            raise ValueError(f"`{name}` must be bool; got {dataset[name].dtype}. Use `.astype(bool)`.")
    if "sign" in dataset and not np.isin(dataset["sign"].values, (-1, 0, 1)).all():
        raise ValueError(
            f"`sign` must be 1 (excitatory), -1 (inhibitory) or 0 (unknown); got {np.unique(dataset['sign'].values)}."
        )
    given = [name for name in POSITION if name in dataset]
    if not given:
        return
    if len(given) < 3:
        raise ValueError(f"positions need x, y and z in micrometres; got {given} only.")
    if any(dataset[name].dtype.kind not in "iuf" for name in POSITION):
        raise ValueError("positions must be numbers: x, y and z in micrometres.")
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
