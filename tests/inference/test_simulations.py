"""Simulations that fail are neither data nor a silent loss."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conjugate import INPUTS, linear_model

from connectinfer.inference.amortised import DataFeatures
from connectinfer.inference.simulations import simulate_features
from connectinfer.inference.trace import bind

FEATURES = DataFeatures(None, False)


def level_fails(how):
    """A model whose simulations fail where `share` is above one half."""

    def model(counts):
        share = numpyro.sample("share", dist.Uniform())
        fails = share > 0.5
        if how == "rejected":
            numpyro.factor("solved", jnp.where(fails, -jnp.inf, 0.0))
        rate = jnp.where(
            fails, {"rejected": 1.0, "no number": jnp.nan, "overflow": 1e30, "infinite": jnp.inf}[how], 2.0
        )
        numpyro.sample("counts", dist.Poisson(rate, validate_args=False).expand([4]).to_event(1), obs=counts)

    return model


@pytest.mark.parametrize("how", ["rejected", "no number", "infinite", "overflow"])
def test_simulations_that_fail_are_left_out_whatever_the_sampler_made_of_them(how):
    """Poisson samplers answer such rates with -1, 0 or the largest integer."""
    bound, arrays = bind(level_fails(how), {"counts": np.ones(4, int)})
    found = simulate_features(jax.random.key(1), bound, arrays, FEATURES, {}, 400)
    values = jax.nn.sigmoid(found.free[:, 0])
    assert found.n_drawn == 400
    # Binomial(400, 1/2), four standard deviations.
    assert abs(len(values) - 200) < 40
    assert values.max() < 0.5
    assert 1.5 < found.features.mean() < 2.5


def test_a_simulator_that_never_fails_loses_nothing():
    bound, arrays = bind(linear_model, INPUTS)
    found = simulate_features(jax.random.key(0), bound, arrays, FEATURES, {}, 100)
    assert len(found.free) == len(found.features) == found.n_drawn == 100


def test_a_simulator_that_mostly_fails_is_refused():
    def model(response):
        level = numpyro.sample("level", dist.Normal())
        mean = jnp.where(level > -1.5, jnp.nan, level)
        numpyro.sample("response", dist.Normal(mean, 1.0, validate_args=False).expand([4]).to_event(1), obs=response)

    bound, arrays = bind(model, {"response": np.zeros(4)})
    with pytest.raises(ValueError, match=r"of 100 simulations failed\. Narrow the priors"):
        simulate_features(jax.random.key(0), bound, arrays, FEATURES, {}, 100)
