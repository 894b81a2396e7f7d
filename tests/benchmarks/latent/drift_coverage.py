"""Do bands of the drift hold it as often as they say? Against exact tests, known networks, and an exact ODE."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from cases import measured
from ode_limit import ode_limit
from recipe import TEACHERS, simulate_recipe
from recipe_fits import measure
from recovery import fits

from connectinfer.data.recording import recording
from connectinfer.diagnostics.calibration import calibrate, calibration_coverage, judge_calibration
from connectinfer.diagnostics.coverage import pooled_coverage
from connectinfer.dynamics.low_rank import LowRankRNN, drift
from connectinfer.inference.replicates import fit_replicates, gibbs_posterior, simulate_replicates
from connectinfer.inference.trace import bind
from connectinfer.zoo import load_model

CLAIM = "drift_coverage"
TARGET = (
    "90 % bands of the drift at visited states: of at least 50 data sets drawn from the prior, inside the 99 % band; "
    "of the recipe's 20 fits, mean inside its 99 % band and at least 82 % for every teacher; of four chains, split "
    "R-hat at most 1.05; ranks through the path-marginal likelihood uniform; posterior of the exact ODE reached "
    "without process noise"
)

_MODEL, _NORMAL_99 = "low_rank_rnn_poisson", 2.576
_N_UNITS, _N_TRIALS, _N_BINS, _BIN = 20, 8, 60, 0.01
_RANKED = {"data_sets": 200, "batch": 100, "rank": 1, "warmup": 300, "draws": 600, "thinning": 6, "max_tree_depth": 6}


def run(quick: bool) -> dict:
    """All parts; `quick` the first two, with few data sets."""
    prior = _kept("prior", partial(_of_prior, 10 if quick else 100), quick)
    rows = fits(quick)
    teachers = {t: [row["coverage"] for (name, _), row in rows.items() if name == t] for t in TEACHERS}
    means = {t: float(np.mean(shares)) for t, shares in teachers.items() if shares}
    every = np.concatenate([shares for shares in teachers.values() if shares])
    error = every.std(ddof=1) / len(every) ** 0.5 if len(every) > 1 else float("nan")
    # States of one data set stand or fall together: data sets are what is independent.
    inside = bool(np.isnan(error) or abs(every.mean() - 0.9) <= _NORMAL_99 * error)
    values = [f"prior: {prior['said']}"]
    values.append("recipe: " + ", ".join(f"{t} {share:.2f}" for t, share in means.items()))
    values[-1] += f", all {len(every)} {every.mean():.3f} (se {error:.3f})"
    passed = [prior["passed"], inside, min(means.values()) >= 0.82]
    if not quick:
        chains = _kept("four chains", _of_four_chains, quick)
        ranks = _kept("ranks", _of_ranks, quick)
        limit = _kept("ode limit", ode_limit, quick)
        values.append(f"four chains: R-hat of the drift {chains['rhat_drift']:.3f}")
        values.append(f"ranks: {ranks['said']}")
        values.append(f"no process noise: {limit['said']}")
        passed += [chains["rhat_drift"] <= 1.05, ranks["passed"], limit["passed"]]
    return {"value": "; ".join(values), "passed": all(passed), "details": "\n".join(values)}


def _kept(case: str, compute, quick: bool) -> dict:
    return compute() if quick else measured(CLAIM, case, compute)


def _of_prior(data_sets: int) -> dict:
    """Bands at the states that principal components of the data visit: what the data decide keeps the test exact."""
    module = load_model(_MODEL)
    shape = _N_TRIALS, _N_BINS, _N_UNITS
    time = _BIN * np.arange(_N_BINS)

    def inputs_of(counts: np.ndarray) -> dict:
        return module.inputs(recording(time=time, counts=counts.astype(int)))[0]

    def prepared(held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (counts,) = held.values()
        own = inputs_of(counts)
        return held | {name: np.asarray(own[name]) for name in module.GAUGE}

    inputs = inputs_of(np.random.default_rng(0).poisson(0.3, shape))
    bound, arrays = bind(module.model, inputs)
    fixed = {name: x for name, x in inputs.items() if name not in arrays}
    key_data, key_fit = jax.random.split(jax.random.key(0))
    replicates = simulate_replicates(key_data, bound, arrays, data_sets, prepared)
    each = [{**inputs, **{name: x[i] for name, x in replicates.arrays.items()}} for i in range(data_sets)]
    starts = jax.tree.map(lambda *parts: jnp.stack(parts), *[module.CONDITIONALS.begin(own) for own in each])

    def at_states(arrays: dict, network: dict) -> dict:
        """In the coordinates of the data's reference; true networks come in those of the first inputs."""
        own = LowRankRNN(network["m"], network["n"], d=network["d"], tau=inputs["tau"])
        basis, states = arrays["basis"][:, : inputs["rank"]], arrays["states"]
        alignment = basis.T @ (network["gain"][:, None] * network["m"]) / _N_UNITS**0.5
        return {"drift": drift(own, jnp.linalg.solve(alignment, states.T).T) @ alignment.T}

    posterior = gibbs_posterior(module.CONDITIONALS, fixed, warmup=300, draws=600, thinning=3)
    draws, _ = fit_replicates(
        key_fit, posterior, at_states, arrays, replicates, starts, batch=min(50, data_sets), show_progress=False
    )
    truth = jax.vmap(at_states)(replicates.arrays, replicates.truth)["drift"]
    low, high = np.quantile(draws["drift"], [0.05, 0.95], axis=1)
    found = pooled_coverage(((truth >= low) & (truth <= high)).reshape(data_sets, -1), 0.9)
    return {"said": f"{data_sets} data sets, {found}", "passed": found.passed}


def _of_four_chains() -> dict:
    return measure(simulate_recipe("limit cycle", 0), _MODEL, 60)


def _of_ranks() -> dict:
    """Of NUTS with the paths integrated out, where Laplace's approximation is good: a few spikes a bin."""
    spikes = np.random.default_rng(0).poisson(0.3, (3, 12, 5))
    data = recording(time=_BIN * np.arange(12), counts=spikes)
    found = calibrate(_MODEL, data, engine="nuts", integrate_paths=True, show_progress=False, **_RANKED)
    wrong = [f"{v.concern}: {v.explanation}" for v in judge_calibration(found).verdicts if v.verdict == "fail"]
    coverage = calibration_coverage(found, 0.9)
    return {"said": f"{coverage}; outside: {'; '.join(wrong) or 'none'}", "passed": not wrong and coverage.passed}
