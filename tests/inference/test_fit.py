import json

import jax
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.inference import fit as fit_module
from connectinfer.inference.fit import fit
from connectinfer.zoo import load_model

TINY = {"warmup": 2, "draws": 4, "thinning": 2, "chains": 2, "show_progress": False}


def test_options_kept_by_name_only_are_listed_and_an_interruption_is_said(monkeypatch, capsys):
    given = []

    def engine(key, model, inputs, *, labels=None, initial=None, guide="normal", steps=1):
        given.append((key, model, inputs, labels, initial, guide, steps))
        return xr.DataTree(xr.Dataset(attrs={"status": "interrupted"}))

    monkeypatch.setitem(fit_module.ENGINES, "svi", engine)
    data = recording(rates=np.random.default_rng(0).normal(size=(2, 30, 3)), time=0.01)
    result = fit("low_rank_rnn_gaussian", data, engine="svi", rank=1, guide=np.mean, steps=np.int64(3))
    assert json.loads(result.attrs["options"]) == {"rank": 1, "guide": "mean", "steps": 3}
    assert result.attrs["options_by_name"] == "guide"
    assert given[0][-2:] == (np.mean, 3)
    assert "The fit was interrupted" in capsys.readouterr().err


@pytest.mark.slow
def test_options_reach_the_model_and_the_engine_and_the_result_says_what_was_run():
    data = load_model("low_rank_rnn_poisson").example(jax.random.key(0)).assign_attrs(source="session.npz")
    result = fit("low_rank_rnn_poisson", data, seed=7, rank=1, tau=0.2, **TINY)
    assert result["posterior"].sizes["latent_dim"] == 1
    assert result["posterior"].sizes["draw"] == 2
    assert result["constant_data"].attrs["tau"] == 0.2
    wanted = {"model": "low_rank_rnn_poisson", "engine": "state_space", "seed": 7, "warmup": 2, "thinning": 2}
    assert wanted.items() <= result.attrs.items()
    assert json.loads(result.attrs["options"]) == {
        "rank": 1,
        "tau": 0.2,
        "warmup": 2,
        "draws": 4,
        "thinning": 2,
        "chains": 2,
    }
    assert "options_by_name" not in result.attrs
    assert (result.attrs["observed_kind"], result.attrs["source"]) == ("counts", "session.npz")
    np.testing.assert_array_equal(result["posterior"]["unit"].values, data["unit"].values)
