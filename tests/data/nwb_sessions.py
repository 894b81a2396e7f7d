"""Small NWB sessions, made in memory."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from pynwb import NWBFile
from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel

DAY = datetime(2020, 1, 1, tzinfo=UTC)


def session() -> NWBFile:
    """An empty session, the same whenever it is made."""
    return NWBFile(
        session_description="made by a test",
        identifier="a",
        session_start_time=DAY,
        file_create_date=DAY,
        timestamps_reference_time=DAY,
    )


def imaging(
    signals: Mapping[str, np.ndarray],
    *,
    trials: Sequence[tuple[float, float]] = (),
    timestamps: Sequence[float] | None = None,
) -> NWBFile:
    """A session with up to two signals `(time, 2)`, of the regions 12 and 10, and no units."""
    content = session()
    channel = OpticalChannel(name="channel", description="green", emission_lambda=500.0)
    plane = content.create_imaging_plane(
        name="plane", optical_channel=channel, description="d", device=content.create_device(name="microscope"),
        excitation_lambda=600.0, indicator="GCaMP", location="V1",
    )  # fmt: skip
    segmentation = ImageSegmentation()
    regions = segmentation.create_plane_segmentation(name="cells", description="d", imaging_plane=plane)
    for region in (10, 11, 12):
        regions.add_roi(pixel_mask=[(0, 0, 1.0)], id=region)
    module = content.create_processing_module("ophys", "calcium")
    module.add(segmentation)
    timing = {"rate": 10.0, "starting_time": 0.5} if timestamps is None else {"timestamps": timestamps}
    for container, (name, data) in zip((Fluorescence(), DfOverF()), signals.items(), strict=False):
        module.add(container)
        rois = regions.create_roi_table_region(region=[2, 0][: data[0].size], description="d")
        container.create_roi_response_series(name=name, data=data, rois=rois, unit="a.u.", **timing)
    for start, stop in trials:
        content.add_trial(start_time=start, stop_time=stop)
    return content
