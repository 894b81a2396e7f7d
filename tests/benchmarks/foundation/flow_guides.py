"""Flow guides against NUTS by a classifier that tries to tell their draws apart; the mean-field guide beside them."""

import jax
from reference.posteriors import POSTERIORS, inputs_of, sample_posterior
from two_sample import classifier_accuracy, sampled_values

from connectinfer.inference.svi import fit_svi

CLAIM = "flow_guides"
TARGET = "classifier accuracy at most 0.6 between the flow guide's draws and NUTS's, on two models"

# One with a funnel between scale and effects, one with strong correlations.
MODELS = ("eight_schools-eight_schools_noncentered", "arK-arK")


def run(quick: bool) -> dict:
    """Fits both guides to both models; to the first alone if `quick`."""
    lines, accuracies = [], []
    for name in MODELS[:1] if quick else MODELS:
        reference = sampled_values(sample_posterior(name))
        posterior = POSTERIORS[name]
        found = {}
        for guide in ("flow", "normal"):
            result = fit_svi(
                jax.random.key(0),
                posterior.model,
                inputs_of(posterior),
                guide=guide,
                steps=1000 if quick else 5000,
                particles=8,
                draws=2000,
                show_progress=False,
            )
            found[guide] = classifier_accuracy(sampled_values(result), reference)
            lines.append(f"{name}, {guide}: accuracy {found[guide]:.3f}, {result.attrs['wall_time']:.0f} s")
        # Whether the classifier can tell two halves of the same draws apart, which it should not.
        lines.append(f"{name}, NUTS against NUTS: accuracy {classifier_accuracy(reference[::2], reference[1::2]):.3f}")
        accuracies.append(found["flow"])
    worst = max(accuracies)
    return {"value": f"{worst:.3f}", "passed": worst <= 0.6, "details": "\n".join(lines)}
