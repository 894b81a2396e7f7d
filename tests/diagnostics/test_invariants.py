import numpy as np
import xarray as xr

from connectinfer.diagnostics.invariants import fixed_point_kinds, invariants

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


def test_a_draw_that_is_not_finite_has_no_eigenvalues_and_keeps_those_of_the_others():
    overlap = np.broadcast_to(np.diag([1.0, 2.0]), (1, 3, 2, 2)).copy()
    overlap[0, 1, 0, 1] = np.nan
    real, _ = spectrum(overlap)
    np.testing.assert_allclose(real[0], [[1, 2], [np.nan, np.nan], [1, 2]])


def test_a_model_without_overlap_has_none():
    posterior = xr.Dataset({"theta": (("chain", "draw"), np.zeros((2, 3)))})
    assert not invariants(xr.DataTree.from_dict({"posterior": posterior})).data_vars


def symmetric(overlap):
    """Results of rank 1 whose drift is odd: one fixed point up to an overlap of 1, three beyond."""
    m = np.ones((*np.shape(overlap), 3, 1))
    loading = ("chain", "draw", "unit", "latent_dim")
    posterior = {"m": (loading, m), "n": (loading, m * np.asarray(overlap)[..., None, None])}
    posterior["d"] = (loading[:3], np.zeros(m.shape[:3]))
    visited = xr.Dataset(coords={"latent": (("point", "latent_dim"), np.array([[0.1], [1.5], [-1.5]]))})
    visited.attrs = {"tau": 0.1, "nonlinearity": "tanh"}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(posterior), "drift": visited})


def test_fixed_points_are_named_by_their_stability():
    found = fixed_point_kinds(symmetric([[0.5, 2.0], [2.0, 2.0]]))
    # tanh(2 z) = z has two stable roots; in one dimension the origin between them is unstable.
    assert found.values.tolist() == [["1 stable", "2 stable, 1 unstable"], ["2 stable, 1 unstable"] * 2]
    assert found.dims == ("chain", "draw")


def test_at_most_ten_draws_of_a_chain_are_looked_at_and_results_without_drift_none():
    assert fixed_point_kinds(symmetric(np.full((1, 33), 0.5))).shape == (1, 10)
    assert fixed_point_kinds(xr.DataTree.from_dict({"posterior": xr.Dataset()})) is None
