"""Sections of a report say and draw what a result holds, engine by engine and model by model."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from hand_made_results import low_rank, unlabelled

from connectinfer.diagnostics.verdict import Diagnosis
from connectinfer.reporting import convergence
from connectinfer.reporting.activity import activity_section
from connectinfer.reporting.connections import connectivity_section
from connectinfer.reporting.convergence import convergence_section
from connectinfer.reporting.dynamics import flow_section
from connectinfer.reporting.judgement import limits_section
from connectinfer.reporting.observed import observed_in, with_finite_draws
from connectinfer.reporting.parameters import parameters_section
from connectinfer.reporting.pictures import picture, report_look
from connectinfer.reporting.prediction import prediction_section


def said(section):
    """All captions and sentences of a section."""
    return " ".join(getattr(block, "caption", getattr(block, "text", "")) for block in section.blocks)


def test_chains_are_compared_by_the_ranks_of_the_entries_that_agree_least():
    result = unlabelled(chains=2)
    result["posterior"]["theta"].values[1, :, 1] += 3.0
    with report_look():
        (ranks,) = convergence_section(result).blocks
    assert "Ranks of each chain's draws" in ranks.caption
    assert "2 entries" in ranks.caption
    assert not plt.get_fignums()


def trained(**variables):
    """A result of `flow_posterior` after 250 steps, with further `variables` of its training."""
    result = low_rank(engine="flow_posterior")
    loss = xr.Dataset({"loss": ("step", np.linspace(9.0, 3.0, 250))} | variables, attrs={"unlike": 0.5})
    result["optimisation"] = xr.DataTree(loss)
    return result


def test_the_training_of_a_flow_is_no_bound():
    with report_look():
        (curve,) = convergence_section(trained()).blocks
    assert "Negative log density of the true parameters under the flow, averaged over simulations" in curve.caption
    assert "in 250 steps" in curve.caption
    assert "bound" not in curve.caption + curve.alt
    assert "held-out" not in curve.caption


def test_the_loss_over_simulations_held_out_is_drawn_beside_that_of_training(monkeypatch):
    figures = []

    def kept(figure, **words):
        figures.append(figure)
        return picture(figure, **words)

    monkeypatch.setattr(convergence, "picture", kept)
    with report_look():
        (curves,) = convergence_section(trained(validation=("chunk", [8.0, 5.0, 6.0]))).blocks
    (figure,) = figures
    training, held_out = figure.axes[0].lines
    assert training.get_xydata()[[0, -1]].tolist() == [[1, 9], [250, 3]]
    np.testing.assert_allclose(held_out.get_xydata(), [[250 / 3, 8], [500 / 3, 5], [250, 6]])
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == [
        "simulations that train it",
        "simulations held out",
    ]
    assert "Where the curve of the held-out ones rises again" in curves.caption


@pytest.mark.parametrize("engine", ["svi", "flow_posterior"])
def test_a_loss_that_is_not_finite_is_not_drawn(engine):
    result = low_rank(engine=engine)
    result["optimisation"]["loss"].values[1:] = np.nan
    assert "not finite" in said(convergence_section(result))


@pytest.mark.parametrize(
    ("engine", "limits", "source"),
    [
        ("svi", "approximation, which are usually too narrow", "Draws of a variational approximation are independent"),
        ("flow_posterior", "a flow that has seen simulations of the model", "Draws of a trained flow are independent"),
    ],
)
def test_what_cannot_be_known_is_said_of_each_approximation_in_its_own_words(engine, limits, source):
    result = low_rank(engine=engine)
    (points,) = limits_section(result, Diagnosis(()), None).blocks
    assert [limits in point for point in points.sentences].count(True) == 1
    assert source in said(parameters_section(result))


def test_the_table_of_parameters_has_their_moments():
    result = unlabelled(chains=2)
    draws = result["posterior"]["theta"].values[..., 0].ravel()
    low, high = np.quantile(draws, [0.05, 0.95])
    row = parameters_section(result).blocks[0].rows[0]
    assert row[:4] == ("theta[0]", f"{draws.mean():.3g}", f"{draws.std():.3g}", f"{low:.3g} to {high:.3g}")
    assert float(row[4]) == pytest.approx(1.0, abs=0.1)


def test_a_site_of_many_entries_is_one_row_of_ranges():
    result = unlabelled()
    values = np.arange(20.0) + np.zeros((1, 60, 1))
    result["posterior"] = xr.DataTree(xr.Dataset({"x": (("chain", "draw", "place"), values)}))
    (row,) = parameters_section(result).blocks[0].rows
    assert row[:4] == ("x (20 place)", "0 … 19", "0 … 0", "0 to 19")


def test_weights_of_ones_own_model_are_drawn_and_the_sure_ones_listed():
    mean = np.array([[0.0, 3.0], [0.0, 0.0]])
    weight = mean + 0.1 * np.random.default_rng(0).normal(size=(4, 60, 2, 2))
    posterior = xr.Dataset({"w": (("chain", "draw", "post", "pre"), weight)}, {"post": ["a", "b"], "pre": ["a", "b"]})
    with report_look():
        matrices, sentence, table = connectivity_section(xr.DataTree.from_dict({"posterior": posterior})).blocks
    assert "over 200 draws" in matrices.caption
    assert "1 of 2 ordered pairs of neurons (50 %) have a weight of one sign" in sentence.text
    assert [row[:2] for row in table.rows] == [("b", "a")]


@pytest.mark.parametrize(
    ("rank", "drawn"), [(1, "Drift at the visited states"), (3, "of 3 latent dimensions the first two")]
)
def test_networks_of_other_ranks_show_their_fixed_points_too(rank, drawn):
    with report_look():
        section = flow_section(low_rank(rank=rank, draws=1))
    assert drawn in said(section)
    assert section.blocks[-1].columns[0] == "kind"


def as_features(result):
    """The same drift as a sum of features."""
    posterior = result["posterior"].to_dataset()
    posterior["weight"], posterior["slope"], posterior["threshold"] = (
        x.rename(unit="feature") for x in (posterior["n"] / posterior.sizes["unit"], posterior["m"], posterior["d"])
    )
    posterior["constant"] = 0.0 * posterior["weight"].sum("feature")
    changed = result.copy()
    changed["posterior"] = xr.DataTree(posterior.drop_vars(["m", "n", "d", "overlap"]))
    return changed


def test_features_that_make_the_drift_of_a_network_show_its_flow_and_fixed_points():
    result = low_rank(draws=3)
    with report_look():
        network, features = flow_section(result), flow_section(as_features(result))
    assert [block.rows for block in features.blocks[2:]] == [block.rows for block in network.blocks[2:]]
    assert said(features) == said(network)


@pytest.mark.parametrize(("rank", "n_blocks"), [(1, 2), (3, 2)])
def test_a_drift_without_a_known_form_is_shown_where_it_is_known(rank, n_blocks):
    result = low_rank(rank=rank, draws=3)
    result["posterior"] = xr.DataTree(result["posterior"].to_dataset().drop_vars(["m", "n", "d", "overlap"]))
    with report_look():
        section = flow_section(result)
    assert len(section.blocks) == n_blocks
    assert "known only at the visited states" in said(section)


def test_a_signal_is_drawn_beside_what_the_model_expects():
    result = low_rank(counts=False, draws=2)
    observed = observed_in(result)
    assert observed.words == "a signal of 4 trials × 25 bins × 6 units, bins of 0.01 s"
    with report_look():
        assert "signal of every unit, first 3 of 4 trials" in said(activity_section(result, observed))
        assert "Trial 0 as recorded, and as the model expects it" in said(prediction_section(result, observed))


def test_a_recording_is_called_what_it_was():
    result = low_rank(counts=False, draws=2, observed_kind="fluorescence")
    assert observed_in(result).words.startswith("fluorescence of 4 trials")


def test_draws_that_are_not_finite_in_any_chain_are_left_out_and_counted():
    result = low_rank(chains=2, draws=5)
    result["posterior"]["m"].values[1, 3] = np.nan
    result["posterior"]["overlap"].values[0, 1] = np.inf
    kept, left_out = with_finite_draws(result)
    assert left_out == 2
    assert kept["posterior"]["draw"].values.tolist() == [0, 2, 4]
    assert kept["drift"].sizes["draw"] == 3
    assert result["posterior"].sizes["draw"] == 5
