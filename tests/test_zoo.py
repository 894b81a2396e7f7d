"""Every model file keeps the promises of the zoo."""

import ast
import re
from functools import cache

import jax
import numpy as np
import pytest
import xarray as xr
from numpyro.infer.util import unconstrain_fn

from connectinfer.data.recording import check_recording
from connectinfer.inference.fit import fit
from connectinfer.inference.start import central_start, potential
from connectinfer.inference.trace import bind, describe_sites, evaluate, map_draws, predict
from connectinfer.zoo import list_models, load_model

NAMES = [card.name for card in list_models()]
TINY = {
    "nuts": {"warmup": 25, "draws": 25, "chains": 2, "max_tree_depth": 3},
    "state_space": {"warmup": 20, "draws": 30, "chains": 2},
}


@cache
def case_of(name):
    """A model with a data set that it drew itself, as arrays."""
    module = load_model(name)
    data = module.example(jax.random.key(0))
    inputs, coords = module.inputs(data, rank=2)
    bound, arrays = bind(module.model, inputs)
    return module, data, inputs, coords, bound, arrays


@pytest.fixture(scope="module", params=NAMES)
def zoo_case(request):
    return case_of(request.param)


def test_zoo_is_not_empty():
    assert {"low_rank_rnn_ode", "low_rank_rnn_poisson", "random_feature_dynamics_poisson"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_tells_the_story_the_symbols_and_the_source(name):
    text = load_model(name).__doc__
    for part in ("Generative story:", "Symbols:", "Source:", "Differs from the source:"):
        assert part in text
    assert re.search(r"doi:10\.\d{4}|arXiv:\d{4}\.\d{5}", text)
    story = text.split("Generative story:")[1].split("Symbols:")[0].strip().splitlines()
    assert len(story) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_card_names_an_engine_and_dims_are_literal(name):
    module = load_model(name)
    assert module.CARD["engine"] in ("nuts", "svi", "state_space")
    assert module.CARD["minutes"] > 0
    assert all(dims is None or all(isinstance(dim, str) for dim in dims) for dims in module.DIMS.values())


@pytest.mark.parametrize("card", list_models(), ids=NAMES)
def test_model_files_import_neither_engines_nor_pictures(card):
    tree = ast.parse(card.path.read_text())
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert "connectinfer" not in modules
    rooms = {module.split(".")[1] for module in modules if module.startswith("connectinfer.")}
    assert rooms <= {"data", "statistics", "dynamics", "flows", "graphs", "distributions", "networks", "latent"}
    assert len(card.path.read_text().splitlines()) <= 150


def test_example_is_a_valid_recording(zoo_case):
    _module, data, *_ = zoo_case
    check_recording(data)
    assert data.sizes["trial"] > 1


def test_prior_predictive_has_the_shape_of_the_data(zoo_case):
    module, _, inputs, _, bound, arrays = zoo_case
    free = {**inputs, "activity": None}
    unobserved, rest = bind(module.model, free)
    drawn = map_draws(lambda k, _, a: predict(k, bound, a, {}), jax.random.split(jax.random.key(1), 4), {}, arrays)
    (values,) = drawn.values()
    assert values.shape == (4, *inputs["activity"].shape)
    sites = describe_sites(unobserved, rest)
    assert sum(site.kind == "latent" and site.shape == inputs["activity"].shape for site in sites.values()) == 1


def test_log_density_and_gradient_are_finite_at_twenty_prior_draws(zoo_case):
    _, _, _, _, bound, arrays = zoo_case
    keys = jax.random.split(jax.random.key(2), 20)
    drawn = map_draws(lambda k, _, a: evaluate(k, bound, a, {}), keys, {}, arrays)
    kinds = {name: site.kind for name, site in describe_sites(bound, arrays).items()}
    latent = {name: x for name, x in drawn.sites.items() if kinds[name] == "latent"}

    def slope(_, draw, arrays):
        free = unconstrain_fn(bound, (arrays,), {}, draw)
        return jax.value_and_grad(lambda z: potential(bound, arrays, z))(free)

    values, gradients = map_draws(slope, keys, latent, arrays)
    assert np.isfinite(values).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_start_values_are_finite_and_better_than_the_prior_median(zoo_case):
    module, _, inputs, _, bound, arrays = zoo_case
    keys = jax.random.split(jax.random.key(3), 20)
    drawn = map_draws(lambda k, _, a: evaluate(k, bound, a, {}), keys, {}, arrays)
    kinds = {name: site.kind for name, site in describe_sites(bound, arrays).items()}
    prior = {name: x for name, x in drawn.sites.items() if kinds[name] == "latent"}
    score = jax.jit(lambda free, arrays: potential(bound, arrays, free))
    started = score(central_start(bound, arrays, prior, module.initial(**inputs)), arrays)
    blind = score(central_start(bound, arrays, prior, {}), arrays)
    assert np.isfinite(started)
    assert started < blind


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name == "low_rank_rnn_poisson" else pytest.mark.slow) for name in NAMES],
)
def tiny_fit(request):
    module, data, *_ = case_of(request.param)
    engine = "state_space" if hasattr(module, "CONDITIONALS") else module.CARD["engine"]
    return module, fit(module, data, engine=engine, rank=2, show_progress=False, **TINY[engine])


def test_fifty_steps_of_its_engine_give_a_finite_labelled_result(tiny_fit):
    _module, result = tiny_fit
    groups = {"posterior", "prior", "sample_stats", "observed_data", "constant_data", "log_prior", "log_likelihood"}
    assert groups | {"posterior_predictive", "expected", "drift"} <= set(result.children)
    for name, array in result["posterior"].data_vars.items():
        assert np.isfinite(array).all(), name
    for attribute in ("model", "engine", "seed", "versions", "precision", "device", "wall_time", "status"):
        assert attribute in result.attrs
    of_paths = hasattr(_module, "state_space")
    assert set(result["log_likelihood"].sizes) == {"chain", "draw", "trial"} | (set() if of_paths else {"unit"})
    likelihood = next(iter(result["log_likelihood"].data_vars.values()))
    # So early, the noise may be too small for the path's mode to be found in single precision; that is counted.
    lost = ~np.isfinite(likelihood)
    assert lost.sum() == result["log_likelihood"].attrs.get("lost_modes", 0)
    assert lost.mean() <= 0.01


def test_every_dimension_has_a_name_that_a_user_can_read(tiny_fit):
    _, result = tiny_fit
    for group in result.subtree:
        for dim in group.sizes:
            assert "_dim_" not in str(dim)
            assert "_axis_" not in str(dim)


def test_drift_group_says_what_maximum_entropy_needs(tiny_fit):
    _, result = tiny_fit
    drift = result["drift"]
    assert drift["recurrent_drift"].dims == ("chain", "draw", "point", "latent_dim")
    assert {"latent", "input", "occupancy"} <= set(drift.coords)
    assert drift.attrs["nonlinearity"] == "tanh"
    assert drift.attrs["tau"] == pytest.approx(0.1)
    assert drift.attrs["dt"] == pytest.approx(0.01)
    assert 0 < float(drift["occupancy"].sum()) <= 1 + 1e-6


def test_drift_equals_the_network_or_features_of_the_same_draw(tiny_fit):
    _, result = tiny_fit
    draw = {name: x.values for name, x in result["posterior"].isel(chain=0, draw=3).data_vars.items()}
    z, v = result["drift"]["latent"].values, result["drift"]["input"].values
    if "slope" in draw:
        rates = np.tanh(z @ draw["slope"].T + draw["threshold"])
        expected = rates @ draw["weight"] + draw["constant"] + v @ draw["input_weight"]
    else:
        rates = np.tanh(z @ draw["m"].T + v @ draw["b"].T + draw["d"])
        expected = rates @ draw["n"] / len(draw["m"])
    np.testing.assert_allclose(
        result["drift"]["recurrent_drift"].isel(chain=0, draw=3).values, expected, rtol=1e-4, atol=1e-5
    )


def test_result_survives_netcdf_without_connectinfer(tiny_fit, tmp_path):
    _, result = tiny_fit
    result.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as opened:
        for name in result.children:
            xr.testing.assert_identical(opened[name].to_dataset().load(), result[name].to_dataset())
        assert opened.attrs["model"] == result.attrs["model"]
