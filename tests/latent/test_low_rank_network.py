import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.stats import ks_2samp, kstest, multivariate_normal, norm, poisson

from connectinfer.data.recording import recording
from connectinfer.dynamics.low_rank import LowRankRNN, overlap
from connectinfer.latent.known_network import known_network
from connectinfer.latent.low_rank_network import draw_output_sites, initial_network, sample_network
from connectinfer.latent.recording_arrays import drift_polynomials, example_recording, recording_arrays

N_TRIALS, N_BINS, N_UNITS, ALPHA = 12, 100, 40, 0.1
OVERLAP = np.array([[2.0, -1.2], [1.2, 2.0]])


def simulated(kind, with_inputs=False, seed=0):
    """A recording of a network near a limit cycle, its path and its overlap n^T m / K."""
    generator = np.random.default_rng(seed)
    m, b = generator.normal(size=(N_UNITS, 2)), generator.normal(size=(N_UNITS, 1))
    n = m @ OVERLAP.T + 0.5 * generator.normal(size=(N_UNITS, 2))
    u, v = np.zeros((2, N_TRIALS, N_BINS, 1))
    u[::2, 20:40] = with_inputs
    z = np.zeros((N_TRIALS, N_BINS, 2))
    z[:, 0] = generator.normal(size=(N_TRIALS, 2))
    for t in range(N_BINS - 1):
        v[:, t + 1] = (1 - ALPHA) * v[:, t] + ALPHA * u[:, t]
        recurrent = np.tanh(z[:, t] @ m.T + v[:, t] @ b.T) @ n / N_UNITS
        z[:, t + 1] = (1 - ALPHA) * z[:, t] + ALPHA * recurrent + 0.05 * generator.normal(size=(N_TRIALS, 2))
    h = z @ m.T + v @ b.T
    noisy = h + 0.5 * generator.normal(size=h.shape)
    values = generator.poisson(np.exp(h + np.log(0.3))) if kind == "counts" else noisy
    data = recording(time=0.01 * np.arange(N_BINS), inputs=u if with_inputs else None, **{kind: values})
    return data, z, n.T @ m / N_UNITS


def start_of(data, kind, rank=2):
    arrays, _ = recording_arrays(data, kind, rank=rank, tau=0.1, nonlinearity="tanh")
    names = ("activity", "mask", "basis", "states", "polynomials", "filtered", "rank", "alpha", "nonlinearity")
    return arrays, initial_network(**{name: arrays[name] for name in names}, counts=kind == "counts")


def network_sites(arrays, start, evaluate=lambda run, sites: jax.jit(run)(sites)):
    """Values of a network's sites, the start values where there are any, and the network that they describe."""

    def run(sites):
        traced = handlers.trace(handlers.seed(handlers.substitute(sample_network, data=sites), 0))
        reference = (arrays[name] for name in ("basis", "states", "polynomials"))
        network = traced(*reference, 0, 0.1, "tanh", bias_loc=0.0, bias_scale=1.0)
        return {name: site["value"] for name, site in traced.trace.items()}, network

    return evaluate(run, {name: jnp.asarray(value, float) for name, value in start.items()})


def network_of(arrays, start):
    """The network that the start values describe, with gain one and no potential bias."""
    n_units = arrays["activity"].shape[-1]
    return network_sites(arrays, start | {"gain": jnp.ones(n_units), "d": jnp.zeros(n_units)})[1]


def explained(target, predictors):
    design = np.concatenate([predictors, np.ones((*predictors.shape[:-1], 1))], -1).reshape(
        -1, predictors.shape[-1] + 1
    )
    flat = np.asarray(target).reshape(-1, target.shape[-1])
    return 1 - (flat - design @ np.linalg.lstsq(design, flat)[0]).var(0) / flat.var(0)


@pytest.fixture(
    scope="module",
    params=[("fluorescence", False), ("counts", False), ("counts", True)],
    ids=["fluorescence", "counts", "counts-with-inputs"],
)
def started(request):
    kind, with_inputs = request.param
    data, path, true_overlap = simulated(kind, with_inputs)
    arrays, start = start_of(data, kind)
    return kind, arrays, start, path, true_overlap


# What a recording becomes.


def small_recording(**changes):
    counts = np.random.default_rng(0).poisson(2.0, (2, 5, 3))
    mask = np.ones((2, 5, 3), bool)
    mask[1, 3:] = False
    inputs = np.zeros((2, 5, 1))
    inputs[0, :2] = 1.0
    given = {"time": 0.02, "counts": counts, "mask": mask, "inputs": inputs, "unit": ["a", "b", "c"], "trial": [7, 8]}
    return recording(**given | changes)


def test_arrays_and_coordinates_of_a_small_recording():
    data = small_recording()
    arrays, coords = recording_arrays(data, "counts", rank=1, tau=0.1, nonlinearity="relu")
    np.testing.assert_array_equal(arrays["activity"], data["counts"])
    np.testing.assert_array_equal(arrays["mask"], data["mask"])
    assert arrays["activity"].dtype == jnp.float32
    assert arrays["mask"].dtype == bool
    assert arrays["alpha"] == pytest.approx(0.2)
    assert (arrays["rank"], arrays["tau"], arrays["nonlinearity"]) == (1, 0.1, "relu")
    np.testing.assert_array_equal(arrays["stimulus"], data["inputs"])
    # v_{t+1} = 0.8 v_t + 0.2 u_t.
    np.testing.assert_allclose(arrays["filtered"][0, :, 0], [0, 0.2, 0.36, 0.288, 0.2304], rtol=1e-6)
    np.testing.assert_array_equal(arrays["filtered"][1], 0)
    np.testing.assert_allclose(arrays["basis"].T @ arrays["basis"], np.eye(3), atol=1e-6)
    found = {name: values.tolist() for name, values in coords.items()}
    time = pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08])
    assert found == {"trial": [7, 8], "time": time, "unit": ["a", "b", "c"], "input": ["input_0"]}


def test_a_recording_without_inputs_has_an_empty_input_axis():
    arrays, coords = recording_arrays(small_recording(inputs=None), "counts", rank=1, tau=0.1, nonlinearity="tanh")
    assert arrays["stimulus"].shape == arrays["filtered"].shape == (2, 5, 0)
    assert coords["input"].shape == (0,)


def test_the_reference_spans_the_leading_principal_components():
    time = np.arange(200)
    path = np.stack([np.sin(time / 9), np.cos(time / 23)], -1)
    loadings = np.array([[0.3, 0.1], [0.2, -0.2], [2.5, 0.0], [3.0, 0.0], [0.1, 0.3], [0.0, 2.0]])
    weak = 0.01 * np.random.default_rng(0).normal(size=(200, 6))
    data = recording(time=0.01, fluorescence=(path @ loadings.T)[None] + weak)
    arrays, _ = recording_arrays(data, "fluorescence", rank=2, tau=0.1, nonlinearity="tanh")
    basis = np.asarray(arrays["basis"], float)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-6)
    np.testing.assert_allclose(basis[:, 2:].T @ loadings, 0, atol=0.01)
    # The first dimension carries most of the variance, and units 2 and 3 carry the first dimension.
    np.testing.assert_allclose(np.abs(basis[:, 0] @ loadings[:, 0]), np.linalg.norm(loadings[:, 0]), rtol=0.02)


def test_states_are_where_the_components_go():
    data, path, _ = simulated("fluorescence")
    arrays, start = start_of(data, "fluorescence")
    alignment = np.diag(start["loading_diagonal"])
    alignment[1, 0] = start["loading_below"][0]
    projected = start["latent"] @ alignment.T
    states = np.asarray(arrays["states"])
    assert states.shape == (64, 2)
    nearest = np.linalg.norm(projected.reshape(-1, 1, 2) - states, axis=-1).min(0)
    np.testing.assert_allclose(nearest, 0, atol=1e-4)
    # Evenly chosen: no part of the path is left out.
    np.testing.assert_allclose(np.cov(states.T), np.cov(projected.reshape(-1, 2).T), atol=0.5 * path.var())


@pytest.mark.parametrize(
    ("rank", "n_units", "n_coefficients"), [(2, 20, 10), (2, 19, 6), (2, 3, 3), (1, 8, 4), (5, 500, 56), (8, 500, 45)]
)
def test_polynomials_are_orthogonal_and_of_the_degree_that_the_units_allow(rank, n_units, n_coefficients):
    states = np.random.default_rng(0).normal(size=(64, rank))
    found = drift_polynomials(states, n_units)
    np.testing.assert_allclose(found.T @ found, np.eye(n_coefficients) / 64, atol=1e-12)
    # A drift that is such a polynomial is its own description.
    cubic = (states**3)[:, :1] if n_coefficients in (10, 4, 56) else states[:, :1]
    np.testing.assert_allclose(64 * found @ (found.T @ cubic), cubic, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fluorescence"}, r"needs a recording of fluorescence; got counts\. .*list_models"),
        ({"rank": 0}, "between 1 and the number of units; got rank=0 for 3 units"),
        ({"rank": 4}, "between 1 and the number of units; got rank=4 for 3 units"),
        ({"tau": 0.01}, r"must be smaller than `tau`; got bins of 0\.02 s and tau=0\.01 s\. Bin .* more finely"),
        ({"tau": 0.02}, r"must be smaller than `tau`; got bins of 0\.02 s and tau=0\.02 s"),
        ({"tau": float("nan")}, "must be smaller than `tau`"),
        ({"nonlinearity": "tahn"}, r"Unknown nonlinearity 'tahn'; .* Did you mean 'tanh'\?"),
    ],
)
def test_wrong_requests_are_refused(options, message):
    given = {"kind": "counts", "rank": 1, "tau": 0.1, "nonlinearity": "tanh"} | options
    with pytest.raises(ValueError, match=message):
        recording_arrays(small_recording(), given.pop("kind"), **given)


def test_trials_of_a_single_bin_are_refused():
    data = recording(time=0.01, counts=np.ones((20, 1, 3), int))
    with pytest.raises(ValueError, match="No trial is observed beyond its first bin"):
        recording_arrays(data, "counts", rank=1, tau=0.1, nonlinearity="tanh")


def test_signals_that_never_change_count_as_unseen_and_counts_of_zero_as_counts():
    values = np.random.default_rng(0).poisson(1.0, (2, 5, 3))
    values[..., 1] = 0
    counts, _ = recording_arrays(small_recording(counts=values), "counts", rank=1, tau=0.1, nonlinearity="tanh")
    signals, _ = recording_arrays(
        small_recording(counts=None, rates=values + 0.5), "rates", rank=1, tau=0.1, nonlinearity="tanh"
    )
    assert counts["mask"].any((0, 1)).all()
    assert signals["mask"].any((0, 1)).tolist() == [True, False, True]
    for arrays in (counts, signals):
        assert all(np.isfinite(x).all() for x in arrays.values() if hasattr(x, "shape"))


# Where a fit starts.


def test_the_start_recovers_the_path_up_to_a_rotation(started):
    kind, _, start, path, _ = started
    assert explained(path, start["latent"]).min() > (0.98 if kind == "fluorescence" else 0.92)
    # Loadings of unit variance set the scale.
    ratio = start["latent"].std((0, 1)).mean() / path.std((0, 1)).mean()
    assert ratio == pytest.approx(1.0, abs=0.25)


def test_the_start_has_the_eigenvalues_of_the_overlap_roughly(started):
    _, arrays, start, _, true_overlap = started
    found = np.linalg.eigvals(overlap(network_of(arrays, start).units.network))
    expected = np.linalg.eigvals(true_overlap)
    assert np.abs(found.real - expected.real).max() < 0.4
    assert np.abs(np.abs(found.imag) - np.abs(expected.imag)).max() < 0.4


def test_the_start_lies_in_the_gauge_of_the_reference(started):
    _, arrays, start, _, _ = started
    found = network_of(arrays, start)
    m = np.asarray(found.units.network.m)
    projection = np.asarray(arrays["basis"])[:, :2].T @ m / np.sqrt(N_UNITS)
    np.testing.assert_allclose(projection, found.alignment, atol=1e-5)
    assert found.alignment[0, 1] == 0
    assert (np.diag(projection) > 0.5).all()
    assert (m**2).mean() == pytest.approx(1.0, rel=1e-3)


def test_the_start_of_n_is_the_regression_that_it_came_from(started):
    _, arrays, start, _, _ = started
    network = network_of(arrays, start).units.network
    expected = np.asarray(network.m, float) @ start["n_linear"].T + start["n_residual"]
    np.testing.assert_allclose(network.n, expected, atol=1e-4 * np.abs(expected).max())


def test_components_of_fluorescence_are_the_reference_itself(started):
    kind, _, start, _, _ = started
    size = np.abs(start["loading_relative"]).max()
    # Those of spikes are refined by a Poisson regression.
    assert size < 1e-5 if kind == "fluorescence" else 1e-3 < size < 0.5


def test_the_start_asks_for_the_drift_that_its_network_has(started):
    _, arrays, start, _, _ = started
    found = network_of(arrays, start)
    m, n, alignment = (np.asarray(x, float) for x in (found.units.network.m, found.units.network.n, found.alignment))
    reference = (np.asarray(arrays[name], float) for name in ("states", "polynomials"))
    drift = probes_of(m, alignment, np.zeros(N_UNITS), np.tanh, *reference).T @ n @ alignment.T / N_UNITS
    np.testing.assert_allclose(start["drift_coefficients"], drift.ravel(), atol=1e-4 * np.abs(drift).max())
    assert (start["drift_slack"] == 0).all()


def test_the_start_reads_the_recording_out_of_its_path(started):
    kind, arrays, start, _, _ = started
    latent = jnp.asarray(start["latent"], float)
    predictor = np.asarray(network_of(arrays, start).units.read_out(latent, jnp.zeros((N_TRIALS, N_BINS, 0))))
    observed = np.asarray(arrays["activity"])
    if kind == "fluorescence":
        # Noise of sd 0.5 is all that is left.
        assert (observed - predictor).std() == pytest.approx(0.5, rel=0.05)
    else:
        gain = (poisson.logpmf(observed, np.exp(predictor)) - poisson.logpmf(observed, observed.mean((0, 1)))).sum()
        assert gain / observed.sum() / np.log(2) > 0.3
        np.testing.assert_allclose(np.exp(predictor).mean((0, 1)), observed.mean((0, 1)), rtol=0.02)


def test_bins_after_the_end_of_a_trial_change_nothing():
    data, *_ = simulated("counts")
    padded = np.pad(data["counts"].values, ((0, 0), (0, 30), (0, 0)))
    within = np.pad(data["mask"].values, ((0, 0), (0, 30), (0, 0)))
    _, short = start_of(data, "counts")
    _, long = start_of(recording(time=0.01, counts=padded, mask=within), "counts")
    np.testing.assert_allclose(long["latent"][:, :N_BINS], short["latent"], atol=1e-4)
    for name in set(short) - {"latent"}:
        np.testing.assert_allclose(long[name], short[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 6])
def test_the_start_is_finite_for_units_that_fire_once(rank):
    counts = np.random.default_rng(0).poisson(0.05, (3, 20, 6))
    counts[..., 0] = 0
    counts[1, 7, 0] = 1
    mask = np.ones(counts.shape, bool)
    mask[:, ::4, 3] = False
    arrays, start = start_of(recording(time=0.01, counts=counts, mask=mask), "counts", rank)
    assert all(np.isfinite(value).all() for value in start.values())
    assert (start["loading_diagonal"] > 0).all()
    assert start["process_noise"] > 0
    sites, found = network_sites(arrays, start)
    assert found.units.network.n.shape == (6, rank)
    assert set(start) - set(sites) == {"latent", "process_noise", "initial_scale"}
    assert start["latent"].shape == (3, 20, rank)
    # The prior, drawn without the start values, has sites of the same shapes.
    drawn, _ = network_sites(arrays, {}, jax.eval_shape)
    assert {name: np.shape(start[name]) for name in set(start) & set(sites)} == {
        name: drawn[name].shape for name in set(start) & set(sites)
    }


# The prior.

BASIS = np.linalg.qr(np.random.default_rng(7).normal(size=(4, 4)))[0]
STATES = 0.5 * np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
COEFFICIENTS = np.array([[1.0, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
"""Of the drift at these states, its value at the origin and its slopes, as differences."""
SPREAD, NOISE = 1.5, 0.01
"""Prior sd of the entries of A, and of the slack for a network of one unit."""
N_DRAWS, LEVEL = 4000, 1e-4
"""`LEVEL` is the false-alarm rate of each Kolmogorov-Smirnov test; there are 51 of them."""


def probes_of(m, alignment, d, phi=np.tanh, states=STATES, polynomials=COEFFICIENTS):
    """W `(..., unit, coefficient)`, with states in the coordinates y = L z of the reference."""
    return phi(m @ np.linalg.solve(alignment, states.T) + d[..., None]) @ polynomials


@pytest.fixture(scope="module")
def prior():
    """Draws of the network's quantities `(draw, ...)`."""
    names = ("m", "n", "b", "d", "gain", "bias", "overlap", "drift_coefficients")

    def draw(key):
        traced = handlers.trace(handlers.seed(sample_network, key))
        found = traced(*map(jnp.asarray, (BASIS, STATES, COEFFICIENTS)), 1, 0.1, "tanh", bias_loc=-2.0, bias_scale=2.0)
        z, v = jnp.array([[[0.5, -1.0]]]), jnp.array([[[2.0]]])
        values = {name: traced.trace[name]["value"] for name in names}
        values |= {
            "alignment": found.alignment,
            "read_out": found.units.read_out(z, v)[0, 0],
            "network": found.units.network,
        }
        return values

    # A map, because the gamma sampler takes long to compile under `vmap`.
    run = jax.jit(lambda keys: jax.lax.map(draw, keys))
    return jax.tree.map(lambda x: np.asarray(x, float), run(jax.random.split(jax.random.key(0), N_DRAWS)))


@pytest.fixture(scope="module")
def isotropic():
    """The same quantities drawn as the docstring states their prior, in no particular gauge."""
    generator = np.random.default_rng(1)
    gain, d = np.exp(0.25 * generator.normal(size=(N_DRAWS, 4))), 0.5 * generator.normal(size=(N_DRAWS, 4))
    m = generator.normal(size=(N_DRAWS, 4, 2)) / gain[..., None]
    linear = SPREAD * generator.normal(size=(N_DRAWS, 2, 2))
    n = m @ linear.transpose(0, 2, 1) + generator.normal(size=m.shape)
    return {"m": m, "n": n, "gain": gain, "d": d, "bias": generator.normal(-2, 2, size=(N_DRAWS, 4))}


def test_what_does_not_depend_on_the_gauge_has_the_prior_that_is_stated(prior, isotropic):
    def invariants(x):
        norm_of_m = (x["m"] ** 2).sum(-1)
        weights, overlaps = x["m"] @ x["n"].transpose(0, 2, 1), x["n"].transpose(0, 2, 1) @ x["m"]
        yield from (norm_of_m[:, 2], norm_of_m[:, 0], norm_of_m[:, 3])
        yield from ((x["m"] @ x["m"].transpose(0, 2, 1))[:, i, j] for i, j in [(0, 2), (0, 3), (1, 3)])
        yield from (weights[:, i, j] for i, j in [(0, 0), (2, 0), (3, 2), (1, 3)])
        yield from (np.trace(overlaps, axis1=1, axis2=2), np.linalg.det(overlaps), (x["n"] ** 2).sum((1, 2)))
        for name in ("m", "n"):
            yield from np.linalg.svd(x[name], compute_uv=False).T
        # The recurrent drift at the origin, and independence of what the sampler's coordinates mix.
        yield ((np.tanh(x["d"])[:, None] @ x["n"]) ** 2).sum((1, 2))
        yield from ((x["gain"] * np.tanh(x["d"]))[:, i] * weights[:, i, i] for i in (0, 3))
        yield from (x["gain"][:, i] * norm_of_m[:, i] for i in (0, 3))
        yield x["bias"][:, 1] * x["gain"][:, 1] * x["d"][:, 1]

    for found, expected in zip(invariants(prior), invariants(isotropic), strict=True):
        assert ks_2samp(found, expected).pvalue > LEVEL


def test_given_m_the_columns_of_n_are_independent_and_normal_in_the_gauge_itself(prior):
    m, n = prior["m"], prior["n"]
    # Under n = A m + e, each of its columns has the covariance 1.5^2 m m^T + I.
    root = np.linalg.cholesky(SPREAD**2 * m @ m.transpose(0, 2, 1) + np.eye(4))
    white = np.linalg.solve(root, n).reshape(N_DRAWS, 8)
    for column in white.T:
        assert kstest(column, norm.cdf).pvalue > LEVEL
    # Five standard errors.
    np.testing.assert_allclose(white.T @ white / N_DRAWS, np.eye(8), atol=5 * np.sqrt(2 / N_DRAWS))
    # The directions of n that the sampler treats apart depend on m, d and gain, and n still not on d and gain.
    directions = root.transpose(0, 2, 1) @ probes_of(m, prior["alignment"], prior["d"])
    along = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).transpose(0, 2, 1)
    for column in (along @ white.reshape(N_DRAWS, 4, 2)).reshape(N_DRAWS, 6).T:
        assert kstest(column, norm.cdf).pvalue > LEVEL


def test_the_drift_coefficients_are_those_of_the_network_plus_independent_noise(prior):
    m, n, alignment, sd = prior["m"], prior["n"], prior["alignment"], NOISE / 2
    given = prior["drift_coefficients"].reshape(-1, 3, 2).transpose(0, 2, 1)
    drift = np.linalg.solve(alignment, given).transpose(0, 2, 1)
    found = probes_of(m, alignment, prior["d"]).transpose(0, 2, 1) @ n / 4
    noise = (drift - found).reshape(N_DRAWS, 6) / sd
    for column in noise.T:
        assert kstest(column, norm.cdf).pvalue > LEVEL
    white = np.linalg.solve(np.linalg.cholesky(SPREAD**2 * m @ m.transpose(0, 2, 1) + np.eye(4)), n)
    cross = noise.T @ white.reshape(N_DRAWS, 8) / N_DRAWS
    np.testing.assert_allclose(cross, 0, atol=5 / np.sqrt(N_DRAWS))


def test_what_every_gauge_agrees_on_has_its_stated_marginals(prior):
    for unit in (0, 3):
        assert kstest(np.log(prior["gain"][:, unit]), norm(0, 0.25).cdf).pvalue > LEVEL
        assert kstest(prior["b"][:, unit, 0], norm.cdf).pvalue > LEVEL
        assert kstest(prior["d"][:, unit], norm(0, 0.5).cdf).pvalue > LEVEL
        assert kstest(prior["bias"][:, unit], norm(-2, 2).cdf).pvalue > LEVEL


def test_the_prior_lies_in_the_gauge_of_the_reference(prior):
    projection = BASIS[:, :2].T @ (prior["m"] * prior["gain"][..., None]) / 2
    # In float32, and some alignments are all but singular.
    np.testing.assert_allclose(projection, prior["alignment"], atol=5e-3)
    assert np.abs(projection - prior["alignment"]).mean() < 1e-6
    assert (prior["alignment"][:, 0, 1] == 0).all()
    assert (np.diagonal(prior["alignment"], axis1=1, axis2=2) > 0).all()


def test_the_deterministic_sites_are_the_networks(prior):
    np.testing.assert_array_equal(prior["m"], prior["network"].m)
    np.testing.assert_array_equal(prior["n"], prior["network"].n)
    np.testing.assert_array_equal(prior["b"], prior["network"].b)
    expected = prior["n"].transpose(0, 2, 1) @ prior["m"] / 4
    np.testing.assert_allclose(prior["overlap"], expected, rtol=1e-4, atol=1e-4)


def test_the_read_out_is_gain_times_potential_plus_bias(prior):
    h = prior["m"] @ [0.5, -1.0] + 2.0 * prior["b"][..., 0] + prior["d"]
    np.testing.assert_allclose(prior["read_out"], prior["gain"] * h + prior["bias"], rtol=1e-4, atol=1e-4)


# The output weights, given everything else.


class Conditional:
    """A network of 5 units with fixed m, d and gain, whose n is a function of the four sites that it is made of."""

    def __init__(self, nonlinearity, phi):
        generator = np.random.default_rng(3)
        self.basis = jnp.asarray(np.linalg.qr(generator.normal(size=(5, 5)))[0], float)
        fixed = {
            "loading_diagonal": [0.8, 0.5],
            "loading_below": [-0.4],
            "loading_relative": generator.normal(size=(3, 2)),
            "gain": generator.uniform(0.5, 1.5, 5),
            "d": 0.5 * generator.normal(size=5),
            "intercept": np.zeros(5),
        }
        self.fixed = {name: jnp.asarray(value, float) for name, value in fixed.items()}
        self.nonlinearity, self.phi = nonlinearity, phi
        self.noise = NOISE / np.sqrt(5)
        free = {"n_linear": (2, 2), "n_residual": (5, 2), "drift_slack": (3, 2), "drift_coefficients": (6,)}
        self.free = {name: jnp.asarray(generator.normal(size=shape), float) for name, shape in free.items()}
        units, alignment = self.trace(self.free)[1]
        self.alignment, self.d = np.asarray(alignment, float), np.asarray(units.network.d, float)
        self.m = np.asarray(units.network.m, float)
        self.probes = probes_of(self.m, self.alignment, self.d, phi)
        # Of any column of n; between it and its drift, noise included; of this drift.
        self.covariance = SPREAD**2 * self.m @ self.m.T + np.eye(5)
        self.cross = self.covariance @ self.probes / 5
        self.covariance_of_drift = self.probes.T @ self.cross / 5 + self.noise**2 * np.eye(3)

    def trace(self, free):
        data = self.fixed | free
        traced = handlers.trace(handlers.seed(handlers.substitute(sample_network, data=data), 0))
        found = traced(
            self.basis,
            jnp.asarray(STATES),
            jnp.asarray(COEFFICIENTS),
            0,
            0.1,
            self.nonlinearity,
            bias_loc=0.0,
            bias_scale=1.0,
        )
        return traced.trace, found

    def n(self, free):
        return self.trace(free)[1].units.network.n

    def draw(self):
        """A m + e of the given A and e."""
        linear, residual = (np.asarray(self.free[name], float) for name in ("n_linear", "n_residual"))
        return self.m @ linear.T + residual

    def drift(self, n):
        """The coefficients of the recurrent drift, in the coordinates y = L z of the reference."""
        return self.probes.T @ np.asarray(n, float) @ self.alignment.T / 5


@pytest.fixture(scope="module", params=[("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))], ids=["tanh", "relu"])
def conditional(request):
    return Conditional(*request.param)


def test_the_sites_of_the_output_weights_have_their_stated_laws(conditional):
    trace, _ = conditional.trace(conditional.free)
    density = {name: float(trace[name]["fn"].log_prob(trace[name]["value"])) for name in conditional.free}
    free = {name: np.asarray(value, float) for name, value in conditional.free.items()}
    # X L^T, row by row, of a drift X whose columns are independent.
    law = np.kron(conditional.covariance_of_drift, conditional.alignment @ conditional.alignment.T)
    expected = {
        "n_linear": norm(0, SPREAD).logpdf(free["n_linear"]).sum(),
        "n_residual": norm.logpdf(free["n_residual"]).sum(),
        "drift_slack": norm(0, conditional.noise).logpdf(free["drift_slack"]).sum(),
        "drift_coefficients": multivariate_normal(cov=law).logpdf(free["drift_coefficients"]),
    }
    assert density == pytest.approx(expected, rel=1e-3)


def test_n_given_its_drift_has_the_mean_and_covariance_of_a_linear_regression(conditional):
    slopes = jax.jit(jax.jacobian(conditional.n))(conditional.free)
    spread = {"n_linear": SPREAD, "n_residual": 1.0, "drift_slack": conditional.noise}
    roots = [sd * np.asarray(slopes[name], float).reshape(10, -1) for name, sd in spread.items()]
    found = sum(root @ root.T for root in roots)
    inverse = np.linalg.inv(conditional.covariance_of_drift)
    expected = conditional.covariance - conditional.cross @ inverse @ conditional.cross.T
    np.testing.assert_allclose(found, np.kron(expected, np.eye(2)), atol=2e-3)
    at_zero = {name: jnp.zeros_like(conditional.free[name]) for name in spread}
    given = np.asarray(conditional.free["drift_coefficients"], float).reshape(3, 2)
    mean = conditional.cross @ inverse @ np.linalg.solve(conditional.alignment, given.T).T
    found = conditional.n(conditional.free | at_zero)
    np.testing.assert_allclose(found, mean, atol=1e-3 * np.abs(mean).max())


def test_a_drift_that_the_prior_draw_has_leaves_it_as_it_is(conditional):
    slack = np.asarray(conditional.free["drift_slack"], float)
    wanted = conditional.drift(conditional.draw()) + slack @ conditional.alignment.T
    found = conditional.n(conditional.free | {"drift_coefficients": jnp.asarray(wanted.ravel(), float)})
    np.testing.assert_allclose(found, conditional.draw(), atol=1e-3)


def test_the_network_has_the_drift_that_is_asked_for_up_to_the_noise(conditional):
    wanted = np.asarray(conditional.free["drift_coefficients"], float).reshape(3, 2)
    slack = np.asarray(conditional.free["drift_slack"], float) @ conditional.alignment.T
    found = conditional.drift(conditional.n(conditional.free))
    # Matheron's rule moves the draw's drift by (C - noise^2 I) C^-1 of what is missing, C the drift's covariance.
    missing = wanted - slack - conditional.drift(conditional.draw())
    remainder = conditional.noise**2 * np.linalg.solve(conditional.covariance_of_drift, missing)
    np.testing.assert_allclose(found, wanted - slack - remainder, atol=2e-3)
    # Where n varies much more than the noise, little is left.
    strongest = np.linalg.eigh(conditional.covariance_of_drift)[1][:, -1]
    left = np.abs(strongest @ (found + slack - wanted))
    assert (left < 0.01 * np.abs(strongest @ missing)).all()


@pytest.mark.parametrize("smallest", [1e-2, 1e-3])
def test_density_and_gradient_stay_finite_when_the_alignment_is_all_but_singular(conditional, smallest):
    free = conditional.free | {"loading_diagonal": jnp.array([0.8, smallest])}

    def density(sites):
        trace, found = conditional.trace(sites)
        sampled = (site for site in trace.values() if site["type"] == "sample")
        return sum(site["fn"].log_prob(site["value"]) for site in sampled) + (found.units.network.n**2).sum()

    value, slopes = jax.jit(jax.value_and_grad(density))(conditional.fixed | free)
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in slopes.values())


def test_density_and_gradient_stay_finite_at_draws_of_the_prior_whose_rates_are_unbounded():
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(40, 40)))[0]
    states = generator.normal(size=(20, 3))
    given = *(jnp.asarray(x, float) for x in (basis, states, drift_polynomials(states, 40))), 0, 0.1, "relu"

    def model():
        sample_network(*given, bias_loc=0.0, bias_scale=1.0)

    def finite(key):
        trace = handlers.trace(handlers.seed(model, key)).get_trace()
        sites = {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}
        value, slopes = jax.value_and_grad(lambda sites: log_density(model, (), {}, sites)[0])(sites)
        return jnp.stack([jnp.isfinite(x).all() for x in [value, *slopes.values()]]).all()

    assert jax.jit(lambda keys: jax.lax.map(finite, keys))(jax.random.split(jax.random.key(0), 200)).all()


def test_sites_drawn_given_output_weights_make_them_and_have_their_prior():
    given = Conditional("tanh", np.tanh)
    m, probes, alignment = (jnp.asarray(x, float) for x in (given.m, given.probes, given.alignment))
    generator = np.random.default_rng(5)
    root = np.linalg.cholesky(given.covariance)
    weights = jnp.asarray(root @ generator.normal(size=(4000, 5, 2)), float)
    keys = jax.random.split(jax.random.key(1), len(weights))
    sites = jax.jit(jax.vmap(lambda key, n: draw_output_sites(key, n, m, probes, alignment)))(keys, weights)
    made = jax.jit(jax.vmap(given.n))(sites)
    np.testing.assert_allclose(made, weights, atol=2e-3)
    # Weights from their prior, and sites given these, are sites from theirs: 29 moments within 5 standard errors.
    shapes = {"n_linear": SPREAD, "n_residual": 1.0, "drift_slack": given.noise}
    for name, sd in shapes.items():
        drawn = np.asarray(sites[name]).reshape(len(weights), -1) / sd
        np.testing.assert_allclose(drawn.mean(0), 0.0, atol=5 / np.sqrt(len(weights)))
        np.testing.assert_allclose(drawn.std(0), 1.0, atol=5 / np.sqrt(2 * len(weights)))
    law = np.kron(given.covariance_of_drift, given.alignment @ given.alignment.T)
    standard = np.linalg.solve(np.linalg.cholesky(law), np.asarray(sites["drift_coefficients"], float).T)
    np.testing.assert_allclose(np.cov(standard), np.eye(6), atol=5 / np.sqrt(len(weights)) * 1.5)
    mixed = np.corrcoef(np.asarray(sites["n_residual"])[:, 0, 0], np.asarray(sites["drift_coefficients"])[:, 0])[0, 1]
    assert abs(mixed) < 5 / np.sqrt(len(weights))


def test_without_inputs_there_are_no_input_loadings():
    counts = recording(time=0.01, counts=np.random.default_rng(0).poisson(2.0, (2, 10, 4)))
    arrays, _ = recording_arrays(counts, "counts", rank=2, tau=0.1, nonlinearity="tanh")
    sites, found = network_sites(arrays, {}, jax.eval_shape)
    assert found.units.network.b.shape == (4, 0)
    assert not [name for name in sites if name == "b" or "input" in name]


def test_a_known_network_leaves_only_the_paths_unknown():
    generator = np.random.default_rng(0)
    m, n, b = (jnp.asarray(generator.normal(size=shape), float) for shape in ((3, 1), (3, 1), (3, 1)))
    loading, bias = jnp.asarray(generator.normal(size=(3, 1)), float), jnp.array([-1.0, 0.0, 0.5])
    model, _ = known_network(LowRankRNN(m, n, b), loading, bias, process_noise=0.2, initial_scale=0.7, alpha=0.1)
    z, v = generator.normal(size=(2, 4, 1)), generator.normal(size=(2, 4, 1))
    counts, mask = generator.poisson(1.0, (2, 4, 3)), generator.random((2, 4, 3)) < 0.7
    arrays = {"activity": counts, "mask": mask, "filtered": v, "basis": np.eye(3), "rank": 1}
    arrays = {name: jnp.asarray(x, float) if name == "filtered" else x for name, x in arrays.items()}
    trace = handlers.trace(handlers.substitute(model, data={"latent": jnp.asarray(z, float)})).get_trace(**arrays)
    assert [name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]] == ["latent"]
    density = sum(float(s["fn"].log_prob(s["value"]).sum()) for s in trace.values() if s["type"] == "sample")
    rates = np.tanh(z[:, :-1] @ m.T + v[:, :-1] @ b.T)
    mean = 0.9 * z[:, :-1] + 0.1 * rates @ np.asarray(n) / 3
    expected = norm(0, 0.7).logpdf(z[:, 0]).sum() + norm(mean, 0.2).logpdf(z[:, 1:]).sum()
    expected += poisson.logpmf(counts, np.exp(z @ loading.T + bias))[mask].sum()
    assert density == pytest.approx(expected, rel=1e-5)


# Examples.


def coin_model(mask, **_):
    """Unit 0 is silent in most draws."""
    fires = numpyro.sample("fires", dist.Bernoulli(0.1))
    rate = jnp.ones(mask.shape).at[..., 0].set(fires)
    numpyro.sample("counts", dist.Bernoulli(probs=0.9 * rate).to_event(3))


def test_examples_are_drawn_again_until_every_unit_fires(key):
    data = example_recording(key, coin_model, "counts", "counts")
    assert dict(data.sizes) == {"trial": 6, "time": 40, "unit": 12, "input": 1}
    assert (data["counts"].sum(("trial", "time")) > 0).all()
    assert data["input"].values.tolist() == ["pulse"]
    assert data["inputs"].sum(("time", "input")).values.tolist() == [5, 0, 5, 0, 5, 0]


def test_a_model_that_only_draws_silence_has_no_example(key):
    def silent(mask, **_):
        numpyro.sample("counts", dist.Delta(jnp.zeros(mask.shape)).to_event(3))

    with pytest.raises(ValueError, match="drew no counts without silent units in 100 draws"):
        example_recording(key, silent, "counts", "counts")
