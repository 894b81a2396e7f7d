"""What integrating paths out by Laplace's approximation leaves out, against particle filters, from easy to hopeless.

In every regime, counts are drawn from the model itself. Bias is the approximate minus the exact log likelihood, in nats
a trial; what shifts a posterior is not its size but how it changes with the parameters, so it stands beside the change
that it makes in the log likelihood's slope in the log of the process noise, by differences.
"""

import jax
import jax.numpy as jnp
import numpy as np
from latent.particle_filter import Case, particle_filter, simulated_case

from connectinfer.inference.path_gibbs import draw_paths
from connectinfer.latent.state_space import find_mode, log_marginal

CLAIM = "marginal_bias"
TARGET = "at most 0.1 nats a trial wherever at least half of the proposed paths are accepted"

# Overlap, process noise, spikes a bin, bins, concentration of negative binomial counts.
REGIMES = [
    (1.5, 0.05, 1.0, 30, None),
    (1.5, 0.05, 0.2, 30, None),
    (1.5, 0.05, 0.02, 30, None),
    (1.5, 0.2, 1.0, 30, None),
    (1.5, 0.2, 0.2, 30, None),
    (1.5, 0.2, 0.02, 30, None),
    (1.5, 0.2, 0.2, 30, 1.0),
    (1.5, 0.2, 0.2, 100, None),
    (3.0, 0.2, 0.2, 30, None),
    (3.0, 0.2, 0.02, 30, None),
    (3.0, 0.5, 0.02, 30, None),
]
N_TRIALS, _RATIO = 6, 1.25


def run(quick: bool) -> dict:
    """All regimes; the first three with fewer particles if `quick`."""
    lines, worst = [], 0.0
    for regime in REGIMES[: 3 if quick else None]:
        overlap, noise, rate, n_bins, concentration = regime
        case = simulated_case(overlap, noise, rate, concentration=concentration, n_trials=N_TRIALS, n_bins=n_bins)
        bias, error = _bias(case, quick)
        wider, wider_error = _bias(case._replace(noise=_RATIO * noise), quick)
        slope = (wider.mean() - bias.mean()) / np.log(_RATIO)
        slope_error = np.sqrt((error**2 + wider_error**2).sum()) / N_TRIALS / np.log(_RATIO)
        acceptance = _acceptance(case)
        law = "Poisson" if concentration is None else f"negative binomial ({concentration:g})"
        lines.append(
            f"overlap {overlap:g}, noise {noise:g}, {rate:g} spikes, {n_bins} bins, {law}: bias {bias.mean():+.3f} "
            f"(se {np.sqrt((error**2).sum()) / N_TRIALS:.3f}; largest trial {np.abs(bias).max():.3f}), slope "
            f"{slope:+.3f} (se {slope_error:.3f}), acceptance {acceptance:.2f}"
        )
        print(lines[-1], flush=True)
        if acceptance >= 0.5:
            worst = max(worst, abs(float(bias.mean())))
    return {"value": f"{worst:.3f} nats a trial", "passed": worst <= 0.1, "details": "\n".join(lines)}


def _bias(case: Case, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    exact = particle_filter(case, n_particles=500 if quick else 1000, repeats=20 if quick else 40)
    start = jnp.zeros((*case.counts.shape[:2], 2))
    found = jax.jit(log_marginal)(case.space(), case.seen(), start)
    return np.asarray(found, float) - exact.value, exact.error


def _acceptance(case: Case) -> float:
    space, seen = case.space(), case.seen()
    found = find_mode(space, seen, jnp.zeros((*case.counts.shape[:2], 2))).posterior
    draw = jax.jit(lambda key, space, seen, found: draw_paths(key, space, seen, found, 10)[1])
    keys = jax.random.split(jax.random.key(0), 10)
    return float(np.nanmean([draw(key, space, seen, found) for key in keys]))
