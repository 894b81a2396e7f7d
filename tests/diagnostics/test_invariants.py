import numpy as np
import xarray as xr

from connectinfer.diagnostics.invariants import invariants

DIMS = ("chain", "draw", "latent_dim", "latent_from")


def spectrum(overlap):
    found = invariants(xr.DataTree.from_dict({"posterior": xr.Dataset({"overlap": (DIMS, overlap)})}))
    return found["eigenvalue_real"].values, found["eigenvalue_imaginary"].values


def test_eigenvalues_are_the_nonzero_ones_of_the_dense_weights():
    rng = np.random.default_rng(0)
    m, n = rng.normal(size=(2, 2, 5, 30, 3))
    real, imaginary = spectrum(np.einsum("cdka,cdkb->cdab", n, m) / 30)
    dense = np.linalg.eigvals(m @ n.swapaxes(-1, -2) / 30)
    for chain, draw in np.ndindex(2, 5):
        nonzero = dense[chain, draw][np.argsort(np.abs(dense[chain, draw]))[-3:]]
        nonzero = nonzero[np.lexsort((np.abs(nonzero.imag), nonzero.real.round(10)))]
        np.testing.assert_allclose(real[chain, draw], nonzero.real, atol=1e-10)
        np.testing.assert_allclose(imaginary[chain, draw], np.abs(nonzero.imag), atol=1e-10)


def test_a_rotation_keeps_its_eigenvalues_whatever_the_gauge():
    overlap = np.array([[1.0, -2.0], [2.0, 1.0]])
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    real, imaginary = spectrum(np.stack([overlap, turn @ overlap @ turn.T])[None])
    np.testing.assert_allclose(real, 1.0)
    np.testing.assert_allclose(imaginary, 2.0)


def test_the_drift_is_kept_at_the_thirty_most_visited_points():
    values = np.random.default_rng(0).normal(size=(2, 4, 50, 3))
    drift = xr.Dataset({"recurrent_drift": (("chain", "draw", "point", "latent_dim"), values)})
    found = invariants(xr.DataTree.from_dict({"posterior": xr.Dataset(), "drift": drift}))
    assert set(found) == {"drift"}
    np.testing.assert_array_equal(found["drift"].values, values[:, :, :30])


def test_a_model_without_overlap_has_none():
    posterior = xr.Dataset({"theta": (("chain", "draw"), np.zeros((2, 3)))})
    assert not invariants(xr.DataTree.from_dict({"posterior": posterior})).data_vars
