"""What a file holds, a recording or a connectome, where its format or the names of its fields tell."""

from collections.abc import Collection

from connectinfer._typing import FilePath
from connectinfer.data.files import LABELLED, PROPOSALS, as_tree, find_file, read_tree
from connectinfer.data.graph_files import GRAPHS, is_node_link
from connectinfer.data.json_files import json_fields, parse_json
from connectinfer.data.labelled import names_at_root
from connectinfer.data.recording import KINDS
from connectinfer.data.sonata import is_sonata_config, is_sonata_edges

OF_RECORDINGS = {*KINDS, "spike_times"}
OF_CONNECTOMES = {"pre", "post", "weight"}


def holds_connectome(path: FilePath, names: Collection[str] = ()) -> bool | None:
    """Whether a file holds a connectome (True) or a recording (False); None where nothing tells.

    `names` are those of ours that the caller gives to fields or values; they go before what the file says.

    Raises:
        FileNotFoundError, ValueError: if the file cannot be read, or holds the result of a fit.
    """
    file, suffix = find_file(path)
    if OF_RECORDINGS & set(names):
        return False
    if OF_CONNECTOMES & set(names) or suffix in GRAPHS:
        return True
    parsed = parse_json(file) if suffix == ".json" else None
    if is_node_link(parsed) or is_sonata_config(parsed):
        return True
    if suffix in (".h5", ".hdf5") and is_sonata_edges(file):
        return True
    if suffix in LABELLED:
        # Their values would be read twice: here and where they are opened.
        stored = names_at_root(file)
        return _tells(stored, is_recording=bool(OF_RECORDINGS & stored))
    tree = read_tree(file) if suffix != ".json" else as_tree(file, json_fields(file, parsed))
    proposed = suffix in PROPOSALS and PROPOSALS[suffix](tree) is not None
    return _tells(set(tree), is_recording=proposed or bool(OF_RECORDINGS & set(tree)))


def _tells(names: set[str], is_recording: bool) -> bool | None:
    is_connectome = {"pre", "post"} <= names or "weight" in names
    return None if is_recording == is_connectome else is_connectome
