"""The mappings of the real files give the numbers that the notes on the data state."""

import numpy as np
import pytest
from shared_data import (
    needs_shared_data,
    open_cortex_connectome,
    open_head_direction,
    open_larva_connectome,
    open_maze_trial,
    open_poisson_clicks,
    open_tectum,
    open_worm,
    open_worm_connectome,
)

from connectinfer.data.recording import check_recording

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


def test_wider_bins_keep_every_spike_and_click_of_whole_bins(clicks):
    wide = open_poisson_clicks(bins_per_bin=3)
    whole = clicks["mask"].values[:, :, 0].sum(1) // 3 * 3
    kept = np.arange(100) < whole[:, None]
    assert wide["counts"].values.sum() == clicks["counts"].values[kept].sum()
    assert wide["mask"].values[:, :, 0].sum() * 3 == kept.sum()
    assert wide["inputs"].values.sum() == clicks["inputs"].values[:, :99].sum()
    assert set(wide.coords) == set(clicks.coords)


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


def test_larva_connectome_has_the_counts_of_the_notes():
    larva = open_larva_connectome()
    assert (larva.sizes["neuron"], larva.sizes["edge"]) == (3013, 111243)
    assert larva["synapse_count"].values.sum() == 353859
    assert (larva["pre"].values == larva["post"].values).sum() == 537
    assert "KCs" in larva["cell_type"].values


def test_worm_connectome_has_the_counts_of_the_notes():
    worm = open_worm_connectome()
    assert (worm.sizes["neuron"], worm.sizes["edge"], worm["sections"].values.sum()) == (446, 4879, 28113)


def test_synapse_table_of_cortex_sums_to_the_edges_of_the_notes_without_losing_digits():
    cortex = open_cortex_connectome()
    assert (cortex.sizes["neuron"], cortex.sizes["edge"]) == (334, 1734 + 2)
    assert cortex["synapse_count"].values.sum() == 1961
    assert cortex["neuron"].values.min() > 2**53
