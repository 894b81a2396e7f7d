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

from connectinfer.diagnostics.checks import diagnose
from connectinfer.reporting.activity import activity_section
from connectinfer.reporting.connections import connectivity_section
from connectinfer.reporting.convergence import convergence_section
from connectinfer.reporting.dynamics import flow_section
from connectinfer.reporting.observed import observed_in, with_finite_draws
from connectinfer.reporting.parameters import parameters_section
from connectinfer.reporting.pictures import report_look
from connectinfer.reporting.prediction import prediction_section
from connectinfer.reporting.report import report

N_TRIALS, N_BINS, N_UNITS, RANK = 4, 25, 6, 2
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


def low_rank(chains=1, draws=40, rank=RANK, *, counts=True, units=None, **attrs):
    """A result of a bistable network with small noise on every parameter; of SVI, or of NUTS with several chains."""
    rng = np.random.default_rng(0)
    sample, unit = (chains, draws), [f"u{i}" for i in range(N_UNITS)] if units is None else units
    spread = lambda *shape: 0.05 * rng.normal(size=(*sample, *shape))  # noqa: E731
    loading = np.zeros((N_UNITS, rank))
    loading[np.arange(N_UNITS), np.arange(N_UNITS) % rank] = np.arange(1, N_UNITS + 1) / 3
    m, n = loading + spread(N_UNITS, rank), 1.5 * rank * loading + spread(N_UNITS, rank)
    latent = np.sin(np.arange(N_BINS)[:, None] / 4 + np.pi / 2 * np.arange(rank)) + spread(N_TRIALS, N_BINS, rank)
    observed = rng.poisson(0.4, (N_TRIALS, N_BINS, N_UNITS)).astype(float)
    observed += 0 if counts else rng.normal(size=observed.shape)
    mask = np.ones(observed.shape, bool)
    mask[0, :, 1] = False
    dims = ("trial", "time", "unit")
    coords = {"trial": np.arange(N_TRIALS), "time": 0.01 * np.arange(N_BINS), "unit": unit}
    site = "counts" if counts else "signal"
    posterior = xr.Dataset(
        {
            "m": (("chain", "draw", "unit", "latent_dim"), m),
            "n": (("chain", "draw", "unit", "latent_dim"), n),
            "d": (("chain", "draw", "unit"), spread(N_UNITS)),
            "overlap": (("chain", "draw", "latent_dim", "latent_from"), np.einsum("cdka,cdkb->cdab", n, m) / N_UNITS),
            "process_noise": (("chain", "draw"), 0.1 + spread()),
            "latent": (("chain", "draw", "trial", "time", "latent_dim"), latent),
        },
        {**coords, "chain": np.arange(chains), "draw": np.arange(draws), "latent_dim": np.arange(rank)},
    )
    states = latent.mean((0, 1)).reshape(-1, rank)
    visited = xr.Dataset(
        {"recurrent_drift": (("chain", "draw", "point", "latent_dim"), states + spread(len(states), rank))},
        coords={
            "latent": (("point", "latent_dim"), states),
            "occupancy": ("point", np.full(len(states), 1 / len(states))),
            "latent_dim": np.arange(rank),
        },
        attrs={"tau": 0.1, "nonlinearity": "tanh", "dt": 0.01},
    )
    stats = {"log_weight": rng.normal(size=sample)}
    if chains > 1:
        stats = {name: np.zeros(sample, bool) for name in ("diverging", "reached_max_tree_depth")}
        stats["energy"] = rng.normal(size=sample)
    groups = {
        "posterior": posterior,
        "sample_stats": xr.Dataset({name: (("chain", "draw"), values) for name, values in stats.items()}),
        "observed_data": xr.Dataset({site: (dims, observed)}, coords),
        "constant_data": xr.Dataset({"mask": (dims, mask)}, coords).assign_attrs(rank=rank, tau=0.1),
        "expected": xr.Dataset({site: (dims, np.full(observed.shape, 0.4))}, coords),
        "posterior_predictive": xr.Dataset(
            {site: (("chain", "draw", *dims), rng.poisson(0.4, (1, 20, *observed.shape)).astype(float))}, coords
        ),
        "drift": visited,
    }
    if chains == 1:
        groups["optimisation"] = xr.Dataset({"loss": ("step", 1000 / np.arange(1.0, 400))}, attrs={"latent_values": 10})
    tree = xr.DataTree.from_dict(groups)
    known = {
        "model": "low_rank_rnn_poisson",
        "status": "finished",
        "seed": 7,
        "engine": "nuts" if chains > 1 else "svi",
    }
    tree.attrs = known | {"options": json.dumps({"rank": rank}), "versions": json.dumps({"jax": "0.99"})} | attrs
    return tree


def unlabelled(chains=1, draws=60):
    """A result of somebody's own model: one site, no recording."""
    rng = np.random.default_rng(0)
    sample = ("chain", "draw")
    stats = {name: (sample, np.zeros((chains, draws), bool)) for name in ("diverging", "reached_max_tree_depth")}
    stats["energy"] = (sample, rng.normal(size=(chains, draws)))
    theta = xr.Dataset({"theta": ((*sample, "axis"), rng.normal(size=(chains, draws, 2)))})
    return xr.DataTree.from_dict({"posterior": theta, "sample_stats": xr.Dataset(stats)})


def written(result, folder):
    """The page of a result."""
    report(result, folder / "page.html", overwrite=True, show_progress=False)
    return Reader((folder / "page.html").read_text(encoding="utf-8"))


def said(section):
    """All captions and sentences of a section."""
    return " ".join(getattr(block, "caption", getattr(block, "text", "")) for block in section.blocks)


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


def test_chains_are_compared_by_the_ranks_of_the_entries_that_agree_least():
    result = unlabelled(chains=2)
    result["posterior"]["theta"].values[1, :, 1] += 3.0
    with report_look():
        (ranks,) = convergence_section(result).blocks
    assert "Ranks of each chain's draws" in ranks.caption
    assert "2 entries" in ranks.caption
    assert not plt.get_fignums()


def test_the_table_of_parameters_has_their_moments():
    result = unlabelled(chains=2)
    draws = result["posterior"]["theta"].values[..., 0].ravel()
    low, high = np.quantile(draws, [0.05, 0.95])
    row = parameters_section(result).blocks[0].rows[0]
    assert row[:4] == ("theta[0]", f"{draws.mean():.3g}", f"{draws.std():.3g}", f"{low:.3g} to {high:.3g}")
    assert float(row[4]) == pytest.approx(1.0, abs=0.1)


def test_a_site_of_many_entries_is_one_row_of_ranges():
    result = unlabelled()
    values = np.arange(20.0) + np.zeros((1, 60, 1))
    result["posterior"] = xr.DataTree(xr.Dataset({"x": (("chain", "draw", "place"), values)}))
    (row,) = parameters_section(result).blocks[0].rows
    assert row[:4] == ("x (20 place)", "0 … 19", "0 … 0", "0 to 19")


def test_a_model_of_ones_own_gets_a_page_that_says_what_is_missing(tmp_path):
    page = written(unlabelled(), tmp_path)
    for text in (
        "no observed site with the dims trial, time and unit",
        "The posterior has no latent paths",
        "(low-rank networks have one), so no flow is shown",
        "The posterior has neither loadings",
        "with 1 chain(s) of 60 draws there is nothing to compare",
        "The result does not say: seed, options, file of the recording",
    ):
        assert text in page.words
    assert not page.images


def test_weights_of_ones_own_model_are_drawn_and_the_sure_ones_listed():
    mean = np.array([[0.0, 3.0], [0.0, 0.0]])
    weight = mean + 0.1 * np.random.default_rng(0).normal(size=(4, 60, 2, 2))
    posterior = xr.Dataset({"w": (("chain", "draw", "post", "pre"), weight)}, {"post": ["a", "b"], "pre": ["a", "b"]})
    with report_look():
        matrices, sentence, table = connectivity_section(xr.DataTree.from_dict({"posterior": posterior})).blocks
    assert "over 200 draws" in matrices.caption
    assert "of the sign of 1 of 2 ordered pairs of neurons (50 %)" in sentence.text
    assert [row[:2] for row in table.rows] == [("b", "a")]


@pytest.mark.parametrize(
    ("rank", "drawn"), [(1, "Drift at the visited states"), (3, "of 3 latent dimensions the first two")]
)
def test_networks_of_other_ranks_show_their_fixed_points_too(rank, drawn):
    with report_look():
        section = flow_section(low_rank(rank=rank, draws=1))
    assert drawn in said(section)
    assert section.blocks[-1].columns[0] == "kind"


def test_a_signal_is_drawn_beside_what_the_model_expects():
    result = low_rank(counts=False, draws=2)
    observed = observed_in(result)
    assert observed.words == "a signal of 4 trials × 25 bins × 6 units, bins of 0.01 s"
    with report_look():
        assert "signal of every unit, first 3 of 4 trials" in said(activity_section(result, observed))
        assert "Trial 0 as recorded, and as the model expects it" in said(prediction_section(result, observed))


def test_a_recording_is_called_what_it_was():
    result = low_rank(counts=False, draws=2, observed_kind="fluorescence")
    assert observed_in(result).words.startswith("fluorescence of 4 trials")


def test_draws_that_are_not_finite_in_any_chain_are_left_out_and_counted():
    result = low_rank(chains=2, draws=5)
    result["posterior"]["m"].values[1, 3] = np.nan
    result["posterior"]["overlap"].values[0, 1] = np.inf
    kept, left_out = with_finite_draws(result)
    assert left_out == 2
    assert kept["posterior"]["draw"].values.tolist() == [0, 2, 4]
    assert kept["drift"].sizes["draw"] == 3
    assert result["posterior"].sizes["draw"] == 5


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
