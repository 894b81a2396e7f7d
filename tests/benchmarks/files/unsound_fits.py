"""Fits that are wrong, each in a way a user meets, and the concerns of which one must say so.

Left out, because no draws can show it: all chains, or a guide, in one of two modes that nothing connects.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from bank_models import (
    EFFECTS,
    N_BINS,
    N_TRIALS,
    N_UNITS,
    common_counts,
    counts_data,
    flow,
    funnel,
    heavy_tails,
    nuts,
    overflowing,
    regression,
    regression_data,
    ridge,
    schools,
    separated,
    signal_data,
    steady_counts,
    steady_signal,
    svi,
    two_modes,
    undefined_root,
    unstable_solver,
)
from sound_fits import COUPLED, coupled_data, products

from connectinfer.diagnostics.verdict import FAIL, NOT_CERTIFIED
from connectinfer.zoo import load_model

CHAINS = ("R-hat", "ESS", "repeated chains")
GUIDE = ("k-hat", "distance of the guide", "mean of the guide", "width of the guide", "convergence", "completion")


class Broken(NamedTuple):
    """A fit, the beginnings of the concerns of which at least one must have `verdict`, and that verdict."""

    fit: Callable[[], xr.DataTree]
    by: tuple[str, ...]
    verdict: str = FAIL


def _steps(size: float) -> dict[str, Any]:
    return {"step_size": size, "adapt_step_size": False, "adapt_mass_matrix": False}


def _unfinished(seed: int) -> xr.DataTree:
    """Chains of a hundred thousand draws, interrupted as by Ctrl-C once some are stored."""
    with tempfile.TemporaryDirectory() as folder:
        watcher = threading.Thread(target=_interrupt_once_stored, args=(Path(folder),), daemon=True)
        watcher.start()
        return nuts(regression, regression_data(seed), seed, warmup=100, draws=100_000, checkpoint=folder)


def _interrupt_once_stored(folder: Path) -> None:
    stored = folder / "draws.zarr" / "posterior" / "c"
    while len(list(stored.rglob("*"))) < 5:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


def _pooled(runs: list[xr.DataTree]) -> xr.DataTree:
    """Runs of one chain, put together as chains of one result."""
    groups = {
        name: xr.concat([run[name].to_dataset().assign_coords(chain=[i]) for i, run in enumerate(runs)], "chain")
        for name in ("posterior", "sample_stats")
    }
    return xr.DataTree.from_dict(groups)


def _repeated(seed: int) -> xr.DataTree:
    """Four runs with one seed."""
    return _pooled([nuts(regression, regression_data(seed), seed, chains=1, draws=1000)] * 4)


def _stuck(seed: int) -> xr.DataTree:
    """Four runs, of which the last hardly moves from where the third ended."""
    run = partial(nuts, regression, regression_data(seed), chains=1, draws=1000)
    moving = [run(seed + i) for i in range(3)]
    last = {"c": moving[2]["posterior"].to_dataset()["c"].values[0, -1]}
    return _pooled([*moving, run(seed + 3, initial=last, warmup=0, max_tree_depth=1, **_steps(1e-6))])


def _split_modes(seed: int) -> Broken:
    data = {"y": np.full(5, 4.0), "noise": 0.5}
    return Broken(partial(nuts, two_modes, data, seed), ("R-hat",))


def _correlated(seed: int, correlation: float, engine: Callable, by: tuple[str, ...], **options: Any) -> Broken:
    return Broken(partial(engine, regression, regression_data(seed, correlation), seed, **options), by)


def _counts(gain: Callable[[np.random.Generator], np.ndarray], seed: int, engine: Callable = nuts) -> Broken:
    data = counts_data(seed, gain(np.random.default_rng(seed + 1000)))
    return Broken(partial(engine, steady_counts, data, seed), ("prediction",))


def _rhythm(_: np.random.Generator) -> np.ndarray:
    return (1 + 0.6 * np.sin(2 * np.pi * np.arange(N_BINS) / 20))[:, None]


def _step_of_input(_: np.random.Generator) -> np.ndarray:
    return np.where(np.arange(N_BINS) < N_BINS // 2, 0.7, 1.3)[:, None]


def _overdispersion(rng: np.random.Generator) -> np.ndarray:
    return rng.gamma(2.0, 0.5, (N_TRIALS, N_BINS, N_UNITS))


def _gain_of_trials(rng: np.random.Generator) -> np.ndarray:
    return rng.gamma(8.0, 1 / 8, (N_TRIALS, 1, 1))


def _shared_bursts(rng: np.random.Generator) -> np.ndarray:
    return rng.gamma(3.0, 1 / 3, (N_TRIALS, N_BINS, 1))


def _regular(seed: int) -> Broken:
    """Spikes at even intervals, which no Poisson process has."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(size=(N_TRIALS, 1, N_UNITS)) + rng.uniform(0.2, 0.4, N_UNITS) * np.arange(N_BINS + 1)[:, None]
    data = {"counts": np.diff(np.floor(phase), axis=1).astype(int), "mask": np.ones((N_TRIALS, N_BINS, N_UNITS), bool)}
    return Broken(partial(nuts, steady_counts, data, seed), ("prediction",))


def _outlier(seed: int) -> Broken:
    """A common rate for units of which two differ."""
    data = counts_data(seed, rates=np.array([0.8] * (N_UNITS - 2) + [1.2, 0.4]))
    return Broken(partial(nuts, common_counts, data, seed), ("prediction",))


def _signal(seed: int, engine: Callable = nuts, **options: Any) -> Broken:
    return Broken(partial(engine, steady_signal, signal_data(seed, **options), seed), ("prediction",))


def _walks(seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=(N_TRIALS, N_BINS, N_UNITS)).cumsum(1)


def _flow(seed: int, shift: float = 0.0, **options: Any) -> Broken:
    data = regression_data(seed, rows=6)
    data["y"] = data["y"] + shift * data["x"][:, 0]
    by = ("data among simulations",) if shift else GUIDE
    return Broken(partial(flow, regression, data, seed, summary=products(data["x"]), **options), by)


def _schools(seed: int) -> Broken:
    options = {"effects": EFFECTS, "centred": True}
    return Broken(partial(nuts, schools, options, seed, target_accept_prob=0.6), ("divergences", *CHAINS))


_TWO = np.zeros(2)
_SHORT = {"warmup": 20, "draws": 30}
_COUPLED = load_model(COUPLED).model

BROKEN: dict[str, Broken] = {
    **{f"chains of 30 draws {s}": _correlated(s, 0.5, nuts, CHAINS, **_SHORT) for s in range(2)},
    **{f"no warm-up {s}": _correlated(s, 0.9, nuts, CHAINS, warmup=0, draws=100) for s in range(2)},
    **{f"chains in two modes {s}": _split_modes(s) for s in range(2)},
    **{
        f"funnel {s}": Broken(partial(nuts, funnel, {"y": np.zeros(8)}, s), ("divergences", "E-BFMI", *CHAINS))
        for s in range(2)
    },
    **{f"eight schools centred {s}": _schools(s) for s in range(2)},
    "step size too large": _correlated(0, 0.9, nuts, (*CHAINS, "divergences"), **_steps(10.0)),
    "step size too small": _correlated(0, 0.9, nuts, CHAINS, max_tree_depth=3, **_steps(1e-4)),
    "step size at the edge": _correlated(0, 0.9, nuts, (*CHAINS, "divergences"), **_steps(0.4)),
    **{
        f"trees of depth {d}": _correlated(d, 0.99, nuts, CHAINS, max_tree_depth=d, adapt_mass_matrix=False)
        for d in (1, 2)
    },
    "heavy tails 0": Broken(partial(nuts, heavy_tails, {"y": np.zeros(4)}, 0), ("E-BFMI", *CHAINS)),
    "heavy tails 1": Broken(partial(nuts, heavy_tails, {"y": np.zeros(4)}, 1), ("E-BFMI", *CHAINS)),
    "ridge": Broken(partial(nuts, ridge, {"y": np.ones(5)}, 0, max_tree_depth=7, draws=300), CHAINS),
    "no posterior": Broken(partial(nuts, separated, {"y": np.ones(5)}, 0, max_tree_depth=8), (*CHAINS, "E-BFMI")),
    "one run repeated as four chains": Broken(partial(_repeated, 0), ("repeated chains",)),
    "one of four chains stuck": Broken(partial(_stuck, 0), ("R-hat", "ESS")),
    "interrupted": Broken(partial(_unfinished, 0), ("completion",), NOT_CERTIFIED),
    "draws that are no numbers": Broken(partial(nuts, undefined_root, {"y": np.zeros(3)}, 0), ("finite draws",)),
    "failed solves": Broken(partial(nuts, unstable_solver, {"y": np.ones(3)}, 0), ("failed solves",)),
    **{f"svi of 100 steps {s}": _correlated(s, 0.0, svi, GUIDE, steps=100, draws=500) for s in range(2)},
    **{f"svi of narrow posteriors {s}": Broken(partial(svi, steady_signal, signal_data(s), s), GUIDE) for s in (4, 6)},
    **{
        f"svi low_rank not at its end {s}": _correlated(s, 0.9, svi, GUIDE, guide="low_rank", steps=2000)
        for s in range(2)
    },
    "svi of 300 steps": _correlated(0, 0.0, svi, GUIDE, steps=300, learning_rate=0.001),
    **{f"svi of independent normals on 0.99 {s}": _correlated(s, 0.99, svi, GUIDE) for s in range(2)},
    "svi of independent normals on 0.95": _correlated(0, 0.95, svi, GUIDE),
    "svi between two modes": Broken(
        partial(svi, two_modes, {"y": np.full(5, 0.3), "noise": 0.8}, 0, steps=3000), GUIDE
    ),
    "svi of a funnel": Broken(partial(svi, funnel, {"y": np.zeros(8)}, 0), GUIDE),
    "svi of heavy tails": Broken(partial(svi, heavy_tails, {"y": np.zeros(4)}, 0), GUIDE),
    "svi at learning rate 1000": _correlated(0, 0.0, svi, GUIDE, learning_rate=1000.0),
    "svi at learning rate 30": _correlated(0, 0.9, svi, GUIDE, learning_rate=30.0, steps=300),
    "svi at learning rate 0.00001": _correlated(0, 0.0, svi, GUIDE, learning_rate=1e-5),
    **{f"rhythm not modelled {s}": _counts(_rhythm, s) for s in range(2)},
    "input missing": _counts(_step_of_input, 2),
    **{f"overdispersed counts {s}": _counts(_overdispersion, s) for s in range(2)},
    "overdispersed counts, svi": _counts(_overdispersion, 2, svi),
    "gain of trials": _counts(_gain_of_trials, 0),
    "bursts of all units": _counts(_shared_bursts, 0),
    "regular spikes": _regular(0),
    "outlying units": _outlier(0),
    "noise twice as large": _signal(0, noise=1.0),
    "noise half as large": _signal(1, noise=0.25),
    "noise a tenth larger": _signal(1, noise=0.55, engine=svi),
    "drifting signal": _signal(2, added=_walks(0)),
    "unmodelled input to signals": _signal(3, added=0.3 * _rhythm(np.random.default_rng(0)), engine=svi),
    "coupling with a rhythm": Broken(partial(nuts, _COUPLED, coupled_data(0, 0.8), 0), ("prediction",)),
    **{f"flow of 20 steps {s}": _flow(s, steps=20) for s in range(2)},
    "flow of 100 simulations": _flow(2, simulations=100),
    **{f"flow on data far away {s}": _flow(s, shift=12.0) for s in range(2)},
    "failed simulations": Broken(
        partial(flow, overflowing, {"y": np.zeros(5)}, 0), ("failed simulations",), NOT_CERTIFIED
    ),
}
