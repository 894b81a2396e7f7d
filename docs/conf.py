"""How the documentation is built: `python -m uv run sphinx-build -W -b html docs docs/_build/html`."""

import os
import sys
from pathlib import Path

import connectinfer

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
# Notebooks run in kernels of their own, which inherit this.
os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")

project = "connectinfer"
author = "The connectinfer developers"
copyright = author
version = release = connectinfer.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "myst_nb",
    "docstring_markup",
    "generated_pages",
]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]

# Single backticks in docstrings are code, as everywhere else in the project.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Pictures of the tutorial come from the code beside them, and failing code fails the build. The other notebook takes
# long, and real data: its outputs are stored with it.
nb_execution_mode = "cache"
nb_execution_excludepatterns = ["tutorial/rat_clicks.ipynb"]
nb_execution_timeout = 1200
nb_execution_raise_on_error = True
nb_output_stderr = "remove"

html_theme = "sphinx_book_theme"
html_title = "connectinfer"
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "use_fullscreen_button": False}
