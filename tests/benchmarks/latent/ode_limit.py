"""The posterior of a network without process noise, by an exact ODE, and as the limit of paths with noise."""

from functools import partial

import arviz as az
import jax
import numpy as np
from numpyro import handlers

from connectinfer.data.recording import recording
from connectinfer.dynamics.low_rank import LowRankRNN, drift
from connectinfer.inference.nuts import sample_nuts
from connectinfer.zoo import load_model

# Bins of a fiftieth of the time constant: Euler's steps and the exact solution differ by less than data tell.
_N_UNITS, _N_TRIALS, _N_BINS, _BIN, _TAU = 8, 6, 75, 0.004, 0.2
_NOISES = (0.03, 0.003)
_LEAST_DRAWS = 100
_LENGTH = {"warmup": 300, "draws": 500, "chains": 2, "show_progress": False}


def ode_limit() -> dict:
    """Drift at states that data visit, of one latent: means that differ by at most four standard errors and a tenth of
    the posterior's sd, and sds that differ by at most a quarter."""
    data = _spikes()
    exact = _drifts("low_rank_rnn_ode", data, None)
    found, lines = {}, []
    for noise in _NOISES:
        found[noise] = _compared(exact, _drifts("low_rank_rnn_poisson", data, noise))
        shift, allowed, widest = found[noise]
        lines.append(f"with noise {noise:g}, means off by up to {shift:.2f} sd, sds by up to {widest:.0%}")
    shift, allowed, widest = found[_NOISES[-1]]
    return {"said": "; ".join(lines), "passed": bool(shift <= allowed and widest <= 0.25)}


def _spikes():
    rng = np.random.default_rng(1)
    m = rng.normal(size=(_N_UNITS, 1))
    network = LowRankRNN(m, 1.6 * m + 0.3 * rng.normal(size=m.shape), tau=_TAU)
    z = np.linspace(-1.5, 1.5, _N_TRIALS)[:, None]
    paths = []
    for _ in range(_N_BINS):
        paths.append(z)
        z = z + _BIN / _TAU * np.asarray(drift(network, z))
    log_rate = np.stack(paths, 1) @ m.T + np.log(0.3)
    return recording(time=_BIN * np.arange(_N_BINS), counts=rng.poisson(np.exp(log_rate)))


def _drifts(model: str, data, noise: float | None) -> np.ndarray:
    """Drift `(chain, draw, state)` at the states that principal components visit, in the coordinates of these."""
    module = load_model(model)
    inputs, _ = module.inputs(data, rank=1, tau=_TAU)
    initial = {name: x for name, x in module.initial(**inputs).items() if name not in ("latent", "process_noise")}
    bound = module.model if noise is None else handlers.substitute(module.model, data={"process_noise": noise})
    options = _LENGTH | ({} if noise is None else {"integrate_paths": True})
    posterior = sample_nuts(jax.random.key(0), bound, inputs, initial=initial, **options)["posterior"]
    basis, states = np.asarray(inputs["basis"])[:, :1], np.asarray(inputs["states"])[::8]
    each = partial(_at_states, basis=basis, states=states)
    values = [np.asarray(posterior[name].values) for name in ("m", "n", "d", "gain")]
    return np.asarray(jax.vmap(jax.vmap(each))(*values))[..., 0]


def _at_states(m, n, d, gain, *, basis, states):
    alignment = basis.T @ (gain[:, None] * m) / len(m) ** 0.5
    return drift(LowRankRNN(m, n, d=d, tau=_TAU), states / alignment[0]) * alignment[0]


def _compared(exact: np.ndarray, limit: np.ndarray) -> tuple[float, float, float]:
    """The largest difference of means in sds, what is allowed there, and of sds; infinite where effective draws are too
    few to tell."""
    flat = [x.reshape(-1, x.shape[-1]) for x in (exact, limit)]
    sd = flat[0].std(0)
    size = np.array([[az.ess(x[..., i]) for i in range(x.shape[-1])] for x in (exact, limit)])
    error = np.sqrt((1 / size).sum(0))
    shift = np.abs(flat[0].mean(0) - flat[1].mean(0)) / sd
    shift = np.where(size.min(0) < _LEAST_DRAWS, np.inf, shift)
    worst = int(np.argmax(shift - 4 * error))
    return float(shift[worst]), float(4 * error[worst] + 0.1), float(np.abs(flat[1].std(0) / sd - 1).max())
