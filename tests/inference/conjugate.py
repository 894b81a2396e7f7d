"""A linear-Gaussian model with its posterior in closed form."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

DESIGN = np.array([[1.0, 0.2], [1.0, -1.0], [1.0, 0.7], [1.0, 2.0], [1.0, -0.4], [1.0, 1.1]])
RESPONSE = np.array([0.9, -0.6, 1.4, 2.9, 0.1, 1.6])
NOISE = 0.5


def linear_model(design, response):
    """beta ~ N(0, I), response ~ N(design beta, 0.5^2)."""
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("observation", design.shape[0]):
        numpyro.sample("response", dist.Normal(design @ beta, NOISE), obs=response)


def exact_posterior() -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of beta."""
    covariance = np.linalg.inv(DESIGN.T @ DESIGN / NOISE**2 + np.eye(2))
    return covariance @ DESIGN.T @ RESPONSE / NOISE**2, covariance


def exact_evidence() -> float:
    """Log marginal likelihood of the response."""
    covariance = DESIGN @ DESIGN.T + NOISE**2 * np.eye(len(RESPONSE))
    quadratic = RESPONSE @ np.linalg.solve(covariance, RESPONSE)
    return float(-0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1]))


INPUTS = {"design": DESIGN, "response": RESPONSE}
