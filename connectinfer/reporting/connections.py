"""The section of the connectivity: weights with their uncertainty, the surest ones, and the spectrum."""

from typing import Any

import numpy as np
import xarray as xr

from connectinfer.plots.connectivity import plot_connectivity, plot_overlap_spectrum
from connectinfer.reporting.observed import order_of_units, percent
from connectinfer.reporting.page import Block, Missing, Picture, Section, Table, Text
from connectinfer.reporting.pictures import FULL_WIDTH, empty_axes, empty_figure, picture
from connectinfer.synthesis.connectivity import sample_connectivity

_MOST_WEIGHTS = 20_000_000
_MOST_DRAWS, _LEAST_DRAWS = 200, 20
_SPECTRUM_DRAWS = 500
_SURE = 0.95
_LISTED = 10


def connectivity_section(result: xr.DataTree) -> Section:
    """Mean and sd of the weights, the largest whose sign is sure, and the eigenvalues."""
    return Section("connectivity", "Connectivity", (*_weights(result), *_spectrum(result)))


def _weights(result: xr.DataTree) -> list[Block]:
    weight = _weight_draws(result)
    if isinstance(weight, Missing):
        return [weight]
    figure = empty_figure(FULL_WIDTH, 4.1)
    order, said = order_of_units(result["posterior"].to_dataset())
    plot_connectivity(weight, order=order, figure=figure)
    matrices = picture(
        figure,
        alt="Weight matrices: posterior mean and posterior standard deviation, postsynaptic rows, presynaptic columns.",
        caption="Weights from presynaptic (columns) to postsynaptic neurons (rows): posterior mean, and standard "
        f"deviation over {weight.sizes['draw']} draws. The largest one per cent share the colours at the ends.{said}",
    )
    return [matrices, *_sure_weights(weight)]


def _weight_draws(result: xr.DataTree) -> xr.DataArray | Missing:
    posterior = result["posterior"].to_dataset()
    if {"m", "n"} <= set(posterior.data_vars):
        draws = int(np.clip(_MOST_WEIGHTS // max(posterior.sizes["unit"] ** 2, 1), 0, _MOST_DRAWS))
        if draws < _LEAST_DRAWS:
            said = f"The matrix of {posterior.sizes['unit']} neurons is too large to draw; use `sample_connectivity`."
            return Missing(said)
        return sample_connectivity(result, draws=draws)["weight"]
    labelled = [x for x in posterior.data_vars.values() if set(x.dims) == {"chain", "draw", "post", "pre"}]
    if not labelled:
        return Missing("The posterior has neither loadings `m` and `n` nor a site with the dims post and pre.")
    weight = labelled[0].stack(sample=("chain", "draw")).transpose("sample", "post", "pre")
    draws = int(np.clip(_MOST_WEIGHTS // max(weight.isel(sample=0).size, 1), 1, _MOST_DRAWS))
    chosen = np.unique(np.linspace(0, weight.sizes["sample"] - 1, draws).astype(int))
    labels = {dim: weight[dim].values for dim in ("post", "pre")}
    return xr.DataArray(weight.values[chosen], labels, ("draw", "post", "pre"))


def _sure_weights(weight: xr.DataArray) -> list[Block]:
    draws = weight.transpose("draw", "post", "pre").values
    posts, pres = weight["post"].values, weight["pre"].values
    between = posts[:, None].astype(str) != pres[None, :].astype(str)
    positive = (draws > 0).mean(0)
    sure = between & (np.maximum(positive, 1 - positive) > _SURE)
    n_pairs = int(between.sum())
    if not n_pairs:
        return []
    said = (
        f"In more than {percent(_SURE)} of the draws, {int(sure.sum()):,} of {n_pairs:,} ordered pairs of neurons "
        f"({percent(sure.sum() / n_pairs)}) have a weight of one sign; the verdicts above say what draws are worth."
    )
    mean, low, high = draws.mean(0), *np.quantile(draws, [0.05, 0.95], axis=0)
    largest = np.argsort(np.where(sure, np.abs(mean), 0).ravel(), kind="stable")[::-1][: min(_LISTED, int(sure.sum()))]
    rows = [
        (str(pres[j]), str(posts[i]), _number(mean[i, j]), f"{_number(low[i, j])} to {_number(high[i, j])}")
        for i, j in zip(*np.unravel_index(largest, mean.shape), strict=True)
    ]
    if not rows:
        return [Text(said)]
    caption = f"The {len(rows)} largest weights of sure sign. Mean and 90 % interval of the posterior."
    return [Text(said), Table(caption, "llrr", ("from", "to", "weight", "90 % interval"), tuple(rows))]


def _spectrum(result: xr.DataTree) -> list[Picture]:
    posterior = result["posterior"].to_dataset()
    if "overlap" not in posterior or not {"latent_dim", "latent_from"} <= set(posterior["overlap"].dims):
        return []
    overlap = posterior["overlap"]
    step = max(overlap.sizes["chain"] * overlap.sizes["draw"] // _SPECTRUM_DRAWS, 1)
    figure, ax = empty_axes(6.6, 3.4)
    plot_overlap_spectrum(overlap.isel(draw=slice(None, None, step)), ax=ax)
    eigenvalues = np.linalg.eigvals(overlap.transpose("chain", "draw", "latent_dim", "latent_from").values)
    flat = eigenvalues.reshape(-1, eigenvalues.shape[-1])
    real = np.sort(np.real(flat), 1)
    low, high = np.quantile(real, [0.05, 0.95], axis=0)
    intervals = "; ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(low[::-1], high[::-1], strict=True))
    complex_share = float((np.abs(np.imag(flat)) > 1e-6).any(1).mean())
    return [
        picture(
            figure,
            alt="Non-zero eigenvalues of the weights in the complex plane, a dot per posterior draw.",
            caption="Non-zero eigenvalues of the weights, a dot per posterior draw; they do not depend on the gauge. "
            f"90 % intervals of the real parts, largest first: {intervals}. {percent(complex_share)} of the draws have "
            "a complex pair, which turns the state around.",
        )
    ]


def _number(value: Any) -> str:
    return f"{value:+.3g}"
