"""Commands that show what there is: demo, models, doctor."""

from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from connectinfer.cli.options import DebugOption, ForceOption, PrecisionOption, SeedOption
from connectinfer.cli.steps import start_jax
from connectinfer.terminal import clear_errors, console, say
from connectinfer.zoo import list_models


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the fit and the pictures.")] = Path("connectinfer_demo"),
    seed: SeedOption = 0,
    precision: PrecisionOption = None,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Simulate a known network, fit it, show recovered beside true."""
    with clear_errors(debug):
        say(f"demo, seed {seed}, into {output}")
        if output.is_dir() and any(output.iterdir()) and not force:
            raise FileExistsError(f"The folder {output} is not empty; name another with --output, or give --force.")
        output.mkdir(parents=True, exist_ok=True)
        start_jax(precision)
        from connectinfer.demo import run_demo

        raise typer.Exit(run_demo(output, seed=seed))


def models(debug: DebugOption = False) -> None:
    """List the models that `fit` and `simulate` know."""
    with clear_errors(debug):
        table = Table("name", "what it is", "engine", "minutes", box=SIMPLE_HEAD)
        table.columns[0].no_wrap = True
        system_of = attrgetter("system")
        for system, cards in groupby(sorted(list_models(), key=system_of), system_of):
            table.add_row(f"[bold]{system}")
            for card in cards:
                table.add_row(card.name, card.title, card.engine, f"{card.minutes:g}")
            table.add_section()
        console().print(table)


def doctor(debug: DebugOption = False) -> None:
    """Report versions, devices, precision, cores, compile cache."""
    with clear_errors(debug):
        say("doctor")
        start_jax(None)
        from connectinfer.doctor import examine

        table = Table("what", "value", show_header=False)
        for what, value in examine().items():
            table.add_row(what, value)
        console().print(table, highlight=False)
