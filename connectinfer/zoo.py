"""Find and load model files.

Listing reads the files' syntax trees, so it needs neither JAX nor the models'
own imports; loading runs the file.
"""

import ast
import hashlib
import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any

from connectinfer._typing import FilePath

_PARTS = ("CARD", "DIMS", "inputs", "model")


@dataclass(frozen=True)
class ModelCard:
    """What a model file says about itself without being run.

    `system` is what the model describes, `engine` its default inference engine,
    `minutes` the usual time of a fit on a laptop.
    """

    name: str
    title: str
    system: str
    engine: str
    minutes: float
    path: Path
    docstring: str = field(repr=False)


def model_directory() -> Path:
    """Folder of the zoo: inside the installed package, beside it in a checkout."""
    installed = Path(__file__).parent / "models"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "models"


def list_models() -> list[ModelCard]:
    """Cards of all models in the zoo, sorted by name; loads no model and no JAX.

    Raises:
        ValueError: a file of the zoo has no docstring or no complete literal `CARD`.
    """
    return [_read_card(path) for path in _model_files().values()]


def load_model(name_or_path: FilePath | ModuleType) -> ModuleType:
    """Module of a model, from its name in the zoo or the path of a Python file.

    A string that ends in `.py` or contains a path separator is a path; a module is
    checked and returned. The same file gives the same module, so compiled functions
    are kept; a file outside the zoo that was edited in between gives a new one.

    Raises:
        ValueError: unknown name, or the file lacks `CARD`, `DIMS`, `inputs` or `model`.
        FileNotFoundError: no file at the path.
    """
    if isinstance(name_or_path, ModuleType):
        return _with_all_parts(name_or_path)
    text = fspath(name_or_path)
    if not (isinstance(name_or_path, PathLike) or text.endswith(".py") or Path(text).name != text):
        return _with_all_parts(_load(f"connectinfer.models.{text}", _path_in_zoo(text)))
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"No model file at {text!r} (looked for {path.absolute()}). "
            "Give the path of a Python file, or one of the names that `connectinfer models` lists."
        )
    # Path and content in the name: one file is one module, an edited file a new one.
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()[:12]
    return _with_all_parts(_load(f"connectinfer_model_{path.stem}_{digest}", path.resolve()))


def model_name(name_or_path: FilePath | ModuleType) -> str:
    """The name of a model: that of its file, without suffix."""
    if isinstance(name_or_path, ModuleType):
        return Path(name_or_path.__file__ or name_or_path.__name__).stem
    return Path(name_or_path).stem


def _model_files() -> dict[str, Path]:
    paths = sorted(model_directory().glob("*.py"))
    return {path.stem: path for path in paths if not path.stem.startswith("_")}


def _path_in_zoo(name: str) -> Path:
    files = _model_files()
    if name in files:
        return files[name]
    near = get_close_matches(name, files, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"Unknown model {name!r}.{hint} The zoo has: {', '.join(files) or 'no models'}. "
        "For a model of your own give the path of its file, ending in .py."
    )


def _load(module_name: str, path: Path) -> ModuleType:
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is not a Python file; a model is a file ending in .py.")
    module = module_from_spec(spec)
    # Registered before it runs: dataclasses look their own module up.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _with_all_parts(module: ModuleType) -> ModuleType:
    missing = [part for part in _PARTS if not hasattr(module, part)]
    if missing:
        raise ValueError(
            f"{getattr(module, '__file__', None) or module.__name__} is no model file: it lacks {', '.join(missing)}. "
            f"A model file defines {', '.join(_PARTS)}; the files in {model_directory()} are examples."
        )
    return module


def _read_card(path: Path) -> ModelCard:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    docstring = ast.get_docstring(tree)
    if not docstring:
        raise ValueError(f"{path} has no docstring; a model file begins with one, and its first line is the title.")
    card = _literal(tree, "CARD", path)
    missing = [key for key in ("system", "engine", "minutes") if key not in card]
    if missing:
        raise ValueError(f"CARD in {path} lacks {', '.join(missing)}; got {sorted(card)}.")
    title = docstring.splitlines()[0].rstrip(".")
    return ModelCard(path.stem, title, card["system"], card["engine"], float(card["minutes"]), path, docstring)


def _literal(tree: ast.Module, name: str, path: Path) -> dict[str, Any]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == [name]:
            try:
                value = ast.literal_eval(node.value)
            except ValueError as error:
                raise ValueError(f"{name} in {path} must be a literal: it is read without running the file.") from error
            if isinstance(value, dict):
                return value
    raise ValueError(f"{path} has no {name}; add `{name} = {{...}}`, a literal dict.")
