r"""Trajectories of low-rank networks: differential equations (diffrax) and the recursion over bins.

Time is in seconds and uniform, one entry a bin start. Inputs `u` are constant in each bin; their filtered version
`v` (`tau dv/dt = -v + u`, zero at the first bin start) is computed in closed form. A whole batch of trials is one
state with one sequence of steps, which is what makes gradients cheap. Nothing raises on a diverging trial:
`Trajectory.failed` tells which ones did.

Process noise is the standard deviation added per bin: `simulate_bins` follows
$z_{t+1} = (1 - \alpha) z_t + \alpha\, \mathrm{recurrent}(z_t, v_t) + \mathrm{process\_noise}\; \epsilon_t$ with
$\alpha = dt / \tau$, and `simulate_noisy` the stochastic differential equation whose Euler scheme this is,
$dz = F(z, v)\, dt / \tau + \mathrm{process\_noise}\; dW / \sqrt{dt_\mathrm{bin}}$.
"""

from collections.abc import Callable
from math import ceil

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key

from connectinfer.dynamics.low_rank import LowRankRNN, drift, filter_inputs, latent_step

LONGEST_STEP = 0.2
"""Fixed steps are at most this many time constants long. Over 150 networks from the prior of `low_rank_rnn_ode`, the
largest error of a log rate is 1e-5 in the median network and 3e-3 in the worst."""

LONGEST_NOISY_STEP = 0.1
"""The same with noise: the stationary variance of a decaying state is then 0.2 % too small."""

MAX_ADAPTIVE_STEPS = 4096


class Trajectory(eqx.Module):
    """Latent paths at the bin starts `time` (s), the filtered inputs that drove them, and which trials diverged."""

    time: Float[Array, " time"]
    latent: Float[Array, "*batch time rank"]
    filtered_inputs: Float[Array, "*batch_v time input"]
    failed: Bool[Array, "*batch"]


def simulate(
    network: LowRankRNN,
    initial: Float[Array, "*batch rank"],
    time: Float[ArrayLike, " time"],
    *,
    inputs: Float[Array, "*batch_u bin input"] | None = None,
    n_steps: int | None = None,
    tolerance: float | None = None,
) -> Trajectory:
    """Deterministic latent paths from `initial` at `time[0]`, by the fifth-order Runge-Kutta method Tsit5.

    By default the steps are equal and at most tau / 5 long (whole fractions of a bin when there are inputs); give
    `n_steps` when `tau` or `time` is traced. `tolerance` (relative and absolute, per trial) chooses adaptive steps,
    which all trials share: a diverging trial then fails the whole batch.

    Raises:
        ValueError: if shapes disagree, `time` is not uniform and increasing, or the number of steps is undetermined.
    """
    if n_steps is not None and tolerance is not None:
        raise ValueError(f"Give `n_steps` (fixed) or `tolerance` (adaptive), not both; got {n_steps} and {tolerance}.")
    seconds, scaled, initial, v = _prepare(network, initial, time, inputs)
    driven = inputs is not None
    if tolerance is None and n_steps is None:
        n_steps = _fewest_steps(network, time, LONGEST_STEP, per_bin=driven)
    if n_steps is not None and driven:
        _check_whole_bins(n_steps, scaled.shape[0])
    latent, failed = _deterministic(network, initial, scaled, v, inputs, n_steps, tolerance)
    return Trajectory(seconds, latent, v, failed)


def simulate_noisy(
    key: Key[Array, ""],
    network: LowRankRNN,
    initial: Float[Array, "*batch rank"],
    time: Float[ArrayLike, " time"],
    process_noise: ArrayLike,
    *,
    inputs: Float[Array, "*batch_u bin input"] | None = None,
    n_steps: int | None = None,
) -> Trajectory:
    """Paths of `dz = F dt / tau + process_noise dW / sqrt(bin)`, independent noise in every trial and dimension.

    `process_noise` is the standard deviation that the noise accumulates in one bin (a number or one per latent
    dimension). The scheme (ShARK, for additive noise) has strong order 1.5; every bin takes a whole number of steps,
    by default the fewest that are at most tau / 10 long.

    Raises:
        ValueError: as `simulate`.
    """
    seconds, scaled, initial, v = _prepare(network, initial, time, inputs)
    if n_steps is None:
        n_steps = _fewest_steps(network, time, LONGEST_NOISY_STEP, per_bin=True)
    _check_whole_bins(n_steps, scaled.shape[0])
    latent, failed = _stochastic(key, network, initial, scaled, v, inputs, jnp.asarray(process_noise), n_steps)
    return Trajectory(seconds, latent, v, failed)


def simulate_bins(
    key: Key[Array, ""],
    network: LowRankRNN,
    initial: Float[Array, "*batch rank"],
    n_bins: int,
    alpha: ArrayLike,
    process_noise: ArrayLike = 0.0,
    inputs: Float[Array, "*batch_u bin input"] | None = None,
) -> Trajectory:
    """The recursion `z_{t+1} = (1 - alpha) z_t + alpha recurrent(z_t, v_t) + process_noise eps_t` over `n_bins` bins.

    The first bin holds `initial`; `v` is the Euler-filtered input (`filter_inputs`); `alpha = dt / tau`.

    Raises:
        ValueError: if `inputs` does not have `n_bins` bins or shapes disagree.
    """
    time = jnp.arange(n_bins) * (alpha * network.tau)
    initial, u = _match_batch(network, initial, inputs, n_bins)
    v = filter_inputs(u, alpha)
    eps = jax.random.normal(key, (*initial.shape[:-1], n_bins - 1, initial.shape[-1]), initial.dtype)
    latent = euler_path(network, initial, jnp.asarray(process_noise) * eps, jnp.asarray(alpha), v)
    return Trajectory(time, latent, v, _diverged(latent))


@eqx.filter_jit
def euler_path(
    network: LowRankRNN,
    initial: Float[Array, "*batch rank"],
    increments: Float[Array, "*batch step rank"],
    alpha: ArrayLike,
    v: Float[Array, "*batch_v time input"] | None = None,
) -> Float[Array, "*batch time rank"]:
    """The path with given noise `increments` (already scaled): `z_{t+1} = z_t + alpha F(z_t, v_t) + increment_t`.

    One bin more than increments; `v` is the filtered input at those bins. Non-centred models sample the increments.
    """

    def advance(z, step):
        increment, v_t = step
        return latent_step(network, alpha, z, v_t) + increment, z

    n_steps = increments.shape[-2]
    driving = None if v is None else jnp.moveaxis(v[..., :n_steps, :], -2, 0)
    last, path = jax.lax.scan(advance, initial, (jnp.moveaxis(increments, -2, 0), driving))
    return jnp.moveaxis(jnp.concatenate([path, last[None]]), 0, -2)


def integrate(
    field: Callable[[Array], Array],
    initial: Float[Array, "*batch rank"],
    time: Float[Array, " time"],
    tolerance: float = 1e-6,
) -> tuple[Float[Array, "*batch time rank"], Bool[Array, "*batch"]]:
    """Solutions of `dz/dt = field(z)` at `time`, adaptively, and which of them diverged. `field` acts on batches."""
    return _autonomous(field, initial, time - time[0], tolerance)


def flow(
    field: Callable[[Array], Array], initial: Float[Array, " rank"], duration: Float[Array, ""], n_steps: int
) -> Float[Array, " rank"]:
    """The solution of `dz/dt = field(z)` after `duration`, in `n_steps` equal steps; differentiate it forwards.

    Not finite where the solution diverges.
    """
    # On a unit interval the steps stay fixed while the duration is varied or differentiated.
    term = diffrax.ODETerm(lambda _t, z, _args: duration * field(z))
    controller, max_steps = _fixed(jnp.array([0.0, 1.0]), n_steps)
    solution = diffrax.diffeqsolve(
        term,
        diffrax.Tsit5(),
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=initial,
        stepsize_controller=controller,
        max_steps=max_steps,
        adjoint=diffrax.ForwardMode(),
        throw=False,
    )
    return jnp.asarray(solution.ys)[-1]


# Compiled once for all calls of one shape: diffrax alone would compile anew for every new vector field function.
@eqx.filter_jit
def _deterministic(network, initial, scaled, v, inputs, n_steps, tolerance):
    # Inputs jump at bin edges: adaptive steps that straddled them would lose their order.
    edges = None if inputs is None else scaled
    stepping = _fixed(scaled, n_steps) if tolerance is None else _adaptive(tolerance, edges)
    term = diffrax.ODETerm(_driven_field(scaled, v, inputs))
    return _solve(term, diffrax.Tsit5(), initial, scaled, network, stepping)


@eqx.filter_jit
def _stochastic(key, network, initial, scaled, v, inputs, process_noise, n_steps):
    sd = jnp.broadcast_to(process_noise, initial.shape) / jnp.sqrt(scaled[1])
    shape = jax.ShapeDtypeStruct(initial.shape, initial.dtype)
    step = scaled[-1] / n_steps
    # Below its `tol` a Brownian tree is no longer Brownian: it must resolve single steps.
    noise = diffrax.VirtualBrownianTree(0.0, scaled[-1], step / 2, shape, key, levy_area=diffrax.SpaceTimeLevyArea)
    term = diffrax.MultiTerm(
        diffrax.ODETerm(_driven_field(scaled, v, inputs)),
        diffrax.ControlTerm(lambda _t, _z, _args: lx.DiagonalLinearOperator(sd), noise),
    )
    return _solve(term, diffrax.ShARK(), initial, scaled, network, _fixed(scaled, n_steps))


@eqx.filter_jit
def _autonomous(field, initial, time, tolerance):
    term = diffrax.ODETerm(lambda _t, z, _args: field(z))
    return _solve(term, diffrax.Tsit5(), initial, time, None, _adaptive(tolerance))


def _fixed(scaled, n_steps):
    return diffrax.StepTo(jnp.linspace(0.0, scaled[-1], n_steps + 1)), n_steps


def _adaptive(tolerance, edges=None):
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=_worst_trial)
    if edges is not None:
        controller = diffrax.ClipStepSizeController(controller, step_ts=edges)
    return controller, MAX_ADAPTIVE_STEPS


def _solve(term, solver, initial, scaled, args, stepping):
    """Paths at `scaled` times (from 0, in the term's units), saved along the axis before the last; which diverged."""
    controller, max_steps = stepping
    solution = diffrax.diffeqsolve(
        term,
        solver,
        t0=scaled[0],
        t1=scaled[-1],
        dt0=None,
        y0=initial,
        args=args,
        saveat=diffrax.SaveAt(ts=scaled),
        stepsize_controller=controller,
        max_steps=max_steps,
        throw=False,
    )
    latent = jnp.moveaxis(jnp.asarray(solution.ys), 0, -2)
    return latent, _diverged(latent) | (solution.result != diffrax.RESULTS.successful)


def _driven_field(scaled, v, inputs):
    if inputs is None:
        return lambda _t, z, network: drift(network, z)
    bin_width = scaled[1]
    steps, filtered = jnp.moveaxis(inputs, -2, 0), jnp.moveaxis(v, -2, 0)

    def field(t, z, network):
        # At a bin edge rounding may pick either bin: v is continuous there, so both give the same value.
        k = jnp.clip(jnp.floor(t / bin_width).astype(int), 0, steps.shape[0] - 1)
        decay = jnp.exp(-(t - k * bin_width))
        return drift(network, z, steps[k] + decay * (filtered[k] - steps[k]))

    return field


def _prepare(network, initial, time, inputs):
    _check_time(time)
    seconds = jnp.asarray(time, float)
    initial, u = _match_batch(network, initial, inputs, seconds.shape[0])
    scaled = jnp.arange(seconds.shape[0]) * ((seconds[-1] - seconds[0]) / ((seconds.shape[0] - 1) * network.tau))
    return seconds, scaled, initial, filter_inputs(u, -jnp.expm1(-scaled[1]))


def _match_batch(network, initial, inputs, n_bins):
    n_inputs = network.b.shape[1]
    if inputs is None:
        return initial, jnp.zeros((*initial.shape[:-1], n_bins, n_inputs), initial.dtype)
    if inputs.shape[-2:] != (n_bins, n_inputs):
        raise ValueError(
            f"`inputs` must end in (time, input) = ({n_bins}, {n_inputs}), the bins and the network's inputs; "
            f"got shape {inputs.shape}."
        )
    batch = jnp.broadcast_shapes(initial.shape[:-1], inputs.shape[:-2])
    return jnp.broadcast_to(initial, (*batch, initial.shape[-1])), inputs


def _fewest_steps(network, time, longest, *, per_bin) -> int:
    if isinstance(network.tau, Tracer) or isinstance(time, Tracer):
        raise ValueError(
            "`tau` or `time` is traced, so the number of steps cannot be chosen from their values; "
            "pass `n_steps`, or `tolerance` for adaptive steps."
        )
    n_bins = np.shape(time)[0] - 1
    duration = float(time[-1] - time[0]) / float(network.tau)
    # The slack keeps a bin of exactly the longest step from being split by rounding.
    if per_bin:
        return n_bins * max(1, ceil(duration / n_bins / longest - 1e-4))
    return max(1, ceil(duration / longest - 1e-4))


def _check_time(time) -> None:
    if np.ndim(time) != 1 or np.shape(time)[0] < 2:
        raise ValueError(f"`time` must hold at least two bin starts in seconds; got shape {np.shape(time)}.")
    if isinstance(time, Tracer):
        return
    widths = np.diff(np.asarray(time, float))
    if not (widths > 0).all() or np.ptp(widths) > 1e-2 * widths.mean():
        raise ValueError(
            f"`time` must be increasing and uniform; got widths between {widths.min():.6g} and {widths.max():.6g} s."
        )


def _check_whole_bins(n_steps, n_times) -> None:
    if n_steps % (n_times - 1):
        raise ValueError(
            f"`n_steps` must be a multiple of the {n_times - 1} bins between the first and last time, "
            f"because inputs and noise change from bin to bin; got {n_steps}."
        )


def _worst_trial(error: Array) -> Array:
    """Root mean square over the latent dimensions, maximum over trials: the tolerance holds for each trial."""
    return jnp.max(jnp.sqrt(jnp.mean(jnp.square(error), axis=-1)))


def _diverged(latent: Array) -> Array:
    return ~jnp.isfinite(latent).all(axis=(-2, -1))
