"""The parameters of a low-rank network as Gibbs sampling moves them."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.low_rank import LowRankRNN
from connectinfer.dynamics.observation import Observation
from connectinfer.latent.calcium import kept_share, pairs_behind
from connectinfer.latent.conditionals import Arrays, Paths
from connectinfer.latent.low_rank_network import (
    ReadOutNetwork,
    aligned_loadings,
    draw_output_sites,
    drift_probes,
    reference_rotation,
)
from connectinfer.latent.observation_prior import ObservationPrior
from connectinfer.latent.principal_path import principal_network
from connectinfer.latent.slow_baseline import SlowBaseline, begin_slow_baseline, slow_baseline_sites
from connectinfer.latent.state_space import Seen, StateSpace


class NetworkParameters(NamedTuple):
    """A network in the coordinates of its read-out: `loading` = gain m, `input_loading` = gain b, `intercept` =
    gain d + bias; gain, d and output weights n; sds of the noise per bin and of the first bin; what else belongs to the
    observation; the time constant of calcium (s), None where the path is seen directly; and the slow baseline, None
    where it is constant.

    Seen through calcium, paths are pairs (z, x) `(trial, time, 2 rank)` of `calcium_space`.
    """

    loading: Float[Array, "unit rank"]
    input_loading: Float[Array, "unit input"]
    intercept: Float[Array, " unit"]
    gain: Float[Array, " unit"]
    d: Float[Array, " unit"]
    n: Float[Array, "unit rank"]
    process_noise: Float[Array, ""]
    initial_scale: Float[Array, ""]
    observation: Observation
    calcium_decay: Float[Array, ""] | None
    baseline: SlowBaseline | None

    @property
    def m(self) -> Float[Array, "unit rank"]:
        """Loadings of the potentials."""
        return self.loading / self.gain[:, None]

    @property
    def b(self) -> Float[Array, "unit input"]:
        """Input loadings of the potentials."""
        return self.input_loading / self.gain[:, None]

    def kept(self, arrays: Arrays) -> Float[Array, ""] | None:
        """The share of calcium that is left after a bin."""
        return None if self.calcium_decay is None else kept_share(self.calcium_decay, arrays["alpha"] * arrays["tau"])


def begin_network(prior: ObservationPrior, arrays: Arrays) -> tuple[NetworkParameters, Paths]:
    """Parameters and paths from principal components of the smoothed recording."""
    names = ("activity", "mask", "filtered", "rank", "alpha", "nonlinearity")
    start = principal_network(*(arrays[name] for name in names), counts=prior.counts)
    m, n_units = jnp.asarray(start.m, float), len(start.m)
    path, bias = jnp.asarray(start.path, float), jnp.asarray(start.bias, float)
    seen = Seen.of(arrays["activity"], arrays["mask"])
    parameters = NetworkParameters(
        loading=m,
        input_loading=jnp.zeros((n_units, arrays["filtered"].shape[-1])),
        intercept=bias,
        gain=jnp.ones(n_units),
        d=jnp.zeros(n_units),
        n=m @ jnp.asarray(start.linear, float).T + jnp.asarray(start.residual, float),
        process_noise=jnp.asarray(start.process_noise, float),
        initial_scale=jnp.asarray(start.initial_scale, float),
        observation=prior.begin(seen, path @ m.T + bias),
        calcium_decay=None if prior.calcium_decay is None else jnp.exp(jnp.asarray(prior.calcium_decay[0], float)),
        baseline=begin_slow_baseline(len(path), n_units) if arrays["baseline"] == "slow" else None,
    )
    kept = parameters.kept(arrays)
    return parameters, path if kept is None else pairs_behind(path, kept)


def network_space(p: NetworkParameters, arrays: Arrays) -> StateSpace:
    """The law of paths and observations."""
    network = LowRankRNN(p.m, p.n, p.b, p.d, arrays["tau"], arrays["nonlinearity"])
    units = ReadOutNetwork(network, p.gain, p.intercept - p.gain * p.d)
    scales, filtered = (p.process_noise, p.initial_scale), arrays["filtered"]
    return units.state_space(*scales, filtered, arrays["alpha"], p.observation, p.calcium_decay, p.baseline)


def turned(matrix: Float[Array, "rank rank"], paths: Paths) -> Paths:
    """Paths times a matrix, z and x alike where paths are pairs."""
    n_trials, n_bins, _ = paths.shape
    return (paths.reshape(n_trials, n_bins, -1, len(matrix)) @ matrix).reshape(paths.shape)


def network_sites(
    key: Key[Array, ""], prior: ObservationPrior, p: NetworkParameters, paths: Paths, arrays: Arrays
) -> dict[str, Array]:
    """The sites of `sample_network_space` and the path, `"latent"` or, with that of calcium, `"latent_and_calcium"`, in
    the gauge of the reference; sites that no data determine are drawn."""
    basis, nonlinearity = arrays["basis"], arrays["nonlinearity"]
    turn = reference_rotation(basis, p.loading)
    m, n = p.m @ turn, p.n @ turn
    alignment, sites = aligned_loadings(basis, p.loading @ turn)
    slope = jnp.linalg.solve(alignment.T, m.T).T
    probes = drift_probes(nonlinearity, slope, p.d, arrays["states"], arrays["polynomials"])
    driven = {"input_loading": p.input_loading} if p.input_loading.shape[1] else {}
    own = {"gain": p.gain, "d": p.d, "intercept": p.intercept}
    scales = {"process_noise": p.process_noise, "initial_scale": p.initial_scale}
    if p.calcium_decay is None:
        path = {"latent": paths @ turn}
    else:
        path = {"latent_and_calcium": turned(turn, paths), "calcium_decay": p.calcium_decay}
    internal = draw_output_sites(key, n, m, probes, alignment)
    slow = {} if p.baseline is None else slow_baseline_sites(p.baseline)
    return sites | own | scales | path | driven | internal | slow | prior.sites(p.observation)


def network_of_draw(prior: ObservationPrior, draw: Arrays) -> NetworkParameters:
    """The parameters of one draw of a result, from the quantities that it shows.

    Raises:
        ValueError: slow baselines, which are known of the trials of the fit alone, and are missing.
    """
    slow = None
    if "baseline_scale" in draw:
        if "baseline" not in draw:
            raise ValueError(
                "The fit has slow baselines, which are known of its own trials alone. To predict other trials, fit "
                "them with those, and mask what is to be predicted (`hold_out`)."
            )
        slow = SlowBaseline(*(draw[name] for name in ("baseline", "baseline_scale", "baseline_timescale")))
    gain, m = draw["gain"], draw["m"]
    return NetworkParameters(
        loading=gain[:, None] * m,
        input_loading=gain[:, None] * draw["b"] if "b" in draw else jnp.zeros((len(m), 0)),
        intercept=gain * draw["d"] + draw["bias"],
        gain=gain,
        d=draw["d"],
        n=draw["n"],
        process_noise=draw["process_noise"],
        initial_scale=draw["initial_scale"],
        observation=prior.observation(draw),
        calcium_decay=draw.get("calcium_decay"),
        baseline=slow,
    )
