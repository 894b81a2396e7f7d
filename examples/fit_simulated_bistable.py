"""Fit a recording of a known bistable network, and hold what was recovered against the truth.

    python examples/fit_simulated_bistable.py --output bistable

Sixty Poisson neurons form a rank-two network with two attractors (finite networks scatter: with few neurons some seeds
have one). A fifth of the units is held out of a fifth of the trials: the fit never sees these spikes and is scored on
them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import connectinfer as ci
from connectinfer.data.splits import hold_out
from connectinfer.diagnostics.predictive import held_out_score
from connectinfer.dynamics.fixed_points import FixedPoints, fixed_points
from connectinfer.dynamics.gauge import procrustes
from connectinfer.dynamics.low_rank import LowRankRNN, change_gauge, connectivity, drift, gaussian_network, potentials
from connectinfer.dynamics.simulate import simulate_bins

BIN_WIDTH, TAU = 0.01, 0.1  # s
OVERLAP = [[2.0, 0.0], [0.0, 0.5]]  # well above 1: activity along the first latent dimension sustains itself


def simulate_recording(seed: int, n_trials: int, n_bins: int, n_neurons: int) -> tuple[LowRankRNN, xr.Dataset]:
    """A network with two attractors, and spike counts of all its neurons."""
    network_key, start_key, noise_key, spike_key = jax.random.split(jax.random.key(seed), 4)
    network = gaussian_network(network_key, OVERLAP, residual_sd=0.3, n_neurons=n_neurons, tau=TAU)
    start = 0.7 * jax.random.normal(start_key, (n_trials, 2))
    paths = simulate_bins(noise_key, network, start, n_bins, alpha=BIN_WIDTH / TAU, process_noise=0.03)
    counts = jax.random.poisson(spike_key, jnp.exp(potentials(network, paths.latent) - 2.0))
    return network, ci.recording(counts=np.asarray(counts), time=BIN_WIDTH)


def recovered_networks(result: xr.DataTree, n_draws: int) -> list[LowRankRNN]:
    """The networks of some posterior draws; all are in one gauge."""
    draws = result["posterior"].to_dataset().stack(sample=("chain", "draw"))
    chosen = np.linspace(0, draws.sizes["sample"] - 1, n_draws).astype(int)
    return [
        LowRankRNN(m=draw["m"].values, n=draw["n"].values, d=draw["d"].values, tau=TAU)
        for draw in (draws.isel(sample=i).transpose("unit", "latent_dim", ...) for i in chosen)
    ]


def find_fixed_points(network: LowRankRNN) -> FixedPoints:
    """Fixed points within two latent units of the origin."""
    axis = jnp.linspace(-2.0, 2.0, 7)
    starts = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    return fixed_points(jax.tree_util.Partial(drift, network), starts)


def draw_pictures(folder: Path, recording: xr.Dataset, result: xr.DataTree, truth: LowRankRNN) -> None:
    """Raster, latent paths, and posterior weights beside the true ones."""
    from connectinfer.plots.connectivity import plot_connectivity
    from connectinfer.plots.posterior import plot_latent_paths
    from connectinfer.plots.recording import plot_raster

    unit = recording["unit"].values
    weights = xr.DataArray(np.asarray(connectivity(truth)), {"post": unit, "pre": unit}, ("post", "pre"))
    posterior = ci.sample_connectivity(result, draws=100)["weight"]
    # Units along their first loading: the structure of the weights shows.
    order = unit[np.argsort(result["posterior"]["m"].mean(("chain", "draw")).isel(latent_dim=0).values)]
    folder.mkdir(parents=True, exist_ok=True)
    plot_raster(recording).savefig(folder / "raster.png")
    plot_latent_paths(result["posterior"]["latent"]).savefig(folder / "latent_paths.png")
    plot_connectivity(posterior, truth=weights, order=order).savefig(folder / "connectivity.png")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Simulates, fits, compares; returns the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--bins", type=int, default=100)
    parser.add_argument("--neurons", type=int, default=60)
    parser.add_argument("--draws", type=int, default=250, help="of every one of four chains")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the fit and pictures, old ones are replaced; without it none are written",
    )
    options = parser.parse_args(argv)

    truth, recording = simulate_recording(options.seed, options.trials, options.bins, options.neurons)
    training = hold_out(recording, trials=recording["trial"][::5], units=recording["unit"][::5])
    result = ci.fit("low_rank_rnn_poisson", training, rank=2, tau=TAU, draws=options.draws, seed=options.seed)
    print(ci.diagnose(result))

    mean_m = jnp.asarray(result["posterior"]["m"].mean(("chain", "draw")).values)
    # The latent axes of the simulation mean nothing to the fit, so the truth is turned into the gauge of the posterior.
    truth = change_gauge(truth, procrustes(truth.m, mean_m))
    true_points = find_fixed_points(truth)
    print("\ntrue fixed points")
    for where, kind in zip(true_points.location, true_points.stability, strict=True):
        print(f"  {kind:<8} at {where[0]:+.2f} {where[1]:+.2f}")
    print("recovered, in five posterior draws")
    for found in map(find_fixed_points, recovered_networks(result, 5)):
        stable = [where for where, kind in zip(found.location, found.stability, strict=True) if kind == "stable"]
        print("  stable   at " + ", ".join(f"{where[0]:+.2f} {where[1]:+.2f}" for where in stable))
    score = held_out_score(result, recording)
    print(f"\nheld-out bits per spike: {score:.3f}")
    if options.output:
        draw_pictures(options.output, recording, result, truth)
        ci.save(result, options.output / "fit.nc", overwrite=True)
    return {"bits_per_spike": score}


if __name__ == "__main__":
    main()
