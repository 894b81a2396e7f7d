"""The real data in `shared/data`, beside the repository: where it is, and which field of which file is what.

Tests, benchmarks and examples share these mappings; they also show how other laboratories' files are read.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from connectinfer.data.connectome import connectome, sum_synapses
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.recording import drop_silent_units
from connectinfer.data.tables import read_table
from connectinfer.data.time_bins import cut_trials, rebin


def _find_shared_data() -> Path:
    root = Path(__file__).resolve().parents[1]
    # The folder lies beside the repository, or inside it where the working tree was copied to another machine.
    places = [root.parent / "shared" / "data", root / "shared" / "data"]
    return next((place for place in places if place.is_dir()), places[0])


SHARED_DATA = _find_shared_data()
RECORDINGS = SHARED_DATA / "recordings"
CONNECTOMES = SHARED_DATA / "connectomes"

needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason=f"the real recordings and connectomes are not here: no folder {SHARED_DATA}"
)


def open_poisson_clicks(session: str = "T176_2018_06_14", *, bins_per_bin: int = 1) -> xr.Dataset:
    """Rat frontal cortex during Poisson clicks: 10-ms counts from the stereo click to the movement.

    Inputs `left` and `right` are clicks per bin; `choice (trial)` is 0 left, 1 right; `gamma (trial)` the log ratio of
    click rates; `area (unit)`. `bins_per_bin` 10-ms bins are merged into one (3 gives 30 ms).
    """
    recorded = open_recording(
        RECORDINGS / "rat_poisson_clicks" / f"{session}.mat",
        fields={
            "counts": lambda file: [np.stack(trial["spiketrains"], axis=-1) for trial in file["trials"]],
            "unit": "neurons.neuronindex",
            "trial": "trials.index",
            "inputs": {"left": lambda file: _clicks(file, "L"), "right": lambda file: _clicks(file, "R")},
            "area": ("unit", "neurons.brainarea"),
            "choice": ("trial", "trials.choice"),
            "gamma": ("trial", "trials.gamma"),
        },
        bin_width=0.01,
    )
    if bins_per_bin == 1:
        return recorded
    merged = rebin(recorded, bins_per_bin)
    # Inputs are averaged by `rebin`; the sum is the number of clicks in the wider bin.
    return merged.assign(inputs=merged["inputs"] * bins_per_bin)


def _clicks(file, side: str) -> list[np.ndarray]:
    """Clicks per 10-ms bin of every trial; the few after the last bin are not counted."""
    trains = []
    for trial in file["trials"]:
        bins = np.floor(np.atleast_1d(trial["clicktimes"][side]) / 0.01).astype(int)
        trains.append(np.bincount(bins, minlength=trial["ntimesteps"])[: trial["ntimesteps"]])
    return trains


def open_head_direction(*, epoch: str = "Qrun", bins_per_bin: int = 1, trial_bins: int | None = None) -> xr.Dataset:
    """Mouse head-direction cells, 10-ms counts of one long epoch (`Qrun`, `Qsws` or `Qrem`).

    Merged to wider bins and cut into trials of `trial_bins` of these; `preferred (unit)` is the preferred direction
    and, awake, `angle (trial, time)` the head's direction at the start of the bin, both in rad.
    """
    recorded = open_recording(
        RECORDINGS / "mouse_head_direction" / "dataHD.mat",
        fields={"counts": epoch, "preferred": ("unit", "prefHD")}
        | ({"angle": ("time", lambda file: file["angRun"][:, 1])} if epoch == "Qrun" else {}),
        bin_width=0.01,
    )
    if bins_per_bin > 1:
        recorded = rebin(recorded, bins_per_bin)
    if trial_bins is None:
        return recorded
    trials = cut_trials(recorded, trial_bins)
    if epoch != "Qrun":
        return trials
    angle = recorded["angle"].values[: trials.sizes["trial"] * trial_bins].reshape(-1, trial_bins)
    return trials.assign_coords(angle=(("trial", "time"), angle))


def open_worm(animal: str = "2022-07-26-31", *, behaviour: tuple[str, ...] = ()) -> xr.Dataset:
    """Whole-brain calcium of C. elegans, z-scored, 800 frames; `label (unit)` names the identified neurons.

    Frames come every 0.6 s within 8 %, so the nominal bin width is used. `behaviour` names fields of the group
    `behavior` that become inputs (velocity, head_angle, ...), divided by their standard deviation.
    """
    recorded = open_recording(
        RECORDINGS / "celegans_wholebrain" / f"{animal}-data.h5",
        fields={"fluorescence": "gcamp.trace_array"}
        | ({"inputs": {name: _scaled(name) for name in behaviour}} if behaviour else {}),
        bin_width=0.6,
    )
    table = pd.DataFrame(read_table(RECORDINGS / "celegans_wholebrain" / "neuron_labels.csv"))
    table = table[table["dataset"] == animal].drop_duplicates("trace_index_1based")
    labels = dict(zip(table["trace_index_1based"] - 1, table["label"], strict=True))
    return recorded.assign_coords(label=("unit", [labels.get(unit, "") for unit in recorded["unit"].values]))


def _scaled(name: str):
    def read(file) -> np.ndarray:
        values = np.asarray(file["behavior"][name], float)
        return values / values.std()

    return read


def open_maze_trial() -> xr.Dataset:
    """One trial of MC_Maze, 1-ms counts of the 182 units, without those that are silent in it."""
    recorded = open_recording(
        RECORDINGS / "mc_maze" / "trial_748_data.csv.gz",
        fields={
            "counts": "unit_*",
            "time": "timestamp",
            "inputs": {"hand_vel_x": "hand_vel_x", "hand_vel_y": "hand_vel_y"},
        },
    )
    return drop_silent_units(recorded)


def open_tectum() -> xr.Dataset:
    """Calcium activity of the larval zebrafish tectum, dF/F; the source states no frame rate, so a frame is 1 s."""
    return open_recording(
        RECORDINGS / "zebrafish_tectum" / "zf_20151104-f1.mat",
        fields={"fluorescence": lambda file: file["activity_matrix"].T},
        bin_width=1.0,
    )


def open_larva_connectome() -> xr.Dataset:
    """Whole larval Drosophila brain: `synapse_count` per edge, `cell_type` and `hemisphere` per neuron."""
    nodes = pd.DataFrame(read_table(CONNECTOMES / "drosophila_larva" / "unmatched_full_nodes.csv.gz"))
    nodes = nodes.set_index(nodes.columns[0])[["simple_group", "hemisphere"]]
    return open_connectome(
        CONNECTOMES / "drosophila_larva" / "unmatched_full_edgelist.csv.gz",
        fields={"pre": "0", "post": "1", "synapse_count": "2"},
        neurons=nodes.rename(columns={"simple_group": "cell_type"}),
    )


def open_worm_connectome() -> xr.Dataset:
    """Adult C. elegans, chemical synapses; `sections` is the number of EM sections of an edge."""
    return open_connectome(
        CONNECTOMES / "celegans_cook2019" / "hermaphrodite_chemical.csv.gz",
        fields={"pre": "pre", "post": "post", "sections": "weight"},
    )


def open_cortex_connectome() -> xr.Dataset:
    """MICrONS layer 2/3 pyramidal cells: synapses summed to edges with `synapse_count` and `cleft_size` (voxels)."""
    table = read_table(CONNECTOMES / "microns_l23" / "soma_subgraph_synapses_spines_v185.csv.gz")
    return connectome(**sum_synapses(table["pre_root_id"], table["post_root_id"], cleft_size=table["cleft_vx"]))
