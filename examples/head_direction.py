"""Mouse head-direction cells: does the latent state go round with the head?

    python examples/head_direction.py --data ../shared/data --output heading

Nineteen cells of the anterodorsal thalamus of a mouse that runs about (Peyrache et al., Nature Neuroscience 18, 569,
2015; file `dataHD.mat` of github.com/PeyracheLab/Class-Decoding). The model is told nothing about the head; its angle
is only used to colour the picture and to score how well the latent state tells it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import connectinfer as ci
from connectinfer.data.recording import drop_silent_units
from connectinfer.data.splits import held_out_entries, hold_out, split_trials, split_units
from connectinfer.data.time_bins import cut_trials, rebin
from connectinfer.diagnostics.predictive import held_out_score
from connectinfer.statistics.co_smoothing import bits_per_spike, mean_rates, peristimulus_rates

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILE = "recordings/mouse_head_direction/dataHD.mat"


def open_running(data: Path, n_trials: int, trial_bins: int) -> xr.Dataset:
    """Counts in 50-ms bins, cut into trials; `angle (trial, time)` is the direction of the head in rad."""
    recording = ci.open_recording(
        data / FILE,
        fields={"counts": "Qrun", "angle": ("time", lambda file: file["angRun"][:, 1])},
        bin_width=0.01,
    )
    coarse = rebin(recording, 5)
    trials = cut_trials(coarse, trial_bins)
    angle = coarse["angle"].values[: trials.sizes["trial"] * trial_bins].reshape(-1, trial_bins)
    return drop_silent_units(trials.assign_coords(angle=(("trial", "time"), angle)).isel(trial=slice(n_trials)))


def decoding_error(path: xr.DataArray, angle: xr.DataArray) -> float:
    """Median error in degrees of a linear read-out of (cos, sin) of the angle, fitted on every other trial."""
    z = path.transpose("trial", "time", "latent_dim").values
    design = np.concatenate([z, np.ones((*z.shape[:2], 1))], -1)
    target = np.stack([np.cos(angle.values), np.sin(angle.values)], -1)
    flat = [x.reshape(-1, x.shape[-1]) for x in (design[::2], target[::2], design[1::2])]
    weights = np.linalg.lstsq(flat[0], flat[1], rcond=None)[0]
    cosine, sine = (flat[2] @ weights).T
    error = np.angle(np.exp(1j * (np.arctan2(sine, cosine) - angle.values[1::2].ravel())))
    return float(np.degrees(np.nanmedian(np.abs(error))))


def draw_pictures(folder: Path, recording: xr.Dataset, path: xr.DataArray) -> None:
    """Raster, and the visited latent states coloured by the direction of the head."""
    import matplotlib.pyplot as plt

    from connectinfer.plots.recording import plot_raster

    folder.mkdir(parents=True, exist_ok=True)
    plot_raster(recording).savefig(folder / "raster.png")
    z = path.transpose("trial", "time", "latent_dim").values.reshape(-1, path.sizes["latent_dim"])
    figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    dots = ax.scatter(
        z[:, 0], z[:, 1], c=recording["angle"].values.ravel(), s=4, cmap="twilight", vmin=0, vmax=2 * np.pi
    )
    figure.colorbar(dots, label="head direction (rad)")
    ax.set(xlabel="latent 0", ylabel="latent 1", aspect="equal")
    figure.savefig(folder / "ring.png")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Fits and scores; returns bits per spike of model and histogram, and the decoding error in degrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds `recordings/`")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--trial-bins", type=int, default=100, help="bins of 50 ms in a trial")
    parser.add_argument("--draws", type=int, default=250, help="of every one of four chains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the fit and pictures, old ones are replaced; without it none are written",
    )
    options = parser.parse_args(argv)

    recording = open_running(options.data, options.trials, options.trial_bins)
    rng = np.random.default_rng(options.seed)
    _, test = split_trials(rng, recording, test_fraction=0.2)
    _, held_out = split_units(rng, recording, held_out_fraction=0.2)
    training = hold_out(recording, trials=test["trial"], units=held_out)

    result = ci.fit("low_rank_rnn_poisson", training, rank=2, tau=0.2, draws=options.draws, seed=options.seed)
    print(ci.diagnose(result))
    counts, seen = recording["counts"].values, training["mask"].values
    entries = held_out_entries(recording, trials=test["trial"], units=held_out).values
    path = result["posterior"]["latent"].mean(("chain", "draw"))
    scores = {
        "model": held_out_score(result, recording),
        "psth": bits_per_spike(peristimulus_rates(counts, seen, 2.0), counts, mean_rates(counts, seen), entries),
        "decoding_error": decoding_error(path, recording["angle"]),
    }
    print(f"\nheld-out bits per spike over the mean rate: model {scores['model']:.4f}, PSTH {scores['psth']:.4f}")
    print(f"median error of the head direction read from the latent state: {scores['decoding_error']:.1f} degrees")
    if options.output:
        draw_pictures(options.output, recording, path)
        ci.save(result, options.output / "fit.nc", overwrite=True)
    return scores


if __name__ == "__main__":
    main()
