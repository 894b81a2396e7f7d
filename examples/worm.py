"""Whole-brain calcium of C. elegans: a low-rank network under Gaussian noise, scored on held-out neurons.

    python examples/worm.py --data ../shared/data --output worm

Animal 2022-07-26-31 of Dag et al. (Cell 186, 2574, 2023; github.com/flavell-lab/NSM_5HTR_analysis): z-scored
fluorescence of 146 neurons of a moving worm, a frame every 0.6 s, about a hundred of them identified by name.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import connectinfer as ci
from connectinfer.data.splits import held_out_entries, hold_out, split_trials, split_units
from connectinfer.data.tables import read_table
from connectinfer.data.time_bins import cut_trials
from connectinfer.diagnostics.predictive import held_out_score
from connectinfer.statistics.co_smoothing import explained_variance

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDER = "recordings/celegans_wholebrain"
ANIMAL = "2022-07-26-31"


def open_animal(data: Path, trial_bins: int) -> xr.Dataset:
    """Fluorescence cut into stretches; `label (unit)` names the identified neurons, "" the others."""
    recording = ci.open_recording(
        data / FOLDER / f"{ANIMAL}-data.h5", fields={"fluorescence": "gcamp.trace_array"}, bin_width=0.6
    )
    table = pd.DataFrame(read_table(data / FOLDER / "neuron_labels.csv"))
    table = table[table["dataset"] == ANIMAL].drop_duplicates("trace_index_1based")
    names = dict(zip(table["trace_index_1based"] - 1, table["label"], strict=True))
    labels = [names.get(unit, "") for unit in recording["unit"].values]
    return cut_trials(recording.assign_coords(label=("unit", labels)), trial_bins)


def score_average(recording: xr.Dataset, training: xr.Dataset, entries: xr.DataArray) -> float:
    """Explained variance of the mean of the held-in neurons, regressed on each held-out one: a global signal."""
    signal, seen = recording["fluorescence"].values, training["mask"].values
    everywhere = seen.all((0, 1))
    common = signal[..., everywhere].mean(-1)
    predicted, baseline = np.zeros_like(signal), np.zeros_like(signal)
    for unit in range(signal.shape[-1]):
        at = seen[..., unit]
        slope, intercept = np.polyfit(common[at], signal[..., unit][at], 1)
        predicted[..., unit], baseline[..., unit] = slope * common + intercept, signal[..., unit][at].mean()
    return explained_variance(predicted, signal, baseline, entries.values)


def draw_pictures(folder: Path, recording: xr.Dataset, result: xr.DataTree) -> None:
    """Heat map of the activity, and the latent paths with their bands."""
    from connectinfer.plots.posterior import plot_latent_paths
    from connectinfer.plots.recording import plot_activity

    folder.mkdir(parents=True, exist_ok=True)
    plot_activity(recording).savefig(folder / "activity.png")
    plot_latent_paths(result["posterior"]["latent"]).savefig(folder / "latent_paths.png")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Fits and scores; returns the explained variance of the model and of a common signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds `recordings/`")
    parser.add_argument("--trial-bins", type=int, default=100, help="frames in a stretch")
    parser.add_argument("--rank", type=int, default=3)
    parser.add_argument("--draws", type=int, default=250, help="of every one of four chains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the fit and pictures, old ones are replaced; without it none are written",
    )
    options = parser.parse_args(argv)

    recording = open_animal(options.data, options.trial_bins)
    rng = np.random.default_rng(options.seed)
    _, test = split_trials(rng, recording, test_fraction=0.25)
    _, held_out = split_units(rng, recording, held_out_fraction=0.2)
    training = hold_out(recording, trials=test["trial"], units=held_out)

    # The time constant is that of the signal: seconds for calcium, and longer than a frame.
    result = ci.fit(
        "low_rank_rnn_gaussian", training, rank=options.rank, tau=3.0, draws=options.draws, seed=options.seed
    )
    print(ci.diagnose(result))
    entries = held_out_entries(recording, trials=test["trial"], units=held_out)
    scores = {"model": held_out_score(result, recording), "common": score_average(recording, training, entries)}
    print(f"\nheld-out explained variance: model {scores['model']:.3f}, common signal {scores['common']:.3f}")

    # Single weights mix slowly: intervals hold where the diagnosis passes.
    weight = ci.sample_connectivity(result)["weight"]
    named = np.flatnonzero(recording["label"].values != "")
    low, high = np.quantile(weight.values[:, named][:, :, named], [0.05, 0.95], axis=0)
    surest = np.minimum(np.abs(low), np.abs(high)) * (low * high > 0)
    np.fill_diagonal(surest, 0.0)
    post, pre = np.unravel_index(surest.argmax(), surest.shape)
    names = recording["label"].values[named]
    print(
        f"weight between identified neurons farthest from zero: {names[pre]} to {names[post]}, "
        f"90 % interval {low[post, pre]:.3f} to {high[post, pre]:.3f}"
    )
    if options.output:
        draw_pictures(options.output, recording, result)
        ci.save(result, options.output / "fit.nc", overwrite=True)
    return scores


if __name__ == "__main__":
    main()
