"""Configs of SONATA circuits: which files make up the network, and what else the config names."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from connectinfer._typing import FilePath
from connectinfer.data.json_files import parse_json

CONFIG = "circuit_config.json"
"""Name of the config that is written, and by which a folder is known to hold a network."""
# Parts of a config that say where the network is, or nothing about it.
UNDERSTOOD = ("manifest", "networks", "network", "components", "target_simulator", "version")
LONGEST_PATH, DEEPEST = 4096, 32
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


class TableFiles(NamedTuple):
    """The HDF5 file of nodes or edges, and the CSV file of their types where there is one."""

    file: Path
    types: Path | None = None


class Circuit(NamedTuple):
    """The files of a network, and what its configs name besides."""

    nodes: list[TableFiles]
    edges: list[TableFiles]
    left_out: list[str]


def read_circuit_config(path: FilePath) -> Circuit:
    """The files that a circuit config names, or the circuit config that a combined or simulation config points at.

    Paths are relative to the folder of their config; `$NAME` and `${NAME}` are variables of its `manifest`, and
    `${configdir}` is that folder.

    Raises:
        ValueError: if a config cannot be read, lacks what is needed, points at itself, or names a file that is not
            there.
    """
    left_out: list[str] = []
    config, parsed = Path(path), _parsed(Path(path))
    visited = {config.resolve()}
    while "networks" not in parsed:
        if not isinstance(parsed.get("network"), str):
            raise ValueError(
                f"{config.name} names no network: a SONATA config has `networks`, lists of node and edge files, or "
                f"`network`, the path of a config that has; got {sorted(parsed)}."
            )
        left_out += _beside(parsed)
        inner = _Paths(config, parsed.get("manifest")).existing(parsed["network"], "network")
        if inner.resolve() in visited:
            raise ValueError(f"{inner.name} points at itself by `network`; it must name the circuit config.")
        visited.add(inner.resolve())
        config, parsed = inner, _parsed(inner)
    paths, networks = _Paths(config, parsed.get("manifest")), parsed["networks"]
    if not isinstance(networks, Mapping):
        raise ValueError(f"`networks` of {config.name} must hold lists `nodes` and `edges`; got {networks!r:.80}.")
    nodes = list(_tables(paths, networks, "node", left_out))
    edges = list(_tables(paths, networks, "edge", left_out))
    left_out += [*_components(paths, parsed.get("components")), *_beside(parsed)]
    return Circuit(nodes, edges, left_out)


class _Paths:
    """Resolves the paths of one config."""

    def __init__(self, config: Path, manifest: Any):
        self.name, self._folder = config.name, config.parent
        if not isinstance(manifest, Mapping | None):
            raise ValueError(f"`manifest` of {self.name} must map variables to paths; got {manifest!r:.80}.")
        self._manifest = {str(name).strip("${}"): each for name, each in (manifest or {}).items()}
        self._manifest.setdefault("configdir", ".")
        self._values: dict[str, str] = {}

    def resolved(self, text: Any, entry: str) -> Path:
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"`{entry}` of {self.name} must be a path; got {text!r:.80}.")
        return self._folder / self._expanded(text, entry, ())

    def existing(self, text: Any, entry: str) -> Path:
        path = self.resolved(text, entry)
        if not _is_file(path):
            raise ValueError(
                f"`{entry}` of {self.name} is {text!r}, but there is no file {path}. Put it there, or correct the path "
                "or the manifest."
            )
        return path

    def _expanded(self, text: str, entry: str, within: tuple[str, ...]) -> str:
        expanded = _VARIABLE.sub(lambda match: self._value(match[1] or match[2], entry, within), text)
        # Variables that double each other grow without bound.
        if len(expanded) > LONGEST_PATH:
            raise ValueError(f"`{entry}` of {self.name} expands to {len(expanded)} characters, longer than any path.")
        return expanded

    def _value(self, name: str, entry: str, within: tuple[str, ...]) -> str:
        if name in within or len(within) > DEEPEST:
            raise ValueError(f"the manifest of {self.name} defines variables by each other: {' -> '.join(within)}.")
        if name not in self._values:
            if not isinstance(self._manifest.get(name), str):
                raise ValueError(
                    f"`{entry}` of {self.name} needs ${name}, which its manifest does not define; it has "
                    f"{sorted(self._manifest)}."
                )
            self._values[name] = self._expanded(self._manifest[name], entry, (*within, name))
        return self._values[name]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    # Names that are too long, for example.
    except OSError:
        return False


def _parsed(config: Path) -> Mapping[str, Any]:
    parsed = parse_json(config)
    if not isinstance(parsed, Mapping):
        raise ValueError(f"{config.name} is no SONATA config: it holds a {type(parsed).__name__}, not named entries.")
    return parsed


def _tables(paths: _Paths, networks: Mapping, kind: str, left_out: list[str]) -> Iterator[TableFiles]:
    entries = networks.get(f"{kind}s", [])
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise ValueError(f"`networks.{kind}s` of {paths.name} must be a list of files; got {entries!r:.80}.")
    for entry in entries:
        if entry.get("enabled", True) is False:
            left_out.append(f"{entry.get(f'{kind}s_file')} (not enabled)")
            continue
        types = entry.get(f"{kind}_types_file") or None
        yield TableFiles(
            paths.existing(entry.get(f"{kind}s_file"), f"{kind}s_file"),
            None if types in (None, "NULL") else paths.existing(types, f"{kind}_types_file"),
        )


def _components(paths: _Paths, components: Any) -> Iterator[str]:
    """Folders of morphologies, mechanisms and parameters, which no connectome needs."""
    for name, each in components.items() if isinstance(components, Mapping) else ():
        try:
            there = paths.resolved(each, name).exists()
        except (ValueError, OSError):
            there = False
        yield f"components.{name}" + ("" if there else " (not there)")


def _beside(parsed: Mapping) -> list[str]:
    return [str(name) for name in parsed if name not in UNDERSTOOD]
