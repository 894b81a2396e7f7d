"""The zoo can be listed without running it, and a model file that cannot be used says why."""

import sys
from types import ModuleType

import pytest
from jaxtyping import TypeCheckError

from connectinfer import zoo
from connectinfer.zoo import ModelCard, list_models, load_model, model_directory

TINY = '''"""Coin flips.

A generative story.
"""

CARD = {"system": "coins", "engine": "nuts", "minutes": 0.5}
DIMS = {"p": ()}


def inputs(data):
    return {"flips": data}, {}


def model(flips=None):
    return flips
'''


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny_coins.py"
    path.write_text(TINY)
    return path


@pytest.fixture
def tiny_zoo(tiny, monkeypatch):
    (tiny.parent / "_private.py").write_text("1 / 0")
    monkeypatch.setattr(zoo, "model_directory", lambda: tiny.parent)
    yield tiny.parent
    for name in [name for name in sys.modules if name.startswith("connectinfer.models.tiny_")]:
        del sys.modules[name]


def test_every_file_of_the_zoo_has_a_card():
    cards = list_models()
    files = {path.stem for path in model_directory().glob("[!_]*.py")}
    assert {card.name for card in cards} == files
    assert all(card.title and card.engine and card.minutes > 0 and card.path.is_file() for card in cards)


def test_a_card_is_read_without_running_the_file(tiny_zoo):
    path = tiny_zoo / "tiny_coins.py"
    path.write_text(TINY + "\nraise RuntimeError('was run')\n")
    assert list_models() == [
        ModelCard("tiny_coins", "Coin flips", "coins", "nuts", 0.5, path, "Coin flips.\n\nA generative story.")
    ]


def test_a_name_and_a_path_load_the_same_kind_of_module(tiny_zoo):
    by_name, by_path = load_model("tiny_coins"), load_model(tiny_zoo / "tiny_coins.py")
    assert by_name.__name__ == "connectinfer.models.tiny_coins"
    assert by_name.inputs(3) == by_path.inputs(3) == ({"flips": 3}, {})


def test_a_model_is_loaded_once(tiny_zoo):
    assert load_model("tiny_coins") is load_model("tiny_coins")
    assert load_model(str(tiny_zoo / "tiny_coins.py")) is load_model(tiny_zoo / "tiny_coins.py")


def test_an_edited_file_is_loaded_anew(tiny):
    before = load_model(tiny)
    tiny.write_text(TINY.replace("0.5", "7"))
    assert (before.CARD["minutes"], load_model(tiny).CARD["minutes"]) == (0.5, 7)


def test_a_module_passes_through(tiny):
    module = load_model(tiny)
    assert load_model(module) is module


def test_two_files_of_one_name_are_two_modules(tiny, tmp_path):
    other = tmp_path / "elsewhere" / tiny.name
    other.parent.mkdir()
    other.write_text(TINY)
    assert load_model(tiny) is not load_model(other)


def test_a_file_that_fails_is_not_kept_half_loaded(tiny):
    tiny.write_text(TINY + "\nraise RuntimeError('broken')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            load_model(tiny)


@pytest.mark.usefixtures("tiny_zoo")
def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown model 'tiny_coin'\. Did you mean 'tiny_coins'\? The zoo has: tiny"):
        load_model("tiny_coin")


def test_types_of_public_signatures_are_checked_in_tests():
    with pytest.raises(TypeCheckError, match="name_or_path"):
        load_model(3)  # pyright: ignore


def test_a_path_to_nothing_says_where_it_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No model file at '.*nothing\.py' \(looked for "):
        load_model(tmp_path / "nothing.py")


def test_a_file_that_is_not_python_is_refused(tmp_path):
    path = tmp_path / "model.txt"
    path.write_text(TINY)
    with pytest.raises(ValueError, match="not a Python file"):
        load_model(path)


@pytest.mark.parametrize("part", ["CARD", "DIMS", "inputs", "model"])
def test_a_missing_part_is_named(tiny, part):
    module = load_model(tiny)
    incomplete = ModuleType("incomplete")
    vars(incomplete).update({name: value for name, value in vars(module).items() if name != part})
    with pytest.raises(ValueError, match=f"is no model file: it lacks {part}\\."):
        load_model(incomplete)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(TINY.replace('"minutes"', '"hours"'), "lacks minutes", id="incomplete"),
        pytest.param(TINY.replace("0.5", "a_name"), "must be a literal", id="computed"),
        pytest.param(TINY.replace("CARD =", "card ="), "has no CARD", id="missing"),
        pytest.param("1\n" + TINY, "has no docstring", id="no docstring"),
    ],
)
def test_a_card_that_cannot_be_read_names_its_file(tiny_zoo, source, message):
    (tiny_zoo / "tiny_coins.py").write_text(source)
    with pytest.raises(ValueError, match=rf"{message}.* in .*tiny_coins\.py|tiny_coins\.py.* {message}"):
        list_models()
