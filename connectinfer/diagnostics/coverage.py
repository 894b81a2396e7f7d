"""Do intervals hold the truth as often as they say? Coverage pooled over quantities and data sets."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy.stats import binom


class Coverage(NamedTuple):
    """`share` of the intervals that hold the truth, the `band` in which it lies for honest intervals of this `level`
    in 99 of 100 studies, and how many `independent` intervals the correlated ones are worth."""

    share: float
    level: float
    band: tuple[float, float]
    independent: int

    @property
    def passed(self) -> bool:
        """Whether the share lies in the band, its ends included."""
        return self.band[0] <= self.share <= self.band[1]

    def __str__(self) -> str:
        low, high = self.band
        return (
            f"{self.share:.1%} of {self.level:.0%} intervals hold the truth; {low:.1%} to {high:.1%} expected of "
            f"{self.independent} independent ones"
        )


def pooled_coverage(covered: Bool[np.ndarray, "dataset interval"], level: float) -> Coverage:
    """Coverage of `level` intervals, several of each data set, with its 99 % binomial band.

    Intervals of one data set hold or miss the truth together. The band is that of as many independent intervals as vary
    as much as the data sets do about `level` (at least one a data set, and at most all). Honest intervals fall outside
    in 1 to 2 % of studies where they are moderately correlated; where those of a data set are nearly copies of each
    other, in up to 6 % of studies with 40 data sets and 14 % with 15.

    Raises:
        ValueError: fewer than two data sets, no interval, or a level outside (0, 1).
    """
    n_sets, n_each = covered.shape
    if n_sets < 2 or n_each < 1 or not 0 < level < 1:
        raise ValueError(
            f"Coverage needs at least two data sets with an interval each and a level between 0 and 1; got {n_sets} "
            f"data sets, {n_each} intervals and level {level}."
        )
    # About the level, not the mean: many misses would otherwise look like little variance, and narrow the band.
    variance = np.mean((covered.sum(1) - n_each * level) ** 2)
    inflation = float(np.clip(variance / (n_each * level * (1 - level)), 1.0, n_each))
    independent = round(n_sets * n_each / inflation)
    low, high = binom.interval(0.99, independent, level)
    return Coverage(float(covered.mean()), level, (float(low) / independent, float(high) / independent), independent)
