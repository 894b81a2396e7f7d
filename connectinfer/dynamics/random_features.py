r"""Latent dynamics whose recurrent drift is a sum of fixed sigmoids.

$$\tau \dot z = -z + c + \sum_j w_j \tanh(s_j \cdot z + \theta_j) + B v, \qquad \tau \dot v = -v + u.$$

Slopes s and thresholds $\theta$ are random numbers that are drawn once, so that the drift is linear in what is
inferred, the weights w, the constant c and the input weights B. It is bounded: paths cannot run away.
Source: random features, Rahimi & Recht, NeurIPS 20 (2007).
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


class RandomFeatureDynamics(eqx.Module):
    """The equation above; `weight (feature, dim)`, `constant (dim)` and `input_weight (input, dim)` are in latent units
    per tau. Leaves may be traced."""

    slope: Float[Array, "feature dim"]
    threshold: Float[Array, " feature"]
    weight: Float[Array, "feature dim"]
    constant: Float[Array, " dim"]
    input_weight: Float[Array, "input dim"]

    def recurrent_drift(
        self, z: Float[Array, "*batch dim"], v: Float[Array, "*batch input"] | None = None
    ) -> Float[Array, "*batch dim"]:
        """The drift without the leak, in latent units per tau; without `v` the filtered inputs are zero."""
        found = jnp.tanh(z @ self.slope.T + self.threshold) @ self.weight + self.constant
        return found if v is None else found + v @ self.input_weight

    def drift(
        self, z: Float[Array, "*batch dim"], v: Float[Array, "*batch input"] | None = None
    ) -> Float[Array, "*batch dim"]:
        """`tau dz/dt`, in latent units per tau."""
        return self.recurrent_drift(z, v) - z

    def step(
        self, alpha: ArrayLike, z: Float[Array, "*batch dim"], v: Float[Array, "*batch input"] | None = None
    ) -> Float[Array, "*batch dim"]:
        """The mean of the next bin, with `alpha = dt / tau`."""
        alpha = jnp.asarray(alpha)
        return (1 - alpha) * z + alpha * self.recurrent_drift(z, v)

    def change_gauge(self, A: Float[Array, "dim dim"], origin: Float[Array, " dim"]) -> "RandomFeatureDynamics":
        """The same dynamics in the coordinates `A z + origin`."""
        slope = jnp.linalg.solve(A.T, self.slope.T).T
        return RandomFeatureDynamics(
            slope=slope,
            threshold=self.threshold - slope @ origin,
            weight=self.weight @ A.T,
            constant=A @ self.constant + origin,
            input_weight=self.input_weight @ A.T,
        )
