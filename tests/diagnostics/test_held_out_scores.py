import jax
import numpy as np
import pytest
import xarray as xr

from connectinfer.data.recording import recording
from connectinfer.diagnostics import held_out_scores as module
from connectinfer.diagnostics.held_out_scores import held_out_scores
from connectinfer.statistics.co_smoothing import bits_per_spike, explained_variance
from connectinfer.zoo import load_model

TRIALS, BINS, UNITS = 16, 20, 10


class World:
    """Spikes or signals of units that read out a known path, and a fit that knows all about what it is shown."""

    def __init__(self, monkeypatch, kind="counts", status="finished"):
        rng = np.random.default_rng(0)
        start = rng.uniform(0, 6, TRIALS)
        path = np.sin(0.4 * np.arange(BINS) + start[:, None])[..., None]
        self.predictor = path * rng.normal(size=UNITS) + (1.0 if kind == "counts" else 0.0)
        self.rate = np.exp(self.predictor) if kind == "counts" else self.predictor
        values = rng.poisson(self.rate) if kind == "counts" else self.rate + 0.3 * rng.normal(size=self.rate.shape)
        mask = np.ones(values.shape, bool)
        mask[::3, 15:] = False
        data = recording(time=0.01, mask=mask, unit=[f"u{i}" for i in range(UNITS)], **{kind: values})
        self.data = data.assign_coords(choice=("trial", np.arange(TRIALS) % 2))
        self.path = xr.DataArray(path, dims=("trial", "time", "latent_dim"), coords={"trial": data["trial"]})
        self.expected = xr.DataArray(self.rate, dims=data["mask"].dims, coords=data["mask"].coords)
        self.status, self.fits, self.shown = status, [], []
        monkeypatch.setattr(module, "fit", self.fit)
        monkeypatch.setattr(module, "infer_paths", self.infer_paths)

    def fit(self, model, data, *, seed, **options):
        assert options.pop("show_progress") is False
        self.fits.append((data, seed, options))
        result = xr.DataTree()
        result.attrs = {"status": self.status, "model": model}
        return result

    def infer_paths(self, _, data, **__):
        self.shown.append(data)
        latent = self.path.sel(trial=data["trial"]).expand_dims(["chain", "draw"])
        expected = self.expected.sel(trial=data["trial"], unit=data["unit"])
        return xr.DataTree.from_dict(
            {"posterior": xr.Dataset({"latent": latent}), "expected": xr.Dataset({"x": expected})}
        )

    def score(self, **options):
        return held_out_scores("low_rank_rnn_poisson", self.data, show_progress=False, **options)


def test_nothing_that_is_scored_is_shown(monkeypatch):
    world = World(monkeypatch)
    scores = world.score(few_shot=[3], forward_from=0.4, rank=2, seed=5)
    roles = {role: scores["unit"].values[scores["role"].values == role].tolist() for role in np.unique(scores["role"])}
    assert {role: len(units) for role, units in roles.items()} == {"held in": 6, "held out": 2, "few shot": 2}
    ((fitted, seed, options),) = world.fits
    assert (seed, options) == (5, {"rank": 2})
    assert not set(scores["trial"].values) & set(fitted["trial"].values)
    assert set(fitted["unit"].values) == set(roles["held in"] + roles["held out"])
    tested, trained, ahead = world.shown
    assert set(trained["trial"].values) == set(fitted["trial"].values)
    for shown in (tested, trained):
        assert not shown["mask"].sel(unit=roles["held out"]).any()
        assert not set(shown["unit"].values) & set(roles["few shot"])
        assert shown["mask"].sel(unit=roles["held in"]).any(("time", "unit")).all()
    # Two fifths of 20 or 15 bins.
    observed = world.data["mask"].sel(trial=scores["trial"]).any("unit").sum("time").values
    assert ahead["mask"].any("unit").sum("time").values.tolist() == np.floor(0.4 * observed).astype(int).tolist()


@pytest.mark.parametrize("kind", ["counts", "fluorescence"])
def test_scores_equal_those_computed_from_all_entries_at_once(monkeypatch, kind):
    world = World(monkeypatch, kind)
    scores = world.score(condition="choice")
    units = scores["role"].values == "held out"
    tested = np.isin(world.data["trial"].values, scores["trial"].values)
    values, mask = world.data[kind].values, world.data["mask"].values
    mean = (values * mask)[~tested].sum((0, 1)) / mask[~tested].sum((0, 1))
    baseline = np.broadcast_to(mean, values.shape)
    score = bits_per_spike if kind == "counts" else explained_variance
    assert float(scores["score"].sel(measure="co_smoothing")) == pytest.approx(
        score(world.rate, values, baseline, mask & tested[:, None, None] & units)
    )
    later = np.arange(BINS)[None, :, None] >= np.floor(0.5 * mask.any(-1).sum(-1)).astype(int)[:, None, None]
    entries = mask & tested[:, None, None] & later
    assert float(scores["score"].sel(measure="forward_over_mean")) == pytest.approx(
        score(world.rate, values, baseline, entries)
    )
    cut = np.floor(0.5 * mask.any(-1).sum(-1)).astype(int)
    held = np.broadcast_to(world.rate[np.arange(TRIALS), cut - 1][:, None], values.shape)
    assert float(scores["score"].sel(measure="forward_over_held")) == pytest.approx(
        score(world.rate, values, held, entries)
    )
    assert scores["measure"].values.tolist()[-1] == "histogram_r2"
    assert np.isnan(scores["gain"].sel(measure="histogram_r2")).all()
    assert (scores["standard_error"] > 0).all()


@pytest.mark.parametrize("kind", ["counts", "fluorescence"])
def test_read_outs_of_new_units_are_learned_from_paths_and_the_better_the_more_there_are(monkeypatch, kind):
    world = World(monkeypatch, kind)
    scores = world.score(few_shot=[1, 10])["score"]
    units = world.score(few_shot=[1])["role"].values == "few shot"
    tested = np.isin(world.data["trial"].values, world.shown[0]["trial"].values)
    values, mask = world.data[kind].values, world.data["mask"].values
    mean = (values * mask)[~tested].sum((0, 1)) / mask[~tested].sum((0, 1))
    score = bits_per_spike if kind == "counts" else explained_variance
    best = score(world.rate, values, np.broadcast_to(mean, values.shape), mask & tested[:, None, None] & units)
    assert float(scores.sel(measure="few_shot_10")) > float(scores.sel(measure="few_shot_1"))
    assert float(scores.sel(measure="few_shot_10")) == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"few_shot": [13]}, r"Of 16 trials, 4 are for testing, which leaves 12 .*; got \[13\]"),
        ({"few_shot": [0]}, r"`few_shot`; got \[0\]"),
        ({"forward_from": 1.0}, r"between 0 and 1; got 1\.0"),
        ({"baseline": "slow"}, "known of the fit's own trials alone"),
        ({"condition": "side"}, r"one of \['trial', 'choice'\]; got 'side'"),
    ],
)
def test_impossible_requests_are_refused_before_the_fit(monkeypatch, options, message):
    world = World(monkeypatch)
    with pytest.raises(ValueError, match=message):
        world.score(**options)
    assert not world.fits


def test_a_fit_that_did_not_finish_is_not_scored(monkeypatch):
    with pytest.raises(KeyboardInterrupt, match="nothing to keep"):
        World(monkeypatch, status="interrupted").score()
    with pytest.raises(ValueError, match="The fit is diverged"):
        World(monkeypatch, status="diverged").score()


@pytest.mark.slow
def test_a_model_of_the_zoo_gets_every_score():
    data = load_model("low_rank_rnn_poisson").example(jax.random.key(0))
    data = data.assign_coords(pulse=("trial", data["inputs"].any(("time", "input")).values))
    options = {"engine": "state_space", "warmup": 10, "draws": 10, "chains": 2, "rank": 1, "show_progress": False}
    scores = held_out_scores("low_rank_rnn_poisson", data, few_shot=[2], condition="pulse", **options)
    expected = ["co_smoothing", "few_shot_2", "forward_over_mean", "forward_over_held", "histogram_r2"]
    assert scores["measure"].values.tolist() == expected
    assert np.isfinite(scores["score"]).all()
