"""A model of your own: a file with `CARD`, `DIMS`, `inputs` and `model`, fitted by its path.

    python examples/own_model.py --output coupled

`models/coupled_poisson.py` is such a file. Here it is fitted to a simulation of itself, so that the recovered weights
can be held against the true ones.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import connectinfer as ci

MODEL = Path(__file__).parent / "models" / "coupled_poisson.py"
BIN_WIDTH, TAU = 0.005, 0.02  # s


def simulate(rng: np.random.Generator, n_trials: int, n_bins: int, n_units: int) -> tuple[xr.DataArray, xr.Dataset]:
    """Sparse random weights `(post, pre)`, and counts of the neurons they connect."""
    connected = rng.random((n_units, n_units)) < 0.3
    weight = np.where(connected, rng.normal(0.0, 0.4, (n_units, n_units)), 0.0)
    counts, history = np.zeros((n_trials, n_bins, n_units), int), np.zeros((n_trials, n_units))
    for t in range(n_bins):
        counts[:, t] = rng.poisson(np.exp(np.minimum(-2.0 + history @ weight.T, 1.0)))
        history = (1 - BIN_WIDTH / TAU) * history + counts[:, t]
    unit = np.arange(n_units)
    truth = xr.DataArray(weight, {"post": unit, "pre": unit}, ("post", "pre"))
    return truth, ci.recording(counts=counts, time=BIN_WIDTH)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Simulates, fits, compares; returns the correlation with the true weights and the coverage of 90 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--bins", type=int, default=400)
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the fit and pictures, old ones are replaced; without it none are written",
    )
    options = parser.parse_args(argv)

    truth, recording = simulate(np.random.default_rng(options.seed), options.trials, options.bins, options.units)
    result = ci.fit(MODEL, recording, tau=TAU, warmup=options.draws, draws=options.draws, seed=options.seed)
    print(ci.diagnose(result))

    weight = result["posterior"]["weight"]
    low, high = (weight.quantile(q, ("chain", "draw")) for q in (0.05, 0.95))
    scores = {
        "correlation": float(xr.corr(weight.mean(("chain", "draw")), truth)),
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
    }
    print(f"\ncorrelation with the true weights {scores['correlation']:.3f}")
    print(f"true weights inside their 90 % interval: {scores['coverage']:.0%}")
    if options.output:
        from connectinfer.plots.connectivity import plot_weight_recovery

        options.output.mkdir(parents=True, exist_ok=True)
        plot_weight_recovery(weight, truth).figure.savefig(options.output / "weights.png")
        ci.save(result, options.output / "fit.nc", overwrite=True)
    return scores


if __name__ == "__main__":
    main()
