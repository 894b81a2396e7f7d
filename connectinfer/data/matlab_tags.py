"""The tags of MATLAB files of version 5, checked before scipy trusts them: some damaged ones would end the process."""

import mmap
import struct
import zlib
from pathlib import Path

from connectinfer.data.field_tree import DEEPEST
from connectinfer.data.hdf5 import DENSEST

MATRIX, COMPRESSED = 14, 15
# Numbers of 1 to 8 bytes, and text.
PLAIN = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
# Classes of arrays that hold numbers or text, and no further arrays.
FLAT = range(4, 16)
_ORDERS = {b"IM": "<", b"MI": ">"}


def check_tags(file: Path) -> None:
    """Raise unless every element lies within the one around it and is of a type that may stand there.

    Files of version 4 have no tags and pass.

    Raises:
        ValueError: names the tag, or the size that it claims.
        zlib.error: for damaged compression.
    """
    if file.stat().st_size < 128:
        return
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        order = _ORDERS.get(content[126:128])
        if order is not None and 0 not in content[:4]:
            with memoryview(content) as whole, whole[128:] as elements:
                _check_elements(elements, order, 0)


def _check_elements(data: memoryview, order: str, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"its arrays nest more than {DEEPEST} deep")
    flat, at = False, 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        # Up to four bytes may stand in the tag itself, with their number in its upper half.
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if size > len(data) - start:
            raise ValueError(f"an element claims {size} bytes where {len(data) - start} follow")
        # The first element of an array holds its flags, the class in the lowest byte.
        if at == 0 and depth > 0 and kind == 6 and size >= 4:
            flat = struct.unpack_from(f"{order}I", data, start)[0] & 0xFF in FLAT
        with data[start : start + size] as inside:
            _check_element(inside, kind, order, depth, flat)
        at = start + size if depth == 0 else at + 8 + (0 if start == at + 4 else size + -size % 8)


def _check_element(inside: memoryview, kind: int, order: str, depth: int, flat: bool) -> None:
    if kind == COMPRESSED and depth == 0:
        unpacked = zlib.decompressobj().decompress(inside, DENSEST * len(inside) + 64)
        with memoryview(unpacked) as elements:
            _check_elements(elements, order, depth + 1)
    elif kind == MATRIX and not flat:
        _check_elements(inside, order, depth + 1)
    elif kind not in PLAIN or depth == 0:
        raise ValueError(f"an element is of type {kind}, which does not belong there")
