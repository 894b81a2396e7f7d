"""Whole fits by Gibbs sampling: planted truth is found, and runs go on where they ended."""

import jax
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.dynamics.low_rank import gaussian_network
from connectinfer.dynamics.simulate import simulate_bins
from connectinfer.inference.fit import fit
from connectinfer.statistics.latent_recovery import latent_r2

TINY = {"engine": "state_space", "rank": 1, "warmup": 10, "chains": 2, "show_progress": False}


@pytest.fixture(scope="module")
def counts():
    """Spikes of a network near a limit cycle, in trials of which every other ends early; and its path."""
    network = gaussian_network(jax.random.key(0), [[1.8, -1.0], [1.0, 1.8]], 0.5, 40)
    start = jax.random.normal(jax.random.key(1), (12, 2))
    latent = np.asarray(simulate_bins(jax.random.key(2), network, start, 80, 0.1, 0.05).latent, float)
    rate = np.exp(latent @ np.asarray(network.m, float).T - 0.8)
    mask = np.ones(rate.shape, bool)
    mask[1::2, 60:] = False
    values = np.random.default_rng(0).poisson(rate)
    return recording(time=0.01 * np.arange(80), counts=values, mask=mask), latent


@pytest.mark.slow
def test_the_path_of_a_known_network_is_found(counts):
    data, latent = counts
    result = fit("low_rank_rnn_poisson", data, engine="state_space", warmup=50, draws=50, show_progress=False)
    found = result["posterior"]["latent"].mean(("chain", "draw")).values
    alive = data["mask"].any("unit").values
    assert latent_r2(found[alive][None], latent[alive][None]) > 0.95
    stats = result["sample_stats"].to_dataset()
    assert float(stats["path_acceptance"].mean()) > 0.5
    assert int(stats["failed_updates"].sum()) == 0
    assert np.isfinite(result["posterior"]["latent"]).all()


@pytest.mark.slow
def test_a_run_that_goes_on_makes_the_very_draws_of_one_that_did_not_end(counts, tmp_path):
    data = counts[0].isel(trial=slice(4), time=slice(40), unit=slice(8))
    whole = fit("low_rank_rnn_poisson", data, draws=30, **TINY)
    fit("low_rank_rnn_poisson", data, draws=10, checkpoint=tmp_path / "run", **TINY)
    gone_on = fit("low_rank_rnn_poisson", data, draws=30, checkpoint=tmp_path / "run", **TINY)
    assert gone_on.attrs["went_on_after"] == 20
    xr.testing.assert_identical(whole["posterior"].to_dataset(), gone_on["posterior"].to_dataset())


@pytest.mark.slow
def test_thinning_keeps_the_last_of_every_so_many_sweeps(counts):
    data = counts[0].isel(trial=slice(4), time=slice(40), unit=slice(8))
    whole = fit("low_rank_rnn_poisson", data, draws=20, **TINY)
    kept = fit("low_rank_rnn_poisson", data, draws=20, thinning=3, **TINY)
    np.testing.assert_array_equal(kept["posterior"]["m"], whole["posterior"]["m"][:, [1, 4, 7, 10, 13, 16, 19]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "`draws` at least as many as `thinning`; got warmup=10, thinning=1 and draws=0"),
        ({"thinning": 0}, "`thinning` at least 1 .* thinning=0"),
        ({"warmup": -1}, "`warmup` must be at least 0, .* warmup=-1"),
        ({"chains": 0}, "`chains` must be at least 1; got 0"),
    ],
)
def test_options_out_of_range_are_refused(counts, options, message):
    with pytest.raises(ValueError, match=message):
        fit("low_rank_rnn_poisson", counts[0], **TINY | options)


def test_a_model_without_conditionals_is_refused(counts):
    with pytest.raises(ValueError, match=r"has no `CONDITIONALS`\. Use 'nuts' or 'svi'"):
        fit("low_rank_rnn_ode", counts[0], engine="state_space")
