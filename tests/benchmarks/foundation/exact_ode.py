"""NUTS on the exact latent ODE: time, convergence, and coverage over data sets drawn from the model's own prior."""

import tempfile
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro import handlers

from connectinfer.data.recording import recording
from connectinfer.diagnostics.checks import diagnose
from connectinfer.diagnostics.coverage import pooled_coverage
from connectinfer.inference.fit import fit
from connectinfer.zoo import load_model

CLAIM = "exact_ode"
TARGET = (
    "every fit: at most 10 minutes, R-hat of aligned parameters and of invariants at most 1.01, no divergences; 90 % "
    "intervals of invariants, pooled over 20 data sets, inside the 99 % binomial band"
)

N_UNITS, N_TRIALS, N_BINS, BIN_WIDTH, TAU, RANK = 30, 20, 60, 0.01, 0.1, 2


class DataSet(NamedTuple):
    data: xr.Dataset
    truth: dict[str, np.ndarray]


def draw_data_sets(seed: int, n: int) -> list[DataSet]:
    """Networks, paths and counts drawn from the model's prior; kept where every unit fires 0.5 to 100 spikes/s.

    The choice looks at the data alone, so intervals of the exact posterior keep their coverage.
    """
    model = load_model("low_rank_rnn_ode").model
    mask = jnp.ones((N_TRIALS, N_BINS, N_UNITS), bool)
    stimulus = jnp.zeros((N_TRIALS, N_BINS, 0))
    sizes = {"rank": RANK, "alpha": BIN_WIDTH / TAU, "tau": TAU, "nonlinearity": "tanh"}

    def draw(key):
        traced = handlers.trace(handlers.seed(model, key))
        # The prior is the same for any reference.
        reference = {"basis": jnp.eye(N_UNITS), "states": jnp.eye(RANK), "polynomials": jnp.eye(RANK)}
        sites = traced.get_trace(None, mask, stimulus, **reference, **sizes)
        return {name: sites[name]["value"] for name in ("counts", "m", "n", "overlap", "latent")}

    # A map, because the gamma sampler takes long to compile under `vmap`.
    draw_batch = jax.jit(lambda keys: jax.lax.map(draw, keys))
    kept: list[DataSet] = []
    for key in jax.random.split(jax.random.key(seed), 1000):
        batch = {name: np.asarray(value) for name, value in draw_batch(jax.random.split(key, 100)).items()}
        rate = batch["counts"].mean((1, 2)) / BIN_WIDTH
        for i in np.flatnonzero(((rate > 0.5) & (rate < 100)).all(-1)):
            data = recording(time=BIN_WIDTH * np.arange(N_BINS), counts=batch["counts"][i].astype(int))
            kept.append(DataSet(data, {name: value[i] for name, value in batch.items() if name != "counts"}))
        if len(kept) >= n:
            return kept[:n]
    raise RuntimeError(f"Only {len(kept)} of {n} data sets in 100,000 draws.")


def run(quick: bool) -> dict:
    """Fits every data set; two of those whose dynamics decay, with fewer draws, if `quick`."""
    size = {"warmup": 150, "draws": 100} if quick else {"warmup": 300, "draws": 500}
    # All data sets compile the same programs.
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    covered, failed, lines = [], 0, []
    data_sets = draw_data_sets(0, 20)
    for index in (1, 3) if quick else range(20):
        data, truth = data_sets[index]
        started = time.perf_counter()
        result = fit("low_rank_rnn_ode", data, rank=RANK, show_progress=False, **size)
        minutes = (time.perf_counter() - started) / 60
        draws = [result["posterior"][name].values.reshape(-1, N_UNITS, RANK) for name in ("m", "n")]
        low, high = np.quantile(_invariants(*draws), [0.05, 0.95], axis=0)
        true = _invariants(truth["m"], truth["n"])
        covered.append((low <= true) & (true <= high))
        rhat = {v.concern: v.value for v in diagnose(result).verdicts if v.concern.startswith("R-hat")}
        divergences = int(result["sample_stats"]["diverging"].sum())
        leapfrogs = float(result["sample_stats"]["n_steps"].mean())
        failed += not all(value <= 1.01 for value in rhat.values()) or divergences > 0 or minutes > 10
        lines.append(
            f"data set {index}: {minutes:.1f} min, "
            + "".join(f"{concern} {value:.4f}, " for concern, value in rhat.items())
            + f"{divergences} divergences, "
            f"{leapfrogs:.0f} leapfrog steps a draw, covered {covered[-1].astype(int)}"
        )
        print(lines[-1], flush=True)
    coverage = pooled_coverage(np.array(covered), 0.9)
    value = f"{failed} of {len(covered)} fits fail; {coverage}"
    return {"value": value, "passed": not failed and coverage.passed, "details": "\n".join(lines)}


def _invariants(m: np.ndarray, n: np.ndarray) -> np.ndarray:
    """What no gauge changes, `(..., invariant)`: trace and determinant of the overlap, the norms of m, n and J."""
    overlap = np.swapaxes(n, -1, -2) @ m / N_UNITS
    weights = m @ np.swapaxes(n, -1, -2) / N_UNITS
    norms = [np.linalg.norm(x, axis=(-2, -1)) for x in (m, n, weights)]
    return np.stack([np.trace(overlap, axis1=-2, axis2=-1), np.linalg.det(overlap), *norms], -1)
