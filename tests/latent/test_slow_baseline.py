"""Slow baselines: their law, and their moves given all else. (Sweeps of whole models: `test_path_gibbs.py`.)"""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro import handlers

from connectinfer.data.recording import recording
from connectinfer.dynamics.observation import Gaussian
from connectinfer.inference.fit import fit
from connectinfer.inference.infer_paths import infer_paths
from connectinfer.latent.slow_baseline import (
    SlowBaseline,
    sample_slow_baseline,
    slow_baseline_sites,
    update_slow_baseline,
)
from connectinfer.latent.state_space import Seen

N_TRIALS, N_UNITS, TIMESCALE = 6, 2, 3.0


def deviations(sites):
    with handlers.substitute(data=sites), handlers.trace() as trace:
        sample_slow_baseline(N_TRIALS, N_UNITS)
    return trace["baseline"]["value"]


def covariance(scale, timescale, n_trials):
    lag = np.abs(np.subtract.outer(np.arange(n_trials), np.arange(n_trials)))
    return scale**2 * np.exp(-lag / timescale)


def test_deviations_are_stationary_with_exponential_correlations(key):
    laws = {"baseline_scale": jnp.array(0.7), "baseline_timescale": jnp.array(TIMESCALE)}
    make = lambda x: deviations(laws | {"baseline_innovation": x})[:, 0]  # noqa: E731
    root = jax.jacobian(make)(jax.random.normal(key, (N_TRIALS, N_UNITS)))
    np.testing.assert_allclose(root[..., 0] @ root[..., 0].T, covariance(0.7, TIMESCALE, N_TRIALS), atol=1e-6)
    np.testing.assert_allclose(root[..., 1], 0.0)


def test_sites_of_a_baseline_make_it_again(key):
    made = SlowBaseline(jax.random.normal(key, (N_TRIALS, N_UNITS)), jnp.array(0.3), jnp.array(40.0))
    np.testing.assert_allclose(deviations(slow_baseline_sites(made)), made.deviation, rtol=1e-4, atol=1e-6)


def test_moves_given_gaussian_signals_have_the_moments_of_the_exact_posterior():
    # By quadrature over the scale and the timescale, given which deviations and intercept are normal.
    rng = np.random.default_rng(0)
    noise, prior, n_bins = 0.8, (0.2, 1.0), 3
    signal = rng.normal(size=(N_TRIALS, n_bins, 1)) * noise + 0.5 * rng.normal(size=(N_TRIALS, 1, 1))
    mask = np.ones(signal.shape, bool)
    mask[2] = False
    seen = Seen.of(jnp.asarray(signal, float), jnp.asarray(mask))
    start = SlowBaseline(jnp.zeros((N_TRIALS, 1)), jnp.array(0.2), jnp.array(10.0))

    def step(now, key):
        law = (jnp.full(1, prior[0]), prior[1])
        *now, _ = update_slow_baseline(key, *now, law, jnp.zeros(signal.shape), seen, Gaussian(jnp.full(1, noise)))
        baseline, intercept = now
        kept = [jnp.log(baseline.scale), jnp.log(baseline.timescale), intercept[0], *baseline.deviation[:, 0]]
        return now, jnp.stack(kept)

    run = jax.jit(lambda keys: jax.lax.scan(step, [start, jnp.zeros(1)], keys)[1])
    drawn = np.asarray(run(jax.random.split(jax.random.key(1), 30_500)))[500:]

    means, weights = [], []
    count, total = mask[..., 0].sum(1), np.where(mask, signal, 0.0).sum((1, 2))
    for log_scale in np.linspace(np.log(0.2) - 3, np.log(0.2) + 3, 61):
        for log_timescale in np.linspace(np.log(10) - 4, np.log(10) + 4, 61):
            law = np.zeros((N_TRIALS + 1, N_TRIALS + 1))
            law[0, 0] = prior[1] ** 2
            law[1:, 1:] = covariance(np.exp(log_scale), np.exp(log_timescale), N_TRIALS)
            design = np.concatenate([np.ones((N_TRIALS, 1)), np.eye(N_TRIALS)], 1)
            centre = np.array([prior[0], *np.zeros(N_TRIALS)])
            precision = np.linalg.inv(law) + design.T @ (count[:, None] / noise**2 * design)
            moment = np.linalg.solve(law, centre) + design.T @ total / noise**2
            mean = np.linalg.solve(precision, moment)
            evidence = 0.5 * (moment @ mean - np.linalg.slogdet(precision)[1] - np.linalg.slogdet(law)[1])
            evidence -= 0.5 * (((log_scale - np.log(0.2)) / 0.7) ** 2 + (log_timescale - np.log(10)) ** 2)
            weights.append(evidence)
            means.append([log_scale, log_timescale, *mean])
    weights = np.exp(np.array(weights) - max(weights))
    expected = weights @ np.array(means) / weights.sum()
    effective = [float(az.ess(xr.Dataset({"x": (("chain", "draw"), x[None])}))["x"]) for x in drawn.T]
    # Five standard errors: a false alarm in 5e-6 of all runs.
    scores = (drawn.mean(0) - expected) / (drawn.std(0) / np.sqrt(effective))
    assert np.abs(scores).max() < 5, scores


def wandering():
    """Counts of units that a path drives, with log rates that wander from trial to trial, and these deviations."""
    rng = np.random.default_rng(0)
    n_trials, n_bins, n_units = 40, 20, 8
    root = np.linalg.cholesky(covariance(0.5, 8.0, n_trials))
    deviation = root @ rng.normal(size=(n_trials, n_units))
    path = 0.5 * rng.normal(size=(n_trials, 1)) + 0.3 * np.cumsum(rng.normal(size=(n_trials, n_bins)), 1) / n_bins**0.5
    log_rate = np.log(0.5) + deviation[:, None] + path[..., None] * rng.normal(size=n_units)
    return deviation, recording(time=0.01 * np.arange(n_bins), counts=rng.poisson(np.exp(log_rate)))


@pytest.fixture(scope="module")
def planted():
    """Wandering counts, their deviations, and a fit."""
    deviation, data = wandering()
    options = {"rank": 1, "baseline": "slow", "warmup": 100, "draws": 100, "chains": 2}
    return deviation, data, fit("low_rank_rnn_poisson", data, **options, show_progress=False)


@pytest.mark.slow
def test_planted_baselines_are_recovered_with_honest_bands(planted):
    deviation, _, result = planted
    posterior = result["posterior"].to_dataset().stack(sample=("chain", "draw"))
    assert posterior["baseline"].dims[:2] == ("trial", "unit")
    level = (posterior["baseline"] + posterior["bias"] + posterior["gain"] * posterior["d"]).values
    true = deviation - deviation.mean(0)
    found = level - level.mean(0)
    assert np.corrcoef(found.mean(-1).ravel(), true.ravel())[0, 1] > 0.8
    low, high = np.quantile(found, [0.05, 0.95], axis=-1)
    # 8 units of about 40 / 16 independent stretches each: 20 clusters, whose 99 % band is about 0.17 wide.
    assert 0.78 < ((low <= true) & (true <= high)).mean() < 0.98
    assert np.quantile(posterior["baseline_scale"], 0.005) < 0.5 < np.quantile(posterior["baseline_scale"], 0.995)


@pytest.mark.slow
def test_paths_of_other_trials_cannot_be_inferred_without_their_baselines(planted):
    _, data, result = planted
    said = r"known of the fit's own trials alone, so it cannot be applied to others\. Hide what is to be predicted"
    with pytest.raises(ValueError, match=said):
        infer_paths(result, data.isel(trial=slice(3)))


@pytest.mark.parametrize(
    ("option", "trials", "said"),
    [
        ("wandering", 40, r"`baseline` must be one of \['constant', 'slow'\]; got 'wandering'"),
        ("slow", 1, "wanders from trial to trial, and the recording has one trial"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused(option, trials, said):
    with pytest.raises(ValueError, match=said):
        fit("low_rank_rnn_poisson", wandering()[1].isel(trial=slice(trials)), rank=1, baseline=option)
