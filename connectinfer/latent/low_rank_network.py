"""A low-rank network as a latent variable: from a recording to arrays, its prior, and where a fit starts."""

# NumPyro types sampled values as ArrayLike, which neither indexes nor multiplies; they are arrays.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false

import itertools
from collections.abc import Callable
from math import comb
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Bool, Float, Key
from numpyro import handlers

from connectinfer.data.recording import check_recording, observed_kind, recording
from connectinfer.distributions.gram_cholesky import gram_cholesky
from connectinfer.distributions.latent_path import LatentPath
from connectinfer.distributions.loadings import sample_aligned_loadings
from connectinfer.distributions.poisson_log_rate import PoissonLogRate
from connectinfer.dynamics.low_rank import LowRankRNN, filter_inputs, latent_step
from connectinfer.dynamics.nonlinearity import nonlinearity as named_nonlinearity
from connectinfer.dynamics.observation import affine_readout, tied_readout
from connectinfer.statistics.principal_components import PrincipalComponents, principal_components

_STATES = 64
# Smoothing (in time constants) under which principal components of spikes start to look like a path.
_SMOOTHING = 0.35

NETWORK_COORDINATES = (
    "loading_diagonal",
    "loading_below",
    "loading_relative",
    "input_loading",
    "intercept",
    "drift_coefficients",
    "drift_slack",
    "n_linear",
    "n_residual",
)
"""Sites of `sample_network` that only serve the sampler; the quantities of interest follow from them."""

NETWORK_GAUGE = ("basis", "states", "polynomials")
"""Arrays of `recording_arrays` that fix coordinates: the prior of what no rotation changes is the same for any."""


def recording_arrays(
    data: xr.Dataset, kind: str, *, rank: int, tau: float, nonlinearity: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays that the low-rank models take, and the coordinates of their dimensions.

    `kind` is the variable to read (`"counts"`, `"rates"` or `"fluorescence"`), `tau` the time constant in seconds.
    Arrays: `activity` and `mask (trial, time, unit)`, `stimulus (trial, time, input)` (the inputs as recorded),
    `filtered` (the same after `tau dv/dt = -v + u`), `basis (unit, unit)` (orthogonal; its first `rank` columns span
    the leading principal components of the activity and are the reference of the gauge), `states (state, rank)` (64
    that these components visit, in the coordinates of the reference) with `polynomials (state, coefficient)`, by which
    the drift is described (see `drift_polynomials`), and `rank`, `alpha` (bin width / tau), `tau`, `nonlinearity`.

    Raises:
        ValueError: another kind of recording, trials of a single bin, a rank below 1 or larger than the number of
            units or observed bins, a bin that is not shorter than `tau`, or an unknown nonlinearity.
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
    activity, mask = np.asarray(data[kind], float), np.asarray(data["mask"], bool)
    if not mask[:, 1:].any():
        raise ValueError(
            "No trial is observed beyond its first bin, so there are no dynamics to infer; use finer bins."
        )
    alpha = bin_width / tau
    inputs = np.asarray(data["inputs"], float) if "inputs" in data else np.zeros((*activity.shape[:2], 0))
    components = _components(activity, mask, rank, alpha, kind == "counts")
    basis, _ = np.linalg.qr(components.loadings, mode="complete")
    path, loadings, _ = _read_out(components, activity, mask, kind == "counts")
    seen = (path @ loadings.T @ basis[:, :rank] / n_units**0.5)[mask.any(-1)]
    states = seen[np.linspace(0, len(seen) - 1, _STATES).astype(int)]
    arrays = {
        "activity": jnp.asarray(activity, float),
        "mask": jnp.asarray(mask),
        "stimulus": jnp.asarray(inputs, float),
        "filtered": filter_inputs(jnp.asarray(inputs, float), alpha),
        "basis": jnp.asarray(basis, float),
        "states": jnp.asarray(states, float),
        "polynomials": jnp.asarray(drift_polynomials(states, n_units), float),
        "rank": rank,
        "alpha": alpha,
        "tau": tau,
        "nonlinearity": nonlinearity,
    }
    names = data["input"].values if "inputs" in data else np.array([], str)
    coords = {"trial": data["trial"].values, "time": data["time"].values, "unit": data["unit"].values, "input": names}
    return arrays, coords


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


class ReadOutNetwork(NamedTuple):
    """A network, the gain `(unit,)` and bias `(unit,)` by which its potentials h are read out (`gain h + bias`), and
    the alignment L of `gain m` to the reference, so that `L z` is the path in the reference's coordinates."""

    network: LowRankRNN
    gain: Float[Array, " unit"]
    bias: Float[Array, " unit"]
    alignment: Float[Array, "rank rank"]

    def read_out(
        self, latent: Float[Array, "trial time rank"], filtered: Float[Array, "trial time input"]
    ) -> Float[Array, "trial time unit"]:
        """The linear predictor of every unit and bin."""
        return tied_readout(self.network, latent, filtered, self.gain, self.bias)


def sample_network(
    basis: Float[Array, "unit unit"],
    states: Float[Array, "state rank"],
    polynomials: Float[Array, "state coefficient"],
    n_inputs: int,
    tau: float,
    nonlinearity: str,
    *,
    bias_loc: float | Float[Array, ""],
    bias_scale: float,
) -> ReadOutNetwork:
    r"""Prior over networks, with the recorded units as the network's neurons (K units), and over their read-out.

    gain_i ~ LogNormal(0, 0.25); gain_i m_i ~ N(0, I) in the gauge of `sample_aligned_loadings` with reference `basis`;
    n_i = A m_i + e_i with A ~ N(0, 1.5^2) per entry and e_i ~ N(0, I), so that the overlap n^T m / K, which sets the
    dynamics, has the same prior for any number of units; b_i ~ N(0, I); d_i ~ N(0, 0.5^2); bias_i ~ N(`bias_loc`,
    `bias_scale`^2).

    Data determine the path by what it contributes to the units' read-out, the products gain m z, and not z itself. So
    sites are in the coordinates L z of the reference (`loading_relative`, `drift_coefficients`) and of the products
    (`input_loading` = gain b, `intercept` = gain d + bias), each with the law that the priors above imply: the
    posterior is the same, whatever the `states` and `polynomials`.
    Deterministic: `m`, `n`, `b` (with inputs), `bias`, `overlap`.
    """
    n_units, rank = len(basis), states.shape[1]
    gain = numpyro.sample("gain", dist.LogNormal(jnp.zeros(n_units), 0.25).to_event(1))
    loading, alignment, relative = sample_aligned_loadings("loading", basis, rank)
    m = numpyro.deterministic("m", loading / gain[:, None])
    b = jnp.zeros((n_units, 0))
    if n_inputs:
        scale = jnp.broadcast_to(gain[:, None], (n_units, n_inputs))
        input_loading = numpyro.sample("input_loading", dist.Normal(jnp.zeros(scale.shape), scale).to_event(2))
        b = numpyro.deterministic("b", input_loading / gain[:, None])
    d = numpyro.sample("d", dist.Normal(jnp.zeros(n_units), 0.5).to_event(1))
    probes = _drift_probes(nonlinearity, relative / gain[:, None], d, states, polynomials)
    n = numpyro.deterministic("n", _sample_output_weights(m, probes, alignment))
    intercept = numpyro.sample("intercept", dist.Normal(bias_loc + gain * d, bias_scale).to_event(1))
    bias = numpyro.deterministic("bias", intercept - gain * d)
    numpyro.deterministic("overlap", n.T @ m / n_units)
    return ReadOutNetwork(LowRankRNN(m=m, n=n, b=b, d=d, tau=tau, nonlinearity=nonlinearity), gain, bias, alignment)


def _drift_probes(
    nonlinearity: str,
    slope: Float[Array, "unit rank"],
    d: Float[Array, " unit"],
    states: Float[Array, "state rank"],
    polynomials: Float[Array, "state coefficient"],
) -> Float[Array, "unit coefficient"]:
    """W such that W^T n / K holds the coefficients of the recurrent drift at `states` of the reference's coordinates y,
    in which the potentials are `slope @ y + d`."""
    return named_nonlinearity(nonlinearity)(slope @ states.T + d[:, None]) @ polynomials


def _sample_output_weights(
    m: Float[Array, "unit rank"], probes: Float[Array, "unit coefficient"], alignment: Float[Array, "rank rank"]
) -> Float[Array, "unit rank"]:
    r"""n = A m + e with normal A and e, in coordinates that data determine.

    Data determine the drift that the network makes where it goes, and not single weights. So the coefficients
    X = W^T n / K of that drift (plus noise of negligible size, which keeps them from degenerating) are a site of their
    own, with the law that the prior of n implies; n then follows from X and a draw of the prior by Matheron's rule,
    exactly: $n = n_0 + \mathrm{Cov}(n, X) \mathrm{Cov}(X)^{-1} (X - X_0)$. Source: Wilson et al., JMLR 22:105 (2021),
    equation 13.
    """
    (n_units, rank), n_probes = m.shape, probes.shape[1]
    spread, noise = 1.5, 0.01 / n_units**0.5
    linear = numpyro.sample("n_linear", dist.Normal(jnp.zeros((rank, rank)), spread).to_event(2))
    residual = numpyro.sample("n_residual", dist.Normal(jnp.zeros(m.shape), 1.0).to_event(2))
    slack = numpyro.sample("drift_slack", dist.Normal(jnp.zeros((n_probes, rank)), noise).to_event(2))
    prior = m @ linear.T + residual
    cross = (probes + spread**2 * m @ (m.T @ probes)) / n_units
    root = jnp.concatenate([probes / n_units, spread * m.T @ probes / n_units, noise * jnp.eye(n_probes)])
    factor = gram_cholesky(root)
    law = dist.MultivariateNormal(jnp.zeros(n_probes * rank), scale_tril=jnp.kron(factor, alignment))
    wanted = numpyro.sample("drift_coefficients", law).reshape(n_probes, rank)
    wanted = jax.scipy.linalg.solve_triangular(alignment, wanted.T, lower=True).T
    missing = wanted - probes.T @ prior / n_units - slack
    return prior + cross @ jax.scipy.linalg.cho_solve((factor, True), missing)


def known_network(
    network: LowRankRNN,
    loading: Float[Array, "unit rank"],
    bias: Float[Array, " unit"],
    *,
    process_noise: float,
    initial_scale: float,
    alpha: float,
) -> Callable[..., None]:
    """A model in which only the paths are unknown: the ideal observer of spikes whose generator is known.

    Counts are Poisson with log rate `loading @ z + bias`; `process_noise` is the sd per bin and `initial_scale` that
    of the first bin. The model takes the arrays of `recording_arrays`.
    """

    def model(activity, mask, filtered, **_):
        step = jax.tree_util.Partial(latent_step, network, alpha)
        path = LatentPath(step, jnp.asarray(process_noise), jnp.asarray(initial_scale), filtered, network.m.shape[1])
        latent = numpyro.sample("latent", path.to_event(1))
        n_trials, n_bins, n_units = mask.shape
        with (
            numpyro.plate("trial", n_trials, dim=-3),
            numpyro.plate("time", n_bins, dim=-2),
            numpyro.plate("unit", n_units, dim=-1),
        ):
            numpyro.sample("counts", PoissonLogRate(affine_readout(latent, loading, bias)).mask(mask), obs=activity)

    return model


def initial_network(
    activity: Float[Array, "trial time unit"],
    mask: Bool[Array, "trial time unit"],
    basis: Float[Array, "unit unit"],
    states: Float[Array, "state rank"],
    polynomials: Float[Array, "state coefficient"],
    rank: int,
    alpha: float,
    nonlinearity: str,
    *,
    counts: bool,
) -> dict[str, np.ndarray]:
    """Values of the network's sites from principal components of the smoothed recording.

    The path is that of the components, scaled so that the loadings have unit variance and rotated into the gauge of
    `basis`; n is the ridge regression of its increments on the units' rates. Includes `latent`, `intercept` and
    `process_noise`.
    """
    observed, seen, reference = np.asarray(activity, float), np.asarray(mask), np.asarray(basis, float)
    components = _components(observed, seen, rank, alpha, counts)
    path, loadings, bias = _read_out(components, observed, seen, counts)
    scale = np.maximum(np.sqrt((loadings**2).mean(0)), 1e-3)
    path, loadings = path * scale, loadings / scale
    rotation = _triangular_rotation(reference[:, :rank].T @ loadings)
    path, m = path @ rotation, loadings @ rotation
    linear, residual, noise = _increment_regression(path, seen, m, alpha, nonlinearity)
    projection = reference.T @ m / np.sqrt(len(m))
    alignment = np.tril(projection[:rank])
    np.fill_diagonal(alignment, np.maximum(np.diag(alignment), 0.05))
    slope = jnp.asarray(m @ np.linalg.inv(alignment), float)
    probes = np.asarray(_drift_probes(nonlinearity, slope, jnp.zeros(len(m)), states, polynomials), float)
    values = {
        "latent": path,
        "loading_diagonal": np.diag(alignment),
        "n_linear": linear,
        "n_residual": residual,
        "drift_coefficients": (probes.T @ (m @ linear.T + residual) / len(m) @ alignment.T).ravel(),
        "drift_slack": np.zeros((probes.shape[1], rank)),
        "intercept": bias,
        "process_noise": noise,
        "initial_scale": max(float(path[:, 0].std()), 0.1),
    }
    if rank > 1:
        values["loading_below"] = alignment[np.tril_indices(rank, -1)]
    if rank < len(m):
        values["loading_relative"] = projection[rank:] @ np.linalg.inv(alignment)
    return values


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


def _components(activity: np.ndarray, mask: np.ndarray, rank: int, alpha: float, counts: bool) -> PrincipalComponents:
    stabilised = np.sqrt(activity + 0.25) if counts else activity
    return principal_components(stabilised, mask, rank, max(_SMOOTHING / alpha, 0.5))


def _triangular_rotation(block: np.ndarray) -> np.ndarray:
    """The orthogonal Q^T with `block @ Q^T` lower triangular and its diagonal positive."""
    q, r = np.linalg.qr(block.T)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def _read_out(
    components: PrincipalComponents, observed: np.ndarray, mask: np.ndarray, counts: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The components' path `(trial, time, rank)`, and the loadings and bias by which units read it out."""
    if not counts:
        return components.path, components.loadings, components.offset
    design = np.concatenate([components.path, np.ones((*components.path.shape[:2], 1))], -1)
    weights = _poisson_regression(design, observed, mask)
    return components.path, weights[:, :-1], weights[:, -1]


def _poisson_regression(design: np.ndarray, counts: np.ndarray, mask: np.ndarray, steps: int = 12) -> np.ndarray:
    """Ridge-stabilised log-linear regression of every unit's counts on `design (trial, time, feature)`."""
    x, y, seen = (
        design.reshape(-1, design.shape[-1]),
        counts.reshape(-1, counts.shape[-1]),
        mask.reshape(-1, counts.shape[-1]),
    )
    weights = np.zeros((y.shape[1], x.shape[1]))
    weights[:, -1] = np.log(np.maximum((y * seen).sum(0), 0.5) / np.maximum(seen.sum(0), 1))
    ridge = np.eye(x.shape[1])
    for _ in range(steps):
        # The bound only prevents overflow: one that overshooting steps reach would move the optimum.
        rate = seen * np.exp(np.clip(x @ weights.T, -20, 20))
        gradient = (seen * y - rate).T @ x - weights @ ridge * np.r_[np.ones(x.shape[1] - 1), 0.0]
        hessian = np.einsum("ti,ta,tb->iab", rate, x, x, optimize=True) + ridge
        weights += np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -1.0, 1.0)
    return weights


def _increment_regression(
    path: np.ndarray, mask: np.ndarray, m: np.ndarray, alpha: float, nonlinearity: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """Overlap map, residual of n, and noise sd per bin, from ridge regression of the path's increments."""
    n_units, rank = m.shape
    # A transition counts unless the trial has ended: padding after the last observed bin says nothing.
    alive = np.flip(np.logical_or.accumulate(np.flip(mask.any(-1), 1), axis=1), 1)[:, 1:]
    now, later = path[:, :-1][alive], path[:, 1:][alive]
    rates = np.asarray(named_nonlinearity(nonlinearity)(jnp.asarray(now @ m.T)), float) / n_units
    target = (later - (1 - alpha) * now) / alpha
    # n = m A^T + e with prior sd 1.5 of A and 1 of e; features are sorted as [m-weighted rates, rates].
    features = np.concatenate([rates @ m * 1.5, rates], -1)
    noise = max(float((later - now).std()), 1e-3)
    gram = features.T @ features + (noise / alpha) ** 2 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features.T @ target)
    residual_sd = alpha * float((target - features @ weights).std())
    return 1.5 * weights[:rank].T, weights[rank:], max(residual_sd, 1e-3)
