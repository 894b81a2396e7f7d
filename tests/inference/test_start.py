import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import kstest

from connectinfer.inference.start import chain_coordinates
from connectinfer.inference.trace import bind


def normal(depth):
    """x ~ N(0, I), of which `depth` nats are taken where the first value is negative."""
    x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    numpyro.factor("pit", jnp.where(x[0] < 0, -depth, 0.0))


def starts_of(model, chains, initial=None, seed=0, **inputs):
    bound, arrays = bind(model, inputs)
    found = chain_coordinates(jax.random.key(seed), bound, arrays, {"x": jnp.zeros((3, 2))}, initial, chains)
    return np.asarray(jax.vmap(lambda x: found.to_free(found.transform, x)["x"])(found.starts))


def test_starts_are_draws_of_the_laplace_approximation_where_it_is_exact():
    starts = starts_of(normal, 150, {"x": np.array([2.0, 1.0])}, depth=0.0)
    assert len(np.unique(starts, axis=0)) == 150
    # False-alarm rate 1e-4 for each of two values.
    assert all(kstest(column, "norm").pvalue > 1e-4 for column in starts.T)


def test_starts_that_the_posterior_excludes_are_not_chosen():
    # Half of the approximation's 200 draws lie in the pit.
    assert (starts_of(normal, 50, {"x": np.array([1.0, 0.0])}, depth=1000.0)[:, 0] > 0).all()


def test_starts_are_chosen_in_proportion_to_their_weight():
    options = {"initial": {"x": np.ones(2)}, "depth": np.log(2.0)}
    chosen = np.concatenate([starts_of(normal, 20, seed=seed, **options) for seed in range(5)])
    # 2 of 3, nearly: 100 draws, outside this range in fewer than one of 1,000 runs.
    assert 50 <= (chosen[:, 0] > 0).sum() <= 80


def test_without_initial_values_starts_are_uniform_within_two():
    starts = starts_of(normal, 200, depth=0.0)
    assert all(kstest(column, "uniform", (-2, 4)).pvalue > 1e-4 for column in starts.T)


def test_too_few_finite_starts_are_counted():
    def nowhere():
        numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.factor("wall", jnp.nan)

    with pytest.raises(ValueError, match="0 of 40 tries had a finite log density and gradient; 2 chains need"):
        starts_of(nowhere, 2)
