"""Arrays that would be nearly all padding, refused before they are allocated: one stray value must not fill memory."""

from collections.abc import Sequence

import numpy as np

# Cells that any array may have, and as many again for each value that fills one.
ALWAYS_ALLOWED = 1_000_000
CHARACTERS_PER_CHARACTER = 100


def check_filled(cells: float | int, values: int, most_per_value: int, message: str) -> None:
    """Raise with `message` if so many `cells` would hold so few `values`.

    Raises:
        ValueError: if there are over a million cells, and over `most_per_value` for each value.
    """
    if cells > ALWAYS_ALLOWED and not cells <= most_per_value * values:
        raise ValueError(message)


def is_mostly_padding(texts: Sequence[str]) -> bool:
    """Whether an array of these texts, each entry as wide as the longest, would hold little but padding."""
    cells = len(texts) * max(map(len, texts), default=0)
    return cells > ALWAYS_ALLOWED and cells > CHARACTERS_PER_CHARACTER * sum(map(len, texts))


def text_array(texts: Sequence[str], name: str) -> np.ndarray:
    """Texts as an array of str; `name` is what messages call them.

    Raises:
        ValueError: if one of them is so much longer than the others that the array would be mostly padding.
    """
    if is_mostly_padding(texts):
        longest = max(texts, key=len)
        raise ValueError(
            f"`{name}` holds a text of {len(longest)} characters, {longest[:20]!r}..., far longer than its others, "
            f"and each of its {len(texts)} entries would take as much memory. Shorten it, or leave it out."
        )
    return np.array(texts, dtype=str)
