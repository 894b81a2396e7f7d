"""Reference pages written at build time: public names, one page per room, the zoo, and the command line."""

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import connectinfer
from connectinfer.zoo import ModelCard, list_models

_COMMANDS = ("demo", "models", "fit", "rank", "sweep", "diagnose", "report", "convert", "simulate", "doctor")
# The command line has a page of its own; model files are listed on the page of the zoo.
_NOT_ROOMS = ("cli", "models")


def _write_pages(app: Any) -> None:
    folder = Path(app.srcdir) / "reference" / "generated"
    pages = {"names": _names(), "zoo": _zoo(), "command_line": _command_line()}
    pages |= {f"room_{name}": text for name, text in _rooms().items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        file = folder / f"{name}.md"
        # Untouched files keep their time stamp, and Sphinx need not read them again.
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def _names() -> str:
    rows = []
    for name in sorted(connectinfer.__all__, key=str.lower):
        if name != "__version__":
            found = getattr(connectinfer, name)
            summary = (inspect.getdoc(found) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            rows.append(f"| {{py:obj}}`~{found.__module__}.{found.__qualname__}` | {summary} |")
    return "\n".join(
        [
            "# Public names",
            "",
            "Everything here is `connectinfer.NAME`, loaded on first use; the links lead to the room that owns it.",
            "",
            "| name | what it gives |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def _rooms() -> dict[str, str]:
    rooms = {}
    for module in pkgutil.iter_modules(connectinfer.__path__):
        if module.name.startswith("_") or module.name in _NOT_ROOMS:
            continue
        name = f"connectinfer.{module.name}"
        package = import_module(name)
        inside = pkgutil.iter_modules(package.__path__) if module.ispkg else []
        files = [f"{name}.{each.name}" for each in inside if not each.name.startswith("_")] or [name]
        rooms[module.name] = _room(name, inspect.getdoc(package) or "" if module.ispkg else "", files)
    return rooms


def _room(name: str, summary: str, files: list[str]) -> str:
    parts = [f"# {name.rpartition('.')[2]}", "", summary, ""]
    for file in files:
        title = [f"## {file}", ""] if len(files) > 1 else []
        parts += [*title, "```{eval-rst}", f".. automodule:: {file}", "   :members:", "```", ""]
    return "\n".join(parts)


def _zoo() -> str:
    head = [
        "# The zoo",
        "",
        "One runnable file per generative model. `connectinfer models` lists them, `connectinfer.load_model(name)` "
        "loads one; the texts below are the docstrings of the files.",
        "",
    ]
    return "\n".join(head + [line for card in list_models() for line in _animal(card)])


def _animal(card: ModelCard) -> list[str]:
    title, _, story = card.docstring.partition("\n")
    return [
        f"## {card.name}",
        "",
        title,
        "",
        f"System: {card.system}. Engine unless you choose another: `{card.engine}`. About {card.minutes:g} minutes.",
        "",
        "```text",
        story.strip("\n"),
        "```",
        "",
    ]


def _command_line() -> str:
    from typer.testing import CliRunner

    from connectinfer.cli import app

    def help_of(*command: str) -> list[str]:
        shown = CliRunner().invoke(
            app,
            [*command, "--help"],
            prog_name="connectinfer",
            env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"},
        )
        lines = [line.rstrip() for line in shown.stdout.strip("\n").split("\n")]
        return ["```text", *lines, "```", ""]

    parts = [
        "# Command line",
        "",
        "Exit codes: 0 ran and nothing failed, 3 ran but a diagnostic, or one of several fits, failed, 1 user error, "
        "130 interrupted with nothing to keep, or with fits left to do. What happens goes to standard "
        "error, what was found to standard output.",
        "",
        *help_of(),
    ]
    for command in _COMMANDS:
        parts += [f"## connectinfer {command}", "", *help_of(command)]
    return "\n".join(parts)


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", _write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
