"""What is written gets its name once it is complete, and nothing beside it is touched."""

import pytest

from connectinfer.data.replacement import written_beside


def contents(folder):
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["net", "s.nc"])
def test_files_beside_of_similar_names_are_left_alone(tmp_path, name):
    beside = dict.fromkeys(("net.old", "net.part", "s.part.nc", "s.nc.old"), "precious")
    for each, text in beside.items():
        (tmp_path / each).write_text(text)
    for text in ("first", "second"):
        with written_beside(tmp_path / name) as part:
            part.write_text(text)
    assert contents(tmp_path) == beside | {name: "second"}
    assert len(list(tmp_path.iterdir())) == 5


def test_a_folder_is_replaced_whole(tmp_path):
    for name in ("a", "b"):
        with written_beside(tmp_path / "net") as part:
            part.mkdir()
            (part / name).write_text(name)
    assert contents(tmp_path) == {"b": "b"}
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_what_fails_half_way_leaves_the_old_and_nothing_else(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "a").write_text("old")

    def interrupted():
        with written_beside(tmp_path / "net") as part:
            part.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path) == {"a": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
