import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flowjax.distributions import Normal
from flowjax.experimental.numpyro import distribution_to_numpyro
from flowjax.flows import masked_autoregressive_flow
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO

from connectinfer.distributions.conditional_flow import ConditionalFlow


@pytest.fixture(scope="module")
def flow():
    base = Normal(jnp.zeros(2))
    flow = masked_autoregressive_flow(jax.random.key(0), base_dist=base, cond_dim=3, flow_layers=2, nn_width=8)
    # A flow begins near the identity; larger weights make it depend on its condition.
    scale = lambda x: 3 * x if eqx.is_inexact_array(x) else x  # noqa: E731
    return jax.tree.map(scale, flow)


CONDITION, VALUE = jnp.array([0.3, -1.0, 0.7]), jnp.array([0.5, -0.2])


def test_gradients_reach_the_condition_where_flowjax_stops_them(flow):
    native = jax.grad(lambda c: flow.log_prob(VALUE, c))(CONDITION)
    ours = jax.grad(lambda c: ConditionalFlow(flow, c).log_prob(VALUE))(CONDITION)
    np.testing.assert_allclose(ours, native, rtol=1e-5)
    assert (jnp.abs(ours) > 1e-4).all()
    stopped = jax.grad(lambda c: distribution_to_numpyro(flow, c).log_prob(VALUE))(CONDITION)
    np.testing.assert_array_equal(stopped, 0)


def test_the_gradient_is_that_of_finite_differences(flow):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, flow)
        value, condition = VALUE.astype(float), CONDITION.astype(float)
        density = lambda c: ConditionalFlow(wide, c).log_prob(value)  # noqa: E731
        steps = 1e-5 * jnp.eye(3)
        differences = [(density(condition + h) - density(condition - h)) / 2e-5 for h in steps]
        np.testing.assert_allclose(jax.grad(density)(condition), jnp.stack(differences), rtol=1e-4)


def test_reparametrised_draws_carry_gradients_too(flow):
    draw = lambda c: ConditionalFlow(flow, c).sample(jax.random.key(1)).sum()  # noqa: E731
    assert (jnp.abs(jax.grad(draw)(CONDITION)) > 1e-4).any()


def test_batched_conditions_equal_a_loop(flow):
    conditions = jax.random.normal(jax.random.key(2), (4, 3))
    values = jax.random.normal(jax.random.key(3), (4, 2))
    law = ConditionalFlow(flow, conditions)
    assert (law.batch_shape, law.event_shape) == ((4,), (2,))
    assert law.sample(jax.random.key(4), (5,)).shape == (5, 4, 2)
    looped = [ConditionalFlow(flow, c).log_prob(v) for c, v in zip(conditions, values, strict=True)]
    np.testing.assert_allclose(law.log_prob(values), jnp.stack(looped), rtol=1e-5)


def test_it_crosses_jit_as_an_argument(flow):
    law = ConditionalFlow(flow, CONDITION)
    crossed = eqx.filter_jit(lambda law: law.log_prob(VALUE))(law)
    np.testing.assert_allclose(crossed, law.log_prob(VALUE), rtol=1e-6)


def test_an_encoder_inside_a_guide_is_trained(flow):
    """With flowjax's adapter its weights would stay where they began."""
    observed = jnp.array([1.0, 2.0, -1.0])

    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x[0] * jnp.array([1.0, 2.0, -1.0]), 0.2).to_event(1), obs=observed)

    def guide():
        encoder = numpyro.param("encoder", 0.1 * jnp.ones((3, 3)))
        numpyro.sample("x", ConditionalFlow(flow, encoder @ observed))

    svi = SVI(model, guide, optax.adam(0.02), Trace_ELBO(num_particles=16))
    run = svi.run(jax.random.key(5), 200, progress_bar=False)
    assert float(jnp.abs(run.params["encoder"] - 0.1).max()) > 0.05
    assert run.losses[-20:].mean() < run.losses[:20].mean() - 1.0


def test_it_is_a_site_like_any_other(flow):
    trace = handlers.trace(handlers.seed(lambda: numpyro.sample("x", ConditionalFlow(flow, CONDITION)), 0)).get_trace()
    assert trace["x"]["value"].shape == (2,)


def test_what_is_no_condition_is_refused(flow):
    with pytest.raises(ValueError, match=r"must end with the axes \(3,\) .* got \(2,\)"):
        ConditionalFlow(flow, jnp.zeros(2))
    with pytest.raises(ValueError, match="takes no condition"):
        ConditionalFlow(Normal(jnp.zeros(2)), jnp.zeros(3))
