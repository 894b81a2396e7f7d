import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import poisson

from connectinfer.dynamics.low_rank import LowRankRNN, recurrent_drift
from connectinfer.inference.preflight import check_model
from connectinfer.inference.result import Labels, build_result, check_labels
from connectinfer.inference.trace import bind, describe_sites

N_TRIALS, N_BINS, N_UNITS, RANK = 2, 4, 5, 2
CHAINS, DRAWS = 2, 150
SHAPE = (N_TRIALS, N_BINS, N_UNITS)

DIMS = {
    "m": ["unit", "latent_dim"],
    "n": ["unit", "latent_dim"],
    "d": ["unit"],
    "overlap": ["latent_dim", "latent_from"],
    "latent": ["trial", "time", "latent_dim"],
    "hidden": None,
    "failed_solves": ["trial"],
}
COORDS = {"trial": ["left", "right"], "time": 0.01 * np.arange(N_BINS), "unit": [f"u{i}" for i in range(N_UNITS)]}


def network(counts, mask, **_):
    """Low-rank read-out of free paths, with an internal site and a pretended solver."""
    m = numpyro.sample("m", dist.Normal(jnp.zeros((N_UNITS, RANK)), 1.0).to_event(2))
    n = numpyro.sample("n", dist.Normal(jnp.zeros((N_UNITS, RANK)), 1.0).to_event(2))
    d = numpyro.sample("d", dist.Normal(jnp.zeros(N_UNITS), 0.5).to_event(1))
    numpyro.deterministic("overlap", n.T @ m / N_UNITS)
    hidden = numpyro.sample("hidden", dist.Normal(0.0, 1.0))
    numpyro.deterministic("failed_solves", jnp.array([hidden > 1.0, False]))
    latent = numpyro.sample("latent", dist.Normal(jnp.zeros((N_TRIALS, N_BINS, RANK)), 1.0).to_event(3))
    with numpyro.plate("unit", N_UNITS, dim=-1):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.1))
        with numpyro.plate("trial", N_TRIALS, dim=-3), numpyro.plate("time", N_BINS, dim=-2):
            rate = jnp.exp(scale * (latent @ m.T + d) - 1)
            numpyro.sample("counts", dist.Poisson(rate).mask(mask), obs=counts)


def build(coords=COORDS):
    rng = np.random.default_rng(0)
    mask = np.ones(SHAPE, bool)
    mask[1, 2:] = False
    arrays = {"counts": rng.poisson(1.0, SHAPE) * mask, "mask": mask, "filtered": np.zeros((N_TRIALS, N_BINS, 0))}
    inputs = arrays | {"tau": 0.1, "alpha": 0.1, "nonlinearity": "tanh"}
    bound, arrays = bind(network, inputs)
    shapes = {"m": (N_UNITS, RANK), "n": (N_UNITS, RANK), "d": (N_UNITS,), "hidden": (), "scale": (N_UNITS,)}
    shapes["latent"] = (N_TRIALS, N_BINS, RANK)
    samples = {name: rng.normal(size=(CHAINS, DRAWS, *shape)).astype(np.float32) for name, shape in shapes.items()}
    samples["scale"] = np.exp(0.1 * samples["scale"])
    with pytest.warns(UserWarning, match="an ODE solve failed"):
        prior = check_model(jax.random.key(0), bound, arrays).prior
    stats = {"log_weight": np.zeros((CHAINS, DRAWS))}
    labels = Labels("toy", DIMS, coords)
    result = build_result(jax.random.key(1), bound, arrays, inputs, samples, prior, stats, labels, {"engine": "svi"})
    return result, samples, inputs


@pytest.fixture(scope="module")
def built():
    return build()


def test_dims_come_from_plates_and_labels_and_internal_sites_are_left_out(built):
    posterior = built[0]["posterior"]
    wanted = {name: ("chain", "draw", *dims) for name, dims in DIMS.items() if dims is not None}
    del wanted["failed_solves"]
    wanted |= {"scale": ("chain", "draw", "unit"), "gauge": ("chain", "draw", "latent_dim", "latent_raw")}
    assert {name: x.dims for name, x in posterior.data_vars.items()} == wanted
    assert posterior["unit"].values.tolist() == COORDS["unit"]
    assert posterior["trial"].values.tolist() == ["left", "right"]
    np.testing.assert_array_equal(posterior["time"], COORDS["time"])


def grouped(y, mask, **_):
    """An observed site that is left out of the result, plates with an axis between them, and a mask of its own."""
    with numpyro.plate("group", 3, dim=-3), numpyro.plate("member", 4, dim=-1):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0).mask(mask[:, None]), obs=y)


def build_grouped(dims):
    inputs = {"y": np.zeros((3, 1, 4)), "mask": np.ones((3, 4), bool)}
    bound, arrays = bind(grouped, inputs)
    prior = check_model(jax.random.key(0), bound, arrays).prior
    samples = {"x": np.zeros((1, 6, 3, 1, 4), np.float32)}
    labels = Labels("grouped", dims, {})
    return build_result(jax.random.key(1), bound, arrays, inputs, samples, prior, {}, labels, {})


def test_plates_with_an_axis_between_them_keep_their_names():
    result = build_grouped({"y": None})
    assert result["posterior"]["x"].dims == ("chain", "draw", "group", "x_axis_0", "member")
    assert not result["log_likelihood"].data_vars
    assert "mask" not in result["constant_data"]


def test_labels_that_do_not_fit_the_axes_are_refused():
    with pytest.raises(ValueError, match=r"Site 'x' has shape \(3, 1, 4\).* must name the other 1, got \['a', 'b'\]"):
        build_grouped({"x": ["a", "b"]})


def test_the_prior_has_one_chain_of_its_own_length_and_no_gaps(built):
    prior = built[0]["prior"].to_dataset()
    assert prior.sizes["chain"] == 1
    assert prior.sizes["draw"] == 50
    assert all(np.isfinite(x).all() for x in prior.data_vars.values())
    assert "hidden" not in prior


def test_log_likelihood_is_summed_over_observed_bins(built):
    result, samples, inputs = built
    draw = {name: x[1, 7].astype(float) for name, x in samples.items()}
    rate = np.exp(draw["scale"] * (draw["latent"] @ draw["m"].T + draw["d"]) - 1)
    expected = (poisson.logpmf(inputs["counts"], rate) * inputs["mask"]).sum(1)
    found = result["log_likelihood"]["counts"]
    assert found.dims == ("chain", "draw", "trial", "unit")
    np.testing.assert_allclose(found[1, 7], expected, rtol=1e-4)


def test_log_prior_is_one_number_a_site_and_draw(built):
    result, samples, _ = built
    hidden = samples["hidden"].astype(float)
    np.testing.assert_allclose(
        result["log_prior"]["hidden"], -0.5 * hidden**2 - 0.5 * np.log(2 * np.pi), rtol=1e-4, atol=1e-5
    )
    assert all(x.dims == ("chain", "draw") for x in result["log_prior"].data_vars.values())


def test_failed_solves_are_counted_in_the_sample_statistics(built):
    result, samples, _ = built
    np.testing.assert_array_equal(result["sample_stats"]["failed_solves"], samples["hidden"] > 1.0)


def test_predictions_are_capped_at_two_hundred_evenly_spaced_draws(built):
    predictive = built[0]["posterior_predictive"]
    assert predictive["counts"].dims == ("chain", "draw", "trial", "time", "unit")
    assert predictive.sizes["chain"] * predictive.sizes["draw"] == 200
    assert predictive["counts"].dtype == np.uint16
    assert set(predictive["draw"].values) <= set(built[0]["posterior"]["draw"].values)
    assert (predictive["counts"].values[..., 1, 2:, :] > 0).any()


def test_expected_observations_are_posterior_means(built):
    result, samples, _ = built
    paths = np.einsum("cdtbk,cduk->cdtbu", samples["latent"], samples["m"]) + samples["d"][:, :, None, None]
    rate = np.exp(samples["scale"][:, :, None, None] * paths - 1)
    np.testing.assert_allclose(result["expected"]["counts"], rate.mean((0, 1)), rtol=1e-3)


def test_the_gauge_changes_no_weight_path_contribution_or_spectrum(built):
    result, samples, _ = built
    posterior = result["posterior"]
    m, n, z, overlap = (posterior[name].values for name in ("m", "n", "latent", "overlap"))
    assert not np.allclose(m, samples["m"], atol=0.1)
    outer = lambda a, b: np.einsum("cduk,cdvk->cduv", a, b)  # noqa: E731
    np.testing.assert_allclose(outer(m, n), outer(samples["m"], samples["n"]), atol=1e-4)
    read = lambda z, m: np.einsum("cdtbk,cduk->cdtbu", z, m)  # noqa: E731
    np.testing.assert_allclose(read(z, m), read(samples["latent"], samples["m"]), atol=1e-4)
    np.testing.assert_allclose(overlap, np.swapaxes(n, -1, -2) @ m / N_UNITS, atol=1e-4)


def test_the_recorded_gauge_rotates_back_to_the_raw_draws(built):
    result, samples, _ = built
    gauge, m = result["posterior"]["gauge"].values, result["posterior"]["m"].values
    np.testing.assert_allclose(gauge @ np.swapaxes(gauge, -1, -2), np.broadcast_to(np.eye(2), gauge.shape), atol=1e-4)
    np.testing.assert_allclose(m @ gauge, samples["m"], atol=1e-4)


def test_drift_is_that_of_each_draw_at_the_visited_states(built):
    result, *_ = built
    drift = result["drift"]
    z = drift["latent"].values
    assert 0 < float(drift["occupancy"].sum()) <= 1 + 1e-6
    draw = result["posterior"].to_dataset().isel(chain=1, draw=3)
    expected = recurrent_drift(
        LowRankRNN(draw["m"].values, draw["n"].values, d=draw["d"].values), jnp.asarray(z), jnp.zeros((len(z), 0))
    )
    np.testing.assert_allclose(drift["recurrent_drift"][1, 3], expected, atol=1e-4)
    assert drift.attrs["dt"] == pytest.approx(0.01)


def test_provenance_and_constant_data_are_kept(built):
    result, _, inputs = built
    assert {"model": "toy", "engine": "svi", "precision": "float32"}.items() <= result.attrs.items()
    assert "numpyro" in result.attrs["versions"]
    np.testing.assert_array_equal(result["constant_data"]["mask"], inputs["mask"])
    np.testing.assert_array_equal(result["observed_data"]["counts"], inputs["counts"])
    assert result["constant_data"].attrs["nonlinearity"] == "tanh"


@pytest.mark.parametrize(
    ("dims", "coords", "message"),
    [
        ({}, {"unit": ["a", "b", "c", "d"]}, "Dimension 'unit' has 5 entries in the model but 4 coordinates"),
        ({"n": ["unit"]}, {}, r"`DIMS\['n'\]` must name the other 2, got \['unit'\]"),
        ({"m": ["unit", "a"], "d": ["a"]}, {}, "Dimension 'a' has 5 entries at site 'd' but 2 at another"),
        ({"n": ["unit", "unit"]}, {}, r"Site 'n' has dimensions \['unit', 'unit'\]: 'unit' is taken"),
        ({"n": ["unit", "draw"]}, {}, "'draw' is taken, by another axis, by a site, or by the draws"),
        ({"n": ["unit", "m"]}, {}, "'m' is taken"),
    ],
)
def test_labels_that_do_not_fit_are_refused_by_name(dims, coords, message):
    arrays = {"counts": jnp.zeros(SHAPE), "mask": jnp.ones(SHAPE, bool)}
    sites = describe_sites(lambda arrays: network(**arrays), arrays)
    check_labels(sites, Labels("toy", DIMS, COORDS))
    with pytest.raises(ValueError, match=message):
        check_labels(sites, Labels("toy", DIMS | dims, COORDS | coords))


def test_one_value_of_a_law_may_stand_for_many_observations():
    def repeated(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0.0, 1.0)), 0.1), obs=y)

    inputs = {"y": np.zeros(3)}
    bound, arrays = bind(repeated, inputs)
    mu = np.linspace(-2, 2, 50, dtype=np.float32).reshape(1, 50)
    given = ({"mu": mu}, {"mu": jnp.zeros(9)}, {}, Labels.of(repeated), {})
    result = build_result(jax.random.key(0), bound, arrays, inputs, *given)
    predicted = result["posterior_predictive"]["y"].values
    assert predicted.shape == (1, 50, 3)
    # Each with noise of its own; false-alarm rate below 1e-6.
    np.testing.assert_allclose((predicted - mu[..., None]).std(1), 0.1, atol=0.055)
    np.testing.assert_allclose(result["expected"]["y"], np.zeros(3), atol=1e-5)


def test_a_model_without_labels_is_named_after_its_function_and_event_axes():
    def regression(x, y):
        beta = numpyro.sample("beta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("y", dist.Normal(x @ beta, 1.0).to_event(1), obs=y)

    inputs = {"x": np.eye(3, 2), "y": np.zeros(3)}
    bound, arrays = bind(regression, inputs)
    samples = {"beta": np.zeros((1, 6, 2), np.float32)}
    labels = Labels.of(regression)
    result = build_result(
        jax.random.key(0), bound, arrays, inputs, samples, {"beta": jnp.zeros((9, 2))}, {}, labels, {}
    )
    assert result.attrs["model"] == "regression"
    assert result["posterior"]["beta"].dims == ("chain", "draw", "beta_axis_0")
    # The entries of an event share one log density.
    assert result["log_likelihood"]["y"].dims == ("chain", "draw")
    np.testing.assert_allclose(result["log_likelihood"]["y"], 3 * -0.5 * np.log(2 * np.pi), rtol=1e-5)
