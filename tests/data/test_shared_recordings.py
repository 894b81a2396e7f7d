"""The mappings of the real files give the numbers that the notes on the data state."""

import numpy as np
import pytest
from shared_data import (
    RECORDINGS,
    needs_shared_data,
    open_head_direction,
    open_maze_trial,
    open_poisson_clicks,
    open_tectum,
    open_worm,
)

from connectinfer.data.files import read_tree
from connectinfer.data.recording import check_recording
from connectinfer.data.tables import read_table

pytestmark = needs_shared_data


@pytest.fixture(scope="module")
def clicks():
    return open_poisson_clicks()


def test_poisson_clicks_have_132_cells_and_658_trials_of_20_to_100_bins(clicks):
    check_recording(clicks)
    assert dict(clicks.sizes) == {"trial": 658, "time": 100, "unit": 132, "input": 2}
    lengths = clicks["mask"].values[:, :, 0].sum(1)
    assert (lengths.min(), lengths.max(), lengths.sum()) == (20, 100, 45704)
    assert set(clicks["area"].values) == {"dmFC", "mPFC"}
    assert clicks.attrs["bin_width"] == 0.01


def test_poisson_clicks_predict_the_choice_as_the_notes_say(clicks):
    difference = (clicks["inputs"].sel(input="right") - clicks["inputs"].sel(input="left")).sum("time")
    assert np.corrcoef(difference, clicks["choice"])[0, 1] == pytest.approx(0.785, abs=0.01)


def test_what_a_click_session_leaves_out_is_named(clicks):
    assert clicks.attrs["source"] == "T176_2018_06_14.mat"
    assert "counts from a function" in clicks.attrs["read"]
    left_out = clicks.attrs["left_out"].split(", ")
    assert "trials.previousanswer" in left_out
    assert not {"trials.choice", "trials.spiketrains", "trials.clicktimes.L", "neurons.brainarea"} & set(left_out)


def test_wider_bins_keep_every_spike_and_click_of_whole_bins():
    session = "X062_2020_03_19"
    clicks, wide = open_poisson_clicks(session), open_poisson_clicks(session, bins_per_bin=3)
    whole = clicks["mask"].values[:, :, 0].sum(1) // 3 * 3
    n_bins = clicks.sizes["time"]
    kept = np.arange(n_bins) < whole[:, None]
    assert wide["counts"].values.sum() == clicks["counts"].values[kept].sum()
    assert wide["mask"].values[:, :, 0].sum() * 3 == kept.sum()
    assert wide["inputs"].values.sum() == clicks["inputs"].values[:, : n_bins // 3 * 3].sum()
    assert set(wide.coords) == set(clicks.coords)


SESSIONS = (
    list(zip(*read_table(RECORDINGS / "rat_poisson_clicks" / "sessions.csv").values(), strict=True))
    if RECORDINGS.is_dir()
    else []
)


@pytest.mark.parametrize(
    "session",
    [
        pytest.param(s, id=s[0].removesuffix(".mat"), marks=() if s[0].startswith("X062") else pytest.mark.slow)
        # All are read alike; with every call checked, one takes some 15 s.
        for s in SESSIONS[3::5]
    ],
)
def test_a_click_session_has_the_cells_trials_bins_and_rates_of_its_table(session):
    file, _, neurons, trials, bins, _, rate, right, *areas = session
    opened = open_poisson_clicks(file.removesuffix(".mat"))
    assert (opened.sizes["unit"], opened.sizes["trial"]) == (neurons, trials)
    observed = opened["mask"].values[:, :, 0]
    assert observed.sum() == bins
    assert opened["counts"].values[observed].mean() / 0.01 == pytest.approx(rate, abs=1e-3)
    assert (opened["choice"].values == 1).mean() == pytest.approx(right, abs=1e-4)
    named = ("dmFC", "mPFC", "FOF", "M1", "dStr", "vStr")
    assert [(opened["area"].values == area).sum() for area in named] == list(areas)


def test_the_click_sessions_together_are_those_of_the_notes():
    assert (len(SESSIONS), len({rat for _, rat, *_ in SESSIONS})) == (20, 11)
    assert [sum(session[at] for session in SESSIONS) for at in (2, 3)] == [1139, 9896]


@pytest.mark.parametrize(("epoch", "bins", "rate"), [("Qsws", 870_900, 3.4), ("Qrem", 97_600, 3.2)])
def test_head_direction_cells_asleep_have_the_bins_and_rates_of_the_notes(epoch, bins, rate):
    asleep = open_head_direction(epoch=epoch)
    assert dict(asleep.sizes) == {"trial": 1, "time": bins, "unit": 19}
    assert asleep["counts"].values.mean() / 0.01 == pytest.approx(rate, abs=0.06)


def test_head_direction_cells_are_212078_bins_of_19_cells_cut_into_trials():
    whole = open_head_direction()
    assert dict(whole.sizes) == {"trial": 1, "time": 212078, "unit": 19}
    rates = whole["counts"].values.mean((0, 1)) / 0.01
    assert (rates.min(), rates.max()) == pytest.approx((0.36, 12.6), abs=0.1)
    trials = open_head_direction(bins_per_bin=5, trial_bins=200)
    check_recording(trials)
    assert dict(trials.sizes) == {"trial": 212078 // 5 // 200, "time": 200, "unit": 19}
    assert trials["angle"].values[3, 7] == whole["angle"].values[(3 * 200 + 7) * 5]
    assert trials["counts"].values[3, 7].sum() == whole["counts"].values[0, 3035:3040].sum()


@pytest.mark.parametrize(
    ("animal", "neurons", "named"),
    [("2022-07-26-31", 146, 100), ("2022-07-26-38", 141, 87), ("2022-08-02-31", 130, 104)],
)
def test_every_worm_has_the_neurons_and_names_of_the_notes(animal, neurons, named):
    worm = open_worm(animal)
    assert worm["fluorescence"].shape == (1, 800, neurons)
    assert (worm["label"].values != "").sum() == named
    assert np.isfinite(worm["fluorescence"].values).all()


def test_worm_has_800_frames_of_146_neurons_and_100_names():
    worm = open_worm(behaviour=("velocity", "head_angle"))
    check_recording(worm)
    assert worm["fluorescence"].shape == (1, 800, 146)
    assert (worm["label"].values != "").sum() == 100
    assert worm["inputs"].shape == (1, 800, 2)
    assert worm["input"].values.tolist() == ["velocity", "head_angle"]


def test_maze_trial_is_read_from_columns_by_pattern():
    maze = open_maze_trial()
    check_recording(maze)
    assert maze.sizes["time"] == 3236
    # unit_1011 does not fire in this trial.
    assert maze["unit"].values[:2].tolist() == ["unit_1021", "unit_1022"]
    assert maze.attrs["bin_width"] == pytest.approx(0.001)
    assert maze["counts"].values.sum() / (182 * 3.236) == pytest.approx(2.8, abs=0.1)


def test_tectum_activity_is_transposed_by_its_mapping():
    assert open_tectum()["fluorescence"].shape == (1, 4245, 114)


@pytest.mark.parametrize("network", ["bistable_attractors", "limit_cycle"])
def test_loadings_of_the_teacher_networks_are_plain_fields(network):
    tree = read_tree(RECORDINGS / "connector_synthetic" / f"{network}.npz")
    assert {name: tree[name].shape for name in tree} == {"MBD": (1000, 2), "N": (1000, 2)}


@pytest.mark.parametrize(
    ("table", "rows", "unit"),
    [
        ("OSI_DSI_neuropixels_v4", 3156, "ecephys_unit_id"),
        ("functional_connectivity_2Hz", 8643, "node_id"),
        ("drifting_gratings_2Hz", 9141, "node_id"),
        ("first_spontaneous_rate", 17784, "unit_id"),
        ("waveform_type", 17784, "ecephys_unit_id"),
        ("layer_info", 99180, "ecephys_unit_id"),
    ],
)
def test_tables_of_metrics_per_unit_have_the_rows_of_the_notes(table, rows, unit):
    columns = read_table(RECORDINGS / "allen_neuropixels_v1_metrics" / f"{table}.csv.gz")
    assert {len(each) for each in columns.values()} == {rows}
    assert columns[unit].dtype == np.int64


def test_direction_selectivity_of_cell_types_is_that_of_the_notes():
    table = read_table(RECORDINGS / "allen_neuropixels_v1_metrics" / "OSI_DSI_neuropixels_v4.csv.gz")
    upper = table["cell_type"] == "L2/3 Exc"
    assert (upper.sum(), np.unique(table["cell_type"]).size) == (503, 17)
    assert (np.nanmedian(table["OSI"][upper]), np.nanmedian(table["DSI"][upper])) == pytest.approx(
        (0.29, 0.21), abs=5e-3
    )
