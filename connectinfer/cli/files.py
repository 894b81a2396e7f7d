"""Commands that write recordings and connectomes: simulate, convert."""

from pathlib import Path
from typing import Annotated

import typer

from connectinfer.arguments import check_netcdf_output, check_output, key_values, literals
from connectinfer.cli.options import Content, DebugOption, FieldOption, ForceOption, SeedOption, ValueOption
from connectinfer.cli.steps import describe, start_jax
from connectinfer.terminal import clear_errors, say, shell_words
from connectinfer.zoo import load_model


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
        start_jax(None)
        module = load_model(model)
        if not hasattr(module, "example"):
            raise ValueError(f"{model} has no `example(key)` to draw a recording with; add one to the model file.")
        import jax

        from connectinfer.data.saving import save
        from connectinfer.optimisation.progress import timed

        with timed("drawing a recording"):
            recording = module.example(jax.random.key(seed))
        describe(recording)
        save(recording, output, overwrite=True)
        say(f"wrote the recording to {output}")


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
        describe(data)
        save(data, target, overwrite=force)
        say(f"wrote it to {target}")
