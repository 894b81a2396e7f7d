"""From a recording to the arrays that the models of latent dynamics take."""

# NumPyro types sampled values as ArrayLike; they are arrays.
# pyright: reportArgumentType=false

import itertools
import warnings
from collections.abc import Callable
from math import comb
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key
from numpyro import handlers

from connectinfer.data.recording import check_recording, observed_kind, recording, silent_units
from connectinfer.dynamics.low_rank import filter_inputs
from connectinfer.dynamics.nonlinearity import nonlinearity as named_nonlinearity
from connectinfer.latent.principal_path import AlignedComponents, components_of, read_out_of
from connectinfer.statistics.recording_blocks import Block

_STATES = 64
_BASELINES = ("constant", "slow")


def recording_arrays(
    data: xr.Dataset, kind: str, *, rank: int, tau: float, nonlinearity: str, baseline: str = "constant"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays that the low-rank models take, and the coordinates of their dimensions.

    `kind` is the variable to read (`"counts"`, `"rates"` or `"fluorescence"`), `tau` the time constant in seconds.
    Arrays: `activity` and `mask (trial, time, unit)`, `stimulus (trial, time, input)` (the inputs as recorded),
    `filtered` (the same after `tau dv/dt = -v + u`), `basis (unit, unit)` (orthogonal; its first `rank` columns span
    the leading principal components of the activity and are the reference of the gauge), `states (state, rank)` (64
    that these components visit, in the coordinates of the reference) with `polynomials (state, coefficient)`, by which
    the drift is described (see `drift_polynomials`), and `rank`, `alpha` (bin width / tau), `tau`, `nonlinearity`, and
    `baseline`: `"slow"` if those of units wander from trial to trial.

    Raises:
        ValueError: another kind of recording, trials of a single bin, a rank below 1 or larger than the number of
            units or observed bins, a bin that is not shorter than `tau`, or an unknown nonlinearity or
            baseline.
    """
    check_recording(data)
    if observed_kind(data) != kind:
        raise ValueError(
            f"This model needs a recording of {kind}; got {observed_kind(data)}. "
            "`connectinfer.list_models()` says which model fits which recording."
        )
    n_units, bin_width = data.sizes["unit"], float(data.attrs["bin_width"])
    if not 1 <= rank <= n_units:
        raise ValueError(f"`rank` must lie between 1 and the number of units; got rank={rank} for {n_units} units.")
    if not bin_width < tau:
        raise ValueError(
            f"The time step must be smaller than `tau`; got bins of {bin_width:g} s and tau={tau:g} s. "
            "Bin the recording more finely, or give a longer `tau`."
        )
    named_nonlinearity(nonlinearity)
    if baseline not in _BASELINES:
        raise ValueError(f"`baseline` must be one of {list(_BASELINES)}; got {baseline!r}.")
    if baseline == "slow" and data.sizes["trial"] < 2:
        raise ValueError("A slow baseline wanders from trial to trial, and the recording has one trial.")
    if kind != "counts":
        # Signals without noise have no likelihood; counts of zero are counts.
        data = data.assign(mask=data["mask"] & ~xr.DataArray(silent_units(data), dims="unit"))
    activity, mask = np.asarray(data[kind], float), np.asarray(data["mask"], bool)
    if not mask[:, 1:].any():
        raise ValueError(
            "No trial is observed beyond its first bin, so there are no dynamics to infer; use finer bins."
        )
    alpha = bin_width / tau
    in_trials, counts = trial_arrays(data, alpha), kind == "counts"
    aligned = components_of(activity, mask, np.asarray(in_trials["filtered"]), rank, alpha, counts=counts)
    _warn_of_free_blocks(data, aligned, rank)
    basis, _ = np.linalg.qr(aligned.components.loadings, mode="complete")
    path, loadings, _ = read_out_of(aligned.components, activity, mask, counts)
    seen = (path @ loadings.T @ basis[:, :rank] / n_units**0.5)[mask.any(-1)]
    states = seen[np.linspace(0, len(seen) - 1, _STATES).astype(int)]
    arrays = in_trials | {
        "basis": jnp.asarray(basis, float),
        "states": jnp.asarray(states, float),
        "polynomials": jnp.asarray(drift_polynomials(states, n_units), float),
        "rank": rank,
        "alpha": alpha,
        "tau": tau,
        "nonlinearity": nonlinearity,
        "baseline": baseline,
    }
    names = data["input"].values if "inputs" in data else np.array([], str)
    coords = {"trial": data["trial"].values, "time": data["time"].values, "unit": data["unit"].values, "input": names}
    return arrays, coords


def _warn_of_free_blocks(data: xr.Dataset, aligned: AlignedComponents, rank: int) -> None:
    reference, *others = aligned.blocks
    free = [block for block, fixed in zip(others, aligned.determined, strict=True) if fixed < rank]
    if not free:
        return
    fixed = dict(zip((_name_of(data, block) for block in others), aligned.determined, strict=True))
    warnings.warn(
        f"Units of {len(aligned.blocks)} blocks of trials are never seen together, and mean paths over time and inputs "
        f"that the blocks share do not tell how all {rank} latent dimensions of one lie to those of "
        f"{_name_of(data, reference)}. Dimensions that they fix: {fixed}. The others start where paths go on in time "
        "most alike, the same in every chain, and only the dynamics hold them there: do not compare latent coordinates "
        "of these blocks. More trials, inputs that all sessions share, or a lower rank would tell.",
        stacklevel=4,
    )


def _name_of(data: xr.Dataset, block: Block) -> str:
    """The session of a block, or its first trial."""
    name = "session" if "session" in data.coords else "trial"
    return f"{name} {data[name].values[block.trials[0]]!s}"


def trial_arrays(data: xr.Dataset, alpha: float) -> dict[str, Array]:
    """The arrays of `recording_arrays` that hold what happened in the trials: `activity`, `mask`, `stimulus` and
    `filtered`; `alpha` is bin width / tau."""
    activity = np.asarray(data[observed_kind(data)], float)
    inputs = np.asarray(data["inputs"], float) if "inputs" in data else np.zeros((*activity.shape[:2], 0))
    return {
        "activity": jnp.asarray(activity, float),
        "mask": jnp.asarray(np.asarray(data["mask"], bool)),
        "stimulus": jnp.asarray(inputs, float),
        "filtered": filter_inputs(jnp.asarray(inputs, float), alpha),
    }


def drift_polynomials(states: Float[np.ndarray, "state rank"], n_units: int) -> Float[np.ndarray, "state coefficient"]:
    """Polynomials of `states`, orthogonal over them, such that `polynomials.T @ drift(states)` describes a drift.

    Of third degree, or of the highest (at least the first) with at most half as many coefficients as units, and 60.
    """
    rank = states.shape[1]
    most = max(min(n_units / 2, 60), rank + 1)
    degrees = [degree for degree in range(4) if comb(rank + degree, degree) <= most]
    factors = [c for degree in degrees for c in itertools.combinations_with_replacement(range(rank), degree)]
    monomials = np.stack([states[:, list(columns)].prod(1) for columns in factors], axis=1)
    return np.linalg.qr(monomials)[0] / len(states) ** 0.5


def example_recording(key: Key[Array, ""], model: Callable, site: str, kind: str) -> xr.Dataset:
    """A recording of 12 units in 6 trials of 40 bins of 10 ms, with one pulsed input, drawn from `model` (rank 2, tau
    100 ms). `site` is the model's observed site, `kind` what the recording holds. Draws in which a unit stays silent
    are drawn again.

    Raises:
        ValueError: 100 draws in which a unit stays silent or a value is not finite.
    """
    n_trials, n_bins, n_units = 6, 40, 12
    pulse = jnp.zeros((n_trials, n_bins, 1)).at[::2, 10:15].set(1.0)
    arrays = {
        "activity": None,
        "mask": jnp.ones((n_trials, n_bins, n_units), bool),
        "stimulus": pulse,
        "filtered": filter_inputs(pulse, 0.1),
        "basis": jnp.eye(n_units),
        # The prior is the same for any states and polynomials.
        "states": jnp.eye(2),
        "polynomials": jnp.eye(2),
    }

    def draw(key: Key[Array, ""]) -> Array:
        seeded = handlers.seed(model, key)
        return handlers.trace(seeded).get_trace(**arrays, rank=2, alpha=0.1, tau=0.1, nonlinearity="tanh")[site][
            "value"
        ]

    for attempt in jax.random.split(key, 100):
        values = np.asarray(jax.jit(draw)(attempt))
        if np.isfinite(values).all() and (values != 0).any((0, 1)).all():
            break
    else:
        raise ValueError(f"The model drew no {kind} without silent units in 100 draws; look at its priors.")
    observed = {kind: values.astype(int) if kind == "counts" else values}
    return recording(time=0.01 * np.arange(n_bins), inputs={"pulse": np.asarray(pulse)[..., 0]}, **observed)
