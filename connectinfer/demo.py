"""The demo: spikes of a known bistable network, fitted, judged, and laid beside the truth."""

import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from connectinfer.data.recording import recording
from connectinfer.data.saving import save
from connectinfer.data.splits import hold_out
from connectinfer.diagnostics.checks import diagnose
from connectinfer.diagnostics.predictive import held_out_score
from connectinfer.dynamics.fixed_points import FixedPoints, fixed_points
from connectinfer.dynamics.low_rank import LowRankRNN, connectivity, drift, gaussian_network, overlap
from connectinfer.dynamics.phase_portrait import vector_field
from connectinfer.dynamics.simulate import simulate_bins
from connectinfer.inference.fit import fit
from connectinfer.inference.result import Labels
from connectinfer.inference.state_space import fit_state_space
from connectinfer.latent.known_network import known_network
from connectinfer.latent.recording_arrays import recording_arrays
from connectinfer.plots.connectivity import plot_connectivity, plot_overlap_spectrum
from connectinfer.plots.dynamics import plot_fixed_points, plot_flow
from connectinfer.plots.phase_portraits import to_field, to_fixed_points
from connectinfer.plots.posterior import plot_latent_paths
from connectinfer.plots.recording import plot_raster
from connectinfer.statistics.latent_recovery import affine_alignment, latent_r2
from connectinfer.synthesis.connectivity import sample_connectivity

_N_UNITS, _N_TRIALS, _N_BINS, _ALPHA, _TAU, _NOISE, _RATE = 60, 48, 100, 0.1, 0.1, 0.03, 0.25
_OVERLAP = [[1.2, 0.8], [0.0, 1.6]]
_SHOWN_DRAWS = 20


class _Truth(NamedTuple):
    """The simulated network, its paths, the bias of the log rates, all spikes, and those that the fit sees."""

    network: LowRankRNN
    latent: np.ndarray
    bias: np.ndarray
    full: xr.Dataset
    training: xr.Dataset


def run_demo(folder: Path, *, seed: int = 0) -> int:
    """Simulates, fits and compares; writes `fit.nc` and pictures to `folder`. Returns 0, or 3 if a check failed."""
    console, started = Console(), time.perf_counter()
    console.print(f"Simulating spikes of {_N_UNITS} neurons of a bistable low-rank network ...")
    truth = _simulate(seed)
    console.print("Fitting low_rank_rnn_poisson by Gibbs sampling; a quarter of the neurons is hidden in test trials.")
    result = fit("low_rank_rnn_poisson", truth.training, rank=2, tau=_TAU, seed=seed, draws=2000, thinning=8)
    save(result, folder / "fit.nc", overwrite=True)
    console.print("Asking the ideal observer, who knows the network ...")
    ideal = _ideal_observer(truth, seed)
    recovered = _recovered_fixed_points(result)
    console.print(_comparison(truth, result, ideal, recovered))
    diagnosis = diagnose(result)
    console.print(str(diagnosis))
    _write_pictures(folder, truth, result, recovered)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"Wrote {names} to {folder} after {time.perf_counter() - started:.0f} s.")
    return 0 if diagnosis.passed else 3


def _simulate(seed: int) -> _Truth:
    key_network, key_path = jax.random.split(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    network = gaussian_network(key_network, _OVERLAP, 0.5, _N_UNITS, tau=_TAU)
    start = jnp.asarray(rng.normal(size=(_N_TRIALS, 2)), float)
    latent = np.asarray(simulate_bins(key_path, network, start, _N_BINS, _ALPHA, _NOISE).latent, float)
    log_rate = latent @ np.asarray(network.m, float).T
    bias = np.log(_RATE) - np.log(np.exp(log_rate).mean((0, 1)))
    full = recording(time=_ALPHA * _TAU * np.arange(_N_BINS), counts=rng.poisson(np.exp(log_rate + bias)))
    training = hold_out(full, trials=full["trial"].values[::3], units=full["unit"].values[::4])
    return _Truth(network, latent, bias, full, training)


def _ideal_observer(truth: _Truth, seed: int) -> xr.DataTree:
    arrays, coords = recording_arrays(truth.training, "counts", rank=2, tau=_TAU, nonlinearity="tanh")
    bias = jnp.asarray(truth.bias, float)
    known = known_network(truth.network, truth.network.m, bias, process_noise=_NOISE, initial_scale=1.0, alpha=_ALPHA)
    labels = Labels("ideal observer", {"latent": ["trial", "time", "latent_dim"]}, coords)
    options = {"labels": labels, "conditionals": known.conditionals, "warmup": 20, "draws": 50, "chains": 2}
    return fit_state_space(jax.random.key(seed), known.model, arrays, **options)


def _recovered_fixed_points(result: xr.DataTree) -> list[FixedPoints]:
    """Fixed points of evenly spaced draws, in the coordinates of the result."""
    posterior = result["posterior"].to_dataset().stack(sample=("chain", "draw")).transpose("sample", ...)
    chosen = np.unique(np.linspace(0, posterior.sizes["sample"] - 1, _SHOWN_DRAWS).astype(int))
    names = ("m", "n", "d")
    draws = [[jnp.asarray(posterior[name].values[i]) for name in names] for i in chosen]
    networks = [LowRankRNN(m, n, d=d, tau=_TAU) for m, n, d in draws]
    return [fixed_points(jax.tree_util.Partial(drift, network), _starts()) for network in networks]


def _starts() -> jax.Array:
    axis = jnp.linspace(-2.0, 2.0, 5)
    return jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)


def _comparison(truth: _Truth, result: xr.DataTree, ideal: xr.DataTree, recovered: list[FixedPoints]) -> Table:
    table = Table("quantity", "true", "recovered (90 % interval)")
    posterior = result["posterior"].to_dataset()
    eigenvalues = np.linalg.eigvals(posterior["overlap"].values.reshape(-1, 2, 2).astype(float))
    eigenvalues = np.sort(np.real(eigenvalues), axis=1)
    true_eigenvalues = np.sort(np.real(np.linalg.eigvals(np.asarray(overlap(truth.network), float))))
    for i, true in enumerate(true_eigenvalues):
        table.add_row(f"eigenvalue {i + 1} of the overlap (real part)", f"{true:.2f}", _interval(eigenvalues[:, i]))
    true_points = fixed_points(jax.tree_util.Partial(drift, truth.network), _starts())
    matrix, offset = affine_alignment(posterior["latent"].mean(("chain", "draw")).values, truth.latent)
    for kind in ("stable", "saddle", "unstable"):
        counts = [points.stability.count(kind) for points in recovered]
        table.add_row(f"{kind} fixed points", str(true_points.stability.count(kind)), _interval(counts, "{:.0f}"))
    attractors = [p.location[[kind == "stable" for kind in p.stability]] @ matrix.T + offset for p in recovered]
    for point, kind in zip(true_points.location, true_points.stability, strict=True):
        if kind == "stable":
            nearest = [_nearest(found, point) for found in attractors if len(found)]
            true = f"({point[0]:.2f}, {point[1]:.2f})"
            shown = "; ".join(_interval(column) for column in np.array(nearest).T) if nearest else "none"
            table.add_row("stable fixed point", true, shown)
    r2 = latent_r2(posterior["latent"].mean(("chain", "draw")).values, truth.latent)
    table.add_row("latent R2 (after affine alignment)", "1", f"{r2:.3f}")
    table.add_row(
        "held-out bits/spike (true: ideal observer)",
        f"{held_out_score(ideal, truth.full):.3f}",
        f"{held_out_score(result, truth.full):.3f}",
    )
    return table


def _interval(values: np.ndarray | list[int], form: str = "{:.2f}") -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


def _nearest(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    return points[np.linalg.norm(points - target, axis=1).argmin()]


def _write_pictures(folder: Path, truth: _Truth, result: xr.DataTree, recovered: list[FixedPoints]) -> None:
    posterior = result["posterior"].to_dataset()
    # Truth is drawn in the coordinates of the result, where posterior bands are what inference returned.
    matrix, offset = affine_alignment(truth.latent, posterior["latent"].mean(("chain", "draw")).values)
    true_path = posterior["latent"].isel(chain=0, draw=0, drop=True).copy(data=truth.latent @ matrix.T + offset)
    true_points = fixed_points(jax.tree_util.Partial(drift, truth.network), _starts())
    moved = FixedPoints(
        true_points.location @ matrix.T + offset, true_points.eigenvalues, true_points.residual, true_points.stability
    )
    plot_raster(truth.full).savefig(folder / "raster.png", dpi=120)
    plot_latent_paths(posterior["latent"], truth=true_path).savefig(folder / "latent_paths.png", dpi=120)
    # One draw: the drift of averaged parameters is not the average drift.
    drawn = posterior[["m", "n", "d"]].isel(chain=0, draw=-1)
    network = LowRankRNN(*(jnp.asarray(drawn[name].values) for name in ("m", "n")), d=jnp.asarray(drawn["d"].values))
    field = to_field(vector_field(jax.tree_util.Partial(drift, network), jnp.full(2, -2.2), jnp.full(2, 2.2)))
    ax = plot_flow(field, visited=posterior["latent"].isel(draw=slice(None, None, 10)))
    plot_fixed_points(to_fixed_points(recovered), truth=to_fixed_points([moved]), ax=ax)
    _save(ax, folder / "flow_field.png")
    weight = sample_connectivity(result, draws=100)["weight"]
    true_weight = weight.isel(draw=0, drop=True).copy(data=np.asarray(connectivity(truth.network)))
    plot_connectivity(weight, truth=true_weight).savefig(folder / "connectivity.png", dpi=120)
    spectrum = posterior["overlap"].isel(chain=0, draw=0, drop=True).copy(data=np.asarray(overlap(truth.network)))
    _save(plot_overlap_spectrum(posterior["overlap"], truth=spectrum), folder / "overlap_spectrum.png")


def _save(ax: Axes, path: Path) -> None:
    figure = ax.get_figure(root=True)
    if figure is not None:
        figure.savefig(path, dpi=120)
