import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from connectinfer.distributions.latent_path import LatentPath
from connectinfer.inference.drift import drift_group


def group(rank, n_inputs):
    """Of a network whose paths and inputs are independent normal values."""
    rng = np.random.default_rng(0)
    loading = (("chain", "draw", "unit", "latent_dim"), rng.normal(size=(1, 20, 4, rank)))
    posterior = xr.Dataset(
        {
            "m": loading,
            "n": loading,
            "d": (("chain", "draw", "unit"), np.zeros((1, 20, 4))),
            "b": (("chain", "draw", "unit", "input"), np.zeros((1, 20, 4, n_inputs))),
            "latent": (("chain", "draw", "trial", "time", "latent_dim"), rng.normal(size=(1, 20, 10, 30, rank))),
        }
    )
    filtered, mask = rng.normal(size=(10, 30, n_inputs)), np.ones((10, 30, 4), bool)
    inputs = {"filtered": filtered, "mask": mask, "tau": 0.1, "alpha": 0.1, "nonlinearity": "tanh"}
    found = drift_group(posterior, inputs, {}, lambda _: None, {})
    assert found is not None
    return found


@pytest.mark.parametrize(("rank", "n_inputs"), [(1, 0), (2, 0), (3, 0), (2, 2), (3, 2)])
def test_the_points_stand_for_nine_bins_in_ten_whatever_the_dimension(rank, n_inputs):
    found = group(rank, n_inputs)
    assert found.sizes["point"] <= 400
    assert 0.9 <= float(found["occupancy"].sum()) <= 1 + 1e-6
    # Their weighted mean is that of the states, near zero.
    assert np.abs(np.average(found["latent"], axis=0, weights=found["occupancy"])).max() < 0.15


def test_any_model_of_a_latent_path_has_the_drift_of_its_transition_in_the_gauge_of_the_result():
    def bound(arrays):
        strength = numpyro.sample("strength", dist.Normal())
        matrix = jnp.array([[0.8, 0.1], [0.0, 0.5]])
        transition = lambda z, v: z @ matrix.T + strength * v  # noqa: E731
        path = LatentPath(transition, 0.1 * jnp.eye(2), jnp.eye(2), arrays["filtered"])
        numpyro.sample("latent", path.to_event(1))

    rng = np.random.default_rng(0)
    latent, strength = rng.normal(size=(1, 3, 2, 10, 2)), np.array([[1.0, -1.0, 2.0]])
    quarter_turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    posterior = xr.Dataset(
        {
            "latent": (("chain", "draw", "trial", "time", "latent_dim"), latent @ quarter_turn.T),
            "gauge": (("chain", "draw", "latent_dim", "latent_raw"), np.broadcast_to(quarter_turn, (1, 3, 2, 2))),
        }
    )
    arrays = {"filtered": jnp.asarray(rng.normal(size=(2, 10, 1)), float)}
    inputs = arrays | {"mask": np.ones((2, 10, 4), bool), "tau": 0.1, "alpha": 0.2}
    samples = {"latent": jnp.asarray(latent[0], float), "strength": jnp.asarray(strength[0], float)}
    found = drift_group(posterior, inputs, samples, bound, arrays)
    assert found is not None
    z, v = found["latent"].values @ quarter_turn, found["input"].values
    # (0.8 x + 0.1 y + s v - 0.8 x) / 0.2 and (0.5 y + s v - 0.8 y) / 0.2.
    raw = np.stack([0.1 * z[:, 1] + 2.0 * v[:, 0], -0.3 * z[:, 1] + 2.0 * v[:, 0]], -1) / 0.2
    np.testing.assert_allclose(found["recurrent_drift"].values[0, 2], raw @ quarter_turn.T, rtol=1e-4, atol=1e-5)
