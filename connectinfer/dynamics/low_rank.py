r"""Low-rank recurrent networks and their latent dynamics.

With loadings m_i, output weights n_i, input weights b_i and bias d_i of neuron i = 1..K,

$$\tau \dot z = -z + \frac1K \sum_i n_i \phi(h_i), \qquad h_i = m_i \cdot z + b_i \cdot v + d_i,
\qquad \tau \dot v = -v + u.$$

This is exactly the network of potentials $\tau \dot h = -h + d + J \phi(h) + b u$ with $J = m n^\top / K$,
`J[post, pre]`, started in the span of its loadings. Drifts are in latent units per $\tau$.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from connectinfer.dynamics.nonlinearity import nonlinearity as find_nonlinearity


class LowRankRNN(eqx.Module):
    r"""$\tau \dot z = -z + \frac1K \sum_i n_i \phi(m_i \cdot z + b_i \cdot v + d_i)$, $\tau$ in seconds.

    `b` defaults to no inputs and `d` to zero. Leaves may be traced: the network can be built inside a NumPyro model.

    Raises:
        ValueError: if the shapes disagree, `tau` is not positive or the nonlinearity is unknown.
    """

    m: Float[Array, "neuron rank"]
    n: Float[Array, "neuron rank"]
    b: Float[Array, "neuron input"]
    d: Float[Array, " neuron"]
    tau: float | Float[Array, ""]
    nonlinearity: str = eqx.field(static=True)

    def __init__(
        self,
        m: ArrayLike,
        n: ArrayLike,
        b: ArrayLike | None = None,
        d: ArrayLike | None = None,
        tau: float | Float[Array, ""] = 0.1,
        nonlinearity: str = "tanh",
    ):
        self.m = jnp.asarray(m, float)
        self.n = jnp.asarray(n, float)
        _check_loadings(self.m, self.n)
        n_neurons = self.m.shape[0]
        self.b = jnp.zeros((n_neurons, 0), self.m.dtype) if b is None else jnp.asarray(b, float)
        self.d = jnp.zeros(n_neurons, self.m.dtype) if d is None else jnp.asarray(d, float)
        _check_input_weights(n_neurons, self.b, self.d)
        find_nonlinearity(nonlinearity)
        if not isinstance(tau, Tracer) and not tau > 0:
            raise ValueError(f"`tau` is a time constant in seconds and must be positive; got {tau}.")
        self.tau = tau
        self.nonlinearity = nonlinearity


def potentials(
    network: LowRankRNN, z: Float[Array, "*batch rank"], v: Float[Array, "*batch_v input"] | None = None
) -> Float[Array, "*batch_out neuron"]:
    """Potentials `h = m z + b v + d`; without `v` the filtered inputs are zero. Batch axes of `z` and `v` broadcast."""
    _check_latent(network, z)
    h = z @ network.m.T + network.d
    if v is None:
        return h
    _check_inputs(network, v)
    # Without inputs, zeros of the size of `h` would be made and added.
    return h + v @ network.b.T if v.shape[-1] else h


def recurrent_drift(
    network: LowRankRNN, z: Float[Array, "*batch rank"], v: Float[Array, "*batch_v input"] | None = None
) -> Float[Array, "*batch_out rank"]:
    """The recurrent input `F(z, v) + z = n^T phi(m z + b v + d) / K`, in latent units per tau."""
    rate = find_nonlinearity(network.nonlinearity)(potentials(network, z, v))
    return (rate @ network.n) / network.n.shape[0]


def drift(
    network: LowRankRNN, z: Float[Array, "*batch rank"], v: Float[Array, "*batch_v input"] | None = None
) -> Float[Array, "*batch_out rank"]:
    """`F(z, v) = tau dz/dt`, in latent units per tau: `dz/dt = drift(network, z, v) / tau`."""
    return recurrent_drift(network, z, v) - z


def latent_step(
    network: LowRankRNN,
    alpha: ArrayLike,
    z: Float[Array, "*batch rank"],
    v: Float[Array, "*batch_v input"] | None = None,
) -> Float[Array, "*batch_out rank"]:
    """The mean of the next bin, `(1 - alpha) z + alpha recurrent_drift(z, v)`, with `alpha = dt / tau`."""
    alpha = jnp.asarray(alpha)
    return (1 - alpha) * z + alpha * recurrent_drift(network, z, v)


def network_drift(
    network: LowRankRNN, h: Float[Array, "*batch neuron"], u: Float[Array, "*batch_u input"] | None = None
) -> Float[Array, "*batch_out neuron"]:
    """`tau dh/dt = -h + d + J phi(h) + b u` of the full network of K neurons, in units of `h` per tau.

    `u` is the raw input, not the filtered one. On `h = m z + b v + d` this is the image of the latent dynamics.
    """
    rate = find_nonlinearity(network.nonlinearity)(h)
    recurrent = (rate @ network.n / network.n.shape[0]) @ network.m.T
    derivative = recurrent - (h - network.d)
    if u is None:
        return derivative
    _check_inputs(network, u)
    return derivative + u @ network.b.T


def connectivity(network: LowRankRNN) -> Float[Array, "post pre"]:
    """The weights `J = m n^T / K`: `J @ rate` is the recurrent input to each neuron."""
    return network.m @ network.n.T / network.n.shape[0]


def overlap(network: LowRankRNN) -> Float[Array, "rank rank"]:
    """`n^T m / K`, the linear dynamics of the network with `phi(h) = h`; its spectrum is that of the weights."""
    return network.n.T @ network.m / network.n.shape[0]


def filter_inputs(u: Float[Array, "*batch time input"], alpha: ArrayLike) -> Float[Array, "*batch time input"]:
    """Low-pass filtered inputs `v`, with `v_0 = 0` and `v_{t+1} = (1 - alpha) v_t + alpha u_t`.

    `alpha = dt / tau` is the Euler step of `tau dv/dt = -v + u`; `alpha = 1 - exp(-dt / tau)` is its exact solution
    at the bin starts when `u` is constant in each bin.
    """

    rate = jnp.asarray(alpha, u.dtype)

    def advance(v, u_t):
        return (1 - rate) * v + rate * u_t, v

    steps = jnp.moveaxis(u, -2, 0)
    return jnp.moveaxis(jax.lax.scan(advance, jnp.zeros_like(steps[0]), steps)[1], 0, -2)


def change_gauge(network: LowRankRNN, A: Float[Array, "rank rank"]) -> LowRankRNN:
    """The same network in the latent coordinates `A z`: `m -> m A^-1`, `n -> n A^T`; weights and inputs stay."""
    m = jnp.linalg.solve(A.T, network.m.T).T
    return eqx.tree_at(lambda net: (net.m, net.n), network, (m, network.n @ A.T))


def gaussian_network(
    key: Key[Array, ""],
    overlap: ArrayLike | Sequence[Sequence[float]],
    residual_sd: ArrayLike,
    n_neurons: int = 1000,
    *,
    n_inputs: int = 0,
    tau: float = 0.1,
    nonlinearity: str = "tanh",
) -> LowRankRNN:
    """A network with `m ~ N(0, I)`, `n = overlap m + residual_sd * noise`, `b ~ N(0, I)` and no bias.

    As `n_neurons` grows its drift tends to `-z + overlap z E[phi'(|z| x)]`, `x ~ N(0, 1)`; the residual of `n` matters
    only at finite size. `overlap` has shape (rank, rank), `residual_sd` is a number or one per latent dimension.

    Raises:
        ValueError: if `overlap` is not a square matrix.

    Source: Mastrogiuseppe & Ostojic, Neuron 99, 609 (2018); Beiran et al., Neural Computation 33, 1572 (2021).
    """
    A = jnp.asarray(overlap, float)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"`overlap` must be a square (rank, rank) matrix; got shape {A.shape}.")
    m_key, n_key, b_key = jax.random.split(key, 3)
    m = jax.random.normal(m_key, (n_neurons, A.shape[0]))
    n = m @ A.T + residual_sd * jax.random.normal(n_key, m.shape)
    b = jax.random.normal(b_key, (n_neurons, n_inputs))
    return LowRankRNN(m, n, b, tau=tau, nonlinearity=nonlinearity)


def _check_loadings(m: Array, n: Array) -> None:
    if m.ndim != 2 or m.shape != n.shape:
        raise ValueError(f"`m` and `n` need one shape (neuron, rank); got m {m.shape} and n {n.shape}.")


def _check_input_weights(n_neurons: int, b: Array, d: Array) -> None:
    if b.ndim != 2 or b.shape[0] != n_neurons:
        raise ValueError(f"`b` must have shape (neuron, input) with {n_neurons} neurons like `m`; got {b.shape}.")
    if d.shape != (n_neurons,):
        raise ValueError(f"`d` must have shape (neuron,) with {n_neurons} neurons like `m`; got {d.shape}.")


def _check_latent(network: LowRankRNN, z: Array) -> None:
    rank = network.m.shape[1]
    if z.ndim == 0 or z.shape[-1] != rank:
        raise ValueError(f"The last axis of the latent state must be the rank, {rank}; got shape {z.shape}.")


def _check_inputs(network: LowRankRNN, inputs: Array) -> None:
    n_inputs = network.b.shape[1]
    if inputs.ndim == 0 or inputs.shape[-1] != n_inputs:
        raise ValueError(f"The last axis of the inputs must be the network's {n_inputs} inputs; got {inputs.shape}.")
