"""A report is one page that holds everything, escapes everything, and says what is missing."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from hand_made_results import N_UNITS, low_rank, unlabelled

from connectinfer.diagnostics.checks import diagnose
from connectinfer.reporting.report import report

ATTACK = "<script>alert('x')</script>$\\frac$ & \"`"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Reader(HTMLParser):
    """What a page holds; unbalanced tags are errors."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids, self.images, self.text, self.targets = [], [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.targets += [found[name] for name in ("src", "href", "srcset", "action", "data") if name in found]
        self.images += [found] if tag == "img" else []
        assert not [name for name in found if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        """The text, with single blanks."""
        return " ".join(" ".join(self.text).split())

    def pictures(self):
        """The SVG documents within the images."""
        prefix = "data:image/svg+xml;base64,"
        assert all(image["src"].startswith(prefix) for image in self.images)
        return [ElementTree.fromstring(base64.b64decode(image["src"][len(prefix) :])) for image in self.images]


def written(result, folder):
    """The page of a result."""
    report(result, folder / "page.html", overwrite=True, show_progress=False)
    return Reader((folder / "page.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of a low-rank network whose recording was named by an attacker."""
    path = tmp_path_factory.mktemp("report") / "page.html"
    report(attacked(), path, show_progress=False)
    return path


def attacked():
    units = [f"{ATTACK}{i}" for i in range(N_UNITS)]
    return low_rank(units=units, source=f"rat{ATTACK}.npz", left_out="<b>lfp</b>", device=ATTACK)


@pytest.fixture(scope="module")
def page(file):
    return Reader(file.read_text(encoding="utf-8"))


def test_a_page_is_balanced_and_its_ids_are_unique(page):
    assert len(set(page.ids)) == len(page.ids)
    assert {target[1:] for target in page.targets if target.startswith("#")} == set(page.ids)
    assert page.ids[:3] == ["verdicts", "limits", "data"]


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(page):
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(target.startswith(("#", "data:image/svg+xml;base64,")) for target in page.targets)


def test_what_comes_from_the_file_never_becomes_markup(page):
    assert "b" not in page.tags
    assert "left out of it <b>lfp</b>" in page.words
    # In the tables of weights, sources and devices; that pictures hold it too is drawn, not written.
    assert page.words.count("<script>alert('x')</script>") >= 4


def test_every_picture_has_a_size_and_is_described(page):
    assert len(page.images) == 9
    for image, svg in zip(page.images, page.pictures(), strict=True):
        assert len(image["alt"]) > 20
        width, height = (float(svg.get(side).removesuffix("pt")) for side in ("width", "height"))
        assert (int(image["width"]), int(image["height"])) == (round(width * 96 / 72), round(height * 96 / 72))
        assert {element.tag.rpartition("}")[2] for element in svg.iter()}.isdisjoint({"script", "foreignObject"})


def test_a_page_says_what_was_fitted_how_and_where_it_came_from(page):
    for text in (
        "Low-rank recurrent network with process noise, observed through spike counts",
        "spike counts of 4 trials × 25 bins × 6 units, bins of 0.01 s",
        "25 of 600 entries (4 %) were hidden from the fit or not recorded",
        "engine='svi', seed=7, rank=2)",
        "jax 0.99",
        "Does the model make data like the data?",
        "The evidence lower bound (ELBO) over 399 steps",
        "R-hat and effective sample size do not apply",
    ):
        assert text in page.words


def test_the_verdicts_of_the_page_are_those_of_the_diagnosis(page):
    diagnosis = diagnose(attacked())
    assert diagnosis.headline in page.words
    for verdict in diagnosis.verdicts:
        assert f"{verdict.verdict} {verdict.concern}" in page.words


def test_fixed_points_are_counted_over_the_draws(page):
    # Each of the two latent dimensions is bistable on its own: four attractors, four saddles between, one repeller.
    assert "19 of 20 draws have 4 stable, 4 saddle, 1 unstable; 1 of 20" in page.words


def test_the_same_result_gives_the_same_page_whatever_the_settings_of_matplotlib(file, tmp_path):
    with plt.rc_context({"axes.facecolor": "black", "font.size": 30}):
        before = dict(plt.rcParams)
        report(attacked(), tmp_path / "again.html", show_progress=False)
        assert dict(plt.rcParams) == before
    assert not plt.get_fignums()
    assert (tmp_path / "again.html").read_bytes() == file.read_bytes()


def test_a_model_of_ones_own_gets_a_page_that_says_what_is_missing(tmp_path):
    page = written(unlabelled(), tmp_path)
    for text in (
        "no observed site with the dims trial, time and unit",
        "The posterior has no latent paths",
        "(models with latent paths have one), so no flow is shown",
        "The posterior has neither loadings",
        "with 1 chain(s) of 60 draws there is nothing to compare",
        "The result does not say: seed, options, file of the recording",
    ):
        assert text in page.words
    assert not page.images


def test_a_page_counts_the_draws_that_it_leaves_out(tmp_path):
    result = unlabelled()
    result["posterior"]["theta"].values[0, 3] = np.nan
    page = written(result, tmp_path)
    assert "60 draws; 1 of 60 left out below" in page.words
    assert "fail finite draws" in page.words


def test_a_result_without_any_finite_draw_still_gets_its_verdicts(tmp_path):
    result = unlabelled()
    result["posterior"]["theta"].values[:] = np.nan
    page = written(result, tmp_path)
    assert "No draw of the posterior is finite" in page.words
    assert "fail finite draws" in page.words


def test_an_interrupted_run_is_said_to_be_one(tmp_path):
    result = unlabelled()
    result.attrs |= {"status": "interrupted", "versions": "no JSON", "seed": "none"}
    page = written(result, tmp_path)
    assert "Run interrupted" in page.words
    assert "not certified completion" in page.words


def test_a_page_names_the_engine_that_made_it(tmp_path):
    result = unlabelled()
    result.attrs |= {"engine": "flow_posterior", "possible": 0.25}
    page = written(result, tmp_path)
    assert "neural posterior estimation (flow_posterior)" in page.words
    assert "share of the prior that the last round drew from 0.25" in page.words


def test_a_page_that_exists_is_replaced_only_if_asked(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"page\.html exists\. Choose another name, or pass `overwrite=True`"):
        report(unlabelled(), path)
    assert path.read_text() == "precious"
    report(unlabelled(), path, overwrite=True, show_progress=False)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_an_interruption_leaves_no_half_of_a_page(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("precious")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report(unlabelled(), path, overwrite=True, show_progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        pytest.param("no/page.html", FileNotFoundError, "The folder .*no of the report does not exist", id="folder"),
        pytest.param("page.pdf", ValueError, r"must end in \.html, got 'page\.pdf'", id="suffix"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        report(unlabelled(), tmp_path / name)


def test_a_tree_without_posterior_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs the groups posterior and sample_stats"):
        report(xr.DataTree(), tmp_path / "page.html", show_progress=False)
    assert not list(tmp_path.iterdir())


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in")
def test_a_browser_draws_every_picture_and_complains_of_nothing(file, tmp_path):
    html = file.read_text(encoding="utf-8")
    # The page itself forbids scripts: this copy allows one, which writes down what was drawn.
    probe = (
        "<script>onload = () => { document.title = JSON.stringify([...document.images].map("
        "i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width, i.getBoundingClientRect().height])) "
        "+ document.documentElement.scrollWidth; }</script>"
    )
    allowed = html.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    (tmp_path / "probed.html").write_text(allowed.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += ["--enable-logging=stderr", "--v=0", "--window-size=390,800", "--virtual-time-budget=5000", "--dump-dom"]
    for shown in (file, tmp_path / "probed.html"):
        command = [CHROMIUM, *flags, shown.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert ":CONSOLE" not in done.stderr
    found = re.search(r"<title>(\[\[.*\]\])(\d+)</title>", done.stdout)
    drawn = json.loads(found[1])
    assert len(drawn) == html.count("<img ")
    assert all(complete and min(sizes) > 0 for complete, *sizes in drawn)
    # Wide pictures and tables scroll within the page of a telephone, not the page itself.
    assert int(found[2]) <= 500
