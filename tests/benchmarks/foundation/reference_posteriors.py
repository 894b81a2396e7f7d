"""Claim: NUTS reproduces the reference posteriors of posteriordb (`tests/reference/posteriors.py` has the models)."""

import time

from reference.posteriors import POSTERIORS, QUICK, agreement, sample_posterior

CLAIM = "reference_posteriors"
TARGET = (
    ">= 8 of 12 posteriors, eight schools and Lotka-Volterra among them: mean and sd of every parameter within 4 MCSE"
)

_REQUIRED = {"eight_schools-eight_schools_noncentered", "hudson_lynx_hare-lotka_volterra"}


def run(quick: bool) -> dict:
    """The number of posteriors that agree, of all 12; of the two quickest if `quick`."""
    names = QUICK if quick else tuple(POSTERIORS)
    agreed, rows = set(), []
    for name in names:
        started = time.perf_counter()
        result = sample_posterior(name)
        found = agreement(name, result)
        if found.passed:
            agreed.add(name)
        rows.append(
            f"{name}: worst z of means {found.worst_mean:.2f}, of sds {found.worst_sd:.2f}; R-hat {found.rhat:.4f}, "
            f"ESS {found.ess:.0f}, {int(result['sample_stats']['diverging'].sum())} divergences, "
            f"{result.attrs['precision']}, {time.perf_counter() - started:.0f} s"
        )
        if logarithms := POSTERIORS[name].in_logarithm:
            rows.append(f"    {' and '.join(logarithms)} in logarithms: their posterior variance is infinite")
    passed = len(agreed) == len(names) if quick else len(agreed) >= 8 and agreed >= _REQUIRED
    return {"value": len(agreed), "passed": passed, "details": "\n".join(rows)}
