"""Runs that are stopped, killed and gone on with."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import xarray as xr
from conjugate import INPUTS, linear_model

from connectinfer.inference import chains
from connectinfer.inference.nuts import sample_nuts

OPTIONS = {"warmup": 35, "draws": 45, "chains": 2, "show_progress": False}
START = {"beta": np.array([3.0, -2.0])}


class CrashError(RuntimeError):
    """Something that no part of the package expects."""


def run(**options):
    return sample_nuts(jax.random.key(0), linear_model, INPUTS, **OPTIONS | options)


def crash():
    raise CrashError


def interrupt():
    signal.raise_signal(signal.SIGINT)


def stop_after(monkeypatch, n_saves, stop=crash):
    """`stop()` right after the state was saved for the `n_saves`-th time."""
    original, saves = chains.save_checkpoint, []

    def save(*arguments):
        original(*arguments)
        saves.append(None)
        if len(saves) == n_saves:
            stop()

    monkeypatch.setattr(chains, "save_checkpoint", save)


def assert_same(result, expected):
    assert set(result.children) == set(expected.children)
    for name in expected.children:
        xr.testing.assert_identical(result[name].to_dataset(), expected[name].to_dataset())


@pytest.fixture(scope="module")
def whole():
    """A run that nothing stopped."""
    return run()


# The warm-up ends in the fourth chunk; with start values, three rounds of four chunks to settle come before.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("initial", "saves"),
    [
        pytest.param(None, (1, 2, 3, 1), id="anywhere"),
        pytest.param(START, (2, 3, 8, 3, 1), id="whitened"),
    ],
)
def test_a_run_that_crashes_again_and_again_ends_in_the_very_same_result(initial, saves, monkeypatch, tmp_path):
    for n_saves in saves:
        with monkeypatch.context() as patch:
            stop_after(patch, n_saves)
            with pytest.raises(CrashError):
                run(initial=initial, checkpoint=tmp_path / "run")
    result = run(initial=initial, checkpoint=tmp_path / "run")
    assert_same(result, run(initial=initial))
    assert (result.attrs["status"], result.attrs["went_on_after"]) == ("finished", 10 * sum(saves))


def test_an_interrupted_run_returns_the_first_draws_of_the_whole_one_and_goes_on(whole, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        stop_after(patch, 6, interrupt)
        stopped = run(checkpoint=tmp_path / "run")
    assert stopped.attrs["status"] == "interrupted"
    # Sixty steps, of which 35 are warm-up.
    drawn = stopped["posterior"].to_dataset()
    xr.testing.assert_identical(drawn, whole["posterior"].to_dataset().isel(draw=slice(25)))
    assert_same(run(checkpoint=tmp_path / "run"), whole)


def test_what_was_written_after_the_last_state_is_written_again(whole, monkeypatch, tmp_path):
    original = chains.save_checkpoint
    with monkeypatch.context() as patch:

        def save(file, state, work):
            # The draws are in the store, the state that counts them is not.
            if int(state.done) == 60:
                raise CrashError
            original(file, state, work)

        patch.setattr(chains, "save_checkpoint", save)
        with pytest.raises(CrashError):
            run(checkpoint=tmp_path / "run")
    store = xr.open_datatree(tmp_path / "run" / "draws.zarr", engine="zarr", consolidated=False)
    # The store begins with the chunk in which the warm-up ends.
    assert np.isfinite(store["posterior/beta"]).all(("chain", "beta_axis_0")).sum() == 30
    assert_same(run(checkpoint=tmp_path / "run"), whole)


def test_more_draws_of_a_finished_run_continue_it_and_fewer_are_cut_from_it(whole, tmp_path, monkeypatch):
    run(checkpoint=tmp_path / "run")
    long = run(checkpoint=tmp_path / "run", draws=70)
    assert_same(long, run(draws=70))
    xr.testing.assert_identical(long["posterior"].to_dataset().isel(draw=slice(45)), whole["posterior"].to_dataset())

    def refuse(*_):
        raise RuntimeError("compiled")

    monkeypatch.setattr(chains, "compile_timed", refuse)
    assert_same(run(checkpoint=tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": 45}, r"{'options': .*'num_warmup': 35.*'num_warmup': 45"),
        ({"initial": START}, "{'start'"),
        ({"target_accept_prob": 0.9}, "{'options'"),
        ({"chains": 3}, r"{'chains': \('2 vectorized', '3 vectorized'\)}"),
    ],
)
def test_a_checkpoint_of_other_work_is_refused(change, message, tmp_path):
    run(checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match=f"belongs to other work; .*{message}"):
        run(checkpoint=tmp_path / "run", **change)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        # A stretch of draws that nothing would tell from false or NaN, an array, all of them.
        ("sample_stats/diverging/c/0/1", "1 of 5 pieces of sample_stats/diverging in .*draws.zarr' are missing"),
        ("posterior/beta/c/0/3/0", "1 of 5 pieces of posterior/beta in"),
        ("posterior/beta", "5 of 5 pieces of posterior/beta in"),
        ("", "5 of 5 pieces of posterior/beta in"),
    ],
)
def test_missing_draws_are_found_before_the_run_goes_on(lost, message, monkeypatch, tmp_path):
    run(checkpoint=tmp_path / "run")
    place = tmp_path / "run" / "draws.zarr" / lost
    place.unlink() if place.is_file() else shutil.rmtree(place)
    monkeypatch.setattr(chains, "compile_timed", crash)
    with pytest.raises(ValueError, match=f"{message}.* Delete the whole folder"):
        run(checkpoint=tmp_path / "run", draws=70)


def test_a_damaged_store_is_refused(tmp_path):
    run(checkpoint=tmp_path / "run")
    (tmp_path / "run" / "draws.zarr" / "posterior" / "beta" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match=r"The draws in .*draws.zarr' are damaged .* Delete the whole folder"):
        run(checkpoint=tmp_path / "run")


def test_draws_without_a_state_are_those_of_another_run(tmp_path):
    run(checkpoint=tmp_path / "run", chains=3)
    (tmp_path / "run" / "state.npz").unlink()
    assert run(checkpoint=tmp_path / "run")["posterior"].sizes["chain"] == 2


def test_an_interruption_while_compiling_returns_what_an_earlier_run_drew(monkeypatch, tmp_path):
    drawn = run(checkpoint=tmp_path / "run", draws=25)
    monkeypatch.setattr(chains, "compile_timed", lambda *_: interrupt())
    again = run(checkpoint=tmp_path / "run", draws=45)
    assert again.attrs["status"] == "interrupted"
    # Stored steps come in tens: 60 have been taken, 35 to warm up.
    expected = drawn["posterior"].to_dataset()
    xr.testing.assert_identical(again["posterior"].to_dataset().isel(draw=slice(25)), expected)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"Cannot keep a checkpoint in .*Name a folder"):
        run(checkpoint=tmp_path / "run")


def test_a_full_disk_ends_in_a_clear_error_and_the_run_goes_on_with_room(whole, monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    original, saves = chains.save_checkpoint, []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(*arguments):
        saves.append(None)
        if len(saves) == 5:
            # From here on no file may grow: what a full disk answers, to draws and states alike.
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(chains, "save_checkpoint", save)
        try:
            with pytest.raises(OSError, match=r"Cannot write .*File too large.*saved before is intact") as raised:
                run(checkpoint=tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in str(raised.value)
    assert_same(run(checkpoint=tmp_path / "run"), whole)


def test_the_message_of_an_early_interruption_says_where_to_go_on(monkeypatch, tmp_path):
    stop_after(monkeypatch, 2, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"after 20 of 35 warm-up steps.*checkpoint='.*run' goes on"):
        run(checkpoint=tmp_path / "run")


def steps_done(state):
    with np.load(state) as archive:
        return int(archive["leaf.done"])


SCRIPT = """
import sys
import jax
from conjugate import INPUTS, linear_model
from connectinfer.inference.nuts import sample_nuts
options = dict(warmup=20, draws=int(sys.argv[2]), chains=2, show_progress=False)
result = sample_nuts(jax.random.key(0), linear_model, INPUTS, checkpoint=sys.argv[1], **options)
print(result.attrs["status"], result["posterior"].sizes["draw"])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_signals_end_a_process_without_losing_its_draws(number, tmp_path):
    state, script = tmp_path / "run" / "state.npz", tmp_path / "script.py"
    script.write_text(SCRIPT)
    # The very same draws take the same optimisations of the compiler.
    settings = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
    environment = settings | {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "run", "100000"], env=environment, stdout=subprocess.PIPE, text=True
    )
    while not (state.exists() and steps_done(state) >= 40):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    if number == signal.SIGTERM:
        status, n_draws = printed.split()
        assert status == "interrupted"
        assert 20 <= int(n_draws) < 100_000
    else:
        assert process.returncode == -signal.SIGKILL
    result = sample_nuts(
        jax.random.key(0),
        linear_model,
        INPUTS,
        warmup=20,
        draws=20,
        chains=2,
        checkpoint=tmp_path / "run",
        show_progress=False,
    )
    expected = sample_nuts(jax.random.key(0), linear_model, INPUTS, warmup=20, draws=20, chains=2, show_progress=False)
    assert_same(result, expected)
    assert result.attrs["went_on_after"] >= 40
