import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from scipy.stats import chi, chi2, ks_2samp, kstest, norm

from connectinfer.distributions.loadings import sample_anchored_loadings

N_UNITS, N_DRAWS = 5, 4000
ORDER = np.array([3, 0, 4, 1, 2])
SCALE = np.array([0.5, 1.0, 2.0, 1.5, 0.8])
LEVEL = 1e-4
"""False-alarm rate of each Kolmogorov-Smirnov test below; there are 36 of them."""


def given(sites, rank, order=ORDER, scale=SCALE):
    """The trace at given values of the sites, and the loadings."""
    model = handlers.trace(handlers.seed(handlers.substitute(sample_anchored_loadings, data=sites), 0))
    found = model("m", jnp.asarray(order), rank, jnp.asarray(scale, float))
    return model.trace, found


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda rank: f"rank-{rank}")
def drawn(request):
    """The rank and draws of the loadings, the block and the relative loadings."""

    def draw(key):
        return handlers.seed(sample_anchored_loadings, key)("m", jnp.asarray(ORDER), request.param, jnp.asarray(SCALE))

    # A map, because the gamma sampler takes long to compile under `vmap`.
    found = jax.jit(lambda keys: jax.lax.map(draw, keys))(jax.random.split(jax.random.key(0), N_DRAWS))
    return request.param, jax.tree.map(lambda x: np.asarray(x, float), found)


@pytest.fixture(scope="module")
def anchored(drawn):
    """The rank and draws of the loadings over the units' scales `(draw, unit, rank)`."""
    rank, found = drawn
    return rank, found.loading / SCALE[:, None]


@pytest.fixture(scope="module")
def isotropic(anchored):
    rank, _ = anchored
    return np.random.default_rng(1).normal(size=(N_DRAWS, N_UNITS, rank))


def test_the_anchor_block_is_lower_triangular_with_a_positive_diagonal(drawn):
    rank, (loading, block, relative) = drawn
    np.testing.assert_array_equal(loading[:, ORDER[:rank]], block)
    assert (np.triu(block, 1) == 0).all()
    assert (np.diagonal(block, axis1=1, axis2=2) > 0).all()
    assert (np.tril(block, -1) != 0).sum() == N_DRAWS * rank * (rank - 1) // 2
    assert (loading[:, ORDER[rank:]] != 0).all()
    # In float32, and some blocks are all but singular.
    np.testing.assert_allclose(relative @ block, loading, atol=2e-3)
    np.testing.assert_array_equal(relative[:, ORDER[:rank]], np.broadcast_to(np.eye(rank), block.shape))


def test_inner_products_of_loadings_have_the_law_of_isotropic_loadings(anchored, isotropic):
    rank, m = anchored
    found, expected = m @ m.transpose(0, 2, 1), isotropic @ isotropic.transpose(0, 2, 1)
    for unit in range(N_UNITS):
        assert kstest(found[:, unit, unit], chi2(rank).cdf).pvalue > LEVEL
    # Two anchors, an anchor and a free unit, two free units.
    for i, j in [(ORDER[0], ORDER[1]), (ORDER[0], ORDER[4]), (ORDER[1], ORDER[4]), (ORDER[3], ORDER[4])]:
        assert ks_2samp(found[:, i, j], expected[:, i, j]).pvalue > LEVEL


def test_singular_values_have_the_law_of_isotropic_loadings(anchored, isotropic):
    rank, m = anchored
    found, expected = np.linalg.svd(m, compute_uv=False), np.linalg.svd(isotropic, compute_uv=False)
    for k in range(rank):
        assert ks_2samp(found[:, k], expected[:, k]).pvalue > LEVEL


def test_rotating_isotropic_loadings_into_the_gauge_gives_the_same_law(anchored, isotropic):
    rank, m = anchored
    q, r = np.linalg.qr(isotropic[:, ORDER[:rank]].transpose(0, 2, 1))
    sign = np.sign(np.diagonal(r, axis1=1, axis2=2))
    rotated = isotropic @ (q * sign[:, None])
    for unit, column in [(ORDER[rank - 1], rank - 1), (ORDER[rank - 1], 0), (ORDER[4], 0)]:
        assert ks_2samp(m[:, unit, column], rotated[:, unit, column]).pvalue > LEVEL


def test_the_density_of_the_sites_is_that_of_the_loadings_in_other_coordinates():
    generator = np.random.default_rng(0)
    sites = {
        "m_diagonal": jnp.array([0.3, 1.0, 2.0]),
        "m_below": jnp.array([0.5, -1.0, 2.0]),
        "m_relative": jnp.asarray(generator.normal(size=(2, 3)), float),
    }
    trace, found = given(sites, 3)
    assert {name: site["value"].shape for name, site in trace.items()} == {n: x.shape for n, x in sites.items()}
    density = sum(float(site["fn"].log_prob(site["value"])) for site in trace.values())
    scale, loading = SCALE[ORDER], np.asarray(found.loading, float)[ORDER]
    expected = sum(chi(3 - k, scale=scale[k]).logpdf(loading[k, k]) for k in range(3))
    expected += sum(norm(0, scale[i]).logpdf(loading[i, j]) for i, j in [(1, 0), (2, 0), (2, 1)])
    expected += norm(0, scale[3:, None]).logpdf(loading[3:]).sum()
    # loading = relative @ block for each of two free units.
    expected += 2 * np.log(np.diag(loading[:3])).sum()
    assert density == pytest.approx(expected, rel=1e-5)


def test_given_sites_are_put_where_they_belong():
    sites = {
        "m_diagonal": jnp.array([1.0, 2.0]),
        "m_below": jnp.array([3.0]),
        "m_relative": jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]]),
    }
    _, (loading, block, relative) = given(sites, 2)
    assert block.tolist() == [[1, 0], [3, 2]]
    # The order is units 3, 0, 4, 1, 2.
    assert relative.tolist() == [[0, 1], [0, 1], [2, -1], [1, 0], [1, 0]]
    assert loading.tolist() == [[3, 2], [3, 2], [-1, -2], [1, 0], [1, 0]]


def test_as_many_dimensions_as_units_leave_no_unit_free():
    sites = {"m_diagonal": jnp.array([1.0, 2.0]), "m_below": jnp.array([3.0])}
    trace, found = given(sites, 2, order=[1, 0], scale=[1.0, 1.0])
    assert set(trace) == set(sites)
    assert found.loading.tolist() == [[3, 2], [1, 0]]


@pytest.mark.parametrize("smallest", [1e-2, 1e-4])
def test_density_and_gradient_stay_finite_when_an_anchor_is_all_but_silent(smallest):
    free = np.random.default_rng(0).normal(size=(2, 3))
    block = np.array([[1.0, 0, 0], [2.0, smallest, 0], [-1.0, 3.0, 0.5]])
    sites = {
        "m_diagonal": jnp.asarray(np.diag(block), float),
        "m_below": jnp.asarray(block[np.tril_indices(3, -1)], float),
        "m_relative": jnp.asarray(free @ np.linalg.inv(block), float),
    }

    def density(sites):
        return sum(site["fn"].log_prob(site["value"]) for site in given(sites, 3, scale=np.ones(5))[0].values())

    value, slopes = jax.jit(jax.value_and_grad(density))(sites)
    expected = sum(chi(3 - k).logpdf(block[k, k]) for k in range(3)) + norm.logpdf(block[np.tril_indices(3, -1)]).sum()
    expected += norm.logpdf(free).sum() + 2 * np.log(np.diag(block)).sum()
    assert float(value) == pytest.approx(expected, rel=0.02)
    assert all(np.isfinite(slope).all() for slope in slopes.values())
