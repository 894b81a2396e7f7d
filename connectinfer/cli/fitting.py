"""Commands that fit models to recordings: fit, sweep, rank."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from connectinfer.arguments import (
    check_netcdf_output,
    check_output,
    is_begun_by,
    key_values,
    literal_lists,
    literals,
    whole_numbers,
)
from connectinfer.cli.options import (
    DebugOption,
    EngineOption,
    FieldOption,
    ForceOption,
    OptionOption,
    PrecisionOption,
    SeedOption,
    ValueOption,
)
from connectinfer.cli.steps import describe, judge, start_jax
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.terminal import NOTHING_KEPT, clear_errors, console, say, shell_words
from connectinfer.zoo import load_model


def fit(
    file: Annotated[
        Path, typer.Argument(help="Recording: .nwb, .mat, .npz, .npy, .csv, .tsv, .parquet, .json, .h5, .nc or .zarr.")
    ],
    model: Annotated[str, typer.Option(help="Name from `connectinfer models`, or the path of a model file.")],
    output: Annotated[Path, typer.Option(help="netCDF file for the result.")] = Path("fit.nc"),
    rank: Annotated[int | None, typer.Option(help="Rank of a low-rank model; short for --option rank=...")] = None,
    engine: EngineOption = None,
    seed: SeedOption = 0,
    field: FieldOption = None,
    value: ValueOption = None,
    option: OptionOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder that the fit is kept in; the same command goes on where it ended.")
    ] = None,
    precision: PrecisionOption = None,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit a model to a recording, write the result and judge it.

    Ctrl-C ends the sampling; what there is by then is written and judged. With --checkpoint nothing is lost however the
    fit ends, and the same command goes on; it replaces the output of the interrupted fit.
    """
    kept = NOTHING_KEPT
    if checkpoint is not None:
        kept = f"and the same command goes on from what is in {checkpoint}, if anything"
    with clear_errors(debug, kept), terminations_interrupt():
        say(f"fit of {model} to {file}, seed {seed}")
        from connectinfer.data.files import find_file

        find_file(file)
        fields = key_values("--field", field or [])
        values = literals(key_values("--value", value or []))
        options = literals(key_values("--option", [*(option or []), *([] if rank is None else [f"rank={rank}"])]))
        begun = _holds_state(checkpoint) and is_begun_by(output, file, model, seed, options)
        check_netcdf_output(output, force or begun)
        options |= {} if checkpoint is None else {"checkpoint": checkpoint}
        start_jax(precision)
        from connectinfer.data.reading import open_recording
        from connectinfer.data.saving import save
        from connectinfer.inference.fit import fit as fit_model

        module = load_model(model)
        with shell_words(file):
            recording = open_recording(file, fields=fields or None, **values)
        describe(recording)
        result = fit_model(module, recording, engine=engine, seed=seed, **options)
        save(result, output, overwrite=True)
        partial = result.attrs.get("status") == "interrupted"
        say(f"{'interrupted; wrote what there was' if partial else 'wrote the result'} to {output}")
        judge(result)


def sweep(
    files: Annotated[list[Path], typer.Argument(help="Recordings, in any format that connectinfer reads.")],
    model: Annotated[str, typer.Option(help="Name from `connectinfer models`, or the path of a model file.")],
    output: Annotated[Path, typer.Option(help="Folder for the results; what is there already is not computed again.")],
    over: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUES", help="Option and the values it takes, as in rank=1,2,3.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Fits at a time, each in a process of its own.")] = 1,
    engine: EngineOption = None,
    field: FieldOption = None,
    value: ValueOption = None,
    option: OptionOption = None,
    precision: PrecisionOption = None,
    debug: DebugOption = False,
) -> None:
    """Fit a model to recordings with all combinations of options; go on where an earlier sweep ended.

    Leaves with 3 if a fit failed or diverged.
    """
    with clear_errors(debug, f"and the same command goes on from what is in {output}"):
        say(f"sweep of {model} over {len(files)} files into {output}")
        fields, values = key_values("--field", field or []), literals(key_values("--value", value or []))
        axes = literal_lists(key_values("--over", over or []))
        options = literals(key_values("--option", [*(option or []), *([] if engine is None else [f"engine={engine}"])]))
        from connectinfer.data.files import find_file
        from connectinfer.data.reading import open_recording

        read = partial(open_recording, fields=fields or None, **values)
        recordings = {str(file): partial(read, find_file(file)[0].absolute()) for file in files}
        start_jax(precision)
        from connectinfer.inference import sweep as sweeps

        with sweeps.local_workers(workers) if workers > 1 else nullcontext() as client:
            table = sweeps.sweep(model, recordings, output, over=axes, client=client, **options)
        frame = table.to_dataframe()
        frame.to_csv(output / "sweep.csv")
        typer.echo(frame.reset_index().drop(columns="error").to_string(index=False))
        if table.attrs["status"] == "interrupted":
            raise KeyboardInterrupt
        if set(frame["status"]) != {"finished"}:
            raise typer.Exit(3)


def rank(
    file: Annotated[Path, typer.Argument(help="Recording, in any format that connectinfer reads.")],
    model: Annotated[str, typer.Option(help="Low-rank model, as for `fit`.")] = "low_rank_rnn_poisson",
    ranks: Annotated[str, typer.Option(metavar="R,R,...", help="Ranks to compare.")] = "1,2,3,4",
    output: Annotated[Path | None, typer.Option(help="Picture of the scores: .png, .pdf or .svg.")] = None,
    seed: SeedOption = 0,
    field: FieldOption = None,
    value: ValueOption = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of model, engine or folds, as in folds=4.")
    ] = None,
    precision: PrecisionOption = None,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Select the rank of a low-rank model by predicting hidden neurons.

    Ctrl-C ends it; the ranks that were finished are compared.
    """
    with clear_errors(debug), terminations_interrupt():
        say(f"rank of {model} for {file}, seed {seed}")
        wanted = whole_numbers("--ranks", ranks)
        if output is not None:
            check_output(output, force)
        fields, values = key_values("--field", field or []), literals(key_values("--value", value or []))
        options = literals(key_values("--option", option or []))
        start_jax(precision)
        from connectinfer.data.reading import open_recording
        from connectinfer.diagnostics.rank_selection import select_rank

        with shell_words(file):
            recording = open_recording(file, fields=fields or None, **values)
        describe(recording)
        selection = select_rank(recording, wanted, model=model, seed=seed, **options)
        table = Table("rank", selection.attrs["units"], "to the best", "", box=SIMPLE_HEAD)
        for at, row in selection.drop_dims("trial").to_dataframe().iterrows():
            chosen = "chosen" if at == selection.attrs["chosen"] else ""
            table.add_row(str(at), f"{row.score:.4f}", f"{row.difference:.4f} ± {row.difference_error:.4f}", chosen)
        console().print(table)
        say(selection.attrs["message"])
        if output is not None:
            from connectinfer.plots.rank_selection import plot_rank_selection

            plot_rank_selection(selection).savefig(output)
            say(f"wrote the picture to {output}")


def _holds_state(checkpoint: Path | None) -> bool:
    if checkpoint is None:
        return False
    from connectinfer.optimisation.checkpoint import STATE_FILE

    return any(checkpoint.rglob(STATE_FILE))
