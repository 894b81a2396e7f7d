import jax.numpy as jnp
import pytest


@pytest.fixture(scope="session")
def grid():
    """Starts that cover the square [-2.4, 2.4]^2."""
    axis = jnp.linspace(-2.4, 2.4, 7)
    return jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
