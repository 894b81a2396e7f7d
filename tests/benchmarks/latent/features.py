"""Tied and random features: which design finds the drift of known networks, and with what certainty."""

import numpy as np
from recipe import simulate_recipe
from recipe_fits import measure, regression_error

CLAIM = "features"
TARGET = (
    "random features: drift error at most 1.8 times that of the regression on the true latents (median), 90 % bands "
    "hold 82 % to 97 % of the true drift, latent R2 at least 0.98"
)
DESIGNS = {"tied": "low_rank_rnn_poisson", "random": "random_feature_dynamics_poisson"}
CASES = [(teacher, seed) for seed in (0, 1) for teacher in ("limit cycle", "bistable")]


def run(quick: bool) -> dict:
    """Every design on every teacher and seed; `quick` on one, with a third of the trials."""
    rows = {}
    for teacher, seed in CASES[:1] if quick else CASES:
        recipe = simulate_recipe(teacher, seed, **({"n_training": 20, "n_test": 10} if quick else {}))
        bound = regression_error(recipe, 20 if quick else 60)
        for design, model in DESIGNS.items():
            found = measure(recipe, model, 20 if quick else 60, warmup=100, draws=100 if quick else 200)
            rows[f"{teacher} {seed}, {design}"] = found | {"ratio": found["error"] / bound}
    random = [row for name, row in rows.items() if name.endswith("random")]
    ratio, r2 = np.median([row["ratio"] for row in random]), min(row["latent_r2"] for row in random)
    coverage = np.mean([row["coverage"] for row in random])
    details = "\n".join(f"{name}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items()) for name, row in rows.items())
    return {
        "value": f"ratio {ratio:.2f}, coverage {coverage:.3f}, least R2 {r2:.4f}",
        "passed": bool(ratio <= 1.8 and 0.82 <= coverage <= 0.97 and r2 >= 0.98),
        "details": details,
    }
