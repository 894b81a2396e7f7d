import jax
import numpy as np
import pytest

from connectinfer.inference.fit import fit
from connectinfer.zoo import load_model

TINY = {"steps": 3, "draws": 4, "show_progress": False}


@pytest.fixture(scope="module")
def data():
    return load_model("low_rank_rnn_poisson").example(jax.random.key(0))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("low_rank_rnn_poison", {}, "Unknown model 'low_rank_rnn_poison'. Did you mean 'low_rank_rnn_poisson'"),
        ("low_rank_rnn_poisson", {"engine": "nut"}, r"Unknown engine 'nut'. Did you mean 'nuts'\? Engines: nuts, svi"),
        ("low_rank_rnn_poisson", {"rnak": 2}, "Unknown option 'rnak' for .* Did you mean 'rank'"),
        ("low_rank_rnn_poisson", {"step": 2}, "Unknown option 'step' for .* Did you mean 'steps'"),
        ("low_rank_rnn_poisson", {"labels": None}, "Unknown option 'labels'"),
        ("low_rank_rnn_ode", {"guide": "normal"}, "with engine 'nuts'.*Options: .*target_accept_prob"),
        ("low_rank_rnn_gaussian", {}, "needs a recording of fluorescence; got counts"),
    ],
)
def test_wrong_names_are_met_with_the_nearest_right_one(data, model, options, message):
    with pytest.raises(ValueError, match=message):
        fit(model, data, **options)


@pytest.mark.slow
def test_options_reach_the_model_and_the_engine_and_the_result_says_what_was_run(data):
    result = fit("low_rank_rnn_poisson", data, seed=7, rank=1, tau=0.2, **TINY)
    assert result["posterior"].sizes["latent_dim"] == 1
    assert result["posterior"].sizes["draw"] == 4
    assert result["constant_data"].attrs["tau"] == 0.2
    wanted = {"model": "low_rank_rnn_poisson", "engine": "svi", "seed": 7, "guide": "normal", "path_sites": "latent"}
    assert wanted.items() <= result.attrs.items()
    np.testing.assert_array_equal(result["posterior"]["unit"].values, data["unit"].values)
