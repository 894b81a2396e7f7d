import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtri
from scipy.stats import binom

from connectinfer.inference.pooling import pool

SESSIONS = {"m1": (0.2, 0.3), "m2": (1.1, 0.2), "m3": (0.6, 0.6), "n1": (2.3, 0.2), "n2": (1.9, 0.4), "o1": (0.9, 0.3)}
ANIMALS = {name: name[0] for name in SESSIONS}


def session(mean, sd, size=(2, 200), prior_sd=None):
    """A result whose `gain` has exactly this posterior mean and sd, and normal quantiles."""
    quantiles = (np.arange(np.prod(size)) + 0.5) / np.prod(size)
    z = ndtri(quantiles)
    values = mean + sd * (z / z.std(ddof=1)).reshape(size)
    groups = {"posterior": xr.Dataset({"gain": (("chain", "draw"), values)})}
    if prior_sd is not None:
        groups["prior"] = xr.Dataset({"gain": (("chain", "draw"), prior_sd * z.reshape(size))})
    return xr.DataTree.from_dict(groups)


@pytest.fixture(scope="module")
def results():
    return {name: session(*each) for name, each in SESSIONS.items()}


@pytest.fixture(scope="module")
def pooled(results):
    return pool(results, "gain", groups=ANIMALS)


def test_sessions_shrink_towards_their_animal_as_far_as_their_errors_say(pooled):
    posterior = pooled["posterior"].to_dataset().stack(sample=("chain", "draw"))
    assert set(posterior["session_value"].dims) == {"session", "sample"}
    assert set(posterior["animal_mean"].dims) == {"animal", "sample"}
    for name, (value, error) in SESSIONS.items():
        weight = 1 / (1 + (error / posterior["session_sd"]) ** 2)
        expected = weight * value + (1 - weight) * posterior["animal_mean"].sel(animal=ANIMALS[name])
        rest = posterior["session_value"].sel(session=name) - expected
        # Five standard errors of draws that are independent.
        assert abs(float(rest.mean())) < 5 * error * float(weight.mean()) ** 0.5 / posterior.sizes["sample"] ** 0.5
    np.testing.assert_allclose(pooled["measurements"]["value"], [each[0] for each in SESSIONS.values()], rtol=1e-6)
    np.testing.assert_allclose(pooled["measurements"]["error"], [each[1] for each in SESSIONS.values()], rtol=1e-6)


def test_what_few_animals_cannot_tell_is_said(pooled):
    assert "animal_sd" in pooled.attrs["message"]


def test_a_vector_is_pooled_entry_by_entry(results):
    def both(tree):
        entries = xr.DataArray(["one", "ten"], dims="entry")
        return tree["posterior/gain"] * xr.DataArray([1.0, 10.0], {"entry": entries}, ("entry",))

    one_by_one = pool(results, "gain")["posterior"].to_dataset()
    posterior = pool(results, both)["posterior"].to_dataset()
    assert posterior["population_mean"].dims == ("chain", "draw", "entry")
    assert posterior["session_value"].dims == ("chain", "draw", "session", "entry")
    assert list(posterior["session_value"]["session"].values) == list(SESSIONS)
    assert "animal_sd" not in posterior
    # The first entry takes the same random numbers; the second is a multiple of another draw from the same posterior.
    for name in ("population_mean", "session_sd", "session_value"):
        np.testing.assert_allclose(posterior[name].sel(entry="one"), one_by_one[name], rtol=1e-9)
        ten = posterior[name].sel(entry="ten").mean(("chain", "draw"))
        np.testing.assert_allclose(ten, 10 * one_by_one[name].mean(("chain", "draw")), atol=0.5)


def test_skewed_posteriors_and_narrow_priors_are_warned_of():
    skewed = {name: session(0.0, 1.0) for name in "ab"}
    with pytest.warns(UserWarning, match=r"far from normal .* normal_distance \{'a': 0.2\d?, 'b': 0.2\d?\}"):
        pool(skewed, lambda tree: np.exp(tree["posterior/gain"]))
    narrow = {name: session(0.0, 1.0, prior_sd=2.0) for name in "ab"}
    with pytest.warns(UserWarning, match=r"prior_share \{'a': 0.25, 'b': 0.25\}"):
        pool(narrow, "gain")


def test_the_same_seed_gives_the_same_draws(results, pooled):
    again = pool(results, "gain", groups=ANIMALS)
    xr.testing.assert_identical(again["posterior"].to_dataset(), pooled["posterior"].to_dataset())
    other = pool(results, "gain", groups=ANIMALS, seed=1)["posterior"]
    assert float(abs(other["population_mean"] - pooled["posterior"]["population_mean"]).max()) > 0
    assert (pooled.attrs["model"], pooled.attrs["seed"]) == ("pool", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"quantity": "loss"}, "has no 'loss'; it has gain", id="unknown"),
        pytest.param(
            {"quantity": lambda tree: tree["posterior/gain"].mean("draw")}, "dims .chain, draw.", id="no draws"
        ),
        pytest.param({"quantity": lambda tree: 0 * tree["posterior/gain"]}, "finite and vary", id="constant"),
        pytest.param(
            {"quantity": lambda tree: tree["posterior/gain"].expand_dims(latent_dim=2)}, "turn of latent", id="gauge"
        ),
        pytest.param({"groups": {"m1": "m"}}, "missing: .'m2'", id="animal missing"),
        pytest.param({"groups": dict.fromkeys(SESSIONS, "m")}, "6 sessions of 1 animal", id="one animal"),
        pytest.param({"groups": {name: name for name in SESSIONS}}, "6 sessions of 6 animal", id="one session each"),
    ],
)
def test_what_cannot_be_pooled_is_refused(results, options, message):
    with pytest.raises(ValueError, match=message):
        pool(results, **{"quantity": "gain"} | options)


def test_a_single_session_is_refused(results):
    with pytest.raises(ValueError, match="at least two sessions"):
        pool({"m1": results["m1"]}, "gain")


def test_sessions_with_other_entries_are_refused(results):
    def own(tree):
        gain = tree["posterior/gain"]
        return gain.expand_dims(unit=[round(float(gain.mean()), 1)])

    with pytest.raises(
        ValueError, match=r"entries \{'unit': .1.1.. in session .m2., and .* in the first; they must mean"
    ):
        pool(results, own)


def test_intervals_cover_what_made_the_sessions():
    """60 data sets of three animals with three sessions: the 80 % intervals of the mean, of the first animal and
    of the first session, each inside its 99 % binomial band (others of a data set are not independent of these)."""
    rng, held, n_sets = np.random.default_rng(0), np.zeros(3), 60
    animals = {f"{animal}{i}": animal for animal in "abc" for i in range(3)}
    of = np.repeat([0, 1, 2], 3)
    for _ in range(n_sets):
        animal = rng.normal(1.0, 0.6, 3)
        value, error = rng.normal(animal[of], 0.3), rng.uniform(0.1, 0.6, 9)
        measured = {name: session(rng.normal(v, e), e) for name, v, e in zip(animals, value, error, strict=True)}
        posterior = pool(measured, "gain", groups=animals, draws=1000)["posterior"].to_dataset()
        low, high = (posterior.quantile(q, ("chain", "draw")) for q in (0.1, 0.9))
        truths = {"population_mean": 1.0, "animal_mean": animal, "session_value": value}
        for i, (name, truth) in enumerate(truths.items()):
            inside = (low[name].values < truth) & (truth < high[name].values)
            held[i] += np.atleast_1d(inside)[0]
    least, most = binom.interval(0.99, n_sets, 0.8)
    assert (least <= held).all()
    assert (held <= most).all()
