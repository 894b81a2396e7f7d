"""The parameters of a low-rank network as Gibbs sampling moves them."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.low_rank import LowRankRNN
from connectinfer.dynamics.observation import Observation
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
from connectinfer.latent.state_space import Seen, StateSpace


class NetworkParameters(NamedTuple):
    """A network in the coordinates of its read-out: `loading` = gain m, `input_loading` = gain b, `intercept` =
    gain d + bias; gain, d and output weights n; sds of the noise per bin and of the first bin; and what else belongs to
    the observation."""

    loading: Float[Array, "unit rank"]
    input_loading: Float[Array, "unit input"]
    intercept: Float[Array, " unit"]
    gain: Float[Array, " unit"]
    d: Float[Array, " unit"]
    n: Float[Array, "unit rank"]
    process_noise: Float[Array, ""]
    initial_scale: Float[Array, ""]
    observation: Observation

    @property
    def m(self) -> Float[Array, "unit rank"]:
        """Loadings of the potentials."""
        return self.loading / self.gain[:, None]

    @property
    def b(self) -> Float[Array, "unit input"]:
        """Input loadings of the potentials."""
        return self.input_loading / self.gain[:, None]


def begin_network(prior: ObservationPrior, arrays: Arrays) -> tuple[NetworkParameters, Paths]:
    """Parameters and paths from principal components of the smoothed recording."""
    names = ("activity", "mask", "rank", "alpha", "nonlinearity")
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
    )
    return parameters, path


def network_space(p: NetworkParameters, arrays: Arrays) -> StateSpace:
    """The law of paths and observations."""
    network = LowRankRNN(p.m, p.n, p.b, p.d, arrays["tau"], arrays["nonlinearity"])
    units = ReadOutNetwork(network, p.gain, p.intercept - p.gain * p.d)
    return units.state_space(p.process_noise, p.initial_scale, arrays["filtered"], arrays["alpha"], p.observation)


def network_sites(
    key: Key[Array, ""], prior: ObservationPrior, p: NetworkParameters, paths: Paths, arrays: Arrays
) -> dict[str, Array]:
    """The sites of `sample_network_space` and the path in the gauge of the reference; those that no data determine are
    drawn."""
    basis, nonlinearity = arrays["basis"], arrays["nonlinearity"]
    turn = reference_rotation(basis, p.loading)
    m, n = p.m @ turn, p.n @ turn
    alignment, sites = aligned_loadings(basis, p.loading @ turn)
    slope = jnp.linalg.solve(alignment.T, m.T).T
    probes = drift_probes(nonlinearity, slope, p.d, arrays["states"], arrays["polynomials"])
    driven = {"input_loading": p.input_loading} if p.input_loading.shape[1] else {}
    own = {"gain": p.gain, "d": p.d, "intercept": p.intercept, "latent": paths @ turn}
    scales = {"process_noise": p.process_noise, "initial_scale": p.initial_scale}
    internal = draw_output_sites(key, n, m, probes, alignment)
    return sites | own | scales | driven | internal | prior.sites(p.observation)
