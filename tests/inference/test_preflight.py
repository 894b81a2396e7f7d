import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from connectinfer.inference.preflight import check_model
from connectinfer.inference.trace import bind

Y = np.array([0.5, -0.2])


def check(model, y=Y):
    return check_model(jax.random.key(0), *bind(model, {"y": y}))


def sound(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    # Two solves a draw, of which one fails where mu is large: it takes the draw with it.
    numpyro.deterministic("failed_solves", jnp.stack([mu > 0.5, jnp.array(False)]))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_a_sound_model_passes_with_its_prior_draws():
    with pytest.warns(UserWarning, match=r"of 50 draws from the prior: an ODE solve failed in \d\d%\. NUTS rejects"):
        found = check(sound)
    assert found.prior["mu"].shape == (50,)
    assert found.failed_solves == pytest.approx(float((found.prior["mu"] > 0.5).mean()))
    assert found.not_finite == {"mu": 0.0, "y": 0.0}


def test_values_that_are_sometimes_not_finite_are_counted():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, jnp.where(mu > 1.0, jnp.nan, 1.0)), obs=y)

    with pytest.warns(UserWarning, match=r"not finite: 'y' in \d+%") as caught:
        found = check(model)
    share = float((found.prior["mu"] > 1.0).mean())
    assert found.not_finite == {"mu": 0.0, "y": pytest.approx(share)}
    assert f"'y' in {share:.0%}." in str(caught[0].message)


def nan_likelihood(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("other", dist.Normal(mu, 1.0), obs=y)
    numpyro.sample("signal", dist.Normal(mu, jnp.sqrt(-1.0 - mu**2)), obs=y)


def overflowing(y):
    mu = numpyro.sample("mu", dist.LogNormal(1000.0, 1.0))
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y + 0 * jnp.nan_to_num(mu, posinf=0.0))


def out_of_support(y):
    rate = numpyro.sample("rate", dist.LogNormal(0.0, 1.0))
    numpyro.sample("counts", dist.Exponential(rate).to_event(0), obs=jnp.where(y < 0, jnp.nan, y))


def failing(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.deterministic("failed_solves", jnp.array([True, True, False]))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def nan_factor(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.factor("score", jnp.sqrt(-1.0 - (mu - y.sum()) ** 2))


def weighted(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.handlers.scale(scale=2.0):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def unobserved(y):
    numpyro.deterministic("z", numpyro.sample("mu", dist.Normal(0.0, 1.0)) + y.sum())


def without_latents(y):
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def discrete(y):
    state = numpyro.sample("state", dist.Bernoulli(0.5))
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu + state, 1.0), obs=y)


def bare_parameter(y):
    width = numpyro.param("width", jnp.array(1.0))
    numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0.0, 1.0)), width), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nan_likelihood, "not finite in 50 draws from the prior: 'signal' in 100%. For 'signal', check that the data"),
        (out_of_support, "'counts' in 100%. For 'counts', check that the data lie in the support"),
        (overflowing, "For 'mu', its prior draws overflow: narrow the priors"),
        (failing, "an ODE solve failed in 100% of 50 draws"),
        (nan_factor, "not finite in 50 draws from the prior: 'score' in 100%"),
        (weighted, r"Log densities are weighted .* at \['y'\]: neither engine fits that"),
        (unobserved, "no observed site: no data reaches it. Its sites: mu, z"),
        (without_latents, "no latent site: there is nothing to infer. Its sites: y"),
        (discrete, r"must be continuous; \['state'\] are discrete"),
        (bare_parameter, r"without a prior: \['width'\]"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_models_that_cannot_run_are_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        check(model)


def test_a_factor_is_enough_of_data():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        # Minus infinity rejects a draw, which is no defect.
        numpyro.factor("score", jnp.where(mu > 0, -((mu - y) ** 2).sum(), -jnp.inf))

    assert check(model).not_finite == {"mu": 0.0, "score": 0.0}
