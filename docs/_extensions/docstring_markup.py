"""The project's docstrings as reStructuredText: dollar signs are mathematics, tuple fields need no description."""

import re
from typing import Any

_DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_INLINE = re.compile(r"(?<!\$)\$([^$\n]+)\$(?!\$)")
_CODE = re.compile(r"`[^`]+`")
# Spaces need nothing; colons end the name of a role, underscores make a link, backticks are doubled code.
_BESIDE_CODE = ("", " ", "\n", ":", "_", "`")


def _mathematics(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    text = "\n".join(lines)
    if "$" in text:
        text = _DISPLAY.sub(lambda found: "\n\n.. math:: " + " ".join(found[1].split()) + "\n\n", text)
        text = _INLINE.sub(lambda found: f":math:`{found[1]}`", text)
    lines[:] = _outside_code(text).split("\n")


def _outside_code(text: str) -> str:
    """Stars and trailing underscores outside code are what they are, not markup, and code may touch letters."""
    pieces, end = [], 0
    for code in _CODE.finditer(text):
        before, after = text[code.start() - 1 : code.start()], text[code.end() : code.end() + 1]
        # Markup is only seen between spaces; escaped spaces make it seen and vanish.
        pieces += [_plain(text[end : code.start()]), "\\ " * (before not in _BESIDE_CODE), code[0]]
        pieces += ["\\ " * (after not in _BESIDE_CODE)]
        end = code.end()
    return "".join([*pieces, _plain(text[end:])])


def _plain(text: str) -> str:
    stars = re.sub(r"(?<![\\*\w])\*(?=\w)", r"\\*", text)
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", stars)


def _no_types(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    # Napoleon would take what precedes a colon in the text of a constant for its type.
    if what in ("data", "attribute"):
        lines[:] = [line.replace(": ", " – ") for line in lines]


def _skip_tuple_fields(_app: Any, _what: str, _name: str, member: Any, skip: bool, _options: Any) -> bool | None:
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field number") else skip or None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _no_types, priority=100)
    app.connect("autodoc-process-docstring", _mathematics, priority=900)
    app.connect("autodoc-skip-member", _skip_tuple_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
