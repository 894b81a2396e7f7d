"""How well a method predicts what it may not see, against the time that it has taken."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from recipe import Recipe, score

# A method ends when its best score has not risen by this share during the last two thirds of its time.
RISE = 1e-3


class Point(NamedTuple):
    """Seconds elapsed and seconds of processor time (of all threads) until a score in bits per spike."""

    wall: float
    processor: float
    score: float


class Track:
    """The scores of one method on one recipe.

    The clock starts with the track and stops while a method is scored, but for its first score: who wants a
    prediction has to compile and run it once. A failed prediction counts as NaN. `limit` is in seconds on the clock.
    """

    def __init__(self, recipe: Recipe, limit: float):
        self.points: list[Point] = []
        self._recipe, self._limit = recipe, limit
        self._started, self._paused = _now(), np.zeros(2)

    @property
    def elapsed(self) -> np.ndarray:
        """Elapsed and processor seconds on the clock."""
        return _now() - self._started - self._paused

    def add(self, predict: Callable[[], np.ndarray]) -> bool:
        """Scores expected counts `(trial, time, unit)`; whether the method may go on."""
        before = self.elapsed
        rate = np.asarray(predict(), float)
        seconds = before if self.points else self.elapsed
        held_out = rate[self._recipe.held_out]
        usable = bool((np.isfinite(held_out) & (held_out > 0)).all())
        self.points.append(Point(*seconds.tolist(), score(self._recipe, rate) if usable else float("nan")))
        self._paused += self.elapsed - seconds
        return not self._ended()

    def _ended(self) -> bool:
        now = self.points[-1].wall
        early = best([point for point in self.points if point.wall <= now / 3])
        return now > self._limit or (now > self._limit / 5 and best(self.points) < (1 + RISE) * early)


def best(points: list[Point]) -> float:
    """The highest score, NaN if there is none."""
    scores = [point.score for point in points if np.isfinite(point.score)]
    return max(scores, default=float("nan"))


def reached(points: list[Point], target: float) -> Point | None:
    """The first point with at least the score `target`."""
    return next((point for point in sorted(points) if point.score >= target), None)


def milestones(first: int = 5, growth: float = 1.4):
    """Growing numbers of steps after which to score."""
    step = float(first)
    while True:
        yield round(step)
        step *= growth


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])
