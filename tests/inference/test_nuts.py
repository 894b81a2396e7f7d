import os
import subprocess
import sys

import arviz_stats
import jax
import numpy as np
import pytest
from conjugate import INPUTS, exact_posterior, linear_model

from connectinfer.inference import chains
from connectinfer.inference.nuts import sample_nuts


@pytest.fixture(scope="module", params=[None, {"beta": np.array([3.0, -2.0])}], ids=["anywhere", "whitened"])
def linear_result(request):
    options = {"warmup": 300, "draws": 1000, "chains": 4, "show_progress": False}
    return sample_nuts(jax.random.key(0), linear_model, INPUTS, initial=request.param, **options)


def test_moments_equal_the_closed_form_within_monte_carlo_error(linear_result):
    """Five moments at 4 standard errors each: a false alarm in about 3 of 10,000 seeds."""
    mean, covariance = exact_posterior()
    beta = linear_result["posterior"]["beta"]
    error = arviz_stats.mcse(linear_result, var_names=["beta"])["beta"].values
    np.testing.assert_array_less(np.abs(beta.mean(("chain", "draw")).values - mean), 4 * error)
    spread = arviz_stats.mcse(linear_result, var_names=["beta"], method="sd")["beta"].values
    np.testing.assert_array_less(np.abs(beta.std(("chain", "draw")).values - np.sqrt(np.diag(covariance))), 4 * spread)


def test_chains_agree_and_statistics_carry_arviz_names(linear_result):
    assert float(arviz_stats.rhat(linear_result)["beta"].max()) < 1.01
    stats = linear_result["sample_stats"]
    for name in ("diverging", "acceptance_rate", "n_steps", "tree_depth", "reached_max_tree_depth", "energy", "lp"):
        assert stats[name].dims == ("chain", "draw")
    assert (stats["n_steps"] < 2 ** stats["tree_depth"]).all()


def test_log_likelihood_and_log_prior_add_up_to_the_log_density(linear_result):
    total = linear_result["log_likelihood"]["response"].sum("observation") + linear_result["log_prior"]["beta"]
    np.testing.assert_allclose(total, linear_result["sample_stats"]["lp"], rtol=1e-4, atol=1e-4)


def test_same_seed_gives_the_same_draws_and_another_seed_others():
    options = {"warmup": 20, "draws": 20, "chains": 2, "show_progress": False}
    first, second, other = (
        sample_nuts(jax.random.key(seed), linear_model, INPUTS, **options)["posterior"]["beta"].values
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_sequential_chains_draw_what_vectorized_ones_draw():
    # Few steps: rounding grows along a chain until the two part.
    options = {"warmup": 5, "draws": 5, "chains": 2, "show_progress": False}
    vectorized, sequential = (
        sample_nuts(jax.random.key(1), linear_model, INPUTS, chain_method=method, **options)["posterior"]["beta"].values
        for method in ("vectorized", "sequential")
    )
    np.testing.assert_allclose(vectorized, sequential, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_parallel_chains_draw_what_vectorized_ones_draw_and_a_solve_is_refused(tmp_path):
    script = tmp_path / "parallel.py"
    script.write_text(
        "import diffrax, jax, numpy as np, numpyro, numpyro.distributions as dist, pytest\n"
        "from connectinfer.inference.nuts import sample_nuts\n"
        "from conjugate import INPUTS, linear_model\n"
        "def run(method, model, inputs):\n"
        "    options = dict(warmup=5, draws=5, chains=2, chain_method=method, show_progress=False)\n"
        "    return sample_nuts(jax.random.key(1), model, inputs, **options)['posterior']\n"
        "parallel, vectorized = (run(method, linear_model, INPUTS)['beta'] for method in ('parallel', 'vectorized'))\n"
        "np.testing.assert_allclose(parallel, vectorized, rtol=1e-3, atol=1e-3)\n"
        "def decay():\n"
        "    rate = numpyro.sample('rate', dist.LogNormal(0.0, 1.0))\n"
        "    term = diffrax.ODETerm(lambda t, y, args: -args * y)\n"
        "    end = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, 1.0, 0.1, 1.0, args=rate).ys[-1]\n"
        "    numpyro.sample('y', dist.Normal(end, 0.1), obs=0.5)\n"
        "with pytest.raises(ValueError, match='cannot divide .* among devices'):\n"
        "    run('parallel', decay, {})\n"
    )
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_interruption_keeps_the_draws_so_far(monkeypatch):
    original, calls = chains.compile_timed, []

    def interrupting(function, *arguments, **options):
        compiled = original(function, *arguments, **options)

        def run(*values):
            calls.append(None)
            if len(calls) > 6:
                raise KeyboardInterrupt
            return compiled(*values)

        return run

    monkeypatch.setattr(chains, "compile_timed", interrupting)
    result = sample_nuts(jax.random.key(0), linear_model, INPUTS, warmup=40, draws=80, chains=2, show_progress=False)
    # Chunks hold ten steps; six were finished, and the warm-up takes 40 steps.
    assert result.attrs["status"] == "interrupted"
    assert result["posterior"].sizes["draw"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chain_method": "paralel"}, "must be 'vectorized', 'parallel' or 'sequential'; got 'paralel'"),
        ({"chain_method": "parallel", "chains": 64}, "64 parallel chains need 64 devices; JAX sees"),
        ({"chains": 0}, "must be at least 1"),
        ({"target_acept_prob": 0.9}, "Unknown options \\['target_acept_prob'\\]"),
        ({"initial": {"gamma": np.zeros(2)}}, "not a latent site; those are beta"),
        ({"initial": {"beta": np.zeros(3)}}, "has shape \\(3,\\)"),
    ],
)
def test_bad_options_are_named_with_what_was_got(options, message):
    with pytest.raises(ValueError, match=message):
        sample_nuts(jax.random.key(0), linear_model, INPUTS, show_progress=False, **options)
