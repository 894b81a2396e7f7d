"""Likelihoods without their paths beside what needs no Gaussian approximation: particle filters, and paths without
noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from particle_filter import ALPHA, particle_filter, simulated_case
from scipy.stats import poisson

from connectinfer.dynamics.low_rank import LowRankRNN, latent_step
from connectinfer.dynamics.observation import Poisson
from connectinfer.dynamics.simulate import euler_path, simulate
from connectinfer.latent import state_space
from connectinfer.latent.state_space import Seen, StateSpace, find_mode, log_marginal

marginal = jax.jit(log_marginal)


def start_of(case):
    return jnp.zeros((*case.counts.shape[:2], 2))


@pytest.mark.parametrize(
    ("rate", "concentration"),
    [pytest.param(1.0, None, id="poisson"), pytest.param(1.0, 2.0, id="negative-binomial", marks=pytest.mark.slow)],
)
def test_the_marginal_is_that_of_a_particle_filter(rate, concentration):
    case = simulated_case(1.5, 0.1, rate, concentration=concentration, n_bins=20)
    exact = particle_filter(case, repeats=20)
    found = np.asarray(marginal(case.space(), case.seen(), start_of(case)), float)
    error = np.sqrt((exact.error**2).sum()) / len(exact.error)
    # A twentieth of a nat is what the approximation may lack (docs/explanation/state_space.md); beyond it 4 standard
    # errors, which chance exceeds once in 16,000 tests.
    assert abs((found - exact.value).mean()) < 0.05 + 4 * error
    assert error < 0.05
    assert np.abs(found - exact.value).max() > 1e-4


def test_a_mode_is_found_from_starts_far_away():
    case = simulated_case(3.0, 0.05, 0.2)
    find = jax.jit(find_mode)
    near = find(case.space(), case.seen(), start_of(case))
    generator = np.random.default_rng(0)
    far = find(case.space(), case.seen(), start_of(case) + jnp.asarray(5 * generator.normal(size=(4, 1, 2)), float))
    assert near.converged.all()
    assert far.converged.all()
    assert (far.decrement < 0.011).all()


def test_a_mode_that_is_not_found_is_reported_and_leaves_finite_gradients(monkeypatch):
    monkeypatch.setattr(state_space, "_MOST_STEPS", 2)
    case = simulated_case(3.0, 0.05, 0.2)
    space, seen, start = case.space(), case.seen(), start_of(case)
    # A function of its own: what was compiled before keeps its number of steps.
    assert not jax.jit(lambda z: find_mode(space, seen, z).converged)(start).any()

    def total(scale):
        other = eqx.tree_at(lambda s: s.noise_tril, space, scale * space.noise_tril)
        return log_marginal(other, seen, start).sum()

    value, slope = jax.jit(jax.value_and_grad(total))(1.0)
    assert np.isfinite(value)
    assert np.isfinite(slope)


class WithoutNoise:
    """Counts along the path of a differential equation, seen in every `fine`-th bin of a state-space model whose start
    is known and whose noise all but vanishes."""

    def __init__(self):
        case = simulated_case(1.5, 0.0, 1.0, n_trials=1, n_bins=20)
        self.counts, self.loading, self.bias = case.counts[0], case.loading, case.bias
        self.network = LowRankRNN(jnp.asarray(case.m, float), jnp.asarray(case.n, float), tau=0.1)
        self.start = jnp.array([0.7, -0.4])

    def marginal(self, noise, fine):
        n_bins = (len(self.counts) - 1) * fine + 1
        activity, mask = np.zeros((1, n_bins, self.counts.shape[1])), np.zeros((1, n_bins, self.counts.shape[1]), bool)
        activity[0, ::fine], mask[0, ::fine] = self.counts, True
        space = StateSpace(
            initial_mean=self.start,
            initial_tril=noise * jnp.eye(2),
            transition=jax.tree_util.Partial(latent_step, self.network, ALPHA / fine),
            noise_tril=noise * jnp.eye(2),
            inputs=jnp.zeros((1, n_bins, 0)),
            loading=jnp.asarray(self.loading),
            offset=jnp.asarray(self.bias),
            observation=Poisson(),
        )
        start = jnp.broadcast_to(self.start, (1, n_bins, 2))
        return float(marginal(space, Seen.of(jnp.asarray(activity), jnp.asarray(mask)), start)[0])

    def likelihood(self, path):
        predictor = np.asarray(path) @ self.loading.T + self.bias
        return float(poisson.logpmf(self.counts, np.exp(predictor)).sum())


def test_without_noise_the_marginal_is_the_likelihood_of_the_path_and_with_short_bins_that_of_the_ode():
    with jax.enable_x64(True):
        case = WithoutNoise()
        n_bins = len(case.counts)
        same_bins = case.likelihood(euler_path(case.network, case.start, jnp.zeros((n_bins - 1, 2)), ALPHA))
        gaps = [abs(case.marginal(noise, 1) - same_bins) for noise in (1e-3, 1e-4)]
        # What noise changes is of the order of its variance.
        assert gaps[1] < 1e-3
        assert gaps[0] / gaps[1] == pytest.approx(100.0, rel=0.1)
        time = ALPHA * case.network.tau * np.arange(n_bins)
        ode = case.likelihood(simulate(case.network, case.start[None], time).latent[0])
        gaps = [abs(case.marginal(1e-5, fine) - ode) for fine in (1, 4, 16)]
        # Euler's method is of first order.
        assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.3)
        assert gaps[1] / gaps[2] == pytest.approx(4.0, rel=0.3)
