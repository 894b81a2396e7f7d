"""Flow guides against NUTS by a classifier that tries to tell their draws apart; the mean-field guide beside them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from reference.posteriors import POSTERIORS, inputs_of, sample_posterior
from scipy.stats import norm, rankdata

from connectinfer.inference.svi import fit_svi
from connectinfer.optimisation.loop import minimise

CLAIM = "flow_guides"
TARGET = "classifier accuracy at most 0.6 between the flow guide's draws and NUTS's, on two models"

# One with a funnel between scale and effects, one with strong correlations.
MODELS = ("eight_schools-eight_schools_noncentered", "arK-arK")


def run(quick: bool) -> dict:
    """Fits both guides to both models; to the first alone if `quick`."""
    lines, accuracies = [], []
    for name in MODELS[:1] if quick else MODELS:
        reference = _draws(sample_posterior(name))
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
            found[guide] = classifier_accuracy(_draws(result), reference)
            lines.append(f"{name}, {guide}: accuracy {found[guide]:.3f}, {result.attrs['wall_time']:.0f} s")
        # Whether the classifier can tell two halves of the same draws apart, which it should not.
        lines.append(f"{name}, NUTS against NUTS: accuracy {classifier_accuracy(reference[::2], reference[1::2]):.3f}")
        accuracies.append(found["flow"])
    worst = max(accuracies)
    return {"value": f"{worst:.3f}", "passed": worst <= 0.6, "details": "\n".join(lines)}


def classifier_accuracy(first: np.ndarray, second: np.ndarray, n_folds: int = 5) -> float:
    """Cross-validated accuracy of a neural network that tells draws `(draw, value)` of equal number apart.

    Source: the classifier two-sample test of Lopez-Paz & Oquab, ICLR 2017, arXiv:1610.06545.
    """
    pooled = np.concatenate([first, second])
    # Normal scores: tails do not matter to the classifier's training.
    scores = norm.ppf((rankdata(pooled, axis=0) - 0.5) / len(pooled))
    label = np.repeat([0.0, 1.0], [len(first), len(second)])
    fold = np.random.default_rng(0).permutation(len(pooled)) % n_folds
    correct = np.zeros(len(pooled), bool)
    for k in range(n_folds):
        network = _trained(scores[fold != k], label[fold != k])
        predicted = np.asarray(jax.vmap(network)(jnp.asarray(scores[fold == k], float))) > 0
        correct[fold == k] = predicted == (label[fold == k] > 0.5)
    return float(correct.mean())


def _trained(scores: np.ndarray, label: np.ndarray) -> eqx.nn.MLP:
    size = scores.shape[1]
    network = eqx.nn.MLP(size, "scalar", 10 * size, 2, key=jax.random.key(0))

    def loss(network, key, data):
        x, y = data
        batch = jax.random.choice(key, len(y), (200,), replace=False)
        return optax.sigmoid_binary_cross_entropy(jax.vmap(network)(x[batch]), y[batch]).mean()

    data = (jnp.asarray(scores, float), jnp.asarray(label, float))
    optimum = minimise(
        jax.random.key(1), loss, network, data, optimizer=optax.adam(1e-3), steps=2000, show_progress=False
    )
    return optimum.parameters


def _draws(result: xr.DataTree) -> np.ndarray:
    """2,000 draws of all sampled sites, `(draw, value)`."""
    posterior = result["log_prior"]
    sites = [result["posterior"][name] for name in posterior.data_vars]
    flat = np.concatenate([x.values.reshape(x.sizes["chain"] * x.sizes["draw"], -1) for x in sites], axis=1)
    return flat[:: len(flat) // 2000]
