"""The recordings of the claims on real data, and the short fits by which they are scored."""

import csv
from pathlib import Path

import numpy as np
import xarray as xr

import connectinfer as ci
from connectinfer.data.recording import drop_silent_units
from connectinfer.data.time_bins import cut_trials, rebin

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "recordings"
SHORT = {"engine": "state_space", "warmup": 60, "draws": 40, "chains": 2, "show_progress": False}
"""Options of fits of which only posterior means are used: those of `select_rank`."""
_TRIALS = 200


def click_sessions(n: int) -> list[str]:
    """The session with most units of every rat, of the `n` rats in which these are most; none was chosen by a score."""
    with open(DATA / "rat_poisson_clicks" / "sessions.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    largest: dict[str, tuple[int, str]] = {}
    for row in rows:
        largest[row["rat"]] = max(largest.get(row["rat"], (0, "")), (int(row["neurons"]), row["file"]))
    return [file.removesuffix(".mat") for _, file in sorted(largest.values(), reverse=True)[:n]]


def open_clicks(session: str) -> xr.Dataset:
    """Spike counts in bins of 30 ms from the stereo click to the movement, without the clicks, which no method sees; of
    the first 200 trials, for the sake of time."""
    recording = ci.open_recording(
        DATA / "rat_poisson_clicks" / f"{session}.mat",
        fields={
            "counts": lambda file: [np.stack(trial["spiketrains"], axis=-1) for trial in file["trials"]],
            "unit": "neurons.neuronindex",
            "trial": "trials.index",
            "choice": ("trial", "trials.choice"),
        },
        bin_width=0.01,
    )
    return drop_silent_units(rebin(recording.isel(trial=slice(_TRIALS)), 3))


def open_head_direction(state: str) -> xr.Dataset:
    """Counts in bins of 100 ms, cut into pieces of 10 s, of a mouse in `state` `"run"` or `"rem"`; when it runs, with
    `angle (trial, time)`, the mean direction of the head in rad."""
    fields = {"counts": f"Q{state}"}
    if state == "run":
        fields |= {"angle": ("time", lambda file: file["angRun"][:, 1])}
    recording = ci.open_recording(DATA / "mouse_head_direction" / "dataHD.mat", fields=fields, bin_width=0.01)
    trials = cut_trials(rebin(recording, 10), 100)
    if state == "run":
        turning = np.exp(1j * recording["angle"].values)[: trials.sizes["trial"] * 1000]
        angle = np.angle(turning.reshape(trials.sizes["trial"], 100, 10).mean(-1))
        trials = trials.assign_coords(angle=(("trial", "time"), angle))
    return trials


def open_maze() -> xr.Dataset:
    """The one trial of a reaching monkey, in bins of 20 ms, with the velocity of the hand, `velocity (time, axis)`."""
    rows = np.genfromtxt(DATA / "mc_maze" / "trial_748_data.csv.gz", delimiter=",", names=True)
    units = [name for name in rows.dtype.names or () if name.startswith("unit_")]
    whole = len(rows) // 20
    binned = lambda names: np.stack([rows[n][: whole * 20].reshape(whole, 20) for n in names], -1)  # noqa: E731
    counts = binned(units).sum(1)[None].astype(int)
    recording = ci.recording(counts=counts, time=0.02, unit=units)
    velocity = ("time", "axis"), binned(["hand_vel_x", "hand_vel_y"]).mean(1)
    return drop_silent_units(recording.assign_coords(velocity=velocity))
