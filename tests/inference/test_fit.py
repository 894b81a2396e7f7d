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


def test_silent_units_stay_in_the_result_and_are_marked(monkeypatch, capsys):
    def engine(key, model, inputs, *, labels=None, initial=None, show_progress=True):
        del key, model, inputs, initial, show_progress
        units = labels.coords["unit"]
        m = xr.DataArray(np.zeros((1, 2, len(units))), dims=("chain", "draw", "unit"), coords={"unit": units})
        return xr.DataTree.from_dict({"posterior": xr.Dataset({"m": m}), "sample_stats": xr.Dataset()})

    monkeypatch.setitem(fit_module.ENGINES, "svi", engine)
    counts = np.random.default_rng(0).poisson(1.0, (2, 30, 3)) * [1, 0, 1]
    data = recording(counts=counts, time=0.01, unit=["a", "b", "c"])
    result = fit("low_rank_rnn_poisson", data, engine="svi", rank=1)
    assert result["posterior"]["m"].sel(unit="b")["silent"]
    assert result["posterior"]["silent"].values.tolist() == [False, True, False]
    assert "1 of 3 units never fire in the observed bins: 'b'." in " ".join(capsys.readouterr().err.split())
    said = json.loads(result.attrs["limits"])["silent units"]
    assert (said["value"], said["asked"]) == (1, "none")
    quiet = fit("low_rank_rnn_poisson", data.isel(unit=[0, 2]), engine="svi", rank=1, show_progress=False)
    assert "silent" not in quiet["posterior"].coords
    assert "limits" not in quiet.attrs
    assert capsys.readouterr().err == ""
