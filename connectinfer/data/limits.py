"""What a recording cannot tell, whatever the model: said beside every fit, and marked in its result."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from connectinfer.data.identifiers import listing
from connectinfer.data.recording import observed_kind, silent_units

# A unit whose bins hold its largest count more often than not hides how much more there was.
_SATURATED = 0.5


class Limit(NamedTuple):
    """What was found, what would be better, and what follows in plain words."""

    value: int
    asked: str
    said: str


def recording_limits(dataset: xr.Dataset) -> dict[str, Limit]:
    """Limits by what they are about: "silent units", "saturated counts", "inputs", "trials"; none if nothing is
    amiss."""
    found = {}
    if (silent := silent_units(dataset)).any():
        never = "fire" if observed_kind(dataset) == "counts" else "change"
        found["silent units"] = Limit(
            int(silent.sum()),
            "none",
            f"{silent.sum()} of {silent.size} units never {never} in the observed bins: "
            f"{listing(dataset['unit'].values[silent])}. What a fit says of their loadings and weights is the prior; "
            "they are marked by the coordinate `silent`. `drop_silent_units(recording)` leaves them out.",
        )
    if (saturated := _saturated_units(dataset)).any():
        found["saturated counts"] = Limit(
            int(saturated.sum()),
            "no unit at its largest count in most bins",
            f"The counts of {saturated.sum()} of {saturated.size} units are at their largest value in most bins: "
            f"{listing(dataset['unit'].values[saturated])}. What they did beyond that is lost, and Poisson counts "
            "would vary more. Bin the spikes more finely.",
        )
    if _inputs_are_identical(dataset):
        found["inputs"] = Limit(
            1,
            "inputs that differ between trials",
            "The inputs are the same in all trials, so what they cause cannot be told from what the network does by "
            "itself at the same time of every trial. Read input loadings as one of several accounts.",
        )
    if dataset.sizes["trial"] == 1:
        found["trials"] = Limit(
            1,
            "several trials",
            "There is one trial: what would happen again cannot be told from what happened this once, and no trial can "
            "be held out. Cut a long recording into pieces (`cut_trials`) to hold some of them out.",
        )
    return found


def _saturated_units(dataset: xr.Dataset) -> np.ndarray:
    kind, n_units = observed_kind(dataset), dataset.sizes["unit"]
    if kind != "counts":
        return np.zeros(n_units, bool)
    mask = dataset["mask"].values
    counts = np.where(mask, dataset[kind].values, 0)
    most = counts.max((0, 1))
    at_most = (mask & (counts == most)).sum((0, 1)) > _SATURATED * mask.sum((0, 1))
    # A unit that always fires once, and now and then not at all, is saturated; one that hardly fires is not.
    return at_most & (most > 0)


def _inputs_are_identical(dataset: xr.Dataset) -> bool:
    if "inputs" not in dataset or dataset.sizes["trial"] == 1:
        return False
    within = dataset["mask"].values.any(-1)
    inputs = dataset["inputs"].transpose("trial", "time", "input").values
    # After the end of a trial inputs are zeros that nobody gave; bins are compared where two trials have them.
    first = np.take_along_axis(inputs, within.argmax(0)[None, :, None], 0)
    shared = (within & (within.sum(0) > 1))[..., None]
    return bool(inputs.any() and shared.any() and ((inputs == first) | ~shared).all())
