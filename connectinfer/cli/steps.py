"""What several commands do on their way."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from connectinfer.cli.options import Precision
from connectinfer.terminal import console, say

if TYPE_CHECKING:
    import xarray as xr


def start_jax(precision: Precision | None) -> None:
    """Imports JAX, with errors that show their place, the precision asked for, and a cache of compiled programs."""
    import jax

    # Otherwise errors from inside JAX look as if connectinfer had raised them.
    jax.config.update("jax_traceback_filtering", "off")
    if precision is not None:
        jax.config.update("jax_enable_x64", precision is Precision.float64)
    # JAX_COMPILATION_CACHE_DIR moves it.
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "connectinfer" / "jax"))
    # A fit compiles some 600 small programs besides the large one; JAX keeps none that takes under a second.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def describe(data: "xr.Dataset") -> None:
    """Says what was read, and how."""
    sizes = data.sizes
    if "edge" in sizes:
        say(f"connectome of {sizes['neuron']} neurons and {sizes['edge']} edges")
    else:
        from connectinfer.data.recording import observed_kind

        shape = f"{sizes['trial']} trials x {sizes['time']} bins x {sizes['unit']} units"
        say(f"{observed_kind(data)} of {shape}, bins of {data.attrs['bin_width']:g} s")
    for key in ("read", "left_out"):
        if text := data.attrs.get(key):
            say(f"{key.replace('_', ' ')}: {text}")


def judge(result: "xr.DataTree") -> None:
    """Prints the diagnosis; leaves with 3 if a check failed."""
    from connectinfer.diagnostics.checks import diagnose
    from connectinfer.optimisation.progress import timed

    with timed("judging the fit"):
        diagnosis = diagnose(result)
    output, text = console(), diagnosis.to_markdown()
    if output.is_terminal:
        from rich.markdown import Markdown

        output.print(Markdown(text))
    else:
        typer.echo(text)
    if not diagnosis.passed:
        raise typer.Exit(3)
