"""Pictures for the page: figures apart from pyplot, in one look, as images that carry everything with them."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from connectinfer.reporting.page import Picture

FULL_WIDTH = 9.2
"""Width of the page's column, in inches."""

_LOOK: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    # Names of units are text, whatever signs they hold.
    "text.parse_math": False,
    "svg.hashsalt": "connectinfer",
    "svg.fonttype": "path",
}
_PIXELS_PER_INCH = 96
_RASTER_RESOLUTION = 180
# Above these, marks are drawn as pixels: a vector file would be larger and slower to show.
_MOST_PATHS, _MOST_VERTICES = 1500, 20_000


@contextmanager
def report_look() -> Iterator[None]:
    """The look of all pictures, whatever the user's settings, which return afterwards; nothing pops up meanwhile."""
    with mpl.rc_context(), plt.ioff():
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        yield


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches that pyplot does not know, so that nothing has to be closed."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1))


def empty_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = empty_figure(width, height)
    return figure, figure.subplots()


def picture(figure: Figure, *, alt: str, caption: str) -> Picture:
    """`figure` as a picture of the page.

    An SVG within an image element: it can neither run scripts nor share ids with the page or another picture.
    """
    _rasterise_dense_marks(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=_RASTER_RESOLUTION, metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = (round(_PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    return Picture(f"data:image/svg+xml;base64,{data}", width, height, alt, caption)


def _rasterise_dense_marks(figure: Figure) -> None:
    for marks in figure.findobj(Collection):
        paths = marks.get_paths()
        if (
            max(len(paths), np.shape(marks.get_offsets())[0]) > _MOST_PATHS
            or sum(len(path) for path in paths) > _MOST_VERTICES
        ):
            marks.set_rasterized(True)
    for line in figure.findobj(Line2D):
        if np.size(line.get_xdata()) > (_MOST_VERTICES if line.get_marker() in ("None", None, "") else _MOST_PATHS):
            line.set_rasterized(True)
