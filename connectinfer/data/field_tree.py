"""The fields of a file, before anything is known about their meaning: nested names, read when asked for."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

# No measured data nests deeper, and code that walks the fields recursively stays within Python's limit.
DEEPEST = 100
MOST_FIELDS = 200_000


class Leaf(NamedTuple):
    """An array that is still in the file: `load()` reads it; `unit` is what the file says of its values."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Any]
    unit: str = ""


class Proposal(NamedTuple):
    """What a format says by itself: `fields`, from our names to the file's, and a note for `attrs["read"]`."""

    fields: Mapping[str, Any]
    note: str = ""


class FieldTree(Mapping):
    """Fields by name, possibly nested; a list of trees is a table of records (a MATLAB struct array).

    Indexing reads a field and remembers that it was taken, which is how a reader knows what it left out.
    """

    def __init__(self, fields: Mapping[str, Any], path: str = "", taken: set[str] | None = None):
        self._fields = fields
        self._path = path
        self._taken: set[str] = set() if taken is None else taken

    def __getitem__(self, name: str) -> Any:
        if name not in self._fields:
            raise KeyError(name)
        path = f"{self._path}.{name}" if self._path else name
        value = self._fields[name]
        if not _is_branch(value):
            self._taken.add(path)
        return self._opened(value, path)

    def peek(self, name: str) -> Any:
        """The field as the reader left it: a `Leaf` stays unread, and the field does not count as taken."""
        return self._fields[name]

    def _opened(self, value: Any, path: str) -> Any:
        if isinstance(value, Leaf):
            return value.load()
        if isinstance(value, Mapping):
            return FieldTree(value, path, self._taken)
        if isinstance(value, list):
            return [self._opened(each, path) for each in value]
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def matrix(self, pattern: str = "*") -> np.ndarray:
        """The fields that match `pattern` side by side, `(row, column)`: a matrix that a table keeps by column.

        Raises:
            ValueError: if none matches, or those that do are no numbers or differ in length.
        """
        columns = {name: np.asarray(self[name]) for name in self if fnmatchcase(name, pattern)}
        shapes = {each.shape for each in columns.values()}
        text = [name for name, each in columns.items() if each.dtype.kind not in "biuf"]
        if len(shapes) != 1 or text or len(min(shapes)) != 1:
            raise ValueError(
                f"the fields {pattern!r} form no matrix: {len(columns)} match, with the shapes {sorted(shapes)[:3]}"
                f"{f', and {text[:3]} hold no numbers' if text else ''}. The file holds:\n{self.describe()}"
            )
        return np.stack(list(columns.values()), axis=-1)

    def left_out(self) -> list[str]:
        """Paths of the fields that nobody took."""
        return [path for path, _ in _leaves(self._fields) if path not in self._taken]

    def describe(self, most: int = 40) -> str:
        """The fields with their shapes and types, one a line."""
        lines = [f"  {path}: {_summary(value)}" for path, value in _leaves(self._fields)]
        return "\n".join(lines[:most] + ([f"  ... and {len(lines) - most} more"] if len(lines) > most else []))


def check_extent(fields: Mapping[str, Any]) -> None:
    """Raise unless the fields are few enough, and nest little enough, to be walked through.

    Raises:
        ValueError: for more than `MOST_FIELDS`, each counted wherever links lead to it, or `DEEPEST` levels.
    """
    seen, depth, level = 0, 0, [fields]
    while level:
        seen, depth = seen + sum(map(len, level)), depth + 1
        if seen > MOST_FIELDS:
            raise ValueError(
                f"it has more than {MOST_FIELDS} fields, or links that lead to the same fields over and over"
            )
        if depth > DEEPEST:
            raise ValueError(f"its fields nest more than {DEEPEST} deep, too deeply to be data")
        inside = [value for group in level for value in group.values() if _is_branch(value)]
        level = [value[0] if isinstance(value, list) else value for value in inside]


def select(tree: FieldTree, selector: Any) -> Any:
    """What `selector` picks from the tree.

    A callable is called on the tree. A mapping picks each of its values. A string is a dotted path, such as
    "trials.spiketrains"; through a list of records it picks from each. A path that ends in a pattern with `*`, such
    as "unit_*", gives a mapping of the fields that match.

    Raises:
        ValueError: if the path leads nowhere; the message lists the fields.
    """
    if callable(selector):
        return selector(tree)
    if isinstance(selector, Mapping):
        return {name: select(tree, each) for name, each in selector.items()}
    if not isinstance(selector, str):
        raise ValueError(f"a field is chosen by a dotted path or a function of the file's fields; got {selector!r}.")
    return _descend(tree, selector, selector, tree)


def _descend(value: Any, rest: str, whole: str, root: FieldTree) -> Any:
    if not rest:
        return value
    if isinstance(value, list):
        return [_descend(each, rest, whole, root) for each in value]
    if isinstance(value, Mapping):
        if rest in value:
            return value[rest]
        # Names may hold dots themselves, so the longest known name goes first.
        for name in sorted(value, key=len, reverse=True):
            if rest.startswith(name + "."):
                return _descend(value[name], rest[len(name) + 1 :], whole, root)
        matches = [name for name in value if "*" in rest and fnmatchcase(name, rest)]
        if matches:
            return {name: value[name] for name in matches}
    near = get_close_matches(whole, [path for path, _ in _leaves(root._fields)], 1, 0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"there is no field {whole!r}.{hint} The file holds:\n{root.describe()}")


def _is_branch(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        path = f"{prefix}.{name}" if prefix else name
        if _is_branch(value):
            records = value if isinstance(value, list) else [value]
            for inner, leaf in _leaves(records[0]):
                yield f"{path}.{inner}", leaf
        else:
            yield path, value


def _summary(value: Any) -> str:
    if isinstance(value, Leaf):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, list):
        return f"list of {len(value)}" + (f", each {_summary(value[0])}" if value else "")
    return type(value).__name__
