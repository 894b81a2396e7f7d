import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from scipy.special import multigammaln
from scipy.stats import chi, chi2, ks_2samp, kstest, norm

from connectinfer.distributions.loadings import sample_aligned_loadings

N_UNITS, N_DRAWS = 5, 4000
BASIS = np.linalg.qr(np.random.default_rng(7).normal(size=(N_UNITS, N_UNITS)))[0]
HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
"""Half of it is an orthogonal basis of 4 units, whose root is 2: products with it are integers."""
LEVEL = 1e-4
"""False-alarm rate of each Kolmogorov-Smirnov test below; there are 42 of them."""


def given(sites, rank, basis=BASIS):
    """The trace at given values of the sites, and the loadings."""
    model = handlers.trace(handlers.seed(handlers.substitute(sample_aligned_loadings, data=sites), 0))
    found = model("m", jnp.asarray(basis, float), rank)
    return model.trace, found


def density(sites, rank):
    trace, _ = given(sites, rank)
    return sum(site["fn"].log_prob(site["value"]) for site in trace.values())


def sites_of(alignment, relative):
    """The sites at an alignment and the free units' relative loadings, as far as these have entries."""
    below = alignment[np.tril_indices(len(alignment), -1)]
    values = {"m_diagonal": np.diag(alignment), "m_below": below, "m_relative": relative}
    return {name: jnp.asarray(value, float) for name, value in values.items() if value.size}


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda rank: f"rank-{rank}")
def drawn(request):
    """The rank and draws of the loadings, the alignment and the relative loadings."""

    def draw(key):
        return handlers.seed(sample_aligned_loadings, key)("m", jnp.asarray(BASIS, float), request.param)

    # A map, because the gamma sampler takes long to compile under `vmap`.
    found = jax.jit(lambda keys: jax.lax.map(draw, keys))(jax.random.split(jax.random.key(0), N_DRAWS))
    return request.param, jax.tree.map(lambda x: np.asarray(x, float), found)


@pytest.fixture(scope="module")
def aligned(drawn):
    """The rank and draws of the loadings `(draw, unit, rank)`."""
    rank, found = drawn
    return rank, found.loading


@pytest.fixture(scope="module")
def isotropic(drawn):
    rank, _ = drawn
    return np.random.default_rng(1).normal(size=(N_DRAWS, N_UNITS, rank))


def test_the_projection_on_the_reference_is_lower_triangular_with_a_positive_diagonal(drawn):
    rank, (loading, alignment, relative) = drawn
    projection = BASIS[:, :rank].T @ loading / np.sqrt(N_UNITS)
    size = np.abs(relative).max((1, 2), keepdims=True)
    # In float32, and some alignments are all but singular: then relative loadings are large.
    resolution = 2e-6 * (1 + size * np.abs(alignment).max((1, 2), keepdims=True))
    assert (np.abs(projection - alignment) < resolution).all()
    assert np.abs(projection - alignment).mean() < 1e-6
    assert (np.triu(alignment, 1) == 0).all()
    assert (np.diagonal(alignment, axis1=1, axis2=2) > 0).all()
    assert (np.tril(alignment, -1) != 0).sum() == N_DRAWS * rank * (rank - 1) // 2
    assert (np.abs(relative @ alignment - loading) < resolution).all()
    np.testing.assert_allclose(BASIS[:, :rank].T @ relative / size, np.sqrt(N_UNITS) * np.eye(rank) / size, atol=1e-5)


def test_inner_products_of_loadings_have_the_law_of_isotropic_loadings(aligned, isotropic):
    rank, m = aligned
    found, expected = m @ m.transpose(0, 2, 1), isotropic @ isotropic.transpose(0, 2, 1)
    for unit in range(N_UNITS):
        assert kstest(found[:, unit, unit], chi2(rank).cdf).pvalue > LEVEL
    for i, j in [(0, 1), (0, 4), (1, 2), (3, 4)]:
        assert ks_2samp(found[:, i, j], expected[:, i, j]).pvalue > LEVEL


def test_singular_values_have_the_law_of_isotropic_loadings(aligned, isotropic):
    rank, m = aligned
    found, expected = np.linalg.svd(m, compute_uv=False), np.linalg.svd(isotropic, compute_uv=False)
    for k in range(rank):
        assert ks_2samp(found[:, k], expected[:, k]).pvalue > LEVEL


def test_rotating_isotropic_loadings_into_the_gauge_gives_the_same_law(aligned, isotropic):
    rank, m = aligned
    q, r = np.linalg.qr((BASIS[:, :rank].T @ isotropic).transpose(0, 2, 1))
    sign = np.sign(np.diagonal(r, axis1=1, axis2=2))
    rotated = isotropic @ (q * sign[:, None])
    for unit, column in [(2, rank - 1), (2, 0), (4, 0)]:
        assert ks_2samp(m[:, unit, column], rotated[:, unit, column]).pvalue > LEVEL


@pytest.mark.parametrize("rank", [1, 3, N_UNITS])
def test_the_density_of_the_sites_is_that_of_isotropic_loadings_in_other_coordinates(rank):
    generator = np.random.default_rng(0)
    alignment = np.tril(generator.normal(size=(rank, rank)), -1) + np.diag(generator.uniform(0.3, 1.5, rank))
    sites = sites_of(alignment, generator.normal(size=(N_UNITS - rank, rank)))
    trace, found = given(sites, rank)
    assert {name: site["value"].shape for name, site in trace.items()} == {n: x.shape for n, x in sites.items()}
    diagonal, place = np.diag(alignment), np.arange(rank)
    # All rotations of one matrix of loadings, whose volume is that of the orthogonal group,
    expected = norm.logpdf(np.asarray(found.loading, float)).sum()
    expected += rank * np.log(2) + rank**2 / 2 * np.log(np.pi) - multigammaln(rank / 2, rank)
    # a projection P = sqrt(K) L Q: dP = prod_k P_kk^(rank - 1 - k) d(sqrt(K) L) dQ,
    expected += ((rank - 1 - place) * np.log(np.sqrt(N_UNITS) * diagonal)).sum()
    expected += rank * (rank + 1) / 4 * np.log(N_UNITS)
    # and what remains, sqrt(K) B L, for each of the other directions.
    expected += (N_UNITS - rank) * np.log(np.sqrt(N_UNITS) * diagonal).sum()
    assert float(density(sites, rank)) == pytest.approx(expected, rel=1e-5)


def test_given_sites_are_put_where_they_belong():
    sites = sites_of(np.array([[1.0, 0.0], [3.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 2.0]]))
    _, (loading, alignment, relative) = given(sites, 2, HADAMARD / 2)
    assert alignment.tolist() == [[1, 0], [3, 2]]
    # The first two columns, plus the third in the first dimension, plus twice the fourth in the second.
    assert relative.tolist() == [[2, 3], [2, -3], [0, -1], [0, 1]]
    assert loading.tolist() == [[11, 6], [-7, -6], [-3, -2], [3, 2]]


def test_one_dimension_has_no_entries_below_the_diagonal():
    sites = sites_of(np.array([[0.5]]), np.array([[1.0], [0.0], [2.0]]))
    trace, found = given(sites, 1, HADAMARD / 2)
    assert set(trace) == {"m_diagonal", "m_relative"}
    assert found.loading.tolist() == [[2.0], [-1.0], [0.0], [1.0]]


def test_as_many_dimensions_as_units_leave_nothing_relative():
    alignment = np.diag([1.0, 2.0, 3.0, 4.0]) + np.diag([5.0, 6.0, 7.0], -1)
    sites = sites_of(alignment, np.zeros((0, 4)))
    trace, found = given(sites, 4, HADAMARD / 2)
    assert set(trace) == {"m_diagonal", "m_below"}
    np.testing.assert_array_equal(found.relative, HADAMARD)
    np.testing.assert_array_equal(found.loading, HADAMARD @ alignment)


@pytest.mark.parametrize("smallest", [1e-2, 1e-4])
def test_density_and_gradient_stay_finite_when_a_dimension_is_all_but_absent_from_the_reference(smallest):
    free, size = np.random.default_rng(0).normal(size=(2, 3)), np.sqrt(N_UNITS)
    alignment = np.array([[1.0, 0, 0], [2.0, smallest, 0], [-1.0, 3.0, 0.5]]) / size
    sites = sites_of(alignment, free @ np.linalg.inv(size * alignment))
    value, slopes = jax.jit(jax.value_and_grad(lambda sites: density(sites, 3)))(sites)
    diagonal, below = np.diag(alignment), alignment[np.tril_indices(3, -1)]
    expected = (
        sum(chi(3 - k, scale=1 / size).logpdf(diagonal[k]) for k in range(3)) + norm(0, 1 / size).logpdf(below).sum()
    )
    expected += norm.logpdf(free).sum() + 2 * np.log(size * diagonal).sum()
    assert float(value) == pytest.approx(expected, rel=0.02)
    assert all(np.isfinite(slope).all() for slope in slopes.values())
