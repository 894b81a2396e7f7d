import hashlib
import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from connectinfer.data.content import content_digest
from connectinfer.data.reading import open_recording
from connectinfer.data.recording import recording
from connectinfer.data.results import open_result
from connectinfer.data.saving import save
from connectinfer.inference import fit as fit_module
from connectinfer.inference.fit import fit
from connectinfer.inference.sweep import local_workers, sweep

MODEL = '''"""Counts at a constant rate."""

import numpyro
import numpyro.distributions as dist

CARD = {"system": "rates", "engine": "svi", "minutes": 0.1}
DIMS = {}


def inputs(data, shape=1.0):
    return {"counts": data["counts"].values, "shape": shape}, {"unit": data["unit"].values}


def model(counts, shape):
    with numpyro.plate("unit", counts.shape[-1], dim=-1):
        rate = numpyro.sample("rate", dist.Gamma(shape, 1.0))
        with numpyro.plate("trial", counts.shape[0], dim=-3), numpyro.plate("time", counts.shape[1], dim=-2):
            numpyro.sample("counts", dist.Poisson(rate), obs=counts)
'''
IN_THIS_PROCESS = {
    "processes": False,
    "dashboard_address": "127.0.0.1:0",
    "worker_dashboard_address": "127.0.0.1:0",
}
COUNTS = np.random.default_rng(0).poisson(2.0, (2, 4, 3))
SESSION = recording(counts=COUNTS, time=0.1, unit=["a", "b", "c"])
OTHER = recording(counts=COUNTS + 1, time=0.1, unit=["a", "b", "c"])


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "rates.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def fits(monkeypatch):
    """Settings of the fits that were begun; the engine in their place returns the sum of the data."""
    begun = []

    def engine(key, model, inputs, *, labels=None, initial=None, steps=1, checkpoint=None, show_progress=True):
        del key, model, labels, initial, show_progress
        begun.append((float(inputs["shape"]), steps, Path(checkpoint).name))
        if inputs["shape"] < 0:
            raise ValueError("`shape` must be positive.")
        if inputs["shape"] == 99:
            raise KeyboardInterrupt
        if inputs["shape"] == 98:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        total = xr.Dataset({"total": inputs["counts"].sum()})
        attrs = {"status": "diverged" if inputs["shape"] == 50 else "finished", "wall_time": 0.5}
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "posterior": total})

    monkeypatch.setitem(fit_module.ENGINES, "svi", engine)
    return begun


run = partial(sweep, show_progress=False)


def test_every_fit_of_a_sweep_is_the_plain_fit(model_file, tmp_path):
    table = run(model_file, SESSION, tmp_path / "out", over={"seed": [4]}, steps=20, draws=4)
    assert dict(table.sizes) == {"recording": 1, "seed": 1}
    assert (table["status"] == "finished").all()
    assert (table["seconds"] > 0).all()
    assert table.attrs["status"] == "finished"
    one = table.sel(recording="recording", seed=4)
    kept = open_result(tmp_path / "out" / str(one["file"].values))
    plain = fit(model_file, SESSION, seed=4, steps=20, draws=4, show_progress=False)
    assert kept.attrs["seed"] == 4
    for group in plain.children:
        xr.testing.assert_identical(kept[group].to_dataset(), plain[group].to_dataset())
    # Checkpoints go with the end of the fit, and nothing else is left.
    assert sorted(os.listdir(tmp_path / "out")) == sorted(table["file"].values.ravel())


def test_the_table_has_every_recording_and_combination(model_file, fits, tmp_path):
    over = {"shape": [0.5, 2.0], "seed": np.arange(3)}
    table = run(model_file, {"one": SESSION, "two": OTHER}, tmp_path / "out", over=over, steps=7)
    assert dict(table.sizes) == {"recording": 2, "shape": 2, "seed": 3}
    assert len(fits) == len(set(table["file"].values.ravel())) == 12
    assert {steps for _, steps, _ in fits} == {7}
    file = table["file"].sel(recording="two", shape=2.0, seed=1).item()
    result = open_result(tmp_path / "out" / file)
    assert result["posterior"]["total"] == (COUNTS + 1).sum()
    assert json.loads(result.attrs["options"]) == {"shape": 2.0, "steps": 7}


def test_what_is_there_is_not_computed_again(model_file, fits, tmp_path):
    first = run(model_file, SESSION, tmp_path, over={"shape": [1.0, 2.0]})
    assert len(fits) == 2
    again = run(model_file, SESSION, tmp_path, over={"shape": [2.0, 1.0, 3.0]}, seed=0, engine="svi")
    assert [shape for shape, _, _ in fits] == [1.0, 2.0, 3.0]
    xr.testing.assert_identical(again.sel(shape=[1.0, 2.0]), first)


def test_equal_recordings_are_fitted_once(model_file, fits, tmp_path):
    save(SESSION, tmp_path / "session.nc")
    save(SESSION, tmp_path / "session.zarr")
    same = {
        "memory": SESSION,
        "netCDF": tmp_path / "session.nc",
        "function": partial(open_recording, tmp_path / "session.zarr"),
    }
    table = run(model_file, same, tmp_path / "out")
    assert len(fits) == 1
    assert len(set(table["file"].values)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"options": {"steps": 2}},
        {"options": {"seed": 1}},
        {"recordings": OTHER},
        {"recordings": SESSION.assign_coords(unit=["a", "b", "d"])},
        {"recordings": SESSION.assign_attrs(area="V1")},
        {"code": MODEL + "\n"},
    ],
    ids=["option", "seed", "counts", "labels", "attributes", "model file"],
)
def test_whatever_decides_a_result_makes_another_file(model_file, fits, tmp_path, changed):
    run(model_file, SESSION, tmp_path / "out", steps=1)
    model_file.write_text(changed.get("code", MODEL))
    run(model_file, changed.get("recordings", SESSION), tmp_path / "out", **{"steps": 1} | changed.get("options", {}))
    assert len(fits) == len(os.listdir(tmp_path / "out")) == 2


def test_where_a_recording_came_from_does_not_count():
    assert content_digest(SESSION) == content_digest(SESSION.assign_attrs(source="a.nwb", read="counts"))
    assert content_digest(SESSION) != content_digest(SESSION.rename(unit="neuron"))


def test_failed_fits_stop_no_others_and_are_tried_again(model_file, fits, tmp_path):
    sessions = {"good": SESSION, "absent": tmp_path / "absent.nc"}
    with pytest.warns(UserWarning, match="3 of 4 fits failed, the first with ValueError: `shape` must be positive"):
        table = run(model_file, sessions, tmp_path, over={"shape": [-1.0, 1.0]})
    assert table["status"].values.tolist() == [["failed", "finished"], ["failed", "failed"]]
    assert table["error"].values[0].tolist() == ["ValueError: `shape` must be positive.", ""]
    assert "FileNotFoundError: there is no file" in table["error"].values[1, 0]
    assert np.isnan(table["seconds"].values[1]).all()
    with pytest.warns(UserWarning, match="1 of 2 fits failed"):
        run(model_file, SESSION, tmp_path, over={"shape": [-1.0, 1.0]})
    assert [shape for shape, _, _ in fits] == [-1.0, 1.0, -1.0]


def test_diverged_fits_are_counted(model_file, fits, tmp_path):
    with pytest.warns(UserWarning, match="1 of 2 fits diverged"):
        table = run(model_file, SESSION, tmp_path, over={"shape": [1.0, 50.0]})
    assert table["status"].values.tolist() == [["finished", "diverged"]]
    assert len(fits) == 2


def test_an_interrupted_sweep_goes_on(model_file, fits, tmp_path, capsys):
    table = sweep(model_file, SESSION, tmp_path, over={"shape": [1.0, 99.0, 3.0]})
    assert table["status"].values.tolist() == [["finished", "interrupted", "interrupted"]]
    assert table.attrs["status"] == "interrupted"
    assert "interrupted: 1 of 3 fits are done; the same call goes on" in " ".join(capsys.readouterr().err.split())
    run(model_file, SESSION, tmp_path, over={"shape": [1.0, 3.0]})
    assert [shape for shape, _, _ in fits] == [1.0, 99.0, 3.0]


def test_what_a_killed_process_left_is_no_result_and_is_cleared_away(model_file, fits, tmp_path):
    (name,) = run(model_file, SESSION, tmp_path)["file"].values
    before = open_result(tmp_path / name)
    # Killed before the result had its name: the same again, from the checkpoint.
    (tmp_path / name).rename(tmp_path / "moved")
    (tmp_path / f".{name}.abc" / name).mkdir(parents=True)
    run(model_file, SESSION, tmp_path)
    assert len(fits) == 2
    assert {each.name for each in tmp_path.iterdir()} == {name, "moved", "rates.py"}
    xr.testing.assert_identical(open_result(tmp_path / name), before)
    # Killed after that: the checkpoint goes, the result stays.
    (tmp_path / Path(name).with_suffix(".partial")).mkdir()
    run(model_file, SESSION, tmp_path)
    assert len(fits) == 2
    assert {each.name for each in tmp_path.iterdir()} == {name, "moved", "rates.py"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"shap": 1.0}, r"Unknown option 'shap' .* Did you mean 'shape'\?", id="option"),
        pytest.param({"over": {"sed": [1, 2]}}, r"Unknown option 'sed'", id="swept option"),
        pytest.param({"over": {"engine": ["svi", "nut"]}}, r"Unknown engine 'nut'.* Did you mean 'nuts'", id="engine"),
        pytest.param({"over": {"seed": [1]}, "seed": 2}, "seed: given both in `over` and as an option", id="twice"),
        pytest.param({"over": {"seed": []}}, r"a list of numbers.* for 'seed'; got \[\]", id="empty"),
        pytest.param({"over": {"guide": "normal"}}, "a list of numbers.* for 'guide'; got 'normal'", id="text"),
        pytest.param({"over": {"seed": [1, 1]}}, r"of one kind and differ; got \[1, 1\]", id="repeated"),
        pytest.param({"over": {"guide": ["flow", 1]}}, r"of one kind and differ; got \['flow', 1\]", id="kinds"),
        pytest.param(
            {"guide": np.mean}, "must be numbers, text, or lists of them; got guide=<function mean", id="function"
        ),
        pytest.param({"checkpoint": "kept"}, "leave out `checkpoint`", id="checkpoint"),
        pytest.param({"over": {"checkpoint": ["a", "b"]}}, "leave out `checkpoint`", id="swept checkpoint"),
        pytest.param({"recordings": {}}, "`recordings` is empty", id="no recordings"),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_run(model_file, tmp_path, arguments, message):
    given = {"recordings": SESSION, "folder": tmp_path / "out"} | arguments
    with pytest.raises(ValueError, match=message):
        run(model_file, **given)


@pytest.fixture(scope="module")
def threads():
    """Workers in this process, two threads each, which nothing can reach from outside."""
    with Client(n_workers=1, threads_per_worker=2, **IN_THIS_PROCESS) as client:
        yield client


def test_workers_do_the_same_as_this_process(model_file, fits, threads, tmp_path):
    given = {"over": {"shape": [1.0, -1.0, 2.0], "seed": [0, 1]}}
    sessions = {"one": SESSION, "two": OTHER}
    with pytest.warns(UserWarning, match="4 of 12 fits failed"):
        here = run(model_file, sessions, tmp_path / "here", **given)
    n = len(fits)
    with pytest.warns(UserWarning, match="4 of 12 fits failed"):
        there = run(model_file, sessions, tmp_path / "there", client=threads, **given)
    assert len(fits) == 2 * n
    xr.testing.assert_identical(there.assign_attrs(folder=""), here.assign_attrs(folder=""))
    assert len(os.listdir(tmp_path / "there" / "recordings")) == 2


def test_ctrl_c_takes_back_what_waits_for_a_worker(model_file, fits, tmp_path):
    with Client(n_workers=1, threads_per_worker=1, **IN_THIS_PROCESS) as client:
        table = run(model_file, SESSION, tmp_path / "out", over={"shape": [98.0, 1.0, 2.0, 3.0]}, client=client)
        assert (table["status"] == "interrupted").all()
        # What a worker had begun is kept.
        while not list(tmp_path.glob("out/*.zarr")):
            time.sleep(0.01)
    assert [shape for shape, _, _ in fits] == [98.0]


def test_a_worker_that_sees_other_code_says_so(model_file, threads, tmp_path, monkeypatch):
    own = "connectinfer.inference.sweep.content_digest"
    monkeypatch.setattr(own, lambda _: hashlib.sha256(str(time.monotonic_ns()).encode()).hexdigest())
    with pytest.warns(UserWarning, match="This worker sees another recording, model file or version of connectinfer"):
        run(model_file, SESSION, tmp_path, client=threads)


@pytest.mark.slow
def test_killed_workers_lose_and_duplicate_nothing(model_file, tmp_path):
    given = {"over": {"seed": [0, 1, 2]}, "steps": 20_000, "draws": 4}
    calm = run(model_file, SESSION, tmp_path / "calm", **given)
    folder, begun, done = tmp_path / "disturbed", [], threading.Event()
    with local_workers(2) as client:
        pids = client.run(os.getpid)

        def kill_in_the_middle():
            while not begun and not done.wait(0.01):
                begun.extend(folder.glob("*.partial/state.npz"))
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=kill_in_the_middle)
        thread.start()
        disturbed = run(model_file, SESSION, folder, client=client, **given)
        done.set()
        thread.join()
        assert not set(pids.values()) & set(client.run(os.getpid).values())
    assert begun
    assert (disturbed["status"] == "finished").all()
    xr.testing.assert_equal(disturbed["file"], calm["file"])
    assert {each.name for each in folder.iterdir()} == {*calm["file"].values.ravel(), "recordings"}
    for name in calm["file"].values.ravel():
        one, other = (open_result(tmp_path / place / name) for place in ("calm", "disturbed"))
        for group in one.children:
            xr.testing.assert_identical(one[group].to_dataset(), other[group].to_dataset())
