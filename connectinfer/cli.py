"""The command line: demo, models, fit, rank, sweep, diagnose, report, simulate, convert, doctor.

Exit codes: 0 ran and nothing failed, 3 ran but diagnostics, or some of several fits, failed, 1 user error
(130 when interrupted with nothing more to keep, or with fits left to do). JAX and xarray are imported inside the
commands, after their first line, so that help and the list of models come at once.
"""

import os
from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

import connectinfer
from connectinfer.arguments import (
    check_netcdf_output,
    check_output,
    is_begun_by,
    key_values,
    literal_lists,
    literals,
    whole_numbers,
)
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.terminal import NOTHING_KEPT, Commands, clear_errors, console, say, shell_words
from connectinfer.zoo import list_models, load_model

if TYPE_CHECKING:
    import xarray as xr


class Precision(StrEnum):
    """Floating-point numbers that JAX computes with."""

    float32 = "float32"
    float64 = "float64"


class Content(StrEnum):
    """What a file holds."""

    recording = "recording"
    connectome = "connectome"


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

SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(help="Precision of all numbers; otherwise JAX's own setting, float32 unless JAX_ENABLE_X64 is set."),
]
FieldOption = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="Where the file keeps something, as in counts=trials.spiketrains."),
]
ValueOption = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=VALUE", help="What the file does not say, as in bin_width=0.01 (seconds)."),
]
EngineOption = Annotated[str | None, typer.Option(help="Inference engine; otherwise the model's own.")]
OptionOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the model or engine, as in steps=5000.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite output that exists.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Fit models of neural circuits to recordings and judge the fits."""


@app.command()
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
        _start_jax(precision)
        from connectinfer.demo import run_demo

        raise typer.Exit(run_demo(output, seed=seed))


@app.command()
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


@app.command()
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
        _start_jax(precision)
        from connectinfer.data.reading import open_recording
        from connectinfer.data.saving import save
        from connectinfer.inference.fit import fit as fit_model

        module = load_model(model)
        with shell_words(file):
            recording = open_recording(file, fields=fields or None, **values)
        _describe(recording)
        result = fit_model(module, recording, engine=engine, seed=seed, **options)
        save(result, output, overwrite=True)
        partial = result.attrs.get("status") == "interrupted"
        say(f"{'interrupted; wrote what there was' if partial else 'wrote the result'} to {output}")
        _judge(result)


@app.command()
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
        _start_jax(precision)
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


@app.command()
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
        _start_jax(precision)
        from connectinfer.data.reading import open_recording
        from connectinfer.diagnostics.rank_selection import select_rank

        with shell_words(file):
            recording = open_recording(file, fields=fields or None, **values)
        _describe(recording)
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


@app.command()
def diagnose(
    file: Annotated[Path, typer.Argument(help="Result that `fit` wrote, .nc or .zarr.")],
    debug: DebugOption = False,
) -> None:
    """Judge a result: one verdict per concern, with what to do."""
    with clear_errors(debug):
        say(f"diagnosis of {file}")
        from connectinfer.data.results import open_result

        result = open_result(file)
        _start_jax(None)
        _judge(result)


@app.command()
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
        _start_jax(None)
        from connectinfer.reporting.report import report as write_report

        diagnosis = write_report(result, page, overwrite=force)
        say(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB): {diagnosis.headline}")
        if not diagnosis.passed:
            raise typer.Exit(3)


@app.command()
def simulate(
    model: Annotated[str, typer.Argument(help="Name from `connectinfer models`, or the path of a model file.")],
    output: Annotated[Path, typer.Option(help="netCDF file for the recording.")] = Path("recording.nc"),
    seed: SeedOption = 0,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw the example recording of a model, to try `fit` on."""
    with clear_errors(debug):
        say(f"recording drawn from {model}, seed {seed}")
        check_netcdf_output(output, force)
        _start_jax(None)
        module = load_model(model)
        if not hasattr(module, "example"):
            raise ValueError(f"{model} has no `example(key)` to draw a recording with; add one to the model file.")
        import jax

        from connectinfer.data.saving import save
        from connectinfer.optimisation.progress import timed

        with timed("drawing a recording"):
            recording = module.example(jax.random.key(seed))
        _describe(recording)
        save(recording, output, overwrite=True)
        say(f"wrote the recording to {output}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Recording or connectome, in any format that connectinfer reads.")],
    target: Annotated[
        Path,
        typer.Argument(
            help=".nc or .zarr; for a connectome also .graphml, .gml, .json, .edgelist, .csv, .tsv, .parquet, or a "
            "folder (SONATA)."
        ),
    ],
    field: FieldOption = None,
    value: ValueOption = None,
    kind: Annotated[Content | None, typer.Option("--as", help="What the source holds, if it does not tell.")] = None,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a recording or connectome in another format.

    What the format cannot hold is named.
    """
    with clear_errors(debug):
        say(f"conversion of {source} to {target}")
        check_output(target, force)
        fields, values = key_values("--field", field or []), literals(key_values("--value", value or []))
        from connectinfer.data.reading import open_connectome, open_recording
        from connectinfer.data.recognition import holds_connectome
        from connectinfer.data.saving import save

        with shell_words(source):
            is_connectome = holds_connectome(source, {*fields, *values}) if kind is None else kind is Content.connectome
            if is_connectome is None:
                raise ValueError(f"{source.name} may hold a recording or a connectome: say which by --as or --field.")
            if is_connectome and values:
                raise ValueError(f"--value is for recordings; {source.name} is read as a connectome (see --as).")
            data = (open_connectome if is_connectome else open_recording)(source, fields=fields or None, **values)
        _describe(data)
        save(data, target, overwrite=force)
        say(f"wrote it to {target}")


@app.command()
def doctor(debug: DebugOption = False) -> None:
    """Report versions, devices, precision, cores, compile cache."""
    with clear_errors(debug):
        say("doctor")
        _start_jax(None)
        from connectinfer.doctor import examine

        table = Table("what", "value", show_header=False)
        for what, value in examine().items():
            table.add_row(what, value)
        console().print(table, highlight=False)


def _holds_state(checkpoint: Path | None) -> bool:
    if checkpoint is None:
        return False
    from connectinfer.optimisation.checkpoint import STATE_FILE

    return any(checkpoint.rglob(STATE_FILE))


def _start_jax(precision: Precision | None) -> None:
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


def _describe(data: "xr.Dataset") -> None:
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


def _judge(result: "xr.DataTree") -> None:
    from connectinfer.diagnostics.checks import diagnose as judge
    from connectinfer.optimisation.progress import timed

    with timed("judging the fit"):
        diagnosis = judge(result)
    output, text = console(), diagnosis.to_markdown()
    if output.is_terminal:
        from rich.markdown import Markdown

        output.print(Markdown(text))
    else:
        typer.echo(text)
    if not diagnosis.passed:
        raise typer.Exit(3)
