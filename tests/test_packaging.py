"""The package is complete however it is installed, light to import and small enough to install."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import connectinfer

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = ("jax", "numpyro", "xarray", "arviz", "matplotlib", "numpy", "scipy", "pandas", "networkx", "h5py")

LIST_THE_ZOO = """
import json, sys, connectinfer, connectinfer.zoo
names = [card.name for card in connectinfer.list_models()]
where = [connectinfer.__file__, str(connectinfer.zoo.model_directory())]
print(json.dumps([names, where, connectinfer.__version__, sorted(sys.modules)]))
"""


def list_zoo(*options, cwd, path=None):
    """Names, places, version and loaded modules after listing the zoo in a fresh interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *options, "-c", LIST_THE_ZOO]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone without anything that an installation leaves behind."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("connectinfer", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """The unpacked wheel."""
    # `uv run` says where uv is.
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv builds the wheel; run the tests with `python -m uv run pytest`.")
    source, built, folder = (tmp_path_factory.mktemp(name) for name in ("source", "built", "wheel"))
    shutil.copytree(checkout, source, dirs_exist_ok=True)
    command = [uv, "build", "--wheel", "--python", sys.executable, "--out-dir", str(built), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = built.glob("*.whl")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def zoo_files():
    return sorted(path.stem for path in (ROOT / "models").glob("[!_]*.py"))


def test_a_bare_checkout_finds_the_zoo_without_any_package_installed(checkout, tmp_path):
    names, where, version, _ = list_zoo("-S", cwd=tmp_path, path=checkout)
    assert names == zoo_files()
    assert where == [str(checkout / "connectinfer/__init__.py"), str(checkout / "models")]
    assert version == PROJECT["project"]["version"]


def test_the_editable_installation_finds_the_zoo(tmp_path):
    names, where, version, _ = list_zoo(cwd=tmp_path)
    assert names == zoo_files()
    assert where == [str(ROOT / "connectinfer/__init__.py"), str(ROOT / "models")]
    assert version == PROJECT["project"]["version"]


def test_the_wheel_finds_the_zoo(wheel, tmp_path):
    names, where, version, _ = list_zoo(cwd=tmp_path, path=wheel)
    assert names == zoo_files()
    assert where == [str(wheel / "connectinfer/__init__.py"), str(wheel / "connectinfer/models")]
    assert version == PROJECT["project"]["version"]


def test_the_wheel_has_every_module_the_template_and_the_typing_marker(wheel, checkout):
    modules = {path.relative_to(checkout) for path in (checkout / "connectinfer").rglob("*.py")}
    models = {Path("connectinfer/models") / path.name for path in (checkout / "models").glob("*.py")}
    packed = {path.relative_to(wheel) for path in wheel.rglob("*.py")}
    assert packed == modules | models
    assert (wheel / "connectinfer/py.typed").is_file()
    for name in ("page.html", "style.css"):
        assert (wheel / "connectinfer/reporting" / name).is_file()


def test_importing_the_package_and_listing_the_zoo_load_nothing_heavy(tmp_path):
    *_, loaded = list_zoo(cwd=tmp_path)
    assert not set(HEAVY) & set(loaded)


def test_every_room_is_packaged():
    rooms = {path.parent for path in (ROOT / "connectinfer").rglob("*.py")}
    names = {".".join(room.relative_to(ROOT).parts) for room in rooms}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == names | {"connectinfer.models"}


def test_the_lock_file_stays_out_of_the_repository():
    assert "uv.lock" in (ROOT / ".gitignore").read_text().splitlines()


def core_distributions():
    """Everything that `pip install connectinfer` installs, as installed here."""
    waiting = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    found, seen = {}, set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        distribution = metadata.distribution(requirement.name)
        found[canonicalize_name(requirement.name)] = distribution
        for each in map(Requirement, distribution.requires or []):
            extras = ["", *requirement.extras]
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(each)
    return found


def test_the_core_is_small_and_brings_no_second_framework():
    core = core_distributions()
    megabytes = sum(file.size or 0 for each in core.values() for file in each.files or []) / 1e6
    assert not {"torch", "keras", "tensorflow", "tensorflow-probability", "tfp-nightly"} & set(core)
    assert 20 < len(core) <= 65
    assert 100 < megabytes <= 750


def test_the_three_tables_of_public_names_agree():
    tree = ast.parse(Path(connectinfer.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    for_checkers = {
        alias.name: f"{node.module}" for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    at_run_time = {name: f"connectinfer.{home}" for name, home in connectinfer._HOME.items()}
    assert for_checkers == at_run_time
    assert sorted(connectinfer.__all__) == sorted([*at_run_time, "__version__"])


@pytest.mark.parametrize("name", connectinfer.__all__)
def test_every_public_name_can_be_had(name):
    value = getattr(connectinfer, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(connectinfer)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(AttributeError, match=r"has no attribute 'open_recordings'\. Did you mean 'open_recording'\?"):
        connectinfer.open_recordings  # noqa: B018
