"""Sparse matrices that scipy saved are read without being made dense."""

import numpy as np
import pytest
import scipy.sparse

from connectinfer.data.connectome import from_dense, from_sparse
from connectinfer.data.reading import open_connectome

WEIGHT = np.array([[0.0, 2.0, 0.0], [0.5, 0.0, 0.0], [0.0, 3.0, 1.0]])


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_a_saved_sparse_matrix_is_one_field(tmp_path, form, kind):
    scipy.sparse.save_npz(tmp_path / "w.npz", getattr(scipy.sparse, f"{form}_{kind}")(WEIGHT))
    made = open_connectome(tmp_path / "w.npz", fields={"weight": lambda file: file["matrix"].T})
    assert made.drop_attrs().identical(from_dense(WEIGHT.T))
    assert made.attrs["left_out"] == ""


def test_stored_zeros_are_no_edges_and_repeated_entries_are_summed():
    matrix = scipy.sparse.coo_array(([0.0, 1.5, 2.0], ([0, 1, 1], [1, 0, 0])), shape=(2, 2))
    made = from_sparse(matrix, neurons=["a", "b"])
    assert (made["pre"].item(), made["post"].item(), made["weight"].item()) == ("a", "b", 3.5)
    assert matrix.nnz == 3


def test_a_large_matrix_is_never_dense():
    entry = scipy.sparse.coo_array((np.ones(1), ([5], [70_000])), shape=(100_000, 100_000))
    made = from_sparse(entry, variable="synapse_count")
    assert (made["pre"].item(), made["post"].item(), made.sizes["neuron"]) == (70_000, 5, 100_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"indices": np.array([1, 0, 9, 2])}, "indices", id="index beyond"),
        pytest.param({"indptr": np.array([0, 10**6, 2, 4])}, "ind", id="pointer beyond"),
        pytest.param({"format": np.array(b"bsr")}, "the format is 'bsr'; save it as csr, csc or coo", id="format"),
        pytest.param({"shape": np.array([3])}, "index pointer size", id="shape"),
    ],
)
def test_a_damaged_sparse_matrix_is_refused_by_name(tmp_path, changes, message):
    matrix = scipy.sparse.csr_array(WEIGHT)
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": np.array([3, 3])}
    np.savez(tmp_path / "w.npz", **(parts | {"format": np.array(b"csr")} | changes))
    with pytest.raises(ValueError, match=f"^the sparse matrix of w.npz cannot be read .*({message})"):
        open_connectome(tmp_path / "w.npz", fields={"weight": "matrix"})


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"`weight` must be a square matrix \(post, pre\); got shape \(2, 3\)"):
        from_sparse(scipy.sparse.csr_array(WEIGHT[:2]))
