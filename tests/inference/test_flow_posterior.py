import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conjugate import DESIGN, INPUTS, NOISE, exact_evidence, exact_posterior, linear_model
from scipy.special import logsumexp

from connectinfer.diagnostics.checks import diagnose
from connectinfer.inference import flow_posterior
from connectinfer.inference.flow_posterior import fit_flow_posterior, train_flow_posterior
from connectinfer.optimisation import loop

OPTIONS = {"simulations": 2000, "steps": 1000, "draws": 1000, "show_progress": False}


@pytest.fixture(scope="module")
def fitted():
    return fit_flow_posterior(jax.random.key(0), linear_model, INPUTS, rounds=2, **OPTIONS)


@pytest.fixture(scope="module")
def trained():
    options = {"simulations": 3000, "steps": 1500, "show_progress": False}
    return train_flow_posterior(jax.random.key(1), linear_model, INPUTS, **options)


def verdict(result, concern):
    (found,) = [v for v in diagnose(result).verdicts if v.concern == concern]
    return found.verdict


@pytest.mark.slow
def test_reweighted_draws_have_the_moments_and_the_evidence_of_the_closed_form(fitted):
    """Importance weights take out what the flow has not learned; 4 standard errors of 1,000 draws of ESS above 400."""
    mean, covariance = exact_posterior()
    beta, log_weight = fitted["posterior"]["beta"].values[0], fitted["sample_stats"]["log_weight"].values[0]
    weight = np.exp(log_weight - logsumexp(log_weight.astype(float)))
    assert 1 / (weight**2).sum() > 400
    np.testing.assert_array_less(np.abs(weight @ beta - mean), 4 * np.sqrt(np.diag(covariance) / 400))
    spread = weight @ (beta - mean) ** 2
    np.testing.assert_allclose(spread, np.diag(covariance), rtol=4 * np.sqrt(2 / 400))
    assert logsumexp(log_weight) - np.log(1000) == pytest.approx(exact_evidence(), abs=4 / np.sqrt(400))


@pytest.mark.slow
def test_the_flow_itself_is_close_to_the_posterior(fitted):
    mean, covariance = exact_posterior()
    beta = fitted["posterior"]["beta"].values[0]
    np.testing.assert_allclose(beta.mean(0), mean, atol=0.35 * np.sqrt(covariance[0, 0]))
    np.testing.assert_allclose(beta.std(0), np.sqrt(np.diag(covariance)), rtol=0.3)
    assert verdict(fitted, "k-hat of the guide") == "pass"
    assert verdict(fitted, "data among simulations") == "pass"


@pytest.mark.slow
def test_the_result_says_what_was_simulated(fitted):
    attrs = fitted.attrs
    assert (attrs["engine"], attrs["status"], attrs["rounds"], attrs["failed_simulations"]) == (
        "flow_posterior",
        "finished",
        2,
        0,
    )
    assert attrs["simulations"] == 4000
    # The second round simulates a part of the prior that holds the posterior: six sds wide, of two, in two directions.
    assert 0.02 < attrs["possible"] < 0.9


@pytest.mark.slow
def test_one_training_serves_other_data(trained):
    """Data from three corners of the prior; within a third of a posterior sd, in mean and sd."""
    _, covariance = exact_posterior()
    sd = np.sqrt(np.diag(covariance))
    draw = eqx.filter_jit(lambda posterior, key, arrays: posterior.sample(key, arrays, 2000)["beta"])
    for i, beta in enumerate([[1.0, -1.0], [-1.5, 0.0], [0.3, 1.2]]):
        response = DESIGN @ np.array(beta) + NOISE * np.random.default_rng(i).normal(size=6)
        exact = covariance @ DESIGN.T @ response / NOISE**2
        drawn = draw(
            trained, jax.random.key(i), {"design": jnp.asarray(DESIGN, float), "response": jnp.asarray(response)}
        )
        np.testing.assert_array_less(np.abs(drawn.mean(0) - exact), 0.4 * sd)
        np.testing.assert_allclose(drawn.std(0), sd, rtol=0.35)


@pytest.mark.slow
def test_densities_are_those_of_the_draws(trained):
    arrays = {name: jnp.asarray(x, float) for name, x in INPUTS.items()}
    free, density = trained.sample_free(jax.random.key(0), arrays, 5)
    np.testing.assert_allclose(trained.log_prob(free, arrays), density, atol=1e-3)


def grouped(counts, scale):
    rate = numpyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("trial", counts.shape[0], dim=-2), numpyro.plate("unit", counts.shape[1], dim=-1):
        numpyro.sample("counts", dist.Poisson(rate * scale), obs=counts)


GROUPED = {"counts": np.random.default_rng(0).poisson(2.0, (6, 3)), "scale": 1.0}
FEW = {"simulations": 300, "steps": 20, "show_progress": False}


@pytest.mark.slow
def test_the_order_of_trials_does_not_matter():
    posterior = train_flow_posterior(jax.random.key(0), grouped, GROUPED, **FEW)
    counts = jnp.asarray(GROUPED["counts"])
    in_order, turned = (posterior.condition({"counts": x}) for x in (counts, counts[::-1]))
    np.testing.assert_allclose(in_order, turned, rtol=1e-4, atol=1e-5)
    assert not np.allclose(in_order, posterior.condition({"counts": counts + 1}))


@pytest.mark.slow
def test_given_summaries_take_the_place_of_networks():
    """A sufficient summary: the gamma-like posterior of a rate, against a grid."""
    summary = lambda data: jnp.log1p(data["counts"].sum())  # noqa: E731
    options = OPTIONS | {"simulations": 2000, "rounds": 1, "draws": 2000}
    result = fit_flow_posterior(jax.random.key(0), grouped, GROUPED, summary=summary, **options)
    grid = np.linspace(0.01, 8, 4000)
    log_density = -0.5 * np.log(grid) ** 2 - np.log(grid) + GROUPED["counts"].sum() * np.log(grid) - 18 * grid
    density = np.exp(log_density - log_density.max())
    mean = (grid * density).sum() / density.sum()
    sd = np.sqrt((grid**2 * density).sum() / density.sum() - mean**2)
    drawn, log_weight = result["posterior"]["rate"].values[0], result["sample_stats"]["log_weight"].values[0]
    weight = np.exp(log_weight - logsumexp(log_weight.astype(float)))
    assert 1 / (weight**2).sum() > 400
    assert weight @ drawn == pytest.approx(mean, abs=4 * sd / np.sqrt(400))
    assert np.diff(np.quantile(drawn, [0.16, 0.84])) / 2 == pytest.approx(sd, rel=0.35)


def failing(share):
    def model(response):
        level = numpyro.sample("level", dist.Normal())
        drawn = numpyro.sample("uniform", dist.Uniform())
        mean = jnp.where(drawn < share, jnp.nan, level)
        numpyro.sample("response", dist.Normal(mean, 1.0, validate_args=False).expand([4]).to_event(1), obs=response)

    return model


@pytest.mark.slow
def test_failed_simulations_are_counted_and_said():
    with pytest.warns(UserWarning, match="not finite|failed") as caught:
        result = fit_flow_posterior(jax.random.key(0), failing(0.25), {"response": np.zeros(4)}, rounds=1, **FEW)
    said = [str(warning.message) for warning in caught]
    (text,) = [text for text in said if "simulations failed and are left out" in text]
    n_failed = int(text.split()[0])
    assert n_failed == result.attrs["failed_simulations"]
    # Binomial(300, 0.25), four standard deviations.
    assert abs(n_failed - 75) < 30
    assert verdict(result, "failed simulations") == "not certified"


@pytest.mark.slow
def test_a_flow_that_has_learned_something_else_is_flagged(monkeypatch):
    original = flow_posterior.simulate_features

    def shifted(*arguments):
        drawn = original(*arguments)
        return drawn._replace(free=drawn.free + 1.0)

    monkeypatch.setattr(flow_posterior, "simulate_features", shifted)
    result = fit_flow_posterior(jax.random.key(0), linear_model, INPUTS, rounds=1, **OPTIONS)
    assert verdict(result, "k-hat of the guide") == "fail"


@pytest.mark.slow
def test_data_unlike_any_simulation_are_flagged():
    inputs = INPUTS | {"response": 60.0 * np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])}
    result = fit_flow_posterior(jax.random.key(0), linear_model, inputs, rounds=1, **FEW | {"steps": 300})
    assert verdict(result, "data among simulations") == "fail"


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_very_same_draws(tmp_path, monkeypatch):
    options = FEW | {"steps": 300, "draws": 20, "rounds": 1}
    whole = fit_flow_posterior(jax.random.key(3), linear_model, INPUTS, **options)
    original = loop.save_checkpoint

    def save_and_interrupt(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_interrupt)
        stopped = fit_flow_posterior(jax.random.key(3), linear_model, INPUTS, checkpoint=tmp_path / "run", **options)
    assert stopped.attrs["status"] == "interrupted"
    resumed = fit_flow_posterior(jax.random.key(3), linear_model, INPUTS, checkpoint=tmp_path / "run", **options)
    np.testing.assert_array_equal(resumed["posterior"]["beta"], whole["posterior"]["beta"])
    assert (stopped["optimisation"].sizes["step"], resumed["optimisation"].sizes["step"]) == (100, 300)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["possible_parameters", "_train"])
def test_an_interrupted_round_leaves_the_flow_of_the_one_before(moment, monkeypatch):
    original, calls = getattr(flow_posterior, moment), []

    def interrupted(*arguments):
        calls.append(None)
        if moment == "possible_parameters":
            raise KeyboardInterrupt
        posterior, found = original(*arguments)
        return posterior, found._replace(status="interrupted" if len(calls) == 2 else "finished")

    monkeypatch.setattr(flow_posterior, moment, interrupted)
    options = FEW | {"draws": 20}
    stopped = fit_flow_posterior(jax.random.key(3), linear_model, INPUTS, rounds=2, **options)
    monkeypatch.undo()
    first = fit_flow_posterior(jax.random.key(3), linear_model, INPUTS, rounds=2, **options)
    assert (stopped.attrs["status"], stopped.attrs["rounds"]) == ("interrupted", 1)
    assert (first.attrs["status"], first.attrs["rounds"]) == ("finished", 2)
    assert not np.array_equal(stopped["posterior"]["beta"], first["posterior"]["beta"])


@pytest.mark.parametrize(("status", "error"), [("interrupted", KeyboardInterrupt), ("diverged", ValueError)])
def test_a_training_that_does_not_end_gives_no_amortised_posterior(status, error, monkeypatch, tmp_path):
    original = flow_posterior._train

    def ended(*arguments):
        posterior, found = original(*arguments)
        return posterior, found._replace(status=status)

    monkeypatch.setattr(flow_posterior, "_train", ended)
    with pytest.raises(error, match=r"after 20 (of 20 )?steps"):
        train_flow_posterior(jax.random.key(0), linear_model, INPUTS, checkpoint=tmp_path / "run", **FEW)


def test_what_no_simulation_knows_of_is_refused():
    def weighted(response):
        level = numpyro.sample("level", dist.Normal())
        numpyro.factor("weight", -0.5 * (level - 2) ** 2)
        numpyro.sample("response", dist.Normal(level, 1.0).expand([5]).to_event(1), obs=response)

    def improper(response):
        level = numpyro.sample("level", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("response", dist.Normal(level, 1.0).expand([5]).to_event(1), obs=response)

    with pytest.raises(ValueError, match=r"weights its parameters by `numpyro.factor` \(log weights such as -"):
        train_flow_posterior(jax.random.key(0), weighted, {"response": np.zeros(5)}, **FEW)
    with pytest.raises(ValueError, match=r"simulated from improper priors, those of \['level'\]"):
        train_flow_posterior(jax.random.key(0), improper, {"response": np.zeros(5)}, **FEW)


@pytest.mark.slow
def test_data_that_differ_where_simulations_never_do_are_flagged():
    summary = lambda data: jnp.stack([data["response"].mean(), (jnp.abs(data["response"]) > 50).sum()])  # noqa: E731
    inputs = INPUTS | {"response": 100.0 * np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])}
    result = fit_flow_posterior(jax.random.key(0), linear_model, inputs, rounds=1, summary=summary, **FEW)
    assert result["optimisation"].attrs["unlike"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"simulations": 50}, "`simulations` must be at least 100"),
        ({"rounds": 0}, "got 300, 0, 20"),
        ({"learning_rate": -1.0}, "`learning_rate` positive"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fit_flow_posterior(jax.random.key(0), linear_model, INPUTS, **FEW | options)


def test_too_many_latent_values_and_too_large_data_are_refused():
    def wide(response):
        numpyro.sample("x", dist.Normal(jnp.zeros(300), 1.0).to_event(1))
        numpyro.sample("response", dist.Normal(0.0, 1.0).expand(response.shape).to_event(1), obs=response)

    with pytest.raises(ValueError, match="has 300 latent values; a flow learns at most 200"):
        train_flow_posterior(jax.random.key(0), wide, {"response": np.zeros(3)}, **FEW)
    inputs = {"counts": np.ones((2000, 1000), int), "scale": 1.0}
    with pytest.raises(ValueError, match=r"300 simulations of 2000 x 1000 values take 2\.4 GB\. Give a `summary`"):
        train_flow_posterior(jax.random.key(0), grouped, inputs, **FEW)
