"""Can a classifier tell the draws of two posteriors apart?"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from scipy.stats import norm, rankdata

from connectinfer.optimisation.loop import minimise


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


def sampled_values(result: xr.DataTree) -> np.ndarray:
    """2,000 draws of all sampled sites, `(draw, value)`."""
    posterior = result["log_prior"]
    sites = [result["posterior"][name] for name in posterior.data_vars]
    flat = np.concatenate([x.values.reshape(x.sizes["chain"] * x.sizes["draw"], -1) for x in sites], axis=1)
    return flat[:: len(flat) // 2000]
