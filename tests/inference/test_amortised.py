"""What the networks that summarise data may average over."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from connectinfer.inference.amortised import trials_are_exchangeable
from connectinfer.inference.trace import bind, describe_sites

N_TRIALS = 3
DATA = np.array([0.5, -1.0, 2.0])


def model(x, drive=0.0, *, plate="trial", own=False):
    theta = numpyro.sample("theta", dist.Normal().expand([2]).to_event(1))
    with numpyro.plate(plate, N_TRIALS):
        level = numpyro.sample("level", dist.Normal()) if own else theta[0]
        numpyro.sample("x", dist.Normal(level + theta[1] * jnp.asarray(drive), 1.0), obs=x)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param({}, True, id="data alone"),
        pytest.param({"drive": np.ones(N_TRIALS)}, True, id="same input"),
        pytest.param({"drive": np.arange(3.0)}, False, id="inputs of their own"),
        pytest.param({"own": True}, False, id="parameters of their own"),
        pytest.param({"plate": "session"}, False, id="no trials"),
    ],
)
def test_trials_are_exchangeable_where_only_their_data_tell_them_apart(inputs, expected):
    bound, arrays = bind(model, {"x": DATA} | inputs)
    assert trials_are_exchangeable(bound, arrays, describe_sites(bound, arrays)) is expected
