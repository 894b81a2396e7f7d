"""State files of interrupted work: plain arrays and JSON in one NPZ, written atomically, never pickled."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def save_checkpoint(path: str | Path, state: PyTree, description: dict[str, Any]) -> None:
    """Writes the array leaves of `state` and a JSON `description` to `path`.

    The file is written beside its final name and moved there, so that an interruption leaves the previous
    checkpoint whole.

    Raises:
        OSError: the folder is missing, read-only or full; the message names the file.
    """
    path = Path(path)
    leaves = {
        _leaf_name(keys): np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, allow_pickle=False, __description__=np.array(json.dumps(description)), **leaves)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f"Cannot write the checkpoint {str(path)!r}: {error}. Choose a folder that exists, is writable and has room."
        ) from error


def load_checkpoint(path: str | Path, like: PyTree, description: dict[str, Any]) -> PyTree:
    """The state that `save_checkpoint` wrote to `path`, in the structure of `like`.

    Raises:
        ValueError: the file is not a checkpoint, belongs to other work (its description or shapes differ from what
            is asked for), or is damaged.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{str(path)!r} is not a readable checkpoint ({error}). Delete it to start afresh.") from error
    found = json.loads(str(arrays.pop("__description__", "{}")))
    wanted = json.loads(json.dumps(description))
    if found != wanted:
        different = {k: (found.get(k), wanted.get(k)) for k in found | wanted if found.get(k) != wanted.get(k)}
        raise ValueError(
            f"The checkpoint {str(path)!r} belongs to other work; (stored, asked): {different}. "
            "Give the same settings, or another checkpoint file."
        )
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree_util.tree_unflatten(structure, [_restore(path, arrays, keys, leaf) for keys, leaf in paths])


def _leaf_name(keys: tuple) -> str:
    return "leaf" + jax.tree_util.keystr(keys)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _restore(path: Path, arrays: dict[str, np.ndarray], keys: tuple, like: Any) -> jax.Array:
    name = _leaf_name(keys)
    stored = arrays.get(name)
    expected = np.asarray(jax.random.key_data(like) if _is_key(like) else like)
    if stored is None or stored.shape != expected.shape or stored.dtype != expected.dtype:
        got = "nothing" if stored is None else f"{stored.dtype}{stored.shape}"
        raise ValueError(
            f"The checkpoint {str(path)!r} does not fit: {name} should be {expected.dtype}{expected.shape}, got {got}. "
            "Delete it to start afresh."
        )
    return jax.random.wrap_key_data(stored) if _is_key(like) else jax.numpy.asarray(stored)
