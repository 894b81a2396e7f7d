"""From draws to a labelled result: the `DataTree` that leaves inference and opens in plain ArviZ."""

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from numpyro.distributions import ImproperUniform

from connectinfer.dynamics.gauge import align_loadings, rotate
from connectinfer.inference.drift import drift_group
from connectinfer.inference.integrated_paths import path_sites, trial_likelihood
from connectinfer.inference.preflight import FAILED_SOLVES
from connectinfer.inference.trace import (
    Evaluation,
    Site,
    Sites,
    describe_sites,
    evaluate,
    expected_observations,
    map_draws,
    observed_values,
    predict,
)
from connectinfer.optimisation.interruption import interruption_held

_MOST_PREDICTIVE_DRAWS = 200
_MOST_PREDICTIVE_VALUES = 20_000_000
# Every draw costs a few Newton steps on all paths.
_MOST_INTEGRATED_DRAWS, _MOST_INTEGRATED_VALUES = 400, 300_000_000
LATENT_AXES = ("latent_dim", "latent_from")
"""Dimensions that turn with the gauge."""


class Labels(NamedTuple):
    """Names for a result: the model's name, dimensions of sites without plates, and coordinates of dimensions.

    A site whose dims are None is internal to the model and left out of the result.
    """

    model: str
    dims: Mapping[str, list[str] | None]
    coords: Mapping[str, Any]

    @classmethod
    def of(cls, model: Callable) -> "Labels":
        """Labels of a model that brings none."""
        return cls(getattr(model, "__name__", type(model).__name__), {}, {})


def check_labels(sites: Mapping[str, Site], labels: Labels) -> None:
    """Whether `labels` fit a model's sites, before anything is sampled.

    Raises:
        ValueError: `dims` of a site name more or fewer axes than plates leave, or one of them twice; a dimension has
            another size than its coordinates or than at another site, or the name of a site or of the draws.
    """
    sizes: dict[str, int] = {}
    for name, site in sites.items():
        dims = site_dims(name, site, labels) or []
        if taken := [dim for dim in dims if dim in (*sites, "chain", "draw") or dims.count(dim) > 1]:
            raise ValueError(
                f"Site {name!r} has dimensions {dims}: {taken[0]!r} is taken, by another axis, by a site, or by the "
                "draws. Name the plate, or the axis in `DIMS`, otherwise."
            )
        for dim, size in zip(dims, site.shape, strict=False):
            _check_size(dim, size, labels.coords)
            if sizes.setdefault(dim, size) != size:
                raise ValueError(
                    f"Dimension {dim!r} has {size} entries at site {name!r} but {sizes[dim]} at another. Name them "
                    "differently in `DIMS`."
                )


@interruption_held("The sampler is done, the result is being put together")
def build_result(
    key: PRNGKeyArray,
    bound: Callable,
    arrays: Mapping[str, Any],
    inputs: Mapping[str, Any],
    samples: Mapping[str, Any],
    prior: Sites,
    sample_stats: Mapping[str, np.ndarray],
    labels: Labels,
    attrs: Mapping[str, Any],
) -> xr.DataTree:
    """The result of an engine as a tree of labelled groups.

    `samples` holds the latent sites, `(chain, draw, ...)`, in their constrained space, `prior` prior draws of all
    sites, `(draw, ...)`. Deterministic sites, log prior, log likelihood (summed over time; where paths can be
    integrated out, of whole trials without them, at up to 400 draws) and predictions come from running the model at the
    samples. Loadings are rotated into one gauge, which `posterior.gauge` records.
    Ctrl-C is held back meanwhile: the draws would be lost.
    """
    key_evaluate, key_predict = jax.random.split(key)
    n_chains, n_draws = next(iter(samples.values())).shape[:2]
    flat = {name: jnp.asarray(x).reshape(-1, *x.shape[2:]) for name, x in samples.items()}
    keys, integrated = jax.random.split(key_evaluate, n_chains * n_draws), bool(path_sites(bound, arrays))

    def evaluate_draw(key: PRNGKeyArray, values: Sites, arrays: Mapping[str, Any]) -> Evaluation:
        found = evaluate(key, bound, arrays, values)
        # What is not returned is not computed.
        return found._replace(log_likelihood={}) if integrated else found

    evaluated = map_draws(evaluate_draw, keys, flat, arrays)

    def by_chain(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: np.asarray(x).reshape(n_chains, n_draws, *x.shape[1:]) for name, x in values.items()}

    sites = describe_sites(bound, arrays)
    dims = {name: site_dims(name, site, labels) for name, site in sites.items()}
    data = {name: np.asarray(x) for name, x in observed_values(bound, arrays).items()}
    values, sample_stats = by_chain(evaluated.sites), dict(sample_stats)
    if FAILED_SOLVES in values:
        sample_stats[FAILED_SOLVES] = values.pop(FAILED_SOLVES).reshape(n_chains, n_draws, -1).sum(-1)
    posterior = _dataset(_aligned(values, dims), dims | _GAUGE_DIMS, labels.coords)
    groups = {
        "posterior": posterior,
        "sample_stats": _dataset(sample_stats, {name: [] for name in sample_stats}, {}),
        "log_prior": _dataset(by_chain(evaluated.log_prior), {name: [] for name in evaluated.log_prior}, {}),
        "log_likelihood": _integrated_likelihood(bound, arrays, flat, n_chains, labels.coords)
        if integrated
        else _dataset(
            by_chain(evaluated.log_likelihood), _likelihood_dims(evaluated.log_likelihood, dims), labels.coords
        ),
        "posterior_predictive": _predictive(key_predict, bound, arrays, flat, n_chains, dims, labels.coords),
        "expected": _dataset(_expected(bound, arrays, flat), dims, labels.coords, ()),
        "observed_data": _dataset(data, dims, labels.coords, ()),
        "constant_data": _constant_data(inputs, labels.coords),
    }
    # Draws from an improper prior are made up to check the model; they are not the prior of anything.
    if not any(site.law is ImproperUniform for site in sites.values()):
        groups["prior"] = _dataset({name: np.asarray(x)[None] for name, x in prior.items()}, dims, labels.coords)
    if (drift := drift_group(posterior, inputs, flat, bound, arrays)) is not None:
        groups["drift"] = drift
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = provenance(labels.model) | dict(attrs)
    return tree


_GAUGE_DIMS: dict[str, list[str] | None] = {"gauge": ["latent_dim", "latent_raw"]}


def _aligned(sites: dict[str, np.ndarray], dims: Mapping[str, list[str] | None]) -> dict[str, np.ndarray]:
    m = sites.get("m")
    if m is None or dims.get("m") != ["unit", "latent_dim"]:
        return sites
    gauge = align_loadings(jnp.asarray(m.reshape(-1, *m.shape[2:])))
    gauge = gauge.reshape(*m.shape[:2], *gauge.shape[1:])
    for name in sites:
        for axis, dim in enumerate(dims[name] or []):
            if dim in LATENT_AXES:
                sites[name] = np.asarray(rotate(gauge, jnp.asarray(sites[name]), axis + 2))
    return sites | {"gauge": np.asarray(gauge)}


def site_dims(name: str, site: Site, labels: Labels) -> list[str] | None:
    """Plates name their axes; the others are named by the labels, in order, or by number."""
    n_free = site.axes.count(None)
    named = labels.dims.get(name, [f"{name}_axis_{i}" for i in range(n_free)])
    if named is None:
        return None
    if len(named) != n_free:
        raise ValueError(
            f"Site {name!r} has shape {site.shape}, in which plates name the axes {site.axes}; `DIMS[{name!r}]` must "
            f"name the other {n_free}, got {named}."
        )
    free = iter(named)
    return [next(free) if plate is None else plate for plate in site.axes]


def store_dims(sites: Mapping[str, Site], labels: Labels) -> dict[str, tuple[str, ...]]:
    """Axes of the draws that a store keeps of every site, those of internal sites by number."""
    axes = {
        name: site_dims(name, site, labels) or [f"{name}_axis_{i}" for i in range(len(site.shape))]
        for name, site in sites.items()
    }
    return {f"posterior/{name}": ("chain", "draw", *named) for name, named in axes.items()}


def _dataset(
    values: Mapping[str, np.ndarray],
    dims: Mapping[str, list[str] | None],
    coords: Mapping[str, Any],
    sample_dims: tuple[str, ...] = ("chain", "draw"),
) -> xr.Dataset:
    named = {n: ([*sample_dims, *d], x) for n, x in values.items() if (d := dims.get(n)) is not None}
    dataset = xr.Dataset(named)
    used = {name: coords.get(str(name), np.arange(size)) for name, size in dataset.sizes.items()}
    return dataset.assign_coords({name: (name, np.asarray(x)) for name, x in used.items()})


def _check_size(dim: str, size: int, coords: Mapping[str, Any]) -> None:
    if dim in coords and len(coords[dim]) != size:
        raise ValueError(f"Dimension {dim!r} has {size} entries in the model but {len(coords[dim])} coordinates.")


def _likelihood_dims(log_likelihood: Sites, dims: Mapping[str, list[str] | None]) -> dict[str, list[str] | None]:
    """Dims of the log likelihood of one draw: those of the data without time and without the axes of an event."""
    shown = {name: named for name in log_likelihood if (named := dims[name]) is not None}
    without_time = {name: [dim for dim in named if dim != "time"] for name, named in shown.items()}
    return {name: named[: log_likelihood[name].ndim - 1] for name, named in without_time.items()}


def _predictive(key, bound, arrays, flat, n_chains, dims, coords) -> xr.Dataset:
    sizes = jax.eval_shape(lambda k, v, a: predict(k, bound, a, v), key, {n: x[0] for n, x in flat.items()}, arrays)
    per_draw = max(sum(int(np.prod(x.shape)) for x in sizes.values()), 1)
    wanted = int(np.clip(_MOST_PREDICTIVE_VALUES // per_draw, 1, _MOST_PREDICTIVE_DRAWS))
    chosen, even = _evenly(flat, n_chains, wanted)
    n_draws = len(even)
    keys = jax.random.split(key, n_chains * n_draws)
    drawn = map_draws(lambda k, v, a: predict(k, bound, a, v), keys, chosen, arrays)
    values = {n: np.asarray(x).reshape(n_chains, n_draws, *x.shape[1:]) for n, x in drawn.items()}
    dataset = _dataset({n: _compact(x) for n, x in values.items()}, dims, coords)
    return dataset.assign_coords(draw=even)


def _evenly(flat: Mapping[str, Any], n_chains: int, wanted: int) -> tuple[dict[str, Any], np.ndarray]:
    """About `wanted` of the draws `(chain * draw, ...)`, evenly chosen from every chain, and their numbers."""
    n_total = len(next(iter(flat.values())))
    n_draws = max(min(wanted, n_total) // n_chains, 1)
    even = np.linspace(0, n_total // n_chains - 1, n_draws).astype(int)
    by_chain = {n: x.reshape(n_chains, -1, *x.shape[1:])[:, even] for n, x in flat.items()}
    return {n: x.reshape(-1, *x.shape[2:]) for n, x in by_chain.items()}, even


def _integrated_likelihood(
    bound: Callable, arrays: Mapping[str, Any], flat: Mapping[str, Any], n_chains: int, coords: Mapping[str, Any]
) -> xr.Dataset:
    n_values = sum(x.size for x in observed_values(bound, arrays).values())
    wanted = int(np.clip(_MOST_INTEGRATED_VALUES // max(n_values, 1), n_chains, _MOST_INTEGRATED_DRAWS))
    chosen, even = _evenly(flat, n_chains, wanted)
    keys = jax.random.split(jax.random.key(0), n_chains * len(even))
    found = map_draws(lambda _, draw, arrays: trial_likelihood(bound, arrays, draw), keys, chosen, arrays)
    values = {name: np.asarray(x).reshape(n_chains, len(even), -1) for name, x in found.items()}
    lost = int(sum(np.isnan(x).sum() for x in values.values()))
    dataset = _dataset(values, {name: ["trial"] for name in values}, coords)
    return dataset.assign_coords(draw=even).assign_attrs(paths="integrated out", lost_modes=lost)


def _expected(bound: Callable, arrays: Mapping[str, Any], flat: Mapping[str, Any]) -> dict[str, np.ndarray]:
    stride = max(len(next(iter(flat.values()))) // _MOST_PREDICTIVE_DRAWS, 1)
    means = expected_observations(bound, arrays, {name: x[::stride] for name, x in flat.items()})
    return {name: np.asarray(x) for name, x in means.items()}


def _compact(values: np.ndarray) -> np.ndarray:
    if np.issubdtype(values.dtype, np.integer) and values.size and values.min() >= 0 and values.max() < 2**16:
        return values.astype(np.uint16)
    return values


def _constant_data(inputs: Mapping[str, Any], coords: Mapping[str, Any]) -> xr.Dataset:
    dims: dict[str, list[str] | None] = {"mask": ["trial", "time", "unit"], "filtered": ["trial", "time", "input"]}
    # A model outside the zoo may call something else by these names.
    known = {name: np.asarray(inputs[name]) for name in dims if np.ndim(inputs.get(name, 0)) == 3}
    # HDF5 has no truth values.
    numbers = {n: int(x) if isinstance(x, bool) else x for n, x in inputs.items() if isinstance(x, int | float | str)}
    return _dataset(known, dims, coords, ()).assign_attrs(numbers)


def provenance(model: str) -> dict[str, Any]:
    """Attributes of every result: what made it, and where."""
    packages = ("connectinfer", "jax", "numpyro", "diffrax", "flowjax", "arviz", "xarray", "numpy")
    return {
        "model": model,
        "versions": json.dumps({name: importlib.metadata.version(name) for name in packages}),
        "precision": "float64" if jax.config.read("jax_enable_x64") else "float32",
        "device": jax.devices()[0].device_kind,
    }
