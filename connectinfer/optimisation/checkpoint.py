"""State files of interrupted work: plain arrays and JSON in one NPZ, written atomically, never pickled."""

import hashlib
import io
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

STATE_FILE = "state.npz"
"""Name of the state file in the folder of a resumable run."""

PROGRAM = "program"
"""Name under which a description of work holds its `program_fingerprint`."""


def checkpoint_folder(path: str | Path) -> Path:
    """The folder of a resumable run, made if it is not there.

    Raises:
        OSError: it cannot be made, or is a file.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"Cannot keep a checkpoint in {str(folder)!r}: {error}. Name a folder, new or of an earlier run, where you "
            "may write."
        ) from error
    return folder


def save_checkpoint(path: str | Path, state: PyTree, description: dict[str, Any]) -> None:
    """Writes the array leaves of `state` and a JSON `description` to `path`.

    The file is written beside its final name and moved there, so that an interruption leaves the previous
    checkpoint whole.

    Raises:
        OSError: the folder is missing, read-only or full; the message names the file.
    """
    path = Path(path)
    leaves = {_leaf_name(keys): _plain(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(state)}
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, allow_pickle=False, __description__=np.array(json.dumps(description)), **leaves)
            # Otherwise a power cut may leave the new name on an empty file.
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OSError(
            f"Cannot write the checkpoint {str(path)!r}: {error}. What was saved before is intact: in a folder that "
            "exists, is writable and has room, the same call goes on from there."
        ) from error


def load_checkpoint(path: str | Path, like: PyTree, description: dict[str, Any]) -> PyTree:
    """The state that `save_checkpoint` wrote to `path`, in the structure of `like`.

    `like` holds arrays, or shapes and types of arrays; of keys it needs the keys themselves.

    Raises:
        ValueError: the file is damaged or no checkpoint, or belongs to other work (its description or shapes differ
            from what is asked for).
        OSError: the file is missing or cannot be read.
    """
    path = Path(path)
    arrays, found = _read(path)
    wanted = json.loads(json.dumps(description))
    if found != wanted:
        different = {k: (found.get(k), wanted.get(k)) for k in found | wanted if found.get(k) != wanted.get(k)}
        if len(different) > 1:
            # What a user set speaks for itself, and makes another program.
            different.pop(PROGRAM, None)
        said = (
            "the same words compile to another program (the model's file, JAX or the device changed)"
            if set(different) == {PROGRAM}
            else f"(stored, asked): {different}"
        )
        raise ValueError(
            f"The checkpoint {str(path)!r} belongs to other work; {said}. Give the same settings, or another folder."
        )
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree_util.tree_unflatten(structure, [_restore(path, arrays, keys, leaf) for keys, leaf in paths])


def fingerprint(tree: PyTree) -> str:
    """Twelve hexadecimal digits that tell apart trees whose arrays differ in name, type, shape or any value."""
    digest = hashlib.sha256()
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = _plain(leaf)
        digest.update(f"{_leaf_name(keys)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def program_fingerprint(lowered: jax.stages.Lowered) -> str:
    """Twelve hexadecimal digits that tell programs apart."""
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()[:12]


def _leaf_name(keys: tuple) -> str:
    return "leaf" + jax.tree_util.keystr(keys)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    # A disk that does not answer says nothing about the file.
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content):
            pass  # NumPy would take a file that is no archive for a single array.
        with np.load(content, allow_pickle=False) as archive:
            arrays = dict(archive)
        description = json.loads(str(arrays.pop("__description__", "{}")))
    # RuntimeError: a flipped bit can make a member look encrypted, or compressed by an unknown method.
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"{str(path)!r} is not a readable checkpoint ({error}). Delete it to start afresh.") from error
    return arrays, description


def _restore(path: Path, arrays: dict[str, np.ndarray], keys: tuple, like: Any) -> jax.Array:
    name = _leaf_name(keys)
    stored, expected = arrays.get(name), like if isinstance(like, jax.ShapeDtypeStruct) else _plain(like)
    if stored is None or stored.shape != expected.shape or stored.dtype != expected.dtype:
        got = "nothing" if stored is None else f"{stored.dtype}{stored.shape}"
        raise ValueError(
            f"The checkpoint {str(path)!r} does not fit: {name} should be {expected.dtype}{expected.shape}, got {got}. "
            "Delete it to start afresh."
        )
    if isinstance(like, jax.Array) and _is_key(like):
        return jax.random.wrap_key_data(jax.numpy.asarray(stored), impl=jax.random.key_impl(like))
    return jax.numpy.asarray(stored)
