"""What hostile files are made of: code that leaves a trace when it runs, secrets, images of archives."""

import io
import os
import zipfile
from collections.abc import Callable

import h5py
import numpy as np

# The secret that no reader may show, and the file that code from a sample would make; both beside the sample.
SECRET, MARKER = "secret.txt", "executed"
# Bytes of the arrays of zeros in the files that are called bomb.
BOMB = 8 * 20000 * 400
SECRET_TEXT, OUTSIDE_VALUE = "the-canary-sings", 4242.0


class Bomb:
    """What makes the marker where it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {MARKER}",)


def hdf5_image(fill: Callable[[h5py.File], None], **options) -> bytes:
    image = io.BytesIO()
    with h5py.File(image, "w", **options) as file:
        fill(file)
    return image.getvalue()


def zip_image(members: dict[str, bytes]) -> bytes:
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inner in members.items():
            archive.writestr(zipfile.ZipInfo(name), inner, zipfile.ZIP_DEFLATED, 9)
    return image.getvalue()


def npy_image(array: np.ndarray) -> bytes:
    image = io.BytesIO()
    np.save(image, array, allow_pickle=True)
    return image.getvalue()


def pickled() -> np.ndarray:
    array = np.empty(2, object)
    array[:] = [Bomb(), Bomb()]
    return array


def claim(shape: str, descr: str = "<f8", after: bytes = b"") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + after
