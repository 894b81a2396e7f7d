"""Recovery of known dynamics from spikes by `fit_svi`, as a share of the ideal observer's held-out score."""

import numpy as np
from recipe import ideal_observer, score, simulate_recipe

from connectinfer.inference.fit import fit
from connectinfer.statistics.latent_recovery import latent_r2

CLAIM = "recovery"
TARGET = "at least 92 % of the ideal observer, latent R2 at least 0.95 (medians, limit cycle and bistable)"


def run(quick: bool) -> dict:
    """Fits both teachers for some seeds."""
    size = {"n_training": 20, "n_test": 10, "n_held_in": 50, "n_held_out": 12} if quick else {}
    lines, medians = [], {}
    for teacher in ("limit cycle", "bistable"):
        shares, agreements = [], []
        for seed in range(1 if quick else 3):
            recipe = simulate_recipe(teacher, seed, **size)
            result = fit("low_rank_rnn_poisson", recipe.training, engine="svi", rank=2, draws=100, show_progress=False)
            ideal = score(recipe, ideal_observer(recipe)["expected"]["counts"].values)
            share = score(recipe, result["expected"]["counts"].values) / ideal
            agreement = latent_r2(result["posterior"]["latent"].mean(("chain", "draw")).values, recipe.latent)
            true = score(recipe, np.exp(recipe.true_log_rate))
            shares.append(share)
            agreements.append(agreement)
            lines.append(
                f"{teacher}, seed {seed}: share {share:.4f}, R2 {agreement:.4f}, ideal {ideal:.4f} bits/spike "
                f"({ideal / true:.4f} of the true rates), {result.attrs['wall_time']:.0f} s"
            )
        medians[teacher] = (float(np.median(shares)), float(np.median(agreements)))
    passed = all(share >= 0.92 and agreement >= 0.95 for share, agreement in medians.values())
    value = "; ".join(f"{name}: {share:.1%}, R2 {agreement:.3f}" for name, (share, agreement) in medians.items())
    return {"value": value, "passed": passed, "details": "\n".join(lines)}
