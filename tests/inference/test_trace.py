from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy.stats import norm

from connectinfer.inference.trace import (
    bind,
    describe_sites,
    evaluate,
    expected_observations,
    map_draws,
    observed_values,
    predict,
)

Y = np.array([[0.1, 0.2, 0.3], [1.0, 1.1, 1.2]])  # (trial, time)
MASK = np.array([[True, True, False], [True, True, True]])


def toy(y, mask, sd):
    """mu ~ N(0, 1), log y ~ N(mu, sd^2) with two trials of three bins, one of them masked."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.deterministic("double", 2 * mu)
    with numpyro.plate("trial", 2, dim=-2), numpyro.plate("time", 3, dim=-1):
        numpyro.sample("y", dist.LogNormal(jnp.broadcast_to(mu, mask.shape), sd).mask(mask), obs=y)


@pytest.fixture
def bound():
    return bind(toy, {"y": Y, "mask": MASK, "sd": 0.5})


def test_only_arrays_become_arguments(bound):
    assert set(bound[1]) == {"y", "mask"}


def test_sites_are_described_without_running_the_model(bound):
    sites = describe_sites(*bound)
    assert {name: (site.kind, site.shape, site.axes) for name, site in sites.items()} == {
        "mu": ("latent", (), []),
        "double": ("deterministic", (), []),
        "y": ("observed", (2, 3), ["trial", "time"]),
    }
    assert sites["mu"].law is dist.Normal
    assert sites["y"].law is dist.LogNormal
    assert sites["y"].support == constraints.positive


def test_axes_between_plates_and_of_events_have_no_plate():
    def model():
        with numpyro.plate("group", 3, dim=-3), numpyro.plate("member", 5, dim=-1):
            numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.deterministic("y", jnp.zeros((3, 5, 4)))

    sites = describe_sites(*bind(model, {}))
    assert sites["x"].shape == (3, 1, 5, 2)
    assert sites["x"].axes == ["group", None, "member", None]
    assert sites["y"].axes == ["group", "member", None]


def test_evaluation_equals_the_hand_computed_densities(key, bound):
    found = evaluate(key, *bound, {"mu": jnp.array(0.3)})
    assert set(found.sites) == {"mu", "double"}
    assert float(found.sites["double"]) == pytest.approx(0.6)
    assert float(found.log_prior["mu"]) == pytest.approx(norm.logpdf(0.3), rel=1e-5)
    density = norm.logpdf(np.log(Y), 0.3, 0.5) - np.log(Y)
    np.testing.assert_allclose(found.log_likelihood["y"], (density * MASK).sum(1), rtol=1e-5)


def test_sites_that_are_not_given_are_drawn_from_their_prior(bound):
    keys = jax.random.split(jax.random.key(1), 1000)
    mu = map_draws(lambda k, _, a: evaluate(k, bound[0], a, {}).sites["mu"], keys, {}, bound[1])
    assert abs(float(mu.mean())) < 4 / np.sqrt(1000)
    assert abs(float(mu.std()) - 1) < 4 / np.sqrt(2000)


def test_predictions_follow_the_values_and_fill_masked_entries(key):
    bound, arrays = bind(toy, {"y": Y, "mask": MASK, "sd": 1e-5})
    drawn = predict(key, bound, arrays, {"mu": jnp.array(0.7)})["y"]
    np.testing.assert_allclose(drawn, np.full((2, 3), np.exp(0.7)), rtol=1e-3)
    assert np.unique(np.asarray(drawn)).size > 1


def test_expected_observations_average_means_and_not_parameters(bound):
    means = expected_observations(*bound, {"mu": jnp.array([0.0, 1.0])})
    # The mean of a log-normal variable is exp(mu + sd^2 / 2).
    np.testing.assert_allclose(means["y"], np.full((2, 3), np.exp(0.125) * (1 + np.e) / 2), rtol=1e-5)


def test_observed_values_are_the_data(bound):
    np.testing.assert_array_equal(observed_values(*bound)["y"], Y.astype(np.float32))


def improper(y):
    location = numpyro.sample("location", dist.ImproperUniform(constraints.real, (), (3,)))
    scale = numpyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
    numpyro.sample("y", dist.Normal(location.sum(), scale), obs=y)


def test_improper_priors_are_drawn_within_two_of_zero_in_the_unconstrained_space():
    bound, arrays = bind(improper, {"y": np.array(0.5)})
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = map_draws(lambda k, _, a: evaluate(k, bound, a, {}).sites, keys, {}, arrays)
    for free in (drawn["location"], jnp.log(drawn["scale"])):
        assert float(jnp.abs(free).max()) <= 2
        assert float(jnp.abs(free).max()) > 1.8


def test_factors_and_parameters_are_told_apart():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.param("bare", jnp.array(1.0))
        numpyro.factor("penalty", -mu.sum())
        numpyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)

    sites = describe_sites(*bind(model, {"y": np.zeros(2)}))
    assert {name: site.kind for name, site in sites.items()} == {
        "mu": "latent",
        "bare": "param",
        "penalty": "factor",
        "y": "observed",
    }
    assert sites["mu"].law is dist.Normal


def test_a_summary_inside_a_plate_has_no_axis_of_the_plate():
    def model():
        with numpyro.plate("unit", 4):
            x = numpyro.sample("x", dist.Normal(0.0, 1.0))
            numpyro.deterministic("double", 2 * x)
            numpyro.deterministic("total", x.sum())

    sites = describe_sites(*bind(model, {}))
    assert {name: site.axes for name, site in sites.items()} == {"x": ["unit"], "double": ["unit"], "total": []}


@pytest.mark.parametrize("plates", [(), (("unit", 3),)], ids=["bare", "in a plate"])
def test_fewer_observations_than_their_law_are_refused_by_name(plates):
    def model():
        with ExitStack() as stack:
            for name, size in plates:
                stack.enter_context(numpyro.plate(name, size))
            x = numpyro.sample("x", dist.Normal(jnp.zeros(3), 1.0))
            numpyro.sample("zero", dist.Normal(x, 0.1), obs=0.0)

    with pytest.raises(
        ValueError, match=r"observed site 'zero' has values of shape \(\), but its law has shape \(3,\)"
    ):
        describe_sites(*bind(model, {}))
