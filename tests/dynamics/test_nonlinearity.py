import jax.numpy as jnp
import pytest

from connectinfer.dynamics.nonlinearity import NONLINEARITIES, nonlinearity


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tanh", [-0.76159416, 0.0, 0.96402758]),
        ("relu", [0.0, 0.0, 2.0]),
        ("softplus", [0.31326169, 0.69314718, 2.12692801]),
        ("erf", [-0.84270079, 0.0, 0.99532227]),
        ("power_law", [0.0, 0.0, 4.0]),
    ],
)
def test_each_function_takes_its_tabulated_values_at_minus_one_zero_and_two(name, expected):
    assert nonlinearity(name)(jnp.array([-1.0, 0.0, 2.0])).tolist() == pytest.approx(expected, abs=1e-6)


def test_every_function_of_the_table_was_tabulated_above():
    assert set(NONLINEARITIES) == {"tanh", "relu", "softplus", "erf", "power_law"}


def test_a_misspelled_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"Unknown nonlinearity 'thanh'.*Did you mean 'tanh'\?"):
        nonlinearity("thanh")
    with pytest.raises(ValueError, match=r"Unknown nonlinearity 'zzz'; choose one of tanh, relu"):
        nonlinearity("zzz")
