"""Paths integrated out: a random walk whose likelihood, posterior and left-out trials follow from a covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conjugate import INPUTS, linear_model
from numpyro.infer.util import log_density
from scipy.special import logsumexp
from scipy.stats import lognorm, multivariate_normal

from connectinfer.diagnostics.checks import diagnose
from connectinfer.diagnostics.compare import compare
from connectinfer.dynamics.observation import Gaussian
from connectinfer.inference.nuts import sample_nuts
from connectinfer.inference.result import Labels
from connectinfer.inference.svi import fit_svi
from connectinfer.latent.path_model import integrate_paths, sample_paths
from connectinfer.latent.state_space import StateSpace

N_TRIALS, N_BINS, DECAY = 24, 8, 0.9
NAMES = ("step", "noise")
MEDIANS = {"step": 0.5, "noise": 0.5}
LABELS = Labels("walk", {"latent": ["trial", "time", "latent_dim"]}, {})
QUIET = {"labels": LABELS, "show_progress": False, "integrate_paths": True}


def decay(z, _):
    return DECAY * z


def walk(activity, mask):
    """z_1 ~ N(0, 1), z_{t+1} ~ N(0.9 z_t, step^2), y_t ~ N(z_t, noise^2)."""
    step, noise = (numpyro.sample(name, dist.LogNormal(jnp.log(MEDIANS[name]), 0.5)) for name in NAMES)
    space = StateSpace(
        initial_mean=jnp.zeros(1),
        initial_tril=jnp.eye(1),
        transition=jax.tree_util.Partial(decay),
        noise_tril=step * jnp.eye(1),
        inputs=jnp.zeros((*mask.shape[:2], 0)),
        loading=jnp.ones((1, 1)),
        offset=jnp.zeros(1),
        observation=Gaussian(noise * jnp.ones(1)),
    )
    sample_paths("signal", space, activity, mask)


def covariance(step):
    """Of a path."""
    noise = np.diag([1.0] + [step**2] * (N_BINS - 1))
    root = np.linalg.inv(np.eye(N_BINS) - DECAY * np.eye(N_BINS, k=-1))
    return root @ noise @ root.T


def trial_likelihoods(step, noise):
    law = multivariate_normal(np.zeros(N_BINS), covariance(step) + noise**2 * np.eye(N_BINS))
    return law.logpdf(DATA["activity"][..., 0])


def log_prior(values):
    return sum(lognorm(0.5, scale=MEDIANS[name]).logpdf(value) for name, value in zip(NAMES, values, strict=True))


def simulated():
    generator = np.random.default_rng(0)
    path = generator.multivariate_normal(np.zeros(N_BINS), covariance(0.4), size=N_TRIALS)
    return path, path + 0.6 * generator.normal(size=path.shape)


PATH, SIGNAL = simulated()
DATA = {"activity": SIGNAL[..., None], "mask": np.ones((N_TRIALS, N_BINS, 1), bool)}
GRID = np.stack(np.meshgrid(np.linspace(0.02, 1.2, 60), np.linspace(0.2, 1.2, 60), indexing="ij"), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def on_grid():
    """Log likelihoods of trials `(point, trial)`, and the weights of the posterior."""
    by_trial = np.stack([trial_likelihoods(*point) for point in GRID])
    log_weight = by_trial.sum(1) + np.array([log_prior(point) for point in GRID])
    return by_trial, np.exp(log_weight - logsumexp(log_weight))


@pytest.fixture(scope="module")
def sampled():
    start = {"step": 0.5, "noise": 0.5, "latent": np.zeros((N_TRIALS, N_BINS, 1))}
    options = QUIET | {"warmup": 100, "draws": 400, "chains": 2, "initial": start}
    return sample_nuts(jax.random.key(0), walk, DATA, **options)


@pytest.fixture(scope="module")
def guided():
    return fit_svi(jax.random.key(0), walk, DATA, steps=400, learning_rate=0.05, particles=2, draws=500, **QUIET)


def test_the_factor_and_its_gradient_are_those_of_the_covariance():
    with jax.enable_x64(True):
        arrays = {"activity": jnp.asarray(DATA["activity"]), "mask": jnp.asarray(DATA["mask"])}
        density = jax.jit(jax.value_and_grad(lambda v: log_density(integrate_paths(walk), (), arrays, v)[0]))
        exact = lambda step, noise: trial_likelihoods(step, noise).sum() + log_prior((step, noise))  # noqa: E731
        for step, noise in ((0.3, 0.7), (0.05, 0.3)):
            value, slope = density({"step": jnp.asarray(step), "noise": jnp.asarray(noise)})
            assert float(value) == pytest.approx(exact(step, noise), rel=1e-9)
            h = 1e-5
            by_step = (exact(step + h, noise) - exact(step - h, noise)) / (2 * h)
            by_noise = (exact(step, noise + h) - exact(step, noise - h)) / (2 * h)
            assert float(slope["step"]) == pytest.approx(by_step, rel=1e-5)
            assert float(slope["noise"]) == pytest.approx(by_noise, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sampled", "guided"])
def test_parameters_have_the_posterior_of_the_grid(engine, request, on_grid):
    posterior = request.getfixturevalue(engine)["posterior"]
    for axis, name in enumerate(NAMES):
        mean = GRID[:, axis] @ on_grid[1]
        sd = np.sqrt((GRID[:, axis] - mean) ** 2 @ on_grid[1])
        # 4 standard errors of 200 independent draws; the guide ignores a weak correlation.
        assert float(posterior[name].mean()) == pytest.approx(mean, abs=0.3 * sd)
        assert float(posterior[name].std()) == pytest.approx(sd, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sampled", "guided"])
def test_paths_are_drawn_from_their_posterior(engine, request, on_grid):
    result = request.getfixturevalue(engine)
    means, variances = [], []
    for step, noise in GRID:
        prior = covariance(step)
        gain = prior @ np.linalg.inv(prior + noise**2 * np.eye(N_BINS))
        means.append(SIGNAL[0] @ gain.T)
        variances.append(np.diag(prior - gain @ prior))
    mean = on_grid[1] @ np.stack(means)
    sd = np.sqrt(on_grid[1] @ (np.stack(variances) + (np.stack(means) - mean) ** 2))
    drawn = result["posterior"]["latent"].sel(trial=0).values.reshape(-1, N_BINS)
    # 5 standard errors of 300 draws, for 8 bins.
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.3 * sd.max())
    np.testing.assert_allclose(drawn.std(0), sd, rtol=0.25)
    # The Laplace approximation of a Gaussian path is its law.
    assert float(result["sample_stats"]["path_acceptance"].min()) > 0.99
    assert float(result["sample_stats"]["lost_modes"].max()) == 0.0


@pytest.mark.slow
def test_log_likelihoods_are_those_of_trials_without_their_paths(guided):
    found = guided["log_likelihood"].to_dataset()
    assert found["signal"].dims == ("chain", "draw", "trial")
    # Of 500 draws, 400 evenly chosen ones have it.
    assert found.sizes["draw"] == 400
    assert found.attrs["lost_modes"] == 0
    for draw in (1, 399):
        at = guided["posterior"].to_dataset().isel(chain=0).sel(draw=found["draw"][draw])
        exact = trial_likelihoods(float(at["step"]), float(at["noise"]))
        np.testing.assert_allclose(found["signal"].isel(chain=0, draw=draw), exact, atol=1e-3)


@pytest.mark.slow
def test_trials_can_be_left_out_by_reweighting(sampled, on_grid):
    by_trial, weight = on_grid
    # p(y_r | rest) = 1 / E[1 / p(y_r | parameters)] under the posterior of all trials.
    held = weight > 0
    exact = -logsumexp(np.log(weight[held])[:, None] - by_trial[held], axis=0)
    table = compare({"a": sampled, "b": sampled})
    # Monte Carlo error of 400 draws: the elpd's spread over seeds is below a tenth of a nat.
    assert table.loc["a", "score"] == pytest.approx(exact.sum(), abs=0.3)
    assert table.loc["b", "difference"] == 0.0


@pytest.mark.slow
def test_a_guide_of_parameters_alone_is_certified_by_its_weights(guided):
    verdicts = {v.concern: v.verdict for v in diagnose(guided).verdicts}
    assert verdicts["k-hat of the guide"] == "pass"
    assert verdicts["paths"] == "pass"


@pytest.mark.slow
def test_lost_modes_and_paths_far_from_normal_fail(guided):
    broken = guided.copy(deep=True)
    stats = broken["sample_stats"].to_dataset()
    broken["sample_stats"] = stats.assign(path_acceptance=0 * stats.path_acceptance, lost_modes=stats.lost_modes + 0.5)
    verdicts = {v.concern: v for v in diagnose(broken).verdicts}
    assert "Use engine='state_space'" in verdicts["paths"].explanation
    assert verdicts["modes of paths"].verdict == "fail"


@pytest.mark.parametrize("engine", [sample_nuts, fit_svi])
def test_a_model_without_paths_is_refused(engine):
    with pytest.raises(ValueError, match="needs one path that `sample_paths` draws; the model has 0"):
        engine(jax.random.key(0), linear_model, INPUTS, integrate_paths=True, show_progress=False)
