"""The sampler against draws that Stan made of the same posteriors.

Four combined Monte Carlo standard errors, mean and sd of 75 parameters: were the errors exactly normal, one of these
150 comparisons would exceed them in at most 1 % of complete runs (150 x 6.3e-5). Seeds are fixed, so a machine repeats
its answer.
"""

import numpy as np
import pytest
from reference.posteriors import POSTERIORS, QUICK, agreement, compare, sample_posterior
from shared_data import needs_shared_data


# Half of the paths that the wide prior of arma-arma11 draws explode, which the pre-flight reports.
@pytest.mark.filterwarnings("ignore:Pre-flight:UserWarning")
@needs_shared_data
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in POSTERIORS]
)
def test_means_and_sds_agree_with_the_reference_draws(name):
    found = agreement(name, sample_posterior(name))
    assert found.passed, found


@pytest.mark.parametrize(
    ("shift", "scale", "agrees"),
    [
        pytest.param(0.0, 1.0, True, id="same law"),
        pytest.param(0.2, 1.0, False, id="mean a fifth of an sd away"),
        pytest.param(0.0, 1.15, False, id="sd 15 % larger"),
    ],
)
def test_the_comparison_tells_a_wrong_posterior_from_the_right_one(shift, scale, agrees):
    rng = np.random.default_rng(0)
    expected = {"x": rng.normal(size=(10, 1000))}
    draws = {"x": shift + scale * rng.normal(size=(4, 1000))}
    assert compare(draws, expected).passed is agrees


def test_chains_that_did_not_mix_do_not_agree_however_large_their_error():
    rng = np.random.default_rng(0)
    expected = {"x": rng.normal(size=(10, 1000))}
    stuck = np.array([-3.0, 3.0, -3.0, 3.0])[:, None] + rng.normal(size=(4, 1000))
    found = compare({"x": stuck}, expected)
    assert found.worst_mean < 4
    assert not found.passed
