"""Commands about results: diagnose, report."""

from pathlib import Path
from typing import Annotated

import typer

from connectinfer.arguments import check_output
from connectinfer.cli.options import DebugOption, ForceOption
from connectinfer.cli.steps import judge, start_jax
from connectinfer.terminal import clear_errors, say


def diagnose(
    file: Annotated[Path, typer.Argument(help="Result that `fit` wrote, .nc or .zarr.")],
    debug: DebugOption = False,
) -> None:
    """Judge a result: one verdict per concern, with what to do."""
    with clear_errors(debug):
        say(f"diagnosis of {file}")
        from connectinfer.data.results import open_result

        result = open_result(file)
        start_jax(None)
        judge(result)


def report(
    file: Annotated[Path, typer.Argument(help="Result that `fit` wrote, .nc or .zarr.")],
    output: Annotated[Path | None, typer.Option(help="HTML page; otherwise beside the result, under its name.")] = None,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Write one HTML page about a result, to read and to pass on.

    Leaves with 3 if a check failed.
    """
    with clear_errors(debug):
        page = output or file.with_suffix(".html")
        say(f"report on {file} into {page}")
        check_output(page, force)
        from connectinfer.data.results import open_result

        result = open_result(file)
        start_jax(None)
        from connectinfer.reporting.report import report as write_report

        diagnosis = write_report(result, page, overwrite=force)
        say(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB): {diagnosis.headline}")
        if not diagnosis.passed:
            raise typer.Exit(3)
