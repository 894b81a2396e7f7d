"""Log likelihoods of state-space models without Gaussian approximations, and a small nonlinear model to compare on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln, logsumexp

from connectinfer.dynamics.low_rank import LowRankRNN, latent_step
from connectinfer.dynamics.observation import NegativeBinomial, Poisson
from connectinfer.latent.state_space import Seen, StateSpace

ALPHA, N_NETWORK = 0.1, 40


class Estimate(NamedTuple):
    """Log likelihood `(trial,)` by repeated particle filters, and the standard error of each."""

    value: np.ndarray
    error: np.ndarray


class Case(NamedTuple):
    """Counts `(trial, time, unit)` drawn from a network with isotropic process noise, and what drew them; negative
    binomial with `concentration`, Poisson without."""

    m: np.ndarray
    n: np.ndarray
    loading: np.ndarray
    bias: float
    noise: float
    concentration: float | None
    counts: np.ndarray

    def transition(self, z: np.ndarray) -> np.ndarray:
        """Mean of the next bin."""
        return (1 - ALPHA) * z + ALPHA * np.tanh(z @ self.m.T) @ self.n / len(self.m)

    def log_density(self, counts: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Log probability of the counts `(unit,)` of a bin in the states `(*batch, dim)`."""
        predictor, r = z @ self.loading.T + self.bias, self.concentration
        if r is None:
            return (counts * predictor - np.exp(predictor) - gammaln(counts + 1)).sum(-1)
        share = np.logaddexp(predictor, np.log(r))
        constant = gammaln(counts + r) - gammaln(r) - gammaln(counts + 1) + r * np.log(r)
        return (constant + counts * predictor - (counts + r) * share).sum(-1)

    def space(self) -> StateSpace:
        """The same model for `log_marginal`."""
        dim, r = self.m.shape[1], self.concentration
        network = LowRankRNN(jnp.asarray(self.m, float), jnp.asarray(self.n, float))
        return StateSpace(
            initial_mean=jnp.zeros(dim),
            initial_tril=jnp.eye(dim),
            transition=jax.tree_util.Partial(latent_step, network, ALPHA),
            noise_tril=self.noise * jnp.eye(dim),
            inputs=jnp.zeros((*self.counts.shape[:2], 0)),
            loading=jnp.asarray(self.loading, float),
            offset=jnp.full(len(self.loading), self.bias),
            observation=Poisson() if r is None else NegativeBinomial(jnp.full(len(self.loading), r)),
        )

    def seen(self) -> Seen:
        """The counts, all of them observed."""
        return Seen.of(jnp.asarray(self.counts, float), jnp.ones(self.counts.shape, bool))


def simulated_case(
    overlap: float,
    noise: float,
    rate: float,
    *,
    concentration: float | None = None,
    n_trials: int = 4,
    n_bins: int = 30,
    n_units: int = 8,
    seed: int = 0,
) -> Case:
    """A network that rotates and is unstable at the origin for `overlap` above 1: the larger, the more nonlinear; units
    have `rate` spikes a bin at the origin."""
    rng = np.random.default_rng(seed)
    m = rng.normal(size=(N_NETWORK, 2))
    n = m @ (overlap * np.array([[1.0, -0.5], [0.5, 1.0]])).T
    loading = 0.7 * rng.normal(size=(n_units, 2))
    case = Case(m, n, loading, float(np.log(rate)), noise, concentration, np.zeros((n_trials, n_bins, n_units)))
    z, states = rng.normal(size=(n_trials, 2)), []
    for _ in range(n_bins):
        states.append(z)
        z = case.transition(z) + noise * rng.normal(size=z.shape)
    mean = np.exp(np.stack(states, 1) @ loading.T + case.bias)
    scale = 1.0 if concentration is None else rng.gamma(concentration, 1 / concentration, mean.shape)
    return case._replace(counts=rng.poisson(mean * scale).astype(float))


def particle_filter(case: Case, *, n_particles: int = 1000, repeats: int = 40, seed: int = 1) -> Estimate:
    """Bootstrap filters with systematic resampling in every bin; the mean of their likelihoods is unbiased."""
    rng = np.random.default_rng(seed)
    values, errors = [], []
    for counts in case.counts:
        z, total = rng.normal(size=(repeats, n_particles, 2)), np.zeros(repeats)
        for t, now in enumerate(counts):
            if t:
                z = case.transition(z) + case.noise * rng.normal(size=z.shape)
            log_weight = case.log_density(now, z)
            total += logsumexp(log_weight, axis=1) - np.log(n_particles)
            z = _resampled(rng, z, np.exp(log_weight - log_weight.max(1, keepdims=True)))
        likelihood = np.exp(total - total.max())
        values.append(total.max() + np.log(likelihood.mean()))
        errors.append(likelihood.std(ddof=1) / likelihood.mean() / np.sqrt(repeats))
    return Estimate(np.array(values), np.array(errors))


def _resampled(rng: np.random.Generator, z: np.ndarray, weight: np.ndarray) -> np.ndarray:
    repeats, n_particles = weight.shape
    share = np.cumsum(weight, 1) / weight.sum(1, keepdims=True)
    points = (np.arange(n_particles) + rng.random((repeats, 1))) / n_particles
    chosen = np.stack([np.searchsorted(s, p) for s, p in zip(share, points, strict=True)])
    return np.take_along_axis(z, np.minimum(chosen, n_particles - 1)[..., None], axis=1)
