"""Options that several commands take."""

from enum import StrEnum
from typing import Annotated

import typer


class Precision(StrEnum):
    """Floating-point numbers that JAX computes with."""

    float32 = "float32"
    float64 = "float64"


class Content(StrEnum):
    """What a file holds."""

    recording = "recording"
    connectome = "connectome"


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
