import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def every_picture_lies_within_its_figure():
    yield
    figures = [plt.figure(number) for number in plt.get_fignums()]
    try:
        for figure in figures:
            figure.canvas.draw()
            drawn = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > -0.03, f"cut off: {drawn}"
    finally:
        plt.close("all")
