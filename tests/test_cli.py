"""The command line: what it prints, what it writes, and the exit codes that scripts rely on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from connectinfer.cli import app
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.recording import recording
from connectinfer.data.results import open_result
from connectinfer.data.saving import save
from connectinfer.zoo import list_models

MODEL = '''"""Coin flips."""

import jax
import jax.numpy as jnp
from connectinfer.data.recording import recording

CARD = {"system": "coins", "engine": "nuts", "minutes": 1}
DIMS = {}


def inputs(data):
    return {}, {}


def model():
    return None


def example(key):
    return recording(time=0.1, counts=jax.random.poisson(key, 1.0, (2, 5, 3)))
'''


@pytest.fixture(autouse=True)
def settings_of_jax_are_put_back(monkeypatch, tmp_path):
    names = (
        "jax_enable_x64",
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_traceback_filtering",
    )
    before = {name: getattr(jax.config, name) for name in names}
    # A user has set no cache of their own.
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "coins.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def recording_file(tmp_path):
    path = tmp_path / "spikes.nc"
    recording(time=0.1, counts=np.ones((2, 5, 3), int)).to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture
def engine(monkeypatch):
    """Replaces inference and judgement; `calls` are the arguments of `fit`, the rest is what it returns."""
    fake = SimpleNamespace(calls=[], status="finished", passed=True, error=None)

    def fit(model, data, *, engine=None, seed=0, **options):
        fake.calls.append({"model": model, "data": data, "engine": engine, "seed": seed, "options": options})
        if fake.error is not None:
            raise fake.error
        posterior = xr.Dataset({"p": (("chain", "draw"), np.zeros((1, 4)))})
        given = json.dumps({name: value for name, value in options.items() if name != "checkpoint"})
        attrs = {"status": fake.status, "model": Path(model.__file__).stem, "seed": seed, "options": given}
        attrs["source"] = data.attrs["source"]
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "posterior": posterior})

    def diagnose(result):
        assert "posterior" in result.children
        return SimpleNamespace(
            passed=fake.passed, to_markdown=lambda: "| concern | verdict |\n|---|---|\n| R-hat | ok |"
        )

    monkeypatch.setitem(sys.modules, "connectinfer.inference.fit", SimpleNamespace(fit=fit))
    monkeypatch.setitem(sys.modules, "connectinfer.diagnostics.checks", SimpleNamespace(diagnose=diagnose))
    return fake


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["sweep", "--help"], ["models"], ["--version"]])
def test_help_and_the_list_of_models_import_no_jax(arguments, tmp_path):
    code = (
        "import sys, json\nfrom connectinfer.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"jax", "numpyro", "xarray", "arviz", "matplotlib", "numpy", "scipy", "pandas", "networkx", "h5py"}
    assert not heavy & loaded
    assert len(done.stdout.splitlines()) > 1


def test_the_installed_command_lists_the_zoo(tmp_path):
    command = [Path(sys.executable).with_name("connectinfer"), "models"]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert all(card.name in done.stdout for card in list_models())


def test_without_a_command_the_help_is_shown(run):
    result = run()
    assert result.exit_code == 0
    assert "doctor" in result.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["fit"], ["fit", "x.nc", "--model", "m", "--nonsense"]])
def test_mistyped_commands_are_user_errors(run, arguments):
    assert run(*arguments).exit_code == 1


def test_a_fit_passes_everything_on_and_writes_what_comes_back(run, engine, recording_file, model_file):
    options = ["--rank", 2, "--option", "steps=50", "--option", "guide=flow", "--option", "tied=true"]
    result = run("fit", recording_file, "--model", model_file, *options, "--engine", "svi", "--seed", 7)
    assert result.exit_code == 0, result.output
    (call,) = engine.calls
    assert call["model"].CARD["system"] == "coins"
    assert (call["engine"], call["seed"]) == ("svi", 7)
    assert call["options"] == {"rank": 2, "steps": 50, "guide": "flow", "tied": True}
    assert call["data"].sizes == {"trial": 2, "time": 5, "unit": 3}
    assert "counts of 2 trials x 5 bins x 3 units, bins of 0.1 s" in result.stderr
    assert "| R-hat | ok |" in result.stdout
    with xr.open_datatree("fit.nc", engine="h5netcdf") as written:
        assert written["posterior"]["p"].shape == (1, 4)


def test_fields_and_values_reach_the_reader(run, engine, model_file, tmp_path):
    np.savez(tmp_path / "spikes.npz", spikes=np.ones((2, 5, 3), int))
    fields = ["--field", "counts=spikes", "--value", "bin_width=0.02"]
    result = run("fit", "spikes.npz", "--model", model_file, *fields)
    assert result.exit_code == 0, result.output
    assert engine.calls[0]["data"].attrs["bin_width"] == pytest.approx(0.02)


@pytest.mark.usefixtures("engine")
def test_mapping_errors_say_how_the_shell_spells_it(run, model_file, tmp_path):
    np.savez(tmp_path / "spikes.npz", spikes=np.ones((2, 5, 3), int))
    unmapped = run("fit", "spikes.npz", "--model", model_file)
    assert unmapped.exit_code == 1
    assert "--field counts=trials.spikes and values --value bin_width=0.01" in unmapped.stderr
    (tmp_path / "broken_fields.npz").write_bytes(b"no archive")
    assert "--field" not in run("fit", "broken_fields.npz", "--model", model_file).stderr


@pytest.mark.usefixtures("engine")
@pytest.mark.filterwarnings("default")
def test_more_units_than_bins_are_pointed_out(run, model_file, tmp_path):
    np.savez(tmp_path / "spikes.npz", counts=np.ones((3, 5), int), bin_width=0.02)
    assert "Warning: `counts` of shape (3, 5) is taken" in run("fit", "spikes.npz", "--model", model_file).stderr
    np.savez(tmp_path / "right.npz", counts=np.ones((5, 3), int), bin_width=0.02)
    assert "Warning" not in run("fit", "right.npz", "--model", model_file, "--force").stderr


def test_failed_diagnostics_leave_with_3_and_the_file_is_there(run, engine, recording_file, model_file, tmp_path):
    engine.passed = False
    assert run("fit", recording_file, "--model", model_file).exit_code == 3
    assert run("diagnose", tmp_path / "fit.nc").exit_code == 3
    engine.passed = True
    assert run("diagnose", tmp_path / "fit.nc").exit_code == 0


@pytest.fixture
def result_file(tmp_path):
    """A result of one chain, in which nothing is wrong."""
    draws = np.random.default_rng(0).normal(size=(1, 400))
    stats = {name: (("chain", "draw"), np.zeros((1, 400), bool)) for name in ("diverging", "reached_max_tree_depth")}
    sample_stats = xr.Dataset(stats | {"energy": (("chain", "draw"), draws[:, ::-1])})
    posterior = xr.Dataset({"p": (("chain", "draw"), draws)})
    save(xr.DataTree.from_dict({"posterior": posterior, "sample_stats": sample_stats}), tmp_path / "own.nc")
    return tmp_path / "own.nc"


def test_a_report_lies_beside_the_result_unless_told_otherwise(run, result_file, tmp_path):
    result = run("report", result_file)
    assert result.exit_code == 0, result.output
    assert "own.html (0.0 MB): Nothing failed; not certified: R-hat of parameters." in " ".join(result.stderr.split())
    assert run("report", result_file, "--output", "own.html").exit_code == 1
    assert run("report", result_file, "--output", "own.html", "--force").exit_code == 0
    save(open_result(result_file), tmp_path / "own.zarr")
    assert run("report", "own.zarr", "--output", "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "own.html").read_bytes()


def test_a_report_on_a_failed_fit_is_written_and_leaves_with_3(run, result_file, tmp_path):
    failed = open_result(result_file)
    failed["sample_stats"]["diverging"].values[0, :5] = True
    save(failed, result_file, overwrite=True)
    assert run("report", result_file).exit_code == 3
    assert "Do not use this fit yet: divergences failed." in (tmp_path / "own.html").read_text(encoding="utf-8")


def test_an_interrupted_fit_is_written_and_said_to_be_partial(run, engine, recording_file, model_file, tmp_path):
    engine.status = "interrupted"
    result = run("fit", recording_file, "--model", model_file)
    assert result.exit_code == 0
    assert "interrupted; wrote what there was to fit.nc" in result.stderr
    assert (tmp_path / "fit.nc").is_file()


def test_an_interruption_before_any_draw_writes_nothing(run, engine, recording_file, model_file, tmp_path):
    engine.error = KeyboardInterrupt()
    result = run("fit", recording_file, "--model", model_file)
    assert result.exit_code == 130
    assert "nothing else was kept" in result.stderr
    assert not list(tmp_path.glob("fit.nc*"))
    result = run("fit", recording_file, "--model", model_file, "--checkpoint", "kept")
    assert "and the same command goes on from what is in kept" in " ".join(result.stderr.split())


def test_the_same_command_goes_on_after_an_interruption(run, engine, recording_file, model_file, tmp_path):
    command = ("fit", recording_file, "--model", model_file, "--checkpoint", "kept")
    engine.status = "interrupted"
    assert run(*command).exit_code == 0
    # Without a state to go on from, the output is all that there is.
    assert run(*command).exit_code == 1
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("")
    assert run(*command).exit_code == 1
    (tmp_path / "kept" / "state.npz").write_text("")
    shutil.copy(recording_file, tmp_path / "other.nc")
    assert run("fit", "other.nc", *command[2:]).exit_code == 1
    for other in (("--seed", "5"), ("--option", "p=1")):
        assert run(*command, *other).exit_code == 1
    engine.status = "finished"
    assert run(*command).exit_code == 0
    assert engine.calls[1]["options"]["checkpoint"] == Path("kept")
    # The output of a finished fit is not replaced.
    assert run(*command).exit_code == 1


def test_an_existing_result_is_overwritten_only_with_force(run, engine, recording_file, model_file, tmp_path):
    (tmp_path / "fit.nc").write_text("precious")
    result = run("fit", recording_file, "--model", model_file)
    assert result.exit_code == 1
    assert "fit.nc exists; name another file, or give --force" in result.stderr
    assert not engine.calls
    # What is missing comes before what is in the way.
    assert "nothing.npz" in run("fit", "nothing.npz", "--model", model_file).stderr
    assert (tmp_path / "fit.nc").read_text() == "precious"
    assert run("fit", recording_file, "--model", model_file, "--force").exit_code == 0
    assert (tmp_path / "fit.nc").read_bytes() != b"precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["fit", "spikes.nc", "--model", "low_rank_rnn_poison"], "Unknown model 'low_rank_rnn_poison'", id="model"
        ),
        pytest.param(["fit", "spikes.nc", "--model", "other.py"], "No model file at 'other.py'", id="model file"),
        pytest.param(["fit", "absent.nc", "--model", "coins.py"], "absent.nc", id="recording"),
        pytest.param(
            ["fit", "spikes.nc", "--model", "coins.py", "--output", "fit.txt"], "must end in .nc", id="suffix"
        ),
        pytest.param(
            ["fit", "spikes.nc", "--model", "coins.py", "--output", "no/fit.nc"], "does not exist", id="folder"
        ),
        pytest.param(["fit", "spikes.nc", "--model", "coins.py", "--option", "steps"], "takes key=value", id="pair"),
        pytest.param(
            ["fit", "spikes.nc", "--model", "coins.py", "--rank", "2", "--option", "rank=3"], "given twice", id="twice"
        ),
        pytest.param(["simulate", "coins.py", "--output", "spikes.nc"], "spikes.nc exists", id="simulate"),
        pytest.param(
            ["sweep", "spikes.nc", "absent.nc", "--model", "coins.py", "--output", "out"],
            "no file absent.nc",
            id="sweep",
        ),
        pytest.param(["diagnose", "absent.nc"], "No result at absent.nc", id="result"),
        pytest.param(["diagnose", "coins.py"], "no netCDF file, or a damaged one", id="damaged"),
        pytest.param(["diagnose", "spikes.nc"], "no group `posterior`, but counts, mask", id="not a result"),
        pytest.param(["report", "absent.nc"], "No result at absent.nc", id="report"),
        pytest.param(["report", "spikes.nc", "--output", "no/a.html"], "The folder no of the output", id="no folder"),
        pytest.param(
            ["report", "spikes.nc", "--output", "coins.py"], "coins.py exists; name another", id="page exists"
        ),
        pytest.param(["demo", "--output", "."], "is not empty", id="demo"),
    ],
)
@pytest.mark.usefixtures("engine", "recording_file", "model_file")
def test_a_user_error_is_one_message_without_traceback(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert run(*arguments, "--debug").exception.__class__ is not SystemExit


def test_a_defect_keeps_its_traceback(run, model_file):
    model_file.write_text(MODEL.replace("jax.random.poisson(key, 1.0, (2, 5, 3))", "jnp.ones(3) + jnp.ones(4)"))
    assert isinstance(run("simulate", model_file).exception, TypeError)


def test_simulate_writes_a_recording_that_the_seed_repeats(run, model_file, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        result = run("simulate", model_file, "--output", f"{name}.nc", "--seed", seed)
        assert result.exit_code == 0, result.output
    a, b, c = (xr.load_dataset(tmp_path / f"{name}.nc", engine="h5netcdf")["counts"].values for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize(("precision", "expected"), [("float32", False), ("float64", True)])
def test_precision_is_set_before_the_fit(run, engine, recording_file, model_file, precision, expected):
    seen = []
    engine.calls = SimpleNamespace(append=lambda _: seen.append(jax.config.jax_enable_x64))
    assert run("fit", recording_file, "--model", model_file, "--precision", precision).exit_code == 0
    assert seen == [expected]


@pytest.fixture
def sweep_fits(monkeypatch):
    """Replaces the fits of a sweep; `calls` are their settings."""
    fake = SimpleNamespace(calls=[], error=None)

    def fit(model, data, *, checkpoint, show_progress, **settings):
        assert (Path(model).is_file(), data.sizes["unit"], checkpoint.suffix, show_progress) == (
            True,
            3,
            ".partial",
            False,
        )
        fake.calls.append(settings)
        if fake.error is not None:
            raise fake.error
        return xr.DataTree(xr.Dataset(attrs={"status": "finished", "wall_time": 0.5}))

    monkeypatch.setattr("connectinfer.inference.sweep.fit", fit)
    return fake


def test_a_sweep_prints_and_keeps_its_table_and_the_same_again_fits_nothing(run, sweep_fits, recording_file, tmp_path):
    (tmp_path / "rates.py").write_text(MODEL.replace("def inputs(data):", "def inputs(data, rank=1):"))
    words = ["sweep", recording_file, "--model", "rates.py", "--output", "out", "--field", "counts=counts"]
    words += ["--value", "bin_width=0.1", "--over", "rank=1,2", "--over", "seed=0,1", "--option", "steps=5"]
    result = run(*words, "--engine", "svi")
    assert result.exit_code == 0, result.output
    assert [line.split()[1:4] for line in result.stdout.splitlines()[1:]] == [
        [rank, seed, "finished"] for rank in "12" for seed in "01"
    ]
    assert sweep_fits.calls == [
        {"rank": rank, "seed": seed, "engine": "svi", "steps": 5} for rank in (1, 2) for seed in (0, 1)
    ]
    assert (tmp_path / "out" / "sweep.csv").read_text().startswith("recording,rank,seed,status,seconds,file,error")
    assert run(*words, "--engine", "svi").stdout == result.stdout
    assert len(sweep_fits.calls) == 4


@pytest.mark.filterwarnings("default")
def test_a_sweep_leaves_with_3_when_a_fit_failed_and_with_130_when_interrupted(
    run, sweep_fits, recording_file, model_file
):
    words = ["sweep", recording_file, "--model", model_file, "--output", "out"]
    sweep_fits.error = KeyboardInterrupt()
    result = run(*words)
    assert result.exit_code == 130
    assert "the same command goes on from what is in out" in " ".join(result.stderr.split())
    sweep_fits.error = ValueError("too few spikes")
    result = run(*words)
    assert result.exit_code == 3
    assert "Warning: 1 of 1 fits failed, the first with ValueError: too few spikes" in " ".join(result.stderr.split())


def test_the_demo_gets_its_folder_and_its_exit_code_is_ours(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setitem(
        sys.modules,
        "connectinfer.demo",
        SimpleNamespace(run_demo=lambda folder, *, seed: calls.append((folder, seed)) or 3),
    )
    assert run("demo", "--output", tmp_path / "new", "--seed", 5).exit_code == 3
    assert calls == [(tmp_path / "new", 5)]
    assert (tmp_path / "new").is_dir()


@pytest.fixture
def edges(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("source,target,syn\n648518346349539437,5,2\n5,648518346349539437,1\n")
    return path


EDGES = ["--field", "pre=source", "--field", "post=target", "--field", "weight=syn"]


@pytest.mark.parametrize(
    "target", ["w.nc", "w.zarr", "w.graphml", "w.json", "w.gml", "w.edgelist", "w.parquet", "w.tsv"]
)
def test_a_connectome_is_converted_and_what_was_read_is_said(run, edges, tmp_path, target):
    result = run("convert", edges, target, *EDGES)
    assert result.exit_code == 0, result.output
    assert "connectome of 2 neurons and 2 edges" in result.stderr
    assert "read: pre from source, post from target, weight from syn" in result.stderr
    assert f"wrote it to {target}" in result.stderr
    made = open_connectome(tmp_path / target)
    assert dict(zip(made["pre"].values.tolist(), made["weight"].values.tolist(), strict=True)) == {
        648518346349539437: 2, 5: 1,
    }  # fmt: skip


def test_a_converted_connectome_converts_on_without_options(run, edges, tmp_path):
    for source, target in ((edges, "a.graphml"), ("a.graphml", "b.json"), ("b.json", "c.nc"), ("c.nc", "d.gml")):
        result = run("convert", source, target, *(EDGES if source is edges else []))
        assert result.exit_code == 0, result.output
    assert open_connectome(tmp_path / "d.gml")["neuron"].values.tolist() == [5, 648518346349539437]


def test_a_recording_is_converted_with_its_values(run, tmp_path):
    np.savez(tmp_path / "spikes.npz", spikes=np.ones((2, 5, 3), int))
    result = run("convert", "spikes.npz", "spikes.zarr", "--field", "counts=spikes", "--value", "bin_width=0.02")
    assert result.exit_code == 0, result.output
    assert "counts of 2 trials x 5 bins x 3 units, bins of 0.02 s" in result.stderr
    assert open_recording(tmp_path / "spikes.zarr").attrs["bin_width"] == 0.02


@pytest.mark.filterwarnings("default")
def test_what_the_target_cannot_hold_is_one_line(run, edges):
    assert run("convert", edges, "w.nc", *EDGES).exit_code == 0
    result = run("convert", "w.nc", "net")
    assert result.exit_code == 0, result.output
    assert "Warning: net cannot hold these ids" in result.stderr
    assert run("convert", "net/circuit_config.json", "again.json").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["edges.csv", "w.nc"], "may hold a recording or a connectome: say which by --as", id="unknown"),
        pytest.param(["edges.csv", "w.nc", "--as", "connectome"], "--field counts=trials.spikes", id="no fields"),
        pytest.param(["edges.csv", "w.xyz", *EDGES], "a connectome is written as .nc, .zarr,", id="suffix"),
        pytest.param(["edges.csv", "edges.csv", *EDGES], "edges.csv exists; name another file, or", id="exists"),
        pytest.param(["edges.csv", "no/w.nc", *EDGES], "The folder no of the output does not exist", id="folder"),
        pytest.param(["absent.csv", "w.nc"], "there is no file absent.csv", id="absent"),
        pytest.param(["edges.csv", "w.nc", *EDGES, "--value", "x=1"], "--value is for recordings", id="value"),
        pytest.param(["edges.csv", "w.nc", "--as", "music"], "'music' is not one of", id="kind"),
    ],
)
@pytest.mark.usefixtures("edges")
def test_a_mistaken_conversion_is_one_message_and_writes_nothing(run, tmp_path, arguments, message):
    result = run("convert", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["edges.csv"]


def test_rank_shows_every_rank_marks_the_chosen_one_and_draws_it(run, recording_file, monkeypatch, tmp_path):
    def select_rank(data, ranks, **options):
        assert options == {"model": "low_rank_rnn_poisson", "seed": 3, "draws": 9}
        rows = {"score": [0.1, 0.3], "difference": [-0.2, 0.0], "difference_error": [0.01, 0.0]}
        attrs = {"chosen": ranks[1], "best": ranks[1], "units": "bits per spike", "message": "Rank 3 suffices."}
        selection = xr.Dataset({n: ("rank", x) for n, x in rows.items()}, {"rank": ranks}, attrs)
        return selection.assign(gain=(("rank", "trial"), np.zeros((2, data.sizes["trial"]))))

    fake = SimpleNamespace(select_rank=select_rank)
    monkeypatch.setitem(sys.modules, "connectinfer.diagnostics.rank_selection", fake)
    picture = tmp_path / "ranks.png"
    words = ("rank", recording_file, "--ranks", "1,3", "--seed", 3, "--option", "draws=9", "--output", picture)
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "0.3000" in result.stdout
    assert "-0.2000 ± 0.0100" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines() if "chosen" in line] == ["3"]
    assert "Rank 3 suffices." in result.stderr
    assert picture.is_file()
    plt.close("all")
    assert run(*words).exit_code == 1
    assert "whole numbers with commas between them" in run("rank", recording_file, "--ranks", "1-4").stderr


def test_doctor_reports_the_machine(run, tmp_path):
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for text in (jax.__version__, "cpu:0", "float32", str(tmp_path / "cache"), "cores"):
        assert text in result.stdout.replace("\n", "")
