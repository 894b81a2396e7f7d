import numpy as np
import pytest
import xarray as xr

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
    found = drift_group(
        posterior, {"filtered": filtered, "mask": mask, "tau": 0.1, "alpha": 0.1, "nonlinearity": "tanh"}
    )
    assert found is not None
    return found


@pytest.mark.parametrize(("rank", "n_inputs"), [(1, 0), (2, 0), (3, 0), (2, 2), (3, 2)])
def test_the_points_stand_for_nine_bins_in_ten_whatever_the_dimension(rank, n_inputs):
    found = group(rank, n_inputs)
    assert found.sizes["point"] <= 400
    assert 0.9 <= float(found["occupancy"].sum()) <= 1 + 1e-6
    # Their weighted mean is that of the states, near zero.
    assert np.abs(np.average(found["latent"], axis=0, weights=found["occupancy"])).max() < 0.15
