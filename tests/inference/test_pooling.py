import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtri

from connectinfer.inference.pooling import MEAN_SD, SPREAD_SD, pool

SESSIONS = {"m1": (0.2, 0.3), "m2": (1.1, 0.2), "m3": (0.6, 0.6), "n1": (2.3, 0.2), "n2": (1.9, 0.4), "o1": (0.9, 0.3)}
ANIMALS = {name: name[0] for name in SESSIONS}
QUIET = {"show_progress": False, "warmup": 300, "draws": 500, "chains": 2}


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
    return pool(results, "gain", groups=ANIMALS, **QUIET)


def by_quadrature():
    """Posterior means of mu, session_sd, animal_sd, and of the values of sessions, on a grid of the sds."""
    y, e = np.array(list(SESSIONS.values())).T
    names = np.array(list(ANIMALS.values()))
    unit, centre = np.sqrt(y.var(ddof=1) + (e**2).mean()), y.mean()
    same = names[:, None] == names
    total, sums = 0.0, np.zeros(3 + len(y))
    for within in unit * np.linspace(0.01, 4, 80):
        for between in unit * np.linspace(0.01, 4, 80):
            effects = within**2 * np.eye(len(y)) + between**2 * same + (MEAN_SD * unit) ** 2
            inverse = np.linalg.inv(effects + np.diag(e**2))
            density = np.exp(-0.5 * (y - centre) @ inverse @ (y - centre)) * np.sqrt(np.linalg.det(inverse))
            density *= np.exp(-0.5 * (within**2 + between**2) / (SPREAD_SD * unit) ** 2)
            mean = centre + (MEAN_SD * unit) ** 2 * np.ones(len(y)) @ inverse @ (y - centre)
            theta = centre + effects @ inverse @ (y - centre)
            total += density
            sums += density * np.r_[mean, within, between, theta]
    return sums / total


def test_the_posterior_is_that_of_quadrature_over_the_sds(pooled):
    posterior = pooled["posterior"].to_dataset()
    exact = by_quadrature()
    scalars = [float(posterior[name].mean()) for name in ("population_mean", "session_sd", "animal_sd")]
    found = np.r_[scalars, posterior["session_value"].mean(("chain", "draw")).values]
    # Monte Carlo errors of a thousand draws of sds near 0.6, 0.3 and 0.5.
    np.testing.assert_allclose(found, exact, atol=0.08)


def test_sessions_shrink_towards_their_animal(pooled):
    posterior = pooled["posterior"].to_dataset().mean(("chain", "draw"))
    imprecise = float(posterior["session_value"].sel(session="m3"))
    assert posterior["session_value"].dims == ("session",)
    assert posterior["animal_mean"].dims == ("animal",)
    assert abs(imprecise - float(posterior["animal_mean"].sel(animal="m"))) < 0.6
    assert float(posterior["animal_mean"].sel(animal="n")) > float(posterior["animal_mean"].sel(animal="m"))
    np.testing.assert_allclose(pooled["measurements"]["value"], [each[0] for each in SESSIONS.values()], rtol=1e-6)
    np.testing.assert_allclose(pooled["measurements"]["error"], [each[1] for each in SESSIONS.values()], rtol=1e-6)


def test_what_few_animals_cannot_tell_is_said(pooled):
    assert "animal_sd" in pooled.attrs["message"]


def test_a_vector_is_pooled_entry_by_entry(results):
    def both(posterior):
        entries = xr.DataArray(["one", "ten"], dims="entry")
        return posterior["gain"] * xr.DataArray([1.0, 10.0], {"entry": entries}, ("entry",))

    posterior = pool(results, both, **QUIET)["posterior"].to_dataset()
    assert posterior["population_mean"].dims == ("chain", "draw", "entry")
    assert posterior["session_value"].sizes["session"] == len(SESSIONS)
    means = posterior.mean(("chain", "draw"))
    for name in ("population_mean", "session_sd"):
        one, ten = (float(means[name].sel(entry=entry)) for entry in ("one", "ten"))
        assert ten == pytest.approx(10 * one, rel=0.15)
    assert "animal_sd" not in posterior


def test_skewed_posteriors_and_narrow_priors_are_warned_of():
    skewed = {name: session(0.0, 1.0) for name in "ab"}
    with pytest.warns(UserWarning, match="far from normal"):
        pool(skewed, lambda posterior: np.exp(posterior["gain"]), **QUIET | {"warmup": 10, "draws": 10})
    narrow = {name: session(0.0, 1.0, prior_sd=2.0) for name in "ab"}
    with pytest.warns(UserWarning, match=r"prior_share \{'a': 0.25, 'b': 0.25\}"):
        pool(narrow, "gain", **QUIET | {"warmup": 10, "draws": 10})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"quantity": "loss"}, "has no 'loss'; it has gain", id="unknown"),
        pytest.param({"quantity": lambda p: p["gain"].mean("draw")}, "dims .chain, draw.", id="no draws"),
        pytest.param({"quantity": lambda p: 0 * p["gain"]}, "finite and vary", id="constant"),
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


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """50 data sets drawn from the model; 80 % intervals hold the mean in 31 to 48 of them with probability .998."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(50):
        theta = rng.normal(1.0, 0.5, 6)
        errors = rng.uniform(0.1, 0.6, 6)
        measured = {f"s{i}": session(rng.normal(t, e), e) for i, (t, e) in enumerate(zip(theta, errors, strict=True))}
        draws = pool(measured, "gain", **QUIET | {"draws": 200})["posterior"]["population_mean"]
        held += float(draws.quantile(0.1)) < 1.0 < float(draws.quantile(0.9))
    assert 31 <= held <= 48
