"""Damage, by chance: bytes, numbers, words, members of archives and arrays of HDF5 files."""

import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

import h5py
import numpy as np
from sample import Sample

HDF5 = b"\x89HDF\r\n\x1a\n"
NUMBERS = (
    b"nan", b"-1", b"0", b"1e308", b"1e300", b"-1e308", b"inf", b"-inf", b"1e400", b"9223372036854775808",
    b"-9223372036854775809", b"18446744073709551616", b"1" * 400, b"0.1", b"1e-320", b"3000000000", b"1e10", b"1e6",
    b"", b"null", b"true", b"0x10", b"1_0", b"1,5", b"--1", b"NaN", b"Infinity", b"\xd9\xa3",
)  # fmt: skip
WORDS = (
    b"", b"x", b" ", b"\x00", "é中🧠".encode(), b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"a" * 5000,
    b"nan", b"None",
    b"../../x", b"%s{}", b"<", b"]", b'"', b"'", b"\\", b"neuron", b"pre", b"time", b"id", b"counts", b"edge", b"1",
)  # fmt: skip
FLOATS = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e10, -1.0, 0.0, 5e-324, 1e6, 2.0**63)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]\w*")
_DELIMITER = re.compile(rb"[\[\]{}<>,;:\"'\s/=*]")


def mutate(rng: np.random.Generator, sample: Sample, others: list[Sample]) -> Sample:
    """The sample with one to three mutations in one of its files; splices take parts of `others`."""
    names = sample.mutable or (sample.opened,)
    names = [each for name in names for each in sample.files if each == name or each.startswith(f"{name}/")]
    name = names[rng.integers(len(names))]
    content = sample.files[name]
    for _ in range(rng.integers(1, 4)):
        content = _mutated(rng, name, content, others, content is sample.files[name])
    return sample._replace(files=sample.files | {name: content})


def _mutated(rng: np.random.Generator, name: str, content: bytes, others: list[Sample], intact: bool) -> bytes:
    inside = rng.random() < 0.6
    if inside and name.endswith(".gz"):
        try:
            return gzip.compress(_text(rng, gzip.decompress(content)), mtime=0)
        except (OSError, EOFError, zlib.error):
            pass
    if inside and content[:4] == b"PK\x03\x04":
        return _member(rng, content)
    # Without the checks of our readers, HDF5 may never come to the end of a damaged file.
    if inside and intact and HDF5 in content[:1024]:
        return _array(rng, content)
    if inside and not name.endswith(".gz") and _is_text(content):
        return _text(rng, content)
    if rng.random() < 0.1:
        return _spliced(rng, content, others)
    return _bytes(rng, content)


def _is_text(content: bytes) -> bool:
    return b"\x00" not in content[:64] and bool(_NUMBER.search(content))


def _bytes(rng: np.random.Generator, content: bytes) -> bytes:
    data = bytearray(content) or bytearray(b"\x00")
    operations: tuple[Callable, ...] = (
        _flip,
        _flip,
        _put,
        _truncate,
        _delete,
        _repeat,
        _swap,
        _zero,
        _integer,
        _integer,
        _float,
    )
    operations[rng.integers(len(operations))](rng, data)
    return bytes(data)


def _block(rng: np.random.Generator, data: bytearray) -> slice:
    start = int(rng.integers(len(data)))
    return slice(start, min(len(data), start + int(2 ** rng.uniform(0, 9))))


def _flip(rng: np.random.Generator, data: bytearray) -> None:
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        data[at] ^= 1 << rng.integers(8)


def _put(rng: np.random.Generator, data: bytearray) -> None:
    data[rng.integers(len(data))] = (0, 255, 127, 128, 1)[rng.integers(5)]


def _truncate(rng: np.random.Generator, data: bytearray) -> None:
    del data[rng.integers(len(data)) :]


def _delete(rng: np.random.Generator, data: bytearray) -> None:
    del data[_block(rng, data)]


def _repeat(rng: np.random.Generator, data: bytearray) -> None:
    block = _block(rng, data)
    data[block.start : block.start] = data[block] * int(rng.integers(1, 4))


def _swap(rng: np.random.Generator, data: bytearray) -> None:
    one, other = _block(rng, data), int(rng.integers(len(data)))
    taken = data[one]
    del data[one]
    data[other:other] = taken


def _zero(rng: np.random.Generator, data: bytearray) -> None:
    block = _block(rng, data)
    data[block] = bytes(block.stop - block.start)


def _integer(rng: np.random.Generator, data: bytearray) -> None:
    """A field of 1, 2, 4 or 8 bytes, such as a length: one more, one less, or absurd."""
    size = int(2 ** rng.integers(4))
    if len(data) < size:
        return
    at = int(rng.integers(len(data) - size + 1)) // size * size
    order = ("little", "little", "little", "big")[rng.integers(4)]
    value, most = int.from_bytes(data[at : at + size], order), 256**size - 1
    changed = (value + 1, value - 1, value * 2, 0, most, most // 2, most // 2 + 1, 10**6, 2**31, 2**20)[
        rng.integers(10)
    ]
    data[at : at + size] = (changed & most).to_bytes(size, order)


def _float(rng: np.random.Generator, data: bytearray) -> None:
    if len(data) >= 8:
        at = int(rng.integers(len(data) - 7)) // 8 * 8
        data[at : at + 8] = struct.pack("<d", FLOATS[rng.integers(len(FLOATS))])


def _spliced(rng: np.random.Generator, content: bytes, others: list[Sample]) -> bytes:
    """The head of one file and the tail of another."""
    other = others[rng.integers(len(others))]
    tail = list(other.files.values())[rng.integers(len(other.files))]
    return content[: rng.integers(len(content) + 1)] + tail[rng.integers(len(tail) + 1) :]


def _text(rng: np.random.Generator, content: bytes) -> bytes:
    change = rng.integers(8)
    if change < 3:
        return _replaced(rng, content, _NUMBER, NUMBERS)
    if change < 5:
        return _replaced(rng, content, _WORD, WORDS)
    if change == 5:
        return _replaced(
            rng, content, _DELIMITER, (b"", b"[", b"{", b'"', b",", b"\n", b"\x00", b"]" * 200, b"[" * 200)
        )
    lines = content.splitlines(keepends=True) or [content]
    at = int(rng.integers(len(lines)))
    if change == 6:
        del lines[at]
    else:
        lines.insert(int(rng.integers(len(lines) + 1)), lines[at] * int(rng.integers(1, 50)))
    return b"".join(lines)


def _replaced(
    rng: np.random.Generator, content: bytes, pattern: re.Pattern[bytes], choices: tuple[bytes, ...]
) -> bytes:
    found = list(pattern.finditer(content))
    if not found:
        return content
    where = found[rng.integers(len(found))]
    new = choices[rng.integers(len(choices))]
    if rng.random() < 0.1:
        # All of them at once, as where a name is changed.
        return content.replace(where[0], new) if len(where[0]) > 1 else content
    return content[: where.start()] + new + content[where.end() :]


def _member(rng: np.random.Generator, content: bytes) -> bytes:
    """A member of a zip archive, mutated and packed again with its checksum right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return _bytes(rng, content)
    if not members:
        return content
    name = list(members)[rng.integers(len(members))]
    change = rng.integers(10)
    if change == 0:
        del members[name]
    elif change == 1:
        members[
            ("../../outside.npy", "/outside.npy", "counts.npy", "\u00e9.npy", "data.npy", "pre.npy")[rng.integers(6)]
        ] = members.pop(name)
    elif change < 5:
        members[name] = _text(rng, members[name][:128]) + members[name][128:]
    else:
        members[name] = _bytes(rng, members[name])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if change % 2 else zipfile.ZIP_STORED) as archive:
        for each, inner in members.items():
            archive.writestr(zipfile.ZipInfo(each), inner)
    return packed.getvalue()


def _array(rng: np.random.Generator, content: bytes) -> bytes:
    """A data set of an HDF5 file with other values, type, shape or name, or a link in its place."""
    image = io.BytesIO(content)
    try:
        with h5py.File(image, "r+") as file:
            paths: list[str] = []
            file.visititems(lambda name, item: paths.append(name) if isinstance(item, h5py.Dataset) else None)
            if not paths:
                return content
            path = paths[rng.integers(len(paths))]
            (_change_value, _change_value, _change_type, _change_shape, _change_link, _change_attribute)[
                rng.integers(6)
            ](rng, file, path)
    # Not every value, type or shape goes into every data set.
    except Exception:
        return _bytes(rng, content)
    return image.getvalue()


def _change_value(rng: np.random.Generator, file: h5py.File, path: str) -> None:
    item = file[path]
    values = np.array(item[()])
    at = tuple(int(rng.integers(n)) for n in values.shape)
    if values.dtype.kind in "iu":
        info = np.iinfo(values.dtype)
        chosen = (0, 1, info.max, info.min, info.max // 2, values[at])[rng.integers(6)]
    else:
        chosen = FLOATS[rng.integers(len(FLOATS))] if values.dtype.kind == "f" else WORDS[rng.integers(len(WORDS))]
    if rng.random() < 0.2:
        values[...] = chosen
    else:
        values[at] = chosen
    item[...] = values


def _change_type(rng: np.random.Generator, file: h5py.File, path: str) -> None:
    item = file[path]
    shape, attributes = item.shape or (), dict(item.attrs)
    text, pair = h5py.string_dtype(), np.dtype([("a", "i4"), ("b", "f4")])
    dtype = (
        "f8",
        "i1",
        "u8",
        "f2",
        "c16",
        text,
        "S3",
        h5py.ref_dtype,
        pair,
        "bool",
        ">i2",
        h5py.vlen_dtype("i4"),
        "V5",
    )[rng.integers(13)]
    del file[path]
    new = file.create_dataset(path, shape, dtype)
    for name, each in attributes.items():
        new.attrs[name] = each


def _change_shape(rng: np.random.Generator, file: h5py.File, path: str) -> None:
    item = file[path]
    values, attributes = np.array(item[()]), dict(item.attrs)
    options = (
        values[:0],
        values[:1],
        values[None],
        values.ravel()[:1].reshape(()),
        values.T,
        np.concatenate([values, values]),
    )
    del file[path]
    if rng.random() < 0.2:
        new = file.create_dataset(path, (2**30, 2**20), "f8", chunks=(1024, 1024), compression="gzip")
    else:
        new = file.create_dataset(path, data=options[rng.integers(len(options))], dtype=item.dtype if item else None)
    for name, each in attributes.items():
        new.attrs[name] = each


def _change_link(rng: np.random.Generator, file: h5py.File, path: str) -> None:
    links = (
        h5py.SoftLink("/"),
        h5py.SoftLink(f"/{path}"),
        h5py.ExternalLink("/etc/passwd", "/"),
        h5py.SoftLink("/gone"),
    )
    choice = rng.integers(6)
    if choice < 4:
        del file[path]
        file[path] = links[choice]
    elif choice == 4:
        file.move(path, f"{path}_{WORDS[rng.integers(1, len(WORDS))].decode('latin-1').replace(chr(0), '')}")
    else:
        del file[path]


def _change_attribute(rng: np.random.Generator, file: h5py.File, path: str) -> None:
    holder = file[path] if rng.random() < 0.5 else file[path].parent
    names = list(holder.attrs)
    if not names:
        return
    name = names[rng.integers(len(names))]
    values = (
        b"\xff",
        "",
        1,
        -1,
        2**63,
        1e300,
        np.nan,
        [1, 2, 3],
        h5py.Empty("f4"),
        "double",
        "struct",
        "cell",
        "logical",
        "x" * 3000,
    )
    if rng.random() < 0.2:
        del holder.attrs[name]
    else:
        holder.attrs[name] = values[rng.integers(len(values))]
