"""What the documentation shows is true: every snippet and every example runs, every link leads somewhere."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pynwb
import pytest
import scipy.io
import scipy.signal
import typer.main
from jax.experimental.compilation_cache import compilation_cache
from shared_data import SHARED_DATA, needs_shared_data

from connectinfer.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.ipynb"))]
PAGES = [page for page in PAGES if not {"_build", "jupyter_execute", "generated"} & set(page.relative_to(ROOT).parts)]
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```(python|\{code-cell\}.*|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
# Long runs of the documentation are shortened to these.
TINY = {"steps": 50, "warmup": 20, "draws": 20, "thinning": 2, "chains": 2, "max_tree_depth": 4}
CACHE, CACHE_FROM = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"


def name_of(page: Path) -> str:
    """The page as its path in the repository."""
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """A page in Markdown; of a notebook, whose outputs are stored, the cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells)


def blocks(page: Path, *languages: str) -> list[str]:
    """Code blocks of a page that are meant to run."""
    found = BLOCK.findall(text_of(page))
    return [code for mark, language, code in found if not mark and language.split("}")[0].strip("{") in languages]


def run_page(page: Path, folder: Path, monkeypatch) -> None:
    """Runs the Python of a page from top to bottom in one namespace, in `folder`."""
    monkeypatch.chdir(folder)
    names: dict = {"__name__": "__main__"}
    try:
        for number, code in enumerate(blocks(page, "python", "code-cell")):
            for option, value in TINY.items():
                code = re.sub(rf"\b{option}=\d+", f"{option}={value}", code)
            exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    finally:
        plt.close("all")


def write_session(folder: Path) -> None:
    """One small session in the formats of the documentation: 6 trials of 40 bins of 10 ms, 12 units."""
    rng = np.random.default_rng(0)
    drive = np.sin(np.linspace(0, 6, 40) + rng.uniform(0, 6, (6, 1)))
    spikes = rng.poisson(0.4 * np.exp(0.8 * drive[..., None] * rng.normal(size=12)))
    np.savez(folder / "session.npz", spikes=spikes)
    for day in ("monday", "tuesday"):
        light = np.zeros((6, 40))
        for trial, onset in enumerate(rng.permutation(6) * 4 + 5):
            light[trial, onset : onset + 10] = 1.0
        answer = scipy.signal.lfilter([0.1], [1, -0.9], light)[..., None]
        np.savez(folder / f"{day}.npz", spikes=rng.poisson(0.5 * np.exp(3 * answer * rng.normal(size=12))), light=light)
    session = {"spikes": spikes.transpose(2, 1, 0), "unit_ids": np.arange(12) + 1.0, "choice": np.arange(6) % 2}
    scipy.io.savemat(folder / "session.mat", {"session": session})
    table = pd.DataFrame(spikes.reshape(-1, 12), columns=[f"unit_{i}" for i in range(12)])
    table["trial"], table["time"], table["light"] = np.repeat(np.arange(6), 40), np.tile(np.arange(40) * 0.01, 6), 0.5
    table.to_csv(folder / "session.csv", index=False)
    times = np.sort(rng.uniform(0, 30, 2000))
    onsets = np.arange(1.0, 29.0)
    np.savez(folder / "spikes.npz", times=times, clusters=rng.integers(0, 12, 2000), stimulus_onset=onsets)
    write_nwb(folder / "session.nwb", times)
    edges = {"from": [1, 2, 3, 3], "to": [2, 3, 1, 2], "strength": [0.5, 1.5, 0.25, 2.0]}
    pd.DataFrame(edges).to_csv(folder / "edges.csv", index=False)
    (folder / "coupled_poisson.py").write_text((ROOT / "examples/models/coupled_poisson.py").read_text())


def write_nwb(path, times):
    """Four units and five trials."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    file = pynwb.NWBFile(session_description="made up", identifier="0", session_start_time=start)
    for unit in range(4):
        file.add_unit(spike_times=times[unit::4])
    for trial in range(5):
        file.add_trial(start_time=1.0 + 5 * trial, stop_time=4.0 + 5 * trial)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)


@pytest.fixture(scope="module", autouse=True)
def shared_compilations(tmp_path_factory):
    """Pages fit recordings of one shape; what one compiled the others read."""
    before = {name: getattr(jax.config, name) for name in (CACHE, CACHE_FROM)}
    jax.config.update(CACHE, str(tmp_path_factory.mktemp("compiled")))
    jax.config.update(CACHE_FROM, 0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def fitted_session(tmp_path_factory):
    """A folder with the session files, and `fit.nc` as the README writes it, which pages without a fit read."""
    folder = tmp_path_factory.mktemp("session")
    write_session(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_page(ROOT / "README.md", folder, monkeypatch)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=needs_shared_data if page.suffix == ".ipynb" else (), id=name_of(page))
        for page in PAGES
        if blocks(page, "python", "code-cell")
    ],
)
def test_the_snippets_of_a_page_run(page, fitted_session, tmp_path, monkeypatch):
    monkeypatch.setenv("CONNECTINFER_CLICKS", str(SHARED_DATA / "recordings" / "rat_poisson_clicks"))
    if page.name == "README.md":
        assert (fitted_session / "fit.nc").is_file()
        return
    # Of its own: what one page writes, another must not read.
    folder = shutil.copytree(fitted_session, tmp_path / "session")
    run_page(page, folder, monkeypatch)


def command_lines() -> list[str]:
    """Every line of the documentation that calls `connectinfer`."""
    lines = [line for page in PAGES for code in blocks(page, "bash") for line in code.splitlines()]
    return sorted({line[line.index("connectinfer ") :] for line in lines if "connectinfer " in line})


@pytest.mark.parametrize("line", command_lines())
def test_commands_in_the_documentation_have_these_options(line):
    _, command, *words = shlex.split(line)
    known = typer.main.get_command(app).commands[command]
    # A context of its own: a resilient one swallows unknown options.
    _, left_over, _ = known.make_parser(known.context_class(known)).parse_args(words)
    assert not left_over


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_lead_somewhere(page):
    targets = [target for target in LINK.findall(text_of(page)) if "generated" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


EXAMPLES = {
    "own_model.py": ["--trials", "4", "--bins", "100", "--units", "4", "--draws", "50"],
    "fit_simulated_bistable.py": ["--trials", "10", "--bins", "40", "--neurons", "15", "--draws", "10"],
    "rat_clicks.py": ["--trials", "20", "--draws", "10"],
    "head_direction.py": ["--trials", "10", "--draws", "10"],
    "worm.py": ["--draws", "10"],
}
ON_REAL_DATA = ("rat_clicks.py", "head_direction.py", "worm.py")


def test_every_example_has_a_test():
    assert {script.name for script in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_shared_data if name in ON_REAL_DATA else ()) for name in EXAMPLES]
)
def test_an_example_runs_with_small_settings(name, tmp_path):
    main = runpy.run_path(str(ROOT / "examples" / name))["main"]
    data = ["--data", str(SHARED_DATA)] if name in ON_REAL_DATA else []
    scores = main([*data, *EXAMPLES[name], "--output", str(tmp_path / "out")])
    plt.close("all")
    assert scores
    assert all(np.isfinite(score) for score in scores.values())
    assert (tmp_path / "out" / "fit.nc").is_file()
    assert list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_explains_itself(name):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), "--help"], capture_output=True, text=True, check=True
    )
    assert "--seed" in done.stdout
