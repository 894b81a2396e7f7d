"""A low-rank network of the recorded units: its prior, in coordinates that data determine, and its start values."""

# NumPyro types sampled values as ArrayLike, which neither indexes nor multiplies; they are arrays.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Key

from connectinfer.distributions.gram_cholesky import gram_cholesky
from connectinfer.distributions.loadings import sample_aligned_loadings
from connectinfer.dynamics.low_rank import LowRankRNN, latent_step
from connectinfer.dynamics.nonlinearity import nonlinearity as named_nonlinearity
from connectinfer.dynamics.observation import Observation, tied_readout
from connectinfer.latent.calcium import calcium_space, filtered_by_calcium, kept_share
from connectinfer.latent.observation_prior import ObservationPrior
from connectinfer.latent.principal_path import principal_network
from connectinfer.latent.slow_baseline import SlowBaseline, sample_slow_baseline
from connectinfer.latent.state_space import StateSpace

GAIN_SD, OVERLAP_SD, D_SD = 0.25, 1.5, 0.5
"""Prior sds of log gains, of the entries of A in n = A m + e, and of potential biases."""

PROCESS_NOISE, INITIAL_SCALE = (math.log(0.05), 1.0), (0.0, 0.5)
"""Prior means and sds of the logs of the noise's sd per bin (0.05, 0.007 to 0.36), and of the first bin's."""

# Start values: of fewer components than the rank, loadings would be singular.
_LEAST_ALIGNMENT = 0.05

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
    "baseline_innovation",
)
"""Sites of `sample_network` that only serve the sampler; the quantities of interest follow from them."""

NETWORK_GAUGE = ("basis", "states", "polynomials")
"""Arrays of `recording_arrays` that fix coordinates: the prior of what no rotation changes is the same for any."""


class ReadOutNetwork(NamedTuple):
    """A network, and the gain `(unit,)` and bias `(unit,)` by which its potentials h are read out (`gain h + bias`)."""

    network: LowRankRNN
    gain: Float[Array, " unit"]
    bias: Float[Array, " unit"]

    def read_out(
        self, latent: Float[Array, "trial time rank"], filtered: Float[Array, "trial time input"]
    ) -> Float[Array, "trial time unit"]:
        """The linear predictor of every unit and bin."""
        return tied_readout(self.network, latent, filtered, self.gain, self.bias)

    def state_space(
        self,
        process_noise: Float[Array, ""],
        initial_scale: Float[Array, ""],
        filtered: Float[Array, "trial time input"],
        alpha: float,
        observation: Observation,
        calcium_decay: Float[Array, ""] | None = None,
        baseline: SlowBaseline | None = None,
    ) -> StateSpace:
        """Paths of the network with isotropic noise, of sd `process_noise` per bin and `initial_scale` in the first;
        with a `calcium_decay` (s), those of `calcium_space`; a slow `baseline` adds to what units read out."""
        rank = self.network.m.shape[1]
        kept = None if calcium_decay is None else kept_share(calcium_decay, alpha * self.network.tau)
        seen_inputs = filtered if kept is None else filtered_by_calcium(filtered, kept)
        intercept = self.gain * self.network.d + self.bias
        # Without inputs the offset stays small: one number a unit.
        driven = filtered.shape[-1] > 0
        offset = seen_inputs @ (self.gain[:, None] * self.network.b).T + intercept if driven else intercept
        if baseline is not None:
            offset = offset + baseline.deviation[:, None]
        space = StateSpace(
            initial_mean=jnp.zeros(rank),
            initial_tril=initial_scale * jnp.eye(rank),
            transition=jax.tree_util.Partial(latent_step, self.network, alpha),
            noise_tril=process_noise * jnp.eye(rank),
            inputs=filtered,
            loading=self.gain[:, None] * self.network.m,
            offset=offset,
            observation=observation,
        )
        return space if kept is None else calcium_space(space, kept)


def sample_network_space(
    prior: ObservationPrior,
    basis: Float[Array, "unit unit"],
    states: Float[Array, "state rank"],
    polynomials: Float[Array, "state coefficient"],
    filtered: Float[Array, "trial time input"],
    alpha: float,
    tau: float,
    nonlinearity: str,
    baseline: str,
) -> StateSpace:
    """Prior over state-space models of a network with isotropic noise: `sample_network`, the sds `process_noise` per
    bin and `initial_scale` of the first bin (log-normal), what belongs to the observation, and the time constant
    `calcium_decay` (s, log-normal) where units are seen through calcium; with a `"slow"` baseline, that of
    `sample_slow_baseline`."""
    loc, scale = prior.bias(alpha * tau)
    reference = (basis, states, polynomials)
    units, _ = sample_network(*reference, filtered.shape[-1], tau, nonlinearity, bias_loc=loc, bias_scale=scale)
    process_noise = numpyro.sample("process_noise", dist.LogNormal(*PROCESS_NOISE))
    initial_scale = numpyro.sample("initial_scale", dist.LogNormal(*INITIAL_SCALE))
    decay = prior.calcium_decay and numpyro.sample("calcium_decay", dist.LogNormal(*prior.calcium_decay))
    observation = prior.sample(len(basis))
    slow = sample_slow_baseline(len(filtered), len(basis)) if baseline == "slow" else None
    return units.state_space(process_noise, initial_scale, filtered, alpha, observation, decay, slow)


class SampledNetwork(NamedTuple):
    """A network with its read-out, and the alignment L of `gain m` to the reference: `L z` is the path in the
    reference's coordinates."""

    units: ReadOutNetwork
    alignment: Float[Array, "rank rank"]


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
) -> SampledNetwork:
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
    gain = numpyro.sample("gain", dist.LogNormal(jnp.zeros(n_units), GAIN_SD).to_event(1))
    loading, alignment, relative = sample_aligned_loadings("loading", basis, rank)
    m = numpyro.deterministic("m", loading / gain[:, None])
    b = jnp.zeros((n_units, 0))
    if n_inputs:
        scale = jnp.broadcast_to(gain[:, None], (n_units, n_inputs))
        input_loading = numpyro.sample("input_loading", dist.Normal(jnp.zeros(scale.shape), scale).to_event(2))
        b = numpyro.deterministic("b", input_loading / gain[:, None])
    d = numpyro.sample("d", dist.Normal(jnp.zeros(n_units), D_SD).to_event(1))
    probes = drift_probes(nonlinearity, relative / gain[:, None], d, states, polynomials)
    n = numpyro.deterministic("n", _sample_output_weights(m, probes, alignment))
    intercept = numpyro.sample("intercept", dist.Normal(bias_loc + gain * d, bias_scale).to_event(1))
    bias = numpyro.deterministic("bias", intercept - gain * d)
    numpyro.deterministic("overlap", n.T @ m / n_units)
    network = LowRankRNN(m=m, n=n, b=b, d=d, tau=tau, nonlinearity=nonlinearity)
    return SampledNetwork(ReadOutNetwork(network, gain, bias), alignment)


def drift_probes(
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
    rank, n_probes = m.shape[1], probes.shape[1]
    factor = _drift_factor(m, probes)
    law = dist.MultivariateNormal(jnp.zeros(n_probes * rank), scale_tril=jnp.kron(factor, alignment))
    sites = {
        "n_linear": numpyro.sample("n_linear", dist.Normal(jnp.zeros((rank, rank)), OVERLAP_SD).to_event(2)),
        "n_residual": numpyro.sample("n_residual", dist.Normal(jnp.zeros(m.shape), 1.0).to_event(2)),
        "drift_slack": numpyro.sample("drift_slack", dist.Normal(jnp.zeros((n_probes, rank)), _slack(m)).to_event(2)),
        "drift_coefficients": numpyro.sample("drift_coefficients", law),
    }
    return _output_weights(sites, m, probes, alignment)


def _slack(m: Float[Array, "unit rank"]) -> float:
    return 0.01 / len(m) ** 0.5


def _drift_factor(
    m: Float[Array, "unit rank"], probes: Float[Array, "unit coefficient"]
) -> Float[Array, "coefficient coefficient"]:
    """The Cholesky factor of Cov(X), of one latent dimension."""
    n_units = len(m)
    root = [probes / n_units, OVERLAP_SD * m.T @ probes / n_units, _slack(m) * jnp.eye(probes.shape[1])]
    return gram_cholesky(jnp.concatenate(root))


def _output_weights(
    sites: dict[str, Array],
    m: Float[Array, "unit rank"],
    probes: Float[Array, "unit coefficient"],
    alignment: Float[Array, "rank rank"],
) -> Float[Array, "unit rank"]:
    n_units = len(m)
    prior = m @ sites["n_linear"].T + sites["n_residual"]
    cross = (probes + OVERLAP_SD**2 * m @ (m.T @ probes)) / n_units
    wanted = sites["drift_coefficients"].reshape(probes.shape[1], -1)
    wanted = jax.scipy.linalg.solve_triangular(alignment, wanted.T, lower=True).T
    missing = wanted - probes.T @ prior / n_units - sites["drift_slack"]
    return prior + cross @ jax.scipy.linalg.cho_solve((_drift_factor(m, probes), True), missing)


def draw_output_sites(
    key: Key[Array, ""],
    n: Float[Array, "unit rank"],
    m: Float[Array, "unit rank"],
    probes: Float[Array, "unit coefficient"],
    alignment: Float[Array, "rank rank"],
) -> dict[str, Array]:
    r"""The sites of `_sample_output_weights` drawn from their prior given the output weights `n` that they make.

    By Matheron's rule again: with standard normal w, the weights n(w) are linear, and
    $w + (\partial n / \partial w)^\top \mathrm{Cov}(n)^{-1} (n - n(w))$ is a draw given n.
    """
    rank, n_probes = m.shape[1], probes.shape[1]
    factor = jnp.kron(_drift_factor(m, probes), alignment)
    shapes = {"n_linear": (rank, rank), "n_residual": m.shape, "drift_slack": (n_probes, rank)}
    keys = jax.random.split(key, 4)
    drawn = {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=False)}
    drawn["drift_coefficients"] = jax.random.normal(keys[3], (n_probes * rank,))

    def scaled(standard: dict[str, Array]) -> dict[str, Array]:
        return standard | {
            "n_linear": OVERLAP_SD * standard["n_linear"],
            "drift_slack": _slack(m) * standard["drift_slack"],
            "drift_coefficients": factor @ standard["drift_coefficients"],
        }

    first, pull = jax.vjp(lambda standard: _output_weights(scaled(standard), m, probes, alignment), drawn)
    (change,) = pull(apply_weight_precision(m, n - first))
    return scaled(jax.tree.map(jnp.add, drawn, change))


def apply_weight_precision(m: Float[Array, "unit rank"], x: Float[Array, "unit column"]) -> Array:
    """Prior precision of one column of n, (I + 1.5^2 m m^T)^-1, times the columns of `x` (Woodbury's identity)."""
    inner = m.T @ m + jnp.eye(m.shape[1]) / OVERLAP_SD**2
    return x - m @ jnp.linalg.solve(inner, m.T @ x)


def reference_rotation(
    basis: Float[Array, "unit unit"], loading: Float[Array, "unit rank"]
) -> Float[Array, "rank rank"]:
    """The orthogonal R for which `loading @ R` lies in the gauge of the reference: its projection is lower triangular
    with a positive diagonal."""
    q, r = jnp.linalg.qr((basis[:, : loading.shape[1]].T @ loading).T)
    return q * jnp.where(jnp.diag(r) < 0, -1.0, 1.0)


def aligned_loadings(
    basis: Float[Array, "unit unit"], loading: Float[Array, "unit rank"], *, least: float = 0.0
) -> tuple[Float[Array, "rank rank"], dict[str, Array]]:
    """The alignment L to the reference of a `loading` that lies in its gauge, its diagonal at `least` so large, and the
    values of the sites of `sample_aligned_loadings` that make such a loading."""
    rank, n_units = loading.shape[1], len(loading)
    projection = basis.T @ loading / n_units**0.5
    alignment = jnp.tril(projection[:rank])
    alignment = alignment.at[jnp.diag_indices(rank)].set(jnp.maximum(jnp.diag(alignment), least))
    sites = {"loading_diagonal": jnp.diag(alignment)}
    if rank > 1:
        sites["loading_below"] = alignment[jnp.tril_indices(rank, -1)]
    if rank < n_units:
        sites["loading_relative"] = jnp.linalg.solve(alignment.T, projection[rank:].T).T
    return alignment, sites


def initial_network(
    activity: Float[Array, "trial time unit"],
    mask: Bool[Array, "trial time unit"],
    basis: Float[Array, "unit unit"],
    states: Float[Array, "state rank"],
    polynomials: Float[Array, "state coefficient"],
    filtered: Float[Array, "trial time input"],
    rank: int,
    alpha: float,
    nonlinearity: str,
    *,
    counts: bool,
) -> dict[str, Any]:
    """Values of the network's sites from principal components of the smoothed recording.

    The path is that of the components, scaled so that the loadings have unit variance and rotated into the gauge of
    `basis`; n is the ridge regression of its increments on the units' rates. Includes `latent`, `intercept` and
    `process_noise`.
    """
    start = principal_network(activity, mask, filtered, rank, alpha, nonlinearity, counts=counts)
    turn = np.asarray(reference_rotation(basis, jnp.asarray(start.m, float)))
    path, m, linear, residual = start.path @ turn, start.m @ turn, turn.T @ start.linear @ turn, start.residual @ turn
    alignment, sites = aligned_loadings(basis, jnp.asarray(m, float), least=_LEAST_ALIGNMENT)
    slope = jnp.asarray(m @ np.linalg.inv(np.asarray(alignment, float)), float)
    probes = drift_probes(nonlinearity, slope, jnp.zeros(len(m)), states, polynomials)
    drift = probes.T @ (m @ linear.T + residual) / len(m)
    return sites | {
        "latent": path,
        "n_linear": linear,
        "n_residual": residual,
        "drift_coefficients": (drift @ alignment.T).ravel(),
        "drift_slack": np.zeros((probes.shape[1], rank)),
        "intercept": start.bias,
        "process_noise": start.process_noise,
        "initial_scale": start.initial_scale,
    }
