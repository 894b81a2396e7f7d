"""Fits applied to other trials: exact where paths are Gaussian, and true where the truth is planted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax.flatten_util import ravel_pytree
from scipy.stats import multivariate_normal

from connectinfer.data.recording import recording
from connectinfer.inference.infer_paths import infer_paths
from connectinfer.inference.trace import bind, evaluate
from connectinfer.latent.recording_arrays import trial_arrays
from connectinfer.zoo import load_model

ALPHA, TAU, N_BINS, N_UNITS = 0.2, 0.1, 6, 3
NOISE, INITIAL = 0.3, 0.8


def gaussian_fit(n_chains=2, n_draws=40):
    """A result whose draws are all the same network without recurrence: paths are autoregressive, all is Gaussian."""
    generator = np.random.default_rng(0)
    unit = {"m": generator.normal(size=(N_UNITS, 1)), "n": np.zeros((N_UNITS, 1)), "d": generator.normal(size=N_UNITS)}
    unit |= {"gain": generator.uniform(0.5, 1.5, N_UNITS), "bias": generator.normal(size=N_UNITS)}
    unit |= {"noise": generator.uniform(0.3, 0.6, N_UNITS), "process_noise": NOISE, "initial_scale": INITIAL}
    sampled, dims = ("chain", "draw"), ("unit", "latent_dim")
    posterior = {
        name: ((*sampled, *dims[: np.ndim(x)]), np.broadcast_to(x, (n_chains, n_draws, *np.shape(x))))
        for name, x in unit.items()
    }
    ids = ["a", "b", "c"]
    constant = xr.Dataset({"mask": (("unit",), np.ones(N_UNITS, bool))}, {"unit": ids})
    constant.attrs = {"alpha": ALPHA, "tau": TAU, "rank": 1, "nonlinearity": "tanh"}
    coords = {"unit": ids, "chain": np.arange(n_chains), "draw": np.arange(n_draws)}
    groups = {"posterior": xr.Dataset(posterior, coords), "constant_data": constant}
    result = xr.DataTree.from_dict(groups | {"expected": xr.Dataset({"signal": 0.0})})
    result.attrs = {"model": "low_rank_rnn_gaussian", "observed_kind": "fluorescence"}
    return result, unit


def other_trials():
    """Two trials; the second ends after four bins, and a unit is hidden in the first."""
    values = np.random.default_rng(1).normal(size=(2, N_BINS, N_UNITS))
    mask = np.ones(values.shape, bool)
    mask[1, 4:], mask[0, :, 2] = False, False
    return recording(time=ALPHA * TAU, fluorescence=values, mask=mask, unit=["a", "b", "c"], trial=["x", "y"])


def exact(unit):
    """Mean, and covariance of all entries of a trial, `(bin, unit)` in order."""
    lag = np.abs(np.subtract.outer(np.arange(N_BINS), np.arange(N_BINS)))
    decay = (1 - ALPHA) ** 2
    variance = [INITIAL**2]
    for _ in range(N_BINS - 1):
        variance.append(decay * variance[-1] + NOISE**2)
    first = np.minimum.outer(np.arange(N_BINS), np.arange(N_BINS))
    paths = (1 - ALPHA) ** lag * np.array(variance)[first]
    loading = unit["gain"] * unit["m"][:, 0]
    covariance = np.kron(paths, np.outer(loading, loading)) + np.diag(np.tile(unit["noise"] ** 2, N_BINS))
    return np.tile(unit["gain"] * unit["d"] + unit["bias"], N_BINS), covariance


@pytest.fixture(scope="module")
def applied():
    result, unit = gaussian_fit()
    # In another order: labels decide.
    return infer_paths(result, other_trials().isel(unit=[2, 0, 1]), draws=60), unit


def test_likelihoods_of_gaussian_paths_are_exact(applied):
    found, unit = applied
    mean, covariance = exact(unit)
    data = other_trials()
    for trial in range(2):
        seen = data["mask"].values[trial].ravel()
        y = data["fluorescence"].values[trial].ravel()[seen]
        expected = multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(y)
        values = found["log_likelihood/signal"].isel(trial=trial).values
        np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_hidden_units_and_what_follows_a_trial_are_expected_as_the_others_say(applied):
    found, unit = applied
    mean, covariance = exact(unit)
    data, draws = other_trials(), 60
    for trial in range(2):
        seen = data["mask"].values[trial].ravel()
        y = data["fluorescence"].values[trial].ravel()
        # Of the mean of every entry, given what was seen.
        signal = covariance - np.diag(np.tile(unit["noise"] ** 2, N_BINS))
        gain = signal[:, seen] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        expected, spread = mean + gain @ (y[seen] - mean[seen]), np.diag(signal - gain @ signal[seen])
        error = np.abs(found["expected/signal"].values[trial].ravel() - expected)
        # Five standard errors of independent draws: a false alarm in 2e-5 of all runs.
        assert (error < 5 * np.sqrt(spread / draws) + 1e-4).all()
    assert float(found["sample_stats/path_acceptance"].min()) > 0.999
    assert float(found["sample_stats/newton_decrement"].max()) < 0.011


def test_the_tree_is_labelled_as_that_of_a_fit(applied):
    found, _ = applied
    assert found["posterior/latent"].dims == ("chain", "draw", "trial", "time", "latent_dim")
    assert found["posterior/latent"]["trial"].values.tolist() == ["x", "y"]
    assert found["posterior/latent"]["draw"].values.tolist() == np.linspace(0, 39, 30).astype(int).tolist()
    assert found["expected/signal"]["unit"].values.tolist() == ["a", "b", "c"]
    assert found.attrs["model"] == "low_rank_rnn_gaussian"


def with_inputs():
    return other_trials().assign(inputs=(("trial", "time", "input"), np.zeros((2, N_BINS, 1)))).assign_coords(input=[0])


def without_paths():
    result, _ = gaussian_fit()
    result.attrs["model"] = "low_rank_rnn_ode"
    return result


def with_slow_baselines():
    result, _ = gaussian_fit()
    result["posterior"]["baseline_scale"] = xr.ones_like(result["posterior"]["process_noise"])
    return result


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draws": 0}, "`draws` must be at least 1; got 0"),
        ({"result": without_paths()}, "file has `CONDITIONALS`; 'low_rank_rnn_ode' has none"),
        ({"result": with_slow_baselines()}, "known of the fit's own trials alone"),
        ({"data": other_trials().isel(unit=[0, 1])}, r"units of the fit; 1 missing: 'c'\. Select .* masked entries"),
        ({"data": other_trials().assign_coords(unit=["a", "b", "q"])}, "1 unknown: 'q', 1 missing: 'c'"),
        (
            {"data": recording(time=0.1, fluorescence=np.ones((1, 4, 3)))},
            r"has bins of 0\.02 s, the recording .* 0\.1 s",
        ),
        ({"data": recording(time=0.02, counts=np.ones((1, 4, 3), int))}, "of fluorescence; got a recording of counts"),
        ({"data": with_inputs()}, r"has the inputs \[\], the recording \[0\]"),
    ],
)
def test_what_the_fit_cannot_be_applied_to_is_refused(given, message):
    given = {"result": gaussian_fit()[0], "data": other_trials()} | given
    with pytest.raises(ValueError, match=message):
        infer_paths(given.pop("result"), given.pop("data"), **given)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "low_rank_rnn_negative_binomial",
        "low_rank_rnn_gaussian",
        "low_rank_rnn_calcium",
        "random_feature_dynamics_poisson",
    ],
)
def test_parameters_go_to_sites_and_back(name):
    module, generator = load_model(name), np.random.default_rng(2)
    counts = generator.poisson(2.0, (2, 8, 4))
    values = {"counts": counts} if name.endswith(("binomial", "poisson")) else {"fluorescence": counts / 2.0}
    path = "latent_and_calcium" if "calcium" in name else "latent"
    data = recording(time=0.01, inputs=generator.normal(size=(2, 8, 1)), **values)
    arrays, _ = module.inputs(data, rank=2)
    conditionals = module.CONDITIONALS
    parameters, paths = conditionals.begin(arrays)
    moved = jax.tree.map(lambda x: x * jnp.asarray(generator.uniform(0.8, 1.2, x.shape), x.dtype) + 0.01, parameters)
    bound, _ = bind(module.model, arrays)
    # Without what fixes coordinates.
    others = trial_arrays(data, arrays["alpha"]) | {
        n: arrays[n] for n in ("alpha", "tau", "nonlinearity") if n in arrays
    }

    @jax.jit
    def there_and_back(moved, paths, traced):
        sites = conditionals.sites(jax.random.key(0), moved, paths, arrays | traced)
        values = evaluate(jax.random.key(1), bound, traced, sites).sites
        return values[path], conditionals.space_of(values, others)

    traced = {name: x for name, x in arrays.items() if isinstance(x, jax.Array)}
    turned, back = there_and_back(moved, paths, traced)
    pairs = (conditionals.space(moved, arrays), paths), (back, turned)

    def covariance(root):
        return root @ root.T

    # The gauge turns and shifts paths and turns loadings; rates and their changes do not notice.
    for read_out in (
        lambda space, z: space.predictor(z),
        lambda space, z: (space.transition(z, space.inputs) - z) @ space.loading.T,
        lambda space, _: covariance(space.loading @ space.noise_tril),
        lambda space, _: covariance(space.loading @ space.initial_tril),
        lambda space, _: ravel_pytree(space.observation)[0],
    ):
        expected, found = (read_out(*pair) for pair in pairs)
        np.testing.assert_allclose(found, expected, atol=1e-3)
