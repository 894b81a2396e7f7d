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


def open_worm_gap_junctions() -> xr.Dataset:
    """Adult C. elegans, gap junctions, both directions of each as published; `sections` as above."""
    return open_connectome(
        CONNECTOMES / "celegans_cook2019" / "hermaphrodite_gap_symmetric.csv.gz",
        fields={"pre": "pre", "post": "post", "sections": "weight"},
    )


def open_published_worm() -> xr.Dataset:
    """C. elegans of Varshney et al.: rows S and Sp (chemical, sent) and EJ (electrical); R and Rp mirror the former.

    Neuromuscular rows (NMJ) lead to no neuron. `kind` is chemical (S), polyadic (Sp) or electrical (EJ).
    """

    def rows(name: str):
        return lambda file: file[name][np.isin(file["Type"], ("S", "Sp", "EJ"))]

    sent = rows("Type")
    return open_connectome(
        CONNECTOMES / "celegans_varshney2011" / "NeuronConnectFormatted.csv.gz",
        fields={
            "pre": rows("Neuron 1"),
            "post": rows("Neuron 2"),
            "synapse_count": rows("Nbr"),
            "kind": lambda file: np.where(
                sent(file) == "EJ", "electrical", np.where(sent(file) == "Sp", "polyadic", "chemical")
            ),
        },
    )


def open_developing_worm(animal: int) -> xr.Dataset:
    """Nerve ring of C. elegans number 1, 2, 3, 5, 6 or 7, from hatching to adult; `kind` chemical or electrical.

    `synapse_count` is the number of synapses, `size` the EM sections of all of them together.
    """
    return open_connectome(
        CONNECTOMES / "celegans_witvliet2021" / f"witvliet_2020_{animal}.json.gz",
        fields={
            "pre": "pre",
            "post": "post",
            "kind": lambda file: np.where(file["typ"] == 0, "chemical", "electrical"),
            "synapse_count": lambda file: [len(sizes) for sizes in file["syn"]],
            "size": lambda file: [np.sum(sizes) for sizes in file["syn"]],
        },
    )


def open_cortex_connectome() -> xr.Dataset:
    """MICrONS layer 2/3 pyramidal cells: synapses summed to edges with `synapse_count` and `cleft_size` (voxels).

    Positions come as text "[103860 44385 891]" in voxels of 4 x 4 x 40 nm.
    """
    table = read_table(CONNECTOMES / "microns_l23" / "soma_subgraph_synapses_spines_v185.csv.gz")
    edges = sum_synapses(table["pre_root_id"], table["post_root_id"], cleft_size=table["cleft_vx"])
    somata = pd.DataFrame(read_table(CONNECTOMES / "microns_l23" / "soma_valence_v185.csv"))
    somata = somata.drop_duplicates("pt_root_id").set_index("pt_root_id")
    neurons = somata.loc[np.union1d(edges["pre"], edges["post"]), ["cell_type"]]
    voxels = somata.loc[neurons.index, "pt_position"].str.strip("[]").str.split(expand=True).astype(float)
    return connectome(
        neurons=neurons.assign(**dict(zip("xyz", (voxels * [4, 4, 40] / 1000).T.to_numpy(), strict=True))), **edges
    )


def open_visual_cortex_connectome() -> xr.Dataset:
    """MICrONS cubic millimetre: 6,548 proofread neurons with positions, edges by their row in the neuron table."""
    folder = CONNECTOMES / "microns_minnie65"
    table = pd.DataFrame(read_table(folder / "mouse_extended_neuron_info.csv.gz"))
    ids = table["id"].to_numpy()
    positions = {name: table[f"{name}_soma"].to_numpy() / 1000 for name in "xyz"}
    return open_connectome(
        folder / "mouse_directed_connectome.csv.gz",
        fields={
            "pre": lambda file: ids[file["i"]],
            "post": lambda file: ids[file["j"]],
            "synapse_count": "weight",
        },
        neurons=pd.DataFrame(positions, index=ids),
    )


def open_mushroom_body_connectome() -> xr.Dataset:
    """Right mushroom body of the larval Drosophila, a matrix with pre in the rows; `cell_type` K, P, O or I."""
    folder = CONNECTOMES / "drosophila_mb_larva"
    labels = np.loadtxt(folder / "right_cell_labels.csv", dtype=str)
    return open_connectome(
        folder / "right_adjacency.csv",
        fields={"weight": lambda file: file.matrix().T},
        neurons=pd.DataFrame({"cell_type": labels}, index=range(len(labels))),
    )


def open_compass_connectome(direction: str = "er2epg") -> xr.Dataset:
    """Ellipsoid body of the hemibrain: ring neurons to compass neurons (`er2epg`) or back (`epg2erEB`).

    `synapse_count` is that of the ellipsoid body; `cell_type (neuron)` and the glomerulus in `name (neuron)`.
    """
    path = CONNECTOMES / "drosophila_hemibrain_ring_epg" / f"{direction}.csv.gz"
    table = pd.DataFrame(read_table(path))
    ends = [
        table[[each, f"supertype1.{each}", f"name.{each}"]].set_axis(["id", "cell_type", "name"], axis=1)
        for each in ("from", "to")
    ]
    return open_connectome(
        path,
        fields={"pre": "from", "post": "to", "synapse_count": "ROIweight"},
        neurons=pd.concat(ends).drop_duplicates("id").set_index("id"),
    )


def open_fly_visual_connectome() -> xr.Dataset:
    """Cell types of the fly's visual system: `alpha` is the sign of an edge, `synapse_count` per target cell."""
    return open_connectome(
        CONNECTOMES / "drosophila_visual" / "fib25-fib19_v2.2.json.gz",
        fields={
            "pre": "edges.src",
            "post": "edges.tar",
            "alpha": "edges.alpha",
            # One [[du, dv], synapses] for each column of the lattice that the type reaches.
            "synapse_count": lambda file: [sum(count for _, count in edge["offsets"]) for edge in file["edges"]],
            "neuron": "nodes.name",
        },
    )


def open_human_connectome(matrix: str = "strucMatrix_ctx") -> xr.Dataset:
    """Regions of the human brain (HCP average): `weight` is the log streamline density, or a correlation."""
    folder = CONNECTOMES / "human_hcp_enigma"
    labels = matrix.replace("strucMatrix", "strucLabels").replace("funcMatrix", "strucLabels")
    return open_connectome(
        folder / f"{matrix}.csv.gz",
        fields={"weight": "*"},
        # A single line of names, which is the header of an empty table.
        neurons=np.array(list(read_table(folder / f"{labels}.csv.gz"))),
    )


def open_mesoscale_connectome() -> xr.Dataset:
    """Mouse brain regions, "ipsi:385" the source side, "contra:385" the other: `weight` is a normalised density.

    The header has two rows, hemisphere and region, so the first row of numbers is that of the targets' ids. Regions of
    the other side were not injected: their axons are unobserved.
    """
    path = CONNECTOMES / "mouse_mesoscale" / "homogeneous-standard-model.csv.gz"
    table = pd.DataFrame(read_table(path))
    hemispheres = [name.split(".")[0] for name in table.columns[1:]]
    targets = np.array([f"{side}:{region:.0f}" for side, region in zip(hemispheres, table.iloc[0, 1:], strict=True)])
    sources = np.array([f"ipsi:{region:.0f}" for region in table.iloc[1:, 0]])
    strength = table.iloc[1:, 1:].to_numpy()
    source, target = np.nonzero(strength)
    neurons = pd.DataFrame({"axon_observed": np.isin(targets, sources)}, index=targets)
    return connectome(sources[source], targets[target], neurons=neurons, weight=strength[source, target])


def open_mouse_tracts(mouse: int = 0) -> xr.Dataset:
    """Diffusion tractography of one of 24 mice, 332 regions, left ones first; `weight` is the number of streamlines."""
    atlas = read_table(CONNECTOMES / "mouse_dti_wang2020" / "atlas.csv")
    regions = np.concatenate([np.char.add(side, atlas["Abbreviation"]) for side in ("L:", "R:")])
    return open_connectome(
        CONNECTOMES / "mouse_dti_wang2020" / "mouse_dti_connectomes.npz",
        fields={"weight": lambda file: file["adjacency"][mouse]},
        neurons=regions,
    )


def open_in_silico_cortex() -> xr.Dataset:
    """Blue Brain model of rat somatosensory cortex, a sparse matrix with pre in the rows; layers and m-types."""
    folder = CONNECTOMES / "insilico_bbp_sscx_r0c10"
    nodes = pd.DataFrame(read_table(folder / "nodes_r0c10.csv.gz")).set_index("gid")
    signs = nodes["synapse_class"].map({"EXC": 1, "INH": -1})
    return open_connectome(
        folder / "adj_r0c10.npz",
        fields={"weight": lambda file: file["matrix"].T},
        neurons=nodes[["x", "y", "z", "layer", "mtype"]].rename(columns={"mtype": "cell_type"}).assign(sign=signs),
    )
