"""The command line: demo, models, fit, sweep, rank, diagnose, report, simulate, convert, doctor.

Exit codes: 0 ran and nothing failed, 3 ran but diagnostics, or some of several fits, failed, 1 user error
(130 when interrupted with nothing more to keep, or with fits left to do). JAX and xarray are imported inside the
commands, after their first line, so that help and the list of models come at once.
"""

from typing import Annotated

import typer

import connectinfer
from connectinfer.cli.files import convert, simulate
from connectinfer.cli.fitting import fit, rank, sweep
from connectinfer.cli.overview import demo, doctor, models
from connectinfer.cli.results import diagnose, report
from connectinfer.terminal import Commands


def _show_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"connectinfer {connectinfer.__version__}")
        raise typer.Exit
    return asked


app = typer.Typer(
    cls=Commands,
    # Rich help takes 0.2 s to import what it draws with.
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Fit models of neural circuits to recordings and judge the fits."""


for command in (demo, models, fit, sweep, rank, diagnose, report, simulate, convert, doctor):
    app.command()(command)
