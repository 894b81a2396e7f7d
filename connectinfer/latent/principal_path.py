"""Where fits of latent dynamics start: a path from principal components, and how units read it out."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from connectinfer.dynamics.low_rank import filter_inputs
from connectinfer.dynamics.nonlinearity import nonlinearity as named_nonlinearity
from connectinfer.statistics.principal_components import PrincipalComponents, principal_components
from connectinfer.statistics.recording_blocks import Block, BlockPath, align_block, recording_blocks

# Smoothing (in time constants) under which principal components of spikes start to look like a path.
_SMOOTHING = 0.35
# Where units are never seen together: lags of the paths, and further memories of the inputs, in time constants.
_LAGS, _MEMORIES = (0.35, 0.7, 1.4, 2.8), (4.0, 16.0)


class PrincipalNetwork(NamedTuple):
    """A network guessed from principal components: `path (trial, time, rank)`, loadings `m (unit, rank)` of unit
    variance and `bias (unit,)` of its read-out, output weights `n = m linear^T + residual (unit, rank)`."""

    path: Float[np.ndarray, "trial time rank"]
    m: Float[np.ndarray, "unit rank"]
    bias: Float[np.ndarray, " unit"]
    linear: Float[np.ndarray, "rank rank"]
    residual: Float[np.ndarray, "unit rank"]
    process_noise: float
    initial_scale: float


class AlignedComponents(NamedTuple):
    """Principal components in one frame, the blocks of trials and units that are never seen together, and how many
    dimensions of every block but the first are fixed by what blocks share (see `align_block`)."""

    components: PrincipalComponents
    blocks: list[Block]
    determined: list[int]


def principal_network(
    activity: Float[ArrayLike, "trial time unit"],
    mask: Bool[ArrayLike, "trial time unit"],
    filtered: Float[ArrayLike, "trial time input"],
    rank: int,
    alpha: float,
    nonlinearity: str,
    *,
    counts: bool,
) -> PrincipalNetwork:
    """The path is that of the components of the smoothed recording, scaled so that the loadings have unit variance;
    n is the ridge regression of its increments on the units' rates."""
    observed, seen = np.asarray(activity, float), np.asarray(mask)
    components = components_of(observed, seen, np.asarray(filtered, float), rank, alpha, counts=counts).components
    path, loadings, bias = read_out_of(components, observed, seen, counts)
    scale = np.maximum(np.sqrt((loadings**2).mean(0)), 1e-3)
    path, m = path * scale, loadings / scale
    linear, residual, noise = increment_regression(path, seen, m, alpha, nonlinearity)
    return PrincipalNetwork(path, m, bias, linear, residual, noise, max(float(path[:, 0].std()), 0.1))


def components_of(
    activity: np.ndarray, mask: np.ndarray, filtered: np.ndarray, rank: int, alpha: float, *, counts: bool
) -> AlignedComponents:
    """Principal components of activity `(trial, time, unit)`, of counts of their stabilised roots, smoothed over a
    third of a time constant (1 / `alpha` bins).

    Units that are never seen together have no common components: those of every block are found by themselves and
    brought to the frame of the block with most observed bins. `filtered (trial, time, input)` are the inputs."""
    stabilised = np.sqrt(activity + 0.25) if counts else activity
    smoothing = max(_SMOOTHING / alpha, 0.5)
    blocks = recording_blocks(mask)
    if len(blocks) == 1:
        return AlignedComponents(principal_components(stabilised, mask, rank, smoothing), blocks, [])
    inputs = jnp.asarray(filtered, float)
    drive = np.asarray(jnp.concatenate([inputs, *(filter_inputs(inputs, alpha / m) for m in _MEMORIES)], -1), float)
    each = [_block_components(stabilised, mask, block, rank, smoothing) for block in blocks]
    seen = mask.any(-1)
    paths = [BlockPath(c.path, seen[b.trials], drive[b.trials]) for c, b in zip(each, blocks, strict=True)]
    lags = tuple(max(round(lag / alpha), 1) for lag in _LAGS)
    maps = [align_block(path, paths[0], lags) for path in paths[1:]]
    n_trials, n_bins, n_units = mask.shape
    path, loadings, offset = np.zeros((n_trials, n_bins, rank)), np.zeros((n_units, rank)), np.zeros(n_units)
    turns = [(np.eye(rank), np.zeros(rank)), *((found.rotation, found.shift) for found in maps)]
    for (trials, units), found, (rotation, shift) in zip(blocks, each, turns, strict=True):
        path[trials] = found.path @ rotation + shift
        loadings[units] = found.loadings @ rotation
        offset[units] = found.offset - loadings[units] @ shift
    share = np.array([mask[block.trials].sum() for block in blocks]) / mask.sum()
    explained = share @ np.stack([found.explained for found in each])
    components = PrincipalComponents(path, loadings, offset, explained)
    return AlignedComponents(components, blocks, [found.determined for found in maps])


def _block_components(
    activity: np.ndarray, mask: np.ndarray, block: Block, rank: int, smoothing: float
) -> PrincipalComponents:
    """Components of one block, with zeros where it has fewer units or bins than the rank."""
    here = np.ix_(block.trials, np.arange(mask.shape[1]), block.units)
    most = min(rank, len(block.units), int(mask[here].any(-1).sum()))
    found = principal_components(activity[here], mask[here], most, smoothing)
    rest = (0, rank - most)
    return PrincipalComponents(
        np.pad(found.path, ((0, 0), (0, 0), rest)),
        np.pad(found.loadings, ((0, 0), rest)),
        found.offset,
        np.pad(found.explained, rest),
    )


def read_out_of(
    components: PrincipalComponents, observed: np.ndarray, mask: np.ndarray, counts: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The components' path `(trial, time, rank)`, and the loadings and bias by which units read it out."""
    if not counts:
        return components.path, components.loadings, components.offset
    design = np.concatenate([components.path, np.ones((*components.path.shape[:2], 1))], -1)
    weights = poisson_regression(design, observed, mask)
    return components.path, weights[:, :-1], weights[:, -1]


def increment_regression(
    path: np.ndarray, mask: np.ndarray, m: np.ndarray, alpha: float, nonlinearity: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """Overlap map A and residual e of output weights n = A m + e, and the noise sd per bin: ridge regression of the
    increments of a path `(trial, time, rank)` on the rates of units with loadings `m (unit, rank)`."""
    n_units, rank = m.shape
    # A transition counts unless the trial has ended: padding after the last observed bin says nothing.
    alive = np.flip(np.logical_or.accumulate(np.flip(mask.any(-1), 1), axis=1), 1)[:, 1:]
    now, later = path[:, :-1][alive], path[:, 1:][alive]
    rates = np.asarray(named_nonlinearity(nonlinearity)(jnp.asarray(now @ m.T)), float) / n_units
    target = (later - (1 - alpha) * now) / alpha
    # n = m A^T + e with prior sd 1.5 of A and 1 of e; features are sorted as [m-weighted rates, rates].
    features = np.concatenate([rates @ m * 1.5, rates], -1)
    noise = max(float((later - now).std()), 1e-3)
    gram = features.T @ features + (noise / alpha) ** 2 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features.T @ target)
    residual_sd = alpha * float((target - features @ weights).std())
    return 1.5 * weights[:rank].T, weights[rank:], max(residual_sd, 1e-3)


def poisson_regression(design: np.ndarray, counts: np.ndarray, mask: np.ndarray, steps: int = 12) -> np.ndarray:
    """Weights `(unit, feature)` of the log-linear regression of every unit's counts on `design (trial, time, feature)`,
    with standard normal priors but for the last feature, the constant."""
    x, y, seen = (
        design.reshape(-1, design.shape[-1]),
        counts.reshape(-1, counts.shape[-1]),
        mask.reshape(-1, counts.shape[-1]),
    )
    weights = np.zeros((y.shape[1], x.shape[1]))
    weights[:, -1] = np.log(np.maximum((y * seen).sum(0), 0.5) / np.maximum(seen.sum(0), 1))
    ridge = np.eye(x.shape[1])
    for _ in range(steps):
        # The bound only prevents overflow: one that overshooting steps reach would move the optimum.
        rate = seen * np.exp(np.clip(x @ weights.T, -20, 20))
        gradient = (seen * y - rate).T @ x - weights @ ridge * np.r_[np.ones(x.shape[1] - 1), 0.0]
        hessian = np.einsum("ti,ta,tb->iab", rate, x, x, optimize=True) + ridge
        weights += np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -1.0, 1.0)
    return weights
