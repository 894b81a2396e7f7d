import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.inference.guides import GUIDES, build_guide, guide_constructor, guide_parameters
from connectinfer.inference.trace import bind, describe_sites

START = {"width": jnp.array(0.7), "level": jnp.array(-0.4), "walk": jnp.linspace(-1.0, 1.0, 10).reshape(2, 5, 1)}


def stay(z, _):
    return z


def walks(signal):
    """Two random walks of five bins, with a positive width and a level."""
    width = numpyro.sample("width", dist.LogNormal(0.0, 1.0))
    law = LatentPath(jax.tree_util.Partial(stay), width * jnp.eye(1), jnp.eye(1), jnp.zeros((2, 5, 0)))
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    walk = level + numpyro.sample("walk", law.to_event(1))
    numpyro.sample("signal", dist.Normal(walk, 1.0).to_event(3), obs=signal)


@pytest.fixture(scope="module")
def sites():
    return describe_sites(*bind(walks, {"signal": np.zeros((2, 5, 1))}))


@pytest.mark.parametrize("kind", sorted(GUIDES))
def test_every_guide_draws_all_latent_sites_in_their_support_near_the_start(key, sites, kind):
    guide = build_guide(guide_constructor(kind), sites, START)
    free, constrain = guide_parameters(key, guide, {})
    substituted = handlers.substitute(guide, data=constrain(free))
    trace = handlers.trace(handlers.seed(substituted, jax.random.key(1))).get_trace({})
    assert trace["width"]["value"] > 0
    assert trace["walk"]["value"].shape == (2, 5, 1)
    np.testing.assert_allclose(trace["walk"]["value"], START["walk"], atol=0.5)
    if kind != "bnaf":  # the network of a block neural autoregressive flow starts at random
        assert float(trace["width"]["value"]) == pytest.approx(0.7, rel=0.5)


def test_parameters_survive_being_unconstrained_and_constrained(key, sites):
    guide = build_guide(GUIDES["normal"], sites, START)
    free, constrain = guide_parameters(key, guide, {})
    parameters = constrain(free)
    np.testing.assert_allclose(parameters["walk_loc"], START["walk"], rtol=1e-5)
    np.testing.assert_allclose(parameters["walk_scale_tril"], np.full((2, 5, 1, 1), 0.05), rtol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(free))


def test_an_unknown_guide_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown guide 'nromal'\. Did you mean 'normal'\? Guides: bnaf, flow"):
        guide_constructor("nromal")


def test_supports_that_depend_on_other_sites_are_refused():
    def model(y):
        top = numpyro.sample("top", dist.LogNormal(0.0, 1.0))
        x = numpyro.sample("x", dist.Uniform(0.0, top))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    moving = describe_sites(*bind(model, {"y": np.array(0.3)}))
    with pytest.raises(ValueError, match=r"those of \['x'\] are computed in the model.*use the engine 'nuts'"):
        build_guide(GUIDES["normal"], moving, {"top": jnp.array(1.0), "x": jnp.array(0.5)})
