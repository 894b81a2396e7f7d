"""The parts of a page, and the HTML that the template makes of them: every text is escaped there, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from connectinfer.diagnostics.verdict import Diagnosis


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Missing:
    """A sentence that says why something is not shown."""

    kind: ClassVar[str] = "missing"
    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    kind: ClassVar[str] = "points"
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, `width` and `height` in CSS pixels; `alt` says in words what is seen."""

    kind: ClassVar[str] = "picture"
    source: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text; `align` has a letter per column, "l" or "r"."""

    kind: ClassVar[str] = "table"
    caption: str
    align: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a diagnosis, a row each."""

    kind: ClassVar[str] = "judgement"
    diagnosis: Diagnosis


type Block = Text | Missing | Points | Code | Picture | Table | Judgement


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `anchor` is its id there."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report: `summary` is the verdict in one sentence, `outcome` one of "pass", "open" and "fail"."""

    title: str
    summary: str
    outcome: str
    facts: tuple[tuple[str, str], ...]
    sections: Sequence[Section]

    def to_html(self) -> str:
        """The page in one text that needs no other file, no network and no script."""
        environment = Environment(
            loader=PackageLoader("connectinfer.reporting", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html").render(page=self)
