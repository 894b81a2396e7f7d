"""Text as files store it: code points that need not be characters."""

import numpy as np

LARGEST = 0x10FFFF
# Halves of characters beyond 16 bits, which mean nothing alone and cannot be written.
HALVES = (0xD800, 0xDFFF)


def check_name(name: str) -> None:
    """Raise unless a name that a file gives can be written into another one.

    Raises:
        ValueError: if it holds a zero, with which files end texts, or half a character.
    """
    if any(each == "\0" or HALVES[0] <= ord(each) <= HALVES[1] for each in name):
        raise ValueError(f"the name {name!r} holds a code that is no character, which no file can store; rename it")


def check_characters(array: np.ndarray, name: str) -> np.ndarray:
    """`array`, where all its text can be read and written; NumPy finds out only when an entry is looked at.

    Raises:
        ValueError: if a stored number is no character, or a text goes on after a zero, with which files end texts.
    """
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False).view(np.uint32)
        # Most text lies below both, which one look at the largest code tells.
        if codes.max() >= HALVES[0]:
            wrong = codes[(codes > LARGEST) | ((codes >= HALVES[0]) & (codes <= HALVES[1]))]
            if wrong.size:
                raise ValueError(f"`{name}` holds the code {wrong[0]:#x}, which is no character")
        by_entry = codes.reshape(-1, array.dtype.itemsize // 4)
        if ((by_entry[:, :-1] == 0) & (by_entry[:, 1:] != 0)).any():
            raise ValueError(f"`{name}` holds a text with the code 0 inside, which no file can store")
    return array
