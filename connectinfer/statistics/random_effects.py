"""Values measured with known errors in several members of groups: the posterior of their mean and of how they vary."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

MEAN_SD, SPREAD_SD = 2.5, 1.0
"""Prior sds of the population mean about the average measurement, and of half-normal sds, in `random_effects_unit`."""

# The logarithms of both sds are integrated over cells, first of this range, then of what holds probability.
_RANGE = np.log([1e-4, 5.0])
_COARSE, _FINE, _NEGLIGIBLE = 128, 200, 1e-8


class RandomEffects(NamedTuple):
    """Draws of the population's mean, the sds within and between groups, the groups' means and the members' values."""

    mean: Float[np.ndarray, " draw"]
    within: Float[np.ndarray, " draw"]
    between: Float[np.ndarray, " draw"]
    group: Float[np.ndarray, "draw group"]
    value: Float[np.ndarray, "draw member"]


def random_effects_unit(measured: Float[np.ndarray, " member"], error: Float[np.ndarray, " member"]) -> float:
    """The root of the measurements' variance plus their mean squared error: a scale that no sd much exceeds."""
    return float(np.sqrt(measured.var(ddof=1) + (error**2).mean()))


def sample_random_effects(
    rng: np.random.Generator,
    measured: Float[np.ndarray, " member"],
    error: Float[np.ndarray, " member"],
    group: Int[np.ndarray, " member"] | None,
    centre: float,
    unit: float,
    draws: int,
) -> RandomEffects:
    r"""Independent draws from the posterior of

    $$y_s \sim N(\theta_s, e_s), \qquad \theta_s \sim N(\mu_{g(s)}, \sigma), \qquad \mu_g \sim N(\mu, \tau)$$

    with $\mu$ normal about `centre` with sd 2.5 `unit`, $\sigma$ and $\tau$ half-normal with scale `unit`. `group`
    holds the group of every member, from 0; without it $\tau = 0$ and there is one group. All but $\sigma$ and $\tau$
    is integrated out in closed form; their density is computed on a grid of their logarithms and constant within cells.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 5.4.
    """
    of = np.zeros(len(measured), int) if group is None else group
    data = _Members((measured - centre) / unit, error / unit, np.equal.outer(of, np.arange(of.max() + 1)).astype(float))
    within, between = _cells(_RANGE, _COARSE), np.array([-np.inf]) if group is None else _cells(_RANGE, _COARSE)
    density = _density(within, between, data)
    within = _cells(_support(within, density.sum(1)), _FINE)
    between = between if group is None else _cells(_support(between, density.sum(0)), _FINE)
    density = _density(within, between, data)
    cell = np.unravel_index(rng.choice(density.size, draws, p=density.ravel()), density.shape)
    sigma = _drawn(rng, within, cell[0])
    tau = np.zeros(draws) if group is None else _drawn(rng, between, cell[1])
    mean, groups, value = _given_sds(rng, sigma[:, None], tau[:, None], data)
    return RandomEffects(centre + unit * mean, unit * sigma, unit * tau, centre + unit * groups, centre + unit * value)


class _Members(NamedTuple):
    """Measurements and errors in the unit, and which group `(member, group)` each is of."""

    measured: np.ndarray
    error: np.ndarray
    of: np.ndarray


def _cells(ends: np.ndarray, number: int) -> np.ndarray:
    edges = np.linspace(ends[0], ends[1], number + 1)
    return (edges[1:] + edges[:-1]) / 2


def _support(middle: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Ends of the cells that hold probability, and of one more on either side."""
    kept = np.flatnonzero(probability > _NEGLIGIBLE)
    return np.clip(middle[[kept[0], kept[-1]]] + 1.5 * (middle[1] - middle[0]) * np.array([-1, 1]), *_RANGE)


def _drawn(rng: np.random.Generator, middle: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return np.exp(middle[cell] + (middle[1] - middle[0]) * rng.uniform(-0.5, 0.5, len(cell)))


def _groups(within: np.ndarray, data: _Members) -> tuple[np.ndarray, np.ndarray]:
    """Means of groups' members, weighted by precision, and their precisions, `(sd, group)` for sds `(sd, 1)`."""
    weights = 1 / (data.error**2 + within**2)
    precision = weights @ data.of
    return (weights * data.measured) @ data.of / precision, precision


def _density(log_within: np.ndarray, log_between: np.ndarray, data: _Members) -> np.ndarray:
    """Posterior probabilities of cells `(within, between)`; the single cell without groups is at minus infinity."""
    within, between = np.exp(log_within)[:, None], np.exp(log_between)
    weights = 1 / (data.error**2 + within**2)
    mean, precision = _groups(within, data)
    # What members say about the sd within their group, then what the groups' means say about the sd between them.
    inside = (np.log(weights) - weights * (data.measured - mean @ data.of.T) ** 2).sum(1) - np.log(precision).sum(1)
    about = 1 / (1 / precision[:, None] + between[:, None] ** 2)
    total = about.sum(-1) + MEAN_SD**-2
    first, second = ((about * mean[:, None] ** power).sum(-1) for power in (1, 2))
    outside = np.log(about).sum(-1) - np.log(total) - second + first**2 / total
    prior = -(within**2 + between**2) / SPREAD_SD**2
    volume = log_within[:, None] + np.where(between > 0, log_between, 0.0)
    log_density = 0.5 * (inside[:, None] + outside + prior) + volume
    density = np.exp(log_density - log_density.max())
    return density / density.sum()


def _given_sds(
    rng: np.random.Generator, within: np.ndarray, between: np.ndarray, data: _Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, groups and members, one after the other, given sds `(draw, 1)`."""
    mean, precision = _groups(within, data)
    about = 1 / (1 / precision + between**2)
    total = about.sum(1) + MEAN_SD**-2
    population = (about * mean).sum(1) / total + rng.normal(size=len(within)) / np.sqrt(total)
    # In shares, which are finite where the sd between groups is zero.
    share = between**2 * about
    centre = share * mean + (1 - share) * population[:, None]
    group = centre + np.sqrt(share / precision) * rng.normal(size=centre.shape)
    own = within**2 / (data.error**2 + within**2)
    value = own * data.measured + (1 - own) * (group @ data.of.T)
    return population, group, value + np.sqrt(own) * data.error * rng.normal(size=own.shape)
