"""Sweeps leave the joint law of parameters, paths and observations as it is, and follow known posteriors of paths."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.dynamics.low_rank import LowRankRNN
from connectinfer.inference.path_gibbs import continued, first_link, sweep
from connectinfer.inference.trace import bind, evaluate, map_draws
from connectinfer.latent import network_dynamics, path_moves
from connectinfer.latent.known_network import known_network
from connectinfer.latent.path_model import observation_law
from connectinfer.latent.state_space import Seen
from connectinfer.zoo import load_model

N_UNITS, N_TRIALS, N_BINS = 5, 2, 8
_LEFT_OUT = 300


class Joint:
    """A small data set of a model: its prior, and sweeps that alternate with new observations.

    Both draw parameters, paths and observations from their joint law. Source: Geweke, JASA 99, 799 (2004).
    """

    def __init__(self, name, **options):
        options |= {"features": 4} if "feature" in name else {}
        generator = np.random.default_rng(0)
        counts = generator.poisson(3.0, (N_TRIALS, N_BINS, N_UNITS))
        values = {"fluorescence": counts / 3.0} if name.endswith(("gaussian", "calcium")) else {"counts": counts}
        mask = np.ones(counts.shape, bool)
        # A trial that ends early, and a missing entry.
        mask[1, 6:], mask[0, 2, 1] = False, False
        pulse = np.zeros((N_TRIALS, N_BINS, 1))
        pulse[:, 2:5] = 1.0
        self.module = load_model(name)
        data = recording(time=0.01 * np.arange(N_BINS), inputs=pulse, mask=mask, **values)
        self.inputs, _ = self.module.inputs(data, **options)
        self.bound, self.arrays = bind(self.module.model, self.inputs)

    def prior(self, n_draws):
        def draw(key, _, arrays):
            return summaries(evaluate(key, self.bound, arrays, {}).sites)

        return map_draws(draw, jax.random.split(jax.random.key(1), n_draws), {}, self.arrays)

    def swept(self, n_chains, n_sweeps):
        """Summaries `(chain, sweep)`."""
        conditionals = self.module.CONDITIONALS

        def step(chain, key):
            key_data, key_chain, key_sites = jax.random.split(key, 3)
            space = conditionals.space(chain.parameters, self.inputs)
            law = observation_law(space.observation, space.predictor(chain.paths))
            activity = jnp.asarray(law.sample(key_data), float)
            seen = Seen.of(activity, self.inputs["mask"])
            chain = chain._replace(key=key_chain, mode=jnp.zeros_like(chain.mode))
            chain, stats = sweep(chain, conditionals, seen, {**self.inputs, "activity": activity}, 0)
            space = conditionals.space(chain.parameters, self.inputs)
            paths = continued(key_data, space, seen, chain.paths)
            sites = conditionals.sites(key_sites, chain.parameters, paths, self.inputs)
            values = evaluate(key_sites, self.bound, self.arrays, sites).sites
            return chain, (summaries(values), stats)

        chain = first_link(jax.random.key(2), *conditionals.begin(self.inputs))._replace(noise_step=jnp.array(0.4))
        run = jax.jit(jax.vmap(lambda keys: jax.lax.scan(step, chain, keys)[1]))
        found = run(jax.random.split(jax.random.key(3), (n_chains, n_sweeps + _LEFT_OUT)))
        return jax.tree.map(lambda x: np.asarray(x)[:, _LEFT_OUT:], found)


def summaries(sites):
    """Numbers with light tails that no rotation of the latent space changes."""
    return network_summaries(sites) if "m" in sites else feature_summaries(sites)


def network_summaries(sites):
    m, n, z = sites["m"], sites["n"], sites["latent"]
    found = {
        "process noise": jnp.log(sites["process_noise"]),
        "initial": jnp.log(sites["initial_scale"]),
        "gain": jnp.log(sites["gain"]).mean(),
        "gain spread": (jnp.log(sites["gain"]) ** 2).mean(),
        "d": sites["d"].mean(),
        "d spread": (sites["d"] ** 2).mean(),
        "bias": sites["bias"].mean(),
        "b": (sites["b"] ** 2).mean(),
        "m": jnp.log((m**2).sum()),
        "n": jnp.log((n**2).sum()),
        "overlap": jnp.arctan(jnp.trace(sites["overlap"])),
        "n and d": jnp.arctan((n * sites["d"][:, None]).mean()),
        "drift": jnp.arctan((jnp.tanh(z[0, 0] @ m.T + sites["d"]) @ n) @ z[0, 0]),
        "first bin": jnp.log((z[:, 0] ** 2).sum()),
        "last bin": jnp.log((z[0, -1] ** 2).sum()),
        "after the end": jnp.log((z[1, -1] ** 2).sum()),
    }
    if "baseline" in sites:
        offset = sites["baseline"]
        found |= {
            "baseline": offset.mean(),
            "baseline spread": jnp.log((offset**2).mean()),
            "baseline steps": jnp.log(((offset[1] - offset[0]) ** 2).mean()),
            "baseline and bias": jnp.arctan((offset * sites["bias"]).mean()),
        }
    own = {"concentration", "noise", "calcium_decay", "baseline_scale", "baseline_timescale"} & set(sites)
    return found | {name: jnp.log(sites[name]).mean() for name in own}


def feature_summaries(sites):
    c, w, z = sites["raw_loading"], sites["raw_weight"], sites["latent"]
    roots = {name: jnp.diagonal(sites[f"raw_{name}"]) for name in ("noise", "initial")}
    return {name: jnp.log(root).sum() for name, root in roots.items()} | {
        "noise shape": jnp.arctan(sites["raw_noise"][-1, 0] / roots["noise"][0]),
        "initial mean": sites["raw_initial_mean"].mean(),
        "initial mean spread": (sites["raw_initial_mean"] ** 2).mean(),
        "loading scale": jnp.log(sites["loading_scale"]),
        "drift scale": jnp.log(sites["drift_scale"]),
        "loadings": jnp.log((c**2).sum()),
        "bias": sites["raw_bias"].mean(),
        "bias spread": sites["raw_bias"].var(),
        "input loading": (sites["input_loading"] ** 2).mean(),
        "weights": jnp.log((w**2).sum()),
        "constant": jnp.arctan(w[0].sum()),
        "input weight": jnp.arctan(w[-1] @ c[0]),
        "feature": jnp.arctan(w[1] @ c[0]),
        "first bin": jnp.log((z[:, 0] ** 2).sum()),
        "first bins": jnp.arctan(z[0, 0].sum()),
        "last bin": jnp.log((z[0, -1] ** 2).sum()),
        "after the end": jnp.log((z[1, -1] ** 2).sum()),
        "increment": jnp.log(((z[0, 1] - z[0, 0]) ** 2).sum()),
        "drift": jnp.arctan(sites["constant"] @ z[0, 0]),
    }


@pytest.mark.parametrize(
    ("model", "options", "sizes"),
    [
        # Pieces of trials, and groups that leave out a unit.
        pytest.param("low_rank_rnn_gaussian", {}, (3, 3), id="gaussian-in-parts"),
        pytest.param("low_rank_rnn_gaussian", {"baseline": "slow"}, (400, 128), id="gaussian-with-slow-baselines"),
        pytest.param("low_rank_rnn_negative_binomial", {"baseline": "slow"}, (400, 128), id="negative-binomial"),
        pytest.param("low_rank_rnn_calcium", {}, (400, 128), id="calcium"),
        pytest.param("random_feature_dynamics_poisson", {}, (400, 128), id="random-features"),
        pytest.param("low_rank_rnn_poisson", {"rank": 1, "baseline": "slow"}, (400, 128), id="poisson"),
    ],
)
@pytest.mark.slow
def test_sweeps_and_new_observations_draw_from_the_prior(model, options, sizes, monkeypatch):
    monkeypatch.setattr(path_moves, "LONGEST_PIECE", sizes[0])
    monkeypatch.setattr(network_dynamics, "_UNITS_TOGETHER", sizes[1])
    joint = Joint(model, **{"rank": 2, **options})
    prior = joint.prior(40_000)
    # Shorter runs did not see proposals that knew what they moved with: b was 4 % too small.
    swept, stats = joint.swept(16, 1500)
    assert not stats["failed_updates"].any()
    scores = {}
    for name, expected in prior.items():
        expected, found = np.asarray(expected), swept[name]
        effective = float(az.ess(xr.Dataset({"x": (("chain", "draw"), found)}))["x"])
        error = np.sqrt(expected.var() / len(expected) + found.var() / effective)
        scores[name] = float((found.mean() - expected.mean()) / error)
    # At most 24 scores a case: one beyond 4 in 1.5e-3 of all runs.
    assert max(map(abs, scores.values())) < 4, scores


def known():
    """Draws of the paths of a known network of one dimension with two Poisson units, and their true moments."""
    generator = np.random.default_rng(1)
    m, n = jnp.array([[1.0], [-0.5]]), jnp.array([[2.5], [1.0]])
    loading, bias, noise, initial = np.array([[0.8], [-0.6]]), np.array([0.3, 0.6]), 0.3, 0.9
    counts = generator.poisson(1.5, (1, 3, 2)).astype(float)
    arrays = {"activity": jnp.asarray(counts, float), "mask": jnp.ones(counts.shape, bool)}
    arrays["filtered"] = jnp.zeros((1, 3, 0))
    _, conditionals = known_network(
        LowRankRNN(m, n),
        jnp.asarray(loading, float),
        jnp.asarray(bias, float),
        process_noise=noise,
        initial_scale=initial,
        alpha=0.3,
    )
    seen = Seen.of(arrays["activity"], arrays["mask"])
    run = jax.jit(
        lambda chain, n: jax.lax.scan(lambda c, _: _kept(sweep(c, conditionals, seen, arrays, 0)), chain, n)[1]
    )
    chain = first_link(jax.random.key(0), *conditionals.begin(arrays))
    drawn = np.asarray(run(chain, jnp.arange(20_000)))[500:, 0, :, 0]

    grid = np.linspace(-4, 4, 161)
    z = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1)
    step = lambda x: 0.7 * x + 0.3 * (np.tanh(x) * 2.5 + np.tanh(-0.5 * x)) / 2  # noqa: E731
    log_density = -0.5 * (z[..., 0] / initial) ** 2
    for t in (1, 2):
        log_density -= 0.5 * ((z[..., t] - step(z[..., t - 1])) / noise) ** 2
    for t in range(3):
        predictor = z[..., t, None] * loading[:, 0] + bias
        log_density += (counts[0, t] * predictor - np.exp(predictor)).sum(-1)
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    mean = np.einsum("abc,abct->t", weight, z)
    return drawn, mean, np.einsum("abc,abct,abcs->ts", weight, z - mean, z - mean)


def _kept(swept):
    return swept[0], swept[0].paths


@pytest.mark.parametrize("longest", [400, 2], ids=["whole", "in-pieces"])
def test_paths_of_a_known_network_have_the_moments_of_their_exact_posterior(longest, monkeypatch):
    monkeypatch.setattr(path_moves, "LONGEST_PIECE", longest)
    drawn, mean, covariance = known()
    effective = [float(az.ess(xr.Dataset({"x": (("chain", "draw"), x[None])}))["x"]) for x in drawn.T]
    error = np.sqrt(np.diag(covariance) / effective)
    # Five standard errors: a false alarm in 1e-5 of all runs.
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * error.max())
    largest = np.diag(covariance).max()
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=8 * largest / np.sqrt(min(effective)))


def test_what_follows_the_end_of_a_trial_is_drawn_from_the_dynamics():
    joint = Joint("low_rank_rnn_gaussian", rank=1)
    conditionals = joint.module.CONDITIONALS
    parameters, paths = conditionals.begin(joint.inputs)
    space = conditionals.space(parameters._replace(process_noise=jnp.array(1e-6)), joint.inputs)
    seen = Seen.of(joint.inputs["activity"], joint.inputs["mask"])
    filled = continued(jax.random.key(0), space, seen, paths)
    np.testing.assert_array_equal(filled[0], paths[0])
    np.testing.assert_array_equal(filled[1, :6], paths[1, :6])
    expected = space.transition(filled[1, 5:7], space.inputs[1, 5:7])
    np.testing.assert_allclose(filled[1, 6:8], expected, atol=1e-4)
