"""Rat frontal cortex during a decision: Poisson clicks as inputs, scored on held-out units and trials.

    python examples/rat_clicks.py --data ../shared/data --output clicks

Session T176_2018_06_14 of Luo, Kim et al. (Nature, 2025; github.com/Brody-Lab/decision_dynamics_commitment): rats hear
clicks from the left and the right and turn to the side that had more. The MATLAB file holds one struct per
trial; `fields` says what is what.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import connectinfer as ci
from connectinfer.data.recording import drop_silent_units
from connectinfer.data.splits import held_out_entries, hold_out, split_trials, split_units
from connectinfer.data.time_bins import rebin
from connectinfer.diagnostics.predictive import held_out_score
from connectinfer.statistics.co_smoothing import bits_per_spike, mean_rates, peristimulus_rates

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILE = "recordings/rat_poisson_clicks/T176_2018_06_14.mat"


def clicks(file, side: str) -> list[np.ndarray]:
    """Clicks per 10-ms bin, one array a trial; click times are in s from the start of the trial."""
    trains = []
    for trial in file["trials"]:
        bins = np.floor(np.atleast_1d(trial["clicktimes"][side]) / 0.01).astype(int)
        trains.append(np.bincount(bins, minlength=trial["ntimesteps"])[: trial["ntimesteps"]])
    return trains


def open_session(data: Path, n_trials: int, bins_per_bin: int) -> xr.Dataset:
    """Spike counts from the stereo click to the movement, with clicks as inputs and the choice of every trial."""
    recording = ci.open_recording(
        data / FILE,
        fields={
            "counts": lambda file: [np.stack(trial["spiketrains"], axis=-1) for trial in file["trials"]],
            "unit": "neurons.neuronindex",
            "trial": "trials.index",
            "inputs": {"left": lambda file: clicks(file, "L"), "right": lambda file: clicks(file, "R")},
            "choice": ("trial", "trials.choice"),
        },
        bin_width=0.01,
    )
    merged = rebin(recording.isel(trial=slice(n_trials)), bins_per_bin)
    # `rebin` averages inputs; the sum is the number of clicks in the wider bin.
    return drop_silent_units(merged.assign(inputs=merged["inputs"] * bins_per_bin))


def score_psth(recording: xr.Dataset, training: xr.Dataset, entries: xr.DataArray) -> float:
    """Bits per spike of each unit's peristimulus time histogram on the held-out entries."""
    counts, seen = recording["counts"].values, training["mask"].values
    return bits_per_spike(peristimulus_rates(counts, seen, 2.0), counts, mean_rates(counts, seen), entries.values)


def draw_pictures(folder: Path, recording: xr.Dataset, result: xr.DataTree) -> None:
    """Raster, and the mean latent path of either choice."""
    import matplotlib.pyplot as plt

    from connectinfer.plots.recording import plot_raster

    folder.mkdir(parents=True, exist_ok=True)
    plot_raster(recording).savefig(folder / "raster.png")
    # What follows a trial's last observed bin is not part of it.
    path = result["posterior"]["latent"].mean(("chain", "draw")).where(recording["mask"].any("unit"))
    figure, axes = plt.subplots(1, path.sizes["latent_dim"], figsize=(9, 3), layout="constrained")
    for dim, ax in zip(path["latent_dim"].values, np.atleast_1d(axes), strict=True):
        for choice, name in ((0, "left"), (1, "right")):
            chosen = path.sel(latent_dim=dim, trial=(recording["choice"] == choice).values)
            ax.plot(path["time"], chosen.mean("trial"), label=f"choice {name}")
        ax.set(xlabel="time from stereo click (s)", ylabel=f"latent {dim}")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right")
    figure.savefig(folder / "choice.png")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Fits and scores; returns bits per spike of the model and of the histogram, both over the mean rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds `recordings/`")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--bins-per-bin", type=int, default=3, help="10-ms bins merged into one")
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--draws", type=int, default=250, help="of every one of four chains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the fit and pictures, old ones are replaced; without it none are written",
    )
    options = parser.parse_args(argv)

    recording = open_session(options.data, options.trials, options.bins_per_bin)
    print(f"read: {recording.attrs['read']}\nleft out: {recording.attrs['left_out']}")
    rng = np.random.default_rng(options.seed)
    _, test = split_trials(rng, recording, test_fraction=0.2)
    _, held_out = split_units(rng, recording, held_out_fraction=0.2)
    training = hold_out(recording, trials=test["trial"], units=held_out)

    result = ci.fit("low_rank_rnn_poisson", training, rank=options.rank, draws=options.draws, seed=options.seed)
    print(ci.diagnose(result))
    entries = held_out_entries(recording, trials=test["trial"], units=held_out)
    scores = {"model": held_out_score(result, recording), "psth": score_psth(recording, training, entries)}
    print(f"\nheld-out bits per spike over the mean rate: model {scores['model']:.4f}, PSTH {scores['psth']:.4f}")
    if options.output:
        draw_pictures(options.output, recording, result)
        ci.save(result, options.output / "fit.nc", overwrite=True)
    return scores


if __name__ == "__main__":
    main()
