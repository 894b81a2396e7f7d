"""Blocks of trials and units that are never seen together, and the paths of all in the coordinates of one of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Of the halves of trials by which chance is judged, and of the starts from which rotations are searched.
_SPLITS, _STARTS, _STEPS = 20, 32, 200
_MOST_ROWS = 5000
# Relative to a regressor's variance times the number of bins: those that hardly vary within time bins say nothing.
_RIDGE = 1e-3


class Block(NamedTuple):
    """Trials and units, by index, that units seen in the same trials hold together."""

    trials: Int[np.ndarray, " trial"]
    units: Int[np.ndarray, " unit"]


def recording_blocks(mask: Bool[np.ndarray, "trial time unit"]) -> list[Block]:
    """Connected components of trials and units, joined where a unit was observed in a trial; the one with most observed
    bins comes first, and takes trials and units that were not observed at all."""
    n_trials, n_units = mask.shape[0], mask.shape[2]
    bins = mask.sum(1)
    trial, unit = np.nonzero(bins)
    size = n_trials + n_units
    joined = coo_array((np.ones(len(trial)), (trial, n_trials + unit)), (size, size))
    label = connected_components(joined, directed=False)[1]
    observed = np.bincount(label[:n_trials], bins.sum(1), label.max() + 1)
    first, *others = (each for each in np.argsort(-observed, kind="stable") if observed[each])
    label[~np.isin(label, others)] = first
    return [
        Block(np.flatnonzero(label[:n_trials] == i), np.flatnonzero(label[n_trials:] == i)) for i in (first, *others)
    ]


class BlockPath(NamedTuple):
    """Paths `(trial, time, rank)` of a block, the bins `(trial, time)` that were seen, and what drives them
    `(trial, time, regressor)`."""

    path: Float[np.ndarray, "trial time rank"]
    seen: Bool[np.ndarray, "trial time"]
    drive: Float[np.ndarray, "trial time regressor"]


class BlockMap(NamedTuple):
    """`path @ rotation + shift` lies in the coordinates of the reference; `determined` of the dimensions are fixed by
    what both blocks share, the others by how paths go on in time."""

    rotation: Float[np.ndarray, "rank rank"]
    shift: Float[np.ndarray, " rank"]
    determined: int


def align_block(block: BlockPath, reference: BlockPath, lags: tuple[int, ...]) -> BlockMap:
    """The orthogonal map of a block's path to that of another block, both of identity covariance.

    What they share are the mean path at every time in the trial and, linearly, what inputs make of it. Dimensions in
    which the two go together more than in any of 20 splits of their trials, the difference of whose halves is noise,
    are matched (orthogonal Procrustes). In the others, the rotation is the one after which covariances over `lags`
    (bins) agree best: a start, no more, since a symmetry of the dynamics leaves several.
    """
    rng = np.random.default_rng(0)
    rows = _common_rows(block, reference)
    mine, theirs = (_halves(each, rows, rng) for each in (block, reference))
    cross = _covariance(mine.mean, theirs.mean)
    left, size, right = np.linalg.svd(cross)
    chance = max(_chance(mine, theirs), _chance(theirs, mine))
    determined = int((size > chance).sum()) if len(mine.noise) and len(theirs.noise) else 0
    rotation = _rotate_rest(block, reference, left, right.T, determined, lags)
    shift = theirs.mean.mean(0) - mine.mean.mean(0) @ rotation if determined else np.zeros(len(rotation))
    return BlockMap(rotation, shift, determined)


class _Common(NamedTuple):
    """The shared path at rows `(row, rank)`, and half the difference of two halves of the trials, split by split."""

    mean: Float[np.ndarray, "row rank"]
    noise: list[Float[np.ndarray, "row rank"]]


def _common_rows(block: BlockPath, reference: BlockPath) -> tuple[np.ndarray, np.ndarray]:
    """Bins that both blocks have seen, with the drive there in the trials of both."""
    bins = block.seen.any(0) & reference.seen.any(0)
    seen = np.concatenate([block.seen, reference.seen]) & bins
    drive = np.concatenate([block.drive, reference.drive])[seen]
    time = np.nonzero(seen)[1]
    even = np.unique(np.linspace(0, len(time) - 1, _MOST_ROWS).astype(int)) if len(time) else np.array([], int)
    return time[even], drive[even]


def _halves(block: BlockPath, rows: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> _Common:
    n_trials = len(block.path)
    noise = []
    for _ in range(_SPLITS if n_trials > 3 else 0):
        order = rng.permutation(n_trials)
        halves = (_predicted(block, order[start::2], rows) for start in (0, 1))
        noise.append((next(halves) - next(halves)) / 2)
    return _Common(_predicted(block, np.arange(n_trials), rows), noise)


def _predicted(block: BlockPath, trials: np.ndarray, rows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The path that time and drive at `rows` let expect: mean path of every bin, and a regression about it."""
    seen = block.seen[trials][..., None]
    number = np.maximum(seen.sum(0), 1)
    path, drive = (np.where(seen, each[trials], 0.0) for each in (block.path, block.drive))
    mean_path, mean_drive = path.sum(0) / number, drive.sum(0) / number
    x, y = ((each - mean)[seen[..., 0]] for each, mean in ((path, mean_path), (drive, mean_drive)))
    time, at = rows
    if not y.shape[1]:
        return mean_path[time]
    scale = np.maximum((drive**2).sum((0, 1)), 1e-12)
    weights = np.linalg.solve(y.T @ y + _RIDGE * np.diag(scale), y.T @ x)
    return mean_path[time] + (at - mean_drive[time]) @ weights


def _covariance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)).T @ (y - y.mean(0)) / max(len(x), 1)


def _chance(one: _Common, other: _Common) -> float:
    """The largest covariance of one block's noise with the other's shared path."""
    return max((np.linalg.norm(_covariance(each, other.mean), 2) for each in one.noise), default=0.0)


def _rotate_rest(
    block: BlockPath,
    reference: BlockPath,
    left: np.ndarray,
    right: np.ndarray,
    determined: int,
    lags: tuple[int, ...],
) -> np.ndarray:
    """The rotation that takes the first `determined` columns of `left` to those of `right`, and the others to where
    lagged covariances K agree best: the maximum of sum tr(K'^T Q^T K Q), in steps to the rotation nearest its slope."""
    fixed = left[:, :determined] @ right[:, :determined].T
    free_left, free_right = left[:, determined:], right[:, determined:]
    n_free = free_left.shape[1]
    if not n_free:
        return fixed
    pairs = [(_lagged(block, lag), _lagged(reference, lag)) for lag in lags]
    # With this much of the present rotation added to the slope, no step makes the agreement worse.
    damping = 2 * sum(np.linalg.norm(a, 2) * np.linalg.norm(b, 2) for a, b in pairs) + 1e-12

    def whole(parts: np.ndarray) -> np.ndarray:
        return fixed + free_left @ parts @ free_right.T

    def slope(parts: np.ndarray) -> np.ndarray:
        q = whole(parts)
        return free_left.T @ sum(a @ q @ b.T + a.T @ q @ b for a, b in pairs) @ free_right

    parts = _nearest_rotation(np.random.default_rng(0).normal(size=(_STARTS, n_free, n_free)))
    for _ in range(_STEPS):
        parts = _nearest_rotation(slope(parts) + damping * parts)
    found = whole(parts)
    agreement = sum(np.einsum("ji,skj,kl,sli->s", b, found, a, found) for a, b in pairs)
    return found[np.argmax(agreement)]


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def _lagged(block: BlockPath, lag: int) -> np.ndarray:
    both = block.seen[:, lag:] & block.seen[:, : block.seen.shape[1] - lag]
    now, later = block.path[:, : block.seen.shape[1] - lag][both], block.path[:, lag:][both]
    return now.T @ later / max(len(now), 1)
