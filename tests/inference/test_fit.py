import json

import jax
import numpy as np
import pytest

from connectinfer.inference.fit import fit
from connectinfer.zoo import load_model

TINY = {"steps": 3, "draws": 4, "show_progress": False}


@pytest.mark.slow
def test_options_reach_the_model_and_the_engine_and_the_result_says_what_was_run():
    data = load_model("low_rank_rnn_poisson").example(jax.random.key(0)).assign_attrs(source="session.npz")
    result = fit("low_rank_rnn_poisson", data, seed=7, rank=1, tau=0.2, **TINY)
    assert result["posterior"].sizes["latent_dim"] == 1
    assert result["posterior"].sizes["draw"] == 4
    assert result["constant_data"].attrs["tau"] == 0.2
    wanted = {"model": "low_rank_rnn_poisson", "engine": "svi", "seed": 7, "guide": "normal", "path_sites": "latent"}
    assert wanted.items() <= result.attrs.items()
    assert json.loads(result.attrs["options"]) == {"rank": 1, "tau": 0.2, "steps": 3, "draws": 4}
    assert (result.attrs["observed_kind"], result.attrs["source"]) == ("counts", "session.npz")
    np.testing.assert_array_equal(result["posterior"]["unit"].values, data["unit"].values)
