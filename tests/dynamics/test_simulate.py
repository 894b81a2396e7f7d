import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_teachers import LIMIT_CYCLE, infinite_drift
from scipy.integrate import solve_ivp
from scipy.stats import chi2

from connectinfer.dynamics.low_rank import LowRankRNN, drift, filter_inputs, gaussian_network
from connectinfer.dynamics.simulate import euler_path, flow, integrate, simulate, simulate_bins, simulate_noisy

TIME = np.arange(61) * 0.02


@pytest.fixture(scope="module")
def network():
    return gaussian_network(jax.random.key(1), LIMIT_CYCLE, 0.9, n_neurons=60, n_inputs=1)


@pytest.fixture(scope="module")
def initial():
    return jnp.array([[2.4, -2.4], [0.1, 0.0], [-1.0, 1.5]])


@pytest.fixture(scope="module")
def inputs():
    """White inputs, the hardest for a scheme: they jump in every bin."""
    return 2 * jax.random.normal(jax.random.key(2), (3, 61, 1))


def reference_path(network, start, u=None):
    """The same equations by scipy in double precision, `v` integrated with `z` and restarted in every bin."""
    m, n, b, d = (np.asarray(x, float) for x in (network.m, network.n, network.b, network.d))
    u = np.zeros((len(TIME), b.shape[1])) if u is None else np.asarray(u, float)
    rank = m.shape[1]
    state, path = np.concatenate([start, np.zeros(b.shape[1])]), [np.asarray(start)]
    for k in range(len(TIME) - 1):

        def field(_, y, u_k=u[k]):
            z, v = y[:rank], y[rank:]
            return np.concatenate([-z + np.tanh(m @ z + b @ v + d) @ n / len(m), -v + u_k]) / network.tau

        state = solve_ivp(field, TIME[k : k + 2], state, rtol=1e-9, atol=1e-9).y[:, -1]
        path.append(state[:rank])
    return np.array(path)


@pytest.mark.parametrize("options", [{}, {"n_steps": 60}, {"tolerance": 1e-5}], ids=["default", "per-bin", "adaptive"])
def test_paths_agree_with_scipy_to_one_in_ten_thousand(network, initial, options):
    trajectory = simulate(network, initial, TIME, **options)
    expected = np.stack([reference_path(network, start) for start in initial])
    np.testing.assert_allclose(trajectory.latent, expected, atol=1e-4)
    assert not trajectory.failed.any()


@pytest.mark.parametrize("eigenvalues", [(-6.0, 1.0), (4.0, -3.0), (5.0, 2.0)])
def test_default_steps_are_short_enough_for_strong_recurrence(initial, eigenvalues):
    network = gaussian_network(jax.random.key(0), np.diag(eigenvalues), 1.0, n_neurons=30)
    expected = np.stack([reference_path(network, start) for start in initial])
    # Steps of half a time constant are more than a hundred times worse.
    np.testing.assert_allclose(simulate(network, initial, TIME).latent, expected, atol=5e-3)


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-5}], ids=["default", "adaptive"])
def test_driven_paths_agree_with_scipy_to_one_in_ten_thousand(network, initial, inputs, options):
    trajectory = simulate(network, initial, TIME, inputs=inputs, **options)
    expected = np.stack([reference_path(network, start, u) for start, u in zip(initial, inputs, strict=True)])
    np.testing.assert_allclose(trajectory.latent, expected, atol=1e-4)


def test_filtered_inputs_are_the_exact_solution_for_a_step(network):
    trajectory = simulate(network, jnp.zeros(2), TIME, inputs=jnp.ones((61, 1)))
    np.testing.assert_allclose(trajectory.filtered_inputs[:, 0], 1 - np.exp(-TIME / 0.1), atol=1e-5)


def test_one_initial_state_is_shared_by_trials_with_different_inputs(network, inputs):
    together = simulate(network, jnp.ones(2), TIME, inputs=inputs)
    assert together.latent.shape == (3, 61, 2)
    assert together.failed.shape == (3,)
    alone = simulate(network, jnp.ones(2), TIME, inputs=inputs[1])
    np.testing.assert_allclose(together.latent[1], alone.latent, atol=1e-5)


def test_without_recurrence_the_state_decays_with_the_time_constant():
    network = LowRankRNN(jnp.zeros((3, 1)), jnp.zeros((3, 1)), tau=0.05)
    latent = simulate(network, jnp.ones(1), TIME).latent[:, 0]
    np.testing.assert_allclose(latent, np.exp(-TIME / 0.05), atol=1e-4)


def test_gradients_agree_with_finite_differences(initial, inputs):
    with jax.enable_x64(True):
        driving = jnp.asarray(inputs[:, :11], float)

        @jax.jit
        def value_and_gradient(m, tau, start):
            def loss(m, tau, start):
                network = LowRankRNN(m, jnp.roll(m, 1, 0), jnp.ones((6, 1)), tau=tau)
                return jnp.sum(simulate(network, start, TIME[:11], inputs=driving, n_steps=20).latent ** 2)

            return jax.value_and_grad(loss, (0, 1, 2))(m, tau, start)

        random = np.random.default_rng(0)
        point = (jnp.asarray(random.normal(size=(6, 2))), jnp.asarray(0.1), jnp.asarray(initial, float))
        direction = (jnp.asarray(random.normal(size=(6, 2))), jnp.asarray(0.05), jnp.ones_like(point[2]))
        ahead, behind = (
            value_and_gradient(*(x + sign * 1e-5 * dx for x, dx in zip(point, direction, strict=True)))[0]
            for sign in (1, -1)
        )
        gradient = value_and_gradient(*point)[1]
        exact = sum(float(jnp.sum(g * dx)) for g, dx in zip(gradient, direction, strict=True))
        assert exact == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-7)


def test_vectorised_chains_have_the_gradients_of_single_ones(network, initial):
    def gradient(n):
        return jax.grad(lambda n: jnp.sum(simulate(LowRankRNN(network.m, n), initial, TIME).latent ** 2))(n)

    chains = jnp.stack([network.n, 0.5 * network.n])
    together = jax.jit(jax.vmap(gradient))(chains)
    np.testing.assert_allclose(together[1], jax.jit(gradient)(chains[1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-4}], ids=["fixed", "adaptive"])
def test_only_the_diverging_trial_of_fixed_steps_is_reported_and_nothing_raises(options):
    # dz/dt = -z + z^2 (rectified): grows without bound above 1, decays below.
    network = LowRankRNN(jnp.ones((1, 1)), jnp.ones((1, 1)), nonlinearity="power_law")
    failed = simulate(network, jnp.array([[0.5], [1.5]]), TIME, **options).failed
    # Adaptive steps are shared, so the solve that cannot pass the blow-up ends for every trial.
    assert failed.tolist() == ([True, True] if options else [False, True])


def test_the_recursion_over_bins_by_hand(key):
    network = LowRankRNN(jnp.array([[1.0]]), jnp.array([[2.0]]), jnp.array([[1.0]]), nonlinearity="relu")
    trajectory = simulate_bins(key, network, jnp.ones(1), 3, 0.5, inputs=jnp.array([[2.0], [0.0], [0.0]]))
    # v = 0, 1, 0.5; z_1 = 0.5 + 0.5 * 2 * 1 = 1.5; z_2 = 0.75 + 0.5 * 2 * (1.5 + 1) = 3.25.
    assert trajectory.latent[:, 0].tolist() == [1.0, 1.5, 3.25]
    assert trajectory.filtered_inputs[:, 0].tolist() == [0.0, 1.0, 0.5]
    np.testing.assert_allclose(trajectory.time, [0.0, 0.05, 0.1])


def test_a_path_with_given_increments_obeys_the_recursion_in_every_trial(key, network, inputs):
    start, increments = jax.random.normal(key, (3, 2)), 0.1 * jax.random.normal(key, (3, 60, 2))
    v = filter_inputs(inputs, 0.2)
    path = euler_path(network, start, increments, 0.2, v)
    np.testing.assert_array_equal(path[:, 0], start)
    step = path[:, 1:] - path[:, :-1] - 0.2 * drift(network, path[:, :-1], v[:, :-1])
    np.testing.assert_allclose(step, increments, atol=1e-5)


def test_short_bins_converge_to_the_differential_equation(key, network, initial):
    exact = simulate(network, initial, np.array([0.0, 0.2]), tolerance=1e-6).latent[:, -1]
    errors = [
        float(jnp.abs(simulate_bins(key, network, initial, n + 1, 2.0 / n).latent[:, -1] - exact).max())
        for n in (50, 200)
    ]
    assert errors[1] < 0.3 * errors[0] < 0.02


def within_chi2_band(samples, variance, false_alarm=1e-4):
    """Whether the second moment of independent zero-mean normals is inside its two-sided band."""
    total = float(jnp.sum(samples**2)) / variance
    return chi2.ppf(false_alarm / 2, samples.size) < total < chi2.isf(false_alarm / 2, samples.size)


def test_an_undriven_noisy_state_has_the_ornstein_uhlenbeck_variance(key):
    network = LowRankRNN(jnp.zeros((1, 2)), jnp.zeros((1, 2)), tau=0.1)
    ratio = 0.02 / 0.1  # bin width in tau
    noisy = simulate_noisy(key, network, jnp.zeros((2000, 2)), TIME, 0.3).latent
    # After 6 and 12 tau; one in ten thousand seeds fails each line.
    assert within_chi2_band(noisy[:, 30], 0.3**2 / (2 * ratio))
    assert within_chi2_band(noisy[:, 60], 0.3**2 / (2 * ratio))
    innovations = noisy[:, 31] - np.exp(-ratio) * noisy[:, 30]
    assert within_chi2_band(innovations, 0.3**2 / (2 * ratio) * (1 - np.exp(-2 * ratio)))
    bins = simulate_bins(key, network, jnp.zeros((2000, 2)), 61, ratio, 0.3).latent
    assert within_chi2_band(bins[:, 60], 0.3**2 / (1 - (1 - ratio) ** 2))


def test_noise_may_differ_between_dimensions_and_vanish(key, network, initial):
    quiet = simulate_noisy(key, network, initial, TIME, 0.0).latent
    np.testing.assert_allclose(quiet, simulate(network, initial, TIME).latent, atol=5e-3)
    free = LowRankRNN(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    latent = simulate_noisy(key, free, jnp.zeros((4, 2)), TIME, jnp.array([0.0, 1.0])).latent
    assert (latent[..., 0] == 0).all()
    assert (latent[..., 1].std(-1) > 0.1).all()


def test_a_general_field_is_integrated_on_batches_and_as_a_flow_map():
    field, starts = infinite_drift(LIMIT_CYCLE), jnp.array([[1.0, 0.0], [0.2, -2.0]])
    path, failed = integrate(jax.vmap(field), starts, jnp.array([0.0, 1.0, 3.0]))
    assert path.shape == (2, 3, 2)
    assert not failed.any()
    np.testing.assert_allclose(flow(field, starts[1], jnp.array(3.0), 30), path[1, 2], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 60, "tolerance": 1e-3}, r"`n_steps` \(fixed\) or `tolerance` \(adaptive\), not both; got 60"),
        ({"time": np.array([0.0])}, r"at least two bin starts in seconds; got shape \(1,\)"),
        ({"time": np.array([0.0, 0.1, 0.3])}, r"uniform; got widths between 0.1 and 0.2 s"),
        ({"inputs": jnp.ones((60, 1))}, r"must end in \(time, input\) = \(61, 1\).*got shape \(60, 1\)"),
        ({"inputs": jnp.ones((61, 1)), "n_steps": 90}, r"must be a multiple of the 60 bins.*got 90"),
    ],
)
def test_impossible_requests_are_refused_with_the_values(network, options, message):
    with pytest.raises(ValueError, match=message):
        simulate(network, jnp.zeros(2), **({"time": TIME} | options))


def test_a_traced_time_constant_needs_a_number_of_steps(network):
    def last(tau, **options):
        return simulate(LowRankRNN(network.m, network.n, tau=tau), jnp.ones(2), TIME, **options).latent[-1]

    with pytest.raises(ValueError, match=r"`tau` or `time` is traced.*pass `n_steps`, or `tolerance`"):
        jax.jit(last)(0.1)
    stepped = jax.jit(lambda tau: last(tau, n_steps=30))(0.1)
    np.testing.assert_allclose(stepped, last(0.1), atol=1e-3)
