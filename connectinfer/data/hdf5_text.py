"""How HDF5 stores text of variable length, checked before libhdf5 trusts it and runs without end or fills memory.

A file that was copied in part, with zeros or other bytes where blocks are missing, holds such text.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

HEAP = b"GCOL\x01\x00\x00\x00"
# The start of the file in which heaps are looked through: there is no index of them, and large files take too long.
LOOKED_THROUGH = 2**28
# What a data set holds for each text: its length, the place of its heap, and its number there.
ENTRY = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])


def check_text_storage(file: Path) -> None:
    """Raise unless the heaps of a file come to an end, and no text is longer than the file.

    Text in attributes, and in compressed data sets, is not looked at.

    Raises:
        ValueError: names the place in the file.
        OSError: if it is no HDF5.
    """
    size = file.stat().st_size
    if not size:
        return
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _check_heaps(content)
        with h5py.File(file, "r") as opened:
            for name, start, length in _entries(opened):
                whole = (min(start + length, size) - start) // ENTRY.itemsize
                lengths = (
                    np.frombuffer(content[start : start + whole * ENTRY.itemsize], ENTRY)["length"] if whole > 0 else []
                )
                if np.max(lengths, initial=0) > size:
                    raise ValueError(f"{name} claims a text of {np.max(lengths)} characters, longer than the file")


def _check_heaps(content: mmap.mmap) -> None:
    start = content.find(HEAP, 0, LOOKED_THROUGH)
    while start >= 0:
        at, stop = start + 16, min(len(content), start + int.from_bytes(content[start + 8 : start + 16], "little"))
        while at + 16 <= stop:
            number, size = struct.unpack_from("<H6xQ", content, at)
            # libhdf5 2.0 would read this entry again and again.
            if number == size == 0:
                raise ValueError(f"the heap at byte {start} is damaged")
            # The entry 0 is the free space, whose size counts its own head.
            at += size if number == 0 else 16 + (size + 7) // 8 * 8
        start = content.find(HEAP, start + len(HEAP), LOOKED_THROUGH)


def _entries(content: h5py.File) -> Iterator[tuple[str, int, int]]:
    """Name of a data set of text, and where in the file its entries lie, in bytes: start and length."""
    found: list[tuple[str, h5py.Dataset]] = []
    content.visititems(lambda name, item: found.append((name, item)) if _is_ragged(item) else None)
    for name, item in found:
        if item.chunks is None:
            start = item.id.get_offset()
            if start is not None:
                yield name, start, (item.size or 0) * ENTRY.itemsize
        elif not item.id.get_create_plist().get_nfilters():
            for at in range(item.id.get_num_chunks()):
                chunk = item.id.get_chunk_info(at)
                if chunk.byte_offset is not None:
                    yield name, chunk.byte_offset, chunk.size


def _is_ragged(item: h5py.Group | h5py.Dataset) -> bool:
    if not isinstance(item, h5py.Dataset):
        return False
    text = h5py.check_string_dtype(item.dtype)
    return h5py.check_vlen_dtype(item.dtype) is not None or (text is not None and text.length is None)
