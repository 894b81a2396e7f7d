"""A supervised decoder of an angle: tuning curves, a random walk of the angle, and Bayes' rule."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

_GRID, _WIDTH = 60, 1.0
_TURN = 2 * np.pi


class Decoder(NamedTuple):
    """Expected counts `tuning (angle, unit)` on a grid of the circle, and how probable steps are `(from, to)`."""

    tuning: np.ndarray
    steps: np.ndarray


def train_decoder(counts: np.ndarray, angle: np.ndarray, *, memory: bool = True) -> Decoder:
    """From counts `(trial, time, unit)` and angles `(trial, time)`; without `memory`, any step is as probable."""
    place = _place(angle)
    chosen = np.eye(_GRID)[place]
    visits = gaussian_filter1d(chosen.sum((0, 1)), _WIDTH, mode="wrap")
    spikes = gaussian_filter1d(np.einsum("rtg,rti->gi", chosen, counts), _WIDTH, axis=0, mode="wrap")
    tuning = (spikes + counts.mean((0, 1))) / (visits + 1)[:, None]
    if not memory:
        return Decoder(tuning, np.full((_GRID, _GRID), 1 / _GRID))
    step = np.bincount((place[:, 1:] - place[:, :-1]).ravel() % _GRID, minlength=_GRID) + 1.0
    grid = np.arange(_GRID)
    return Decoder(tuning, (step / step.sum())[(grid - grid[:, None]) % _GRID])


def decode(decoder: Decoder, counts: np.ndarray, held_in: np.ndarray) -> np.ndarray:
    """How probable every angle is `(trial, time, angle)` given the counts of the units that are `held_in`, at all times
    of the trial."""
    tuning = np.maximum(decoder.tuning[:, held_in], 1e-6)
    log = counts[..., held_in] @ np.log(tuning).T - tuning.sum(1)
    likelihood = np.exp(log - log.max(-1, keepdims=True))
    forward, backward = np.empty_like(likelihood), np.ones_like(likelihood)
    last = likelihood.shape[1] - 1
    for t in range(last + 1):
        expected = forward[:, t - 1] @ decoder.steps if t else 1.0
        forward[:, t] = _normalised(likelihood[:, t] * expected)
    for t in range(last - 1, -1, -1):
        backward[:, t] = _normalised((likelihood[:, t + 1] * backward[:, t + 1]) @ decoder.steps.T)
    return _normalised(forward * backward)


def mean_angle(probability: np.ndarray) -> np.ndarray:
    """The direction of the mean, `(trial, time)`."""
    return np.angle(probability @ np.exp(1j * (np.arange(_GRID) + 0.5) * _TURN / _GRID))


def angle_errors(found: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Absolute, in degrees."""
    return np.degrees(np.abs(np.angle(np.exp(1j * (found - angle)))))


def curves_at(decoder: Decoder, angle: np.ndarray) -> np.ndarray:
    """Counts expected at known angles, `(trial, time, unit)`."""
    return decoder.tuning[_place(angle)]


def _place(angle: np.ndarray) -> np.ndarray:
    return np.floor(angle % _TURN / _TURN * _GRID).astype(int) % _GRID


def _normalised(x: np.ndarray) -> np.ndarray:
    return x / x.sum(-1, keepdims=True)
