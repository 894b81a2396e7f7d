import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from connectinfer.optimisation import checkpoint
from connectinfer.optimisation.checkpoint import fingerprint, load_checkpoint, save_checkpoint

SETTINGS = {"steps": 10, "names": ["a", "b"], "nested": {"rate": 0.5}}


class State(NamedTuple):
    weights: dict
    key: jax.Array
    step: jax.Array
    flag: jax.Array
    nothing: None = None


def example_state(impl="threefry2x32"):
    weights = {"a/b": jnp.arange(6.0).reshape(2, 3), "empty": jnp.zeros((0, 2))}
    return State(weights, jax.random.key(7, impl=impl), jnp.array(3), jnp.array(True))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.npz"


@pytest.fixture
def saved(path):
    save_checkpoint(path, example_state(), SETTINGS)
    return path


def assert_equal_states(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        plain = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b)]
        np.testing.assert_array_equal(*plain)


def test_a_state_of_other_shapes_is_refused_with_both(saved):
    wanted = example_state()._replace(weights={"a/b": jnp.zeros((3, 3)), "empty": jnp.zeros((0, 2))})
    with pytest.raises(ValueError, match=r"should be float32\(3, 3\), got float32\(2, 3\)"):
        load_checkpoint(saved, wanted, SETTINGS)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_state_comes_back_as_it_was_with_its_random_keys(path, impl):
    state = example_state(impl)
    save_checkpoint(path, state, SETTINGS)
    blank = jax.tree.map(jnp.zeros_like, state._replace(key=None))._replace(key=jax.random.key(0, impl=impl))
    found = load_checkpoint(path, blank, SETTINGS)
    assert_equal_states(found, state)
    assert jax.random.uniform(found.key) == jax.random.uniform(state.key)


def test_the_file_holds_plain_arrays_and_json_and_nothing_is_left_beside_it(saved):
    assert [f.name for f in saved.parent.iterdir()] == ["state.npz"]
    with np.load(saved, allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)
        assert archive["leaf.weights['a/b']"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_settings_are_compared_as_json_so_a_tuple_equals_a_list(saved):
    load_checkpoint(saved, example_state(), SETTINGS | {"names": ("a", "b")})


def test_other_settings_are_refused_with_both_values(saved):
    with pytest.raises(ValueError, match=r"state\.npz' belongs to other work.*\{'steps': \(10, 11\)\}\. Give the same"):
        load_checkpoint(saved, example_state(), SETTINGS | {"steps": 11})
    with pytest.raises(ValueError, match=r"\{'guide': \(None, 'flow'\)\}"):
        load_checkpoint(saved, example_state(), SETTINGS | {"guide": "flow"})


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"step": jnp.zeros(2, jnp.int32)}, r"leaf\.step should be int32\(2,\), got int32\(\)\. Delete it"),
        ({"step": jnp.array(1.0)}, r"leaf\.step should be float32\(\), got int32\(\)"),
        ({"nothing": jnp.array(1)}, r"leaf\.nothing should be int32\(\), got nothing"),
        ({"key": jax.random.split(jax.random.key(0))}, r"leaf\.key should be uint32\(2, 2\), got uint32\(2,\)"),
    ],
)
def test_other_shapes_and_types_are_refused_with_both(saved, replaced, message):
    with pytest.raises(ValueError, match=message):
        load_checkpoint(saved, example_state()._replace(**replaced), SETTINGS)


def test_a_damaged_file_is_never_taken_for_a_state(saved):
    state, whole = example_state(), saved.read_bytes()
    generator, refused = np.random.default_rng(0), 0
    for position, bit in zip(generator.integers(len(whole), size=300), generator.integers(8, size=300), strict=True):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        saved.write_bytes(bytes(damaged))
        try:
            # Some bits (time stamps, padding) mean nothing.
            assert_equal_states(load_checkpoint(saved, state, SETTINGS), state)
        except ValueError as error:
            assert "state.npz" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


def test_a_damaged_byte_of_an_array_is_refused(saved):
    whole = bytearray(saved.read_bytes())
    at = whole.find(np.arange(6, dtype=np.float32).tobytes())
    whole[at + 4] ^= 1
    saved.write_bytes(whole)
    with pytest.raises(ValueError, match=r"not a readable checkpoint .*Delete it to start afresh"):
        load_checkpoint(saved, example_state(), SETTINGS)


def write_array(path):
    with open(path, "wb") as file:
        np.save(file, np.arange(3))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_text("steps: 10\n"), id="text"),
        pytest.param(write_array, id="one-array"),
    ],
)
def test_what_is_no_checkpoint_is_refused(path, write):
    write(path)
    with pytest.raises(ValueError, match=r"state\.npz' is not a readable checkpoint"):
        load_checkpoint(path, example_state(), SETTINGS)


def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"state\.npz"):
        load_checkpoint(tmp_path / "state.npz", example_state(), {})
    with pytest.raises(IsADirectoryError):
        load_checkpoint(tmp_path, example_state(), {})


def test_other_work_of_the_same_description_is_said_to_be_another_program(tmp_path):
    save_checkpoint(tmp_path / "state.npz", example_state(), {"steps": 3, "program": "a"})
    with pytest.raises(ValueError, match="the same words compile to another program"):
        load_checkpoint(tmp_path / "state.npz", example_state(), {"steps": 3, "program": "b"})
    with pytest.raises(ValueError, match=r"\(stored, asked\): {'steps': \(3, 4\)}\. Give"):
        load_checkpoint(tmp_path / "state.npz", example_state(), {"steps": 4, "program": "b"})


def test_a_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(saved, example_state(), SETTINGS)


def test_another_programs_archive_belongs_to_other_work(path):
    np.savez(path, weights=np.ones(3))
    with pytest.raises(ValueError, match=r"belongs to other work.*'steps': \(None, 10\)"):
        load_checkpoint(path, example_state(), SETTINGS)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickled_objects_are_refused_and_not_run(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    np.savez(path, __description__=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match=r"not a readable checkpoint \(Object arrays cannot be loaded"):
        load_checkpoint(path, example_state(), SETTINGS)
    assert not os.path.exists("exploded")


def test_objects_are_not_pickled_into_a_checkpoint(path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save_checkpoint(path, {"a": object()}, SETTINGS)


def fail_on_replace(monkeypatch):
    def replace(source, target):
        raise PermissionError(13, "Permission denied", source, None, target)

    monkeypatch.setattr(checkpoint.os, "replace", replace)


def fail_half_way(monkeypatch):
    def savez(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", savez)


@pytest.mark.parametrize(
    ("fail", "reason"), [(fail_on_replace, "Permission denied"), (fail_half_way, "No space left on device")]
)
def test_a_failure_while_writing_leaves_the_old_file_whole_and_says_why(saved, monkeypatch, fail, reason):
    newer = example_state()._replace(step=jnp.array(4))
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(OSError, match=rf"Cannot write the checkpoint '.*state\.npz': .*{reason}.*in a folder"):
            save_checkpoint(saved, newer, SETTINGS)
    assert [f.name for f in saved.parent.iterdir()] == ["state.npz"]
    assert_equal_states(load_checkpoint(saved, example_state(), SETTINGS), example_state())


@pytest.mark.parametrize("folder", ["missing", "a-file"])
def test_a_folder_that_is_none_is_named(tmp_path, folder):
    (tmp_path / "a-file").touch()
    with pytest.raises(OSError, match=r"Cannot write the checkpoint '.*state\.npz'.*in a folder that exists"):
        save_checkpoint(tmp_path / folder / "state.npz", example_state(), SETTINGS)


def test_an_interruption_while_writing_leaves_the_old_file_whole(saved, monkeypatch):
    def savez(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.np, "savez", savez)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(saved, example_state(), SETTINGS)
    load_checkpoint(saved, example_state(), SETTINGS)
    save_checkpoint(saved, example_state(), SETTINGS)
    assert [f.name for f in saved.parent.iterdir()] == ["state.npz"]


def test_fingerprints_tell_trees_apart_by_name_type_shape_value_and_key():
    tree = {"x": jnp.arange(4), "key": jax.random.key(0)}
    assert fingerprint(tree) == fingerprint({"key": jax.random.key(0), "x": np.arange(4, dtype=np.int32)})
    others = [
        {"y": jnp.arange(4), "key": jax.random.key(0)},
        tree | {"x": jnp.arange(4.0)},
        tree | {"x": jnp.arange(4).reshape(2, 2)},
        tree | {"x": jnp.arange(4).at[3].set(4)},
        tree | {"key": jax.random.key(1)},
    ]
    assert len({fingerprint(other) for other in [tree, *others]}) == 6
