"""Unit after unit: what accepted proposals change is kept as products, which have to stay those of the rates."""

import jax
import jax.numpy as jnp
import numpy as np

from connectinfer.data.recording import recording
from connectinfer.inference.path_gibbs import first_link, sweep
from connectinfer.latent import network_units
from connectinfer.latent.network_units import _exchanged, _Offers, _Regression, _Standing, _Units
from connectinfer.latent.state_space import Seen
from connectinfer.zoo import load_model


def test_after_accepted_proposals_products_are_those_of_the_new_rates():
    n_units, n_bins, rank = 6, 50, 2
    rng = np.random.default_rng(0)
    rates, added = rng.normal(size=(2, n_units, n_bins))
    left, n = rng.normal(size=(rank, n_bins)), rng.normal(size=(n_units, rank))

    def as_jax(*arrays):
        return (jnp.asarray(x, jnp.float32) for x in arrays)

    offers = _Offers(*as_jax(added @ rates.T, added @ added.T))
    regression = _Regression(*as_jax(rates @ rates.T, rates @ left.T, np.zeros(())))
    zeros = jnp.zeros(n_units)
    units = _Units(jnp.zeros((n_units, rank)), jnp.zeros((n_units, 0)), zeros, zeros, zeros)
    now = _Standing(units, regression, jnp.zeros(()), zeros, *as_jax(added @ left.T))
    first = (left**2).sum()
    for unit in (0, 2, 3, 5):
        regression, with_left = _exchanged(now, offers, jnp.asarray(unit), jnp.asarray(n[unit], jnp.float32))
        now = now._replace(regression=regression, with_left=with_left, accepted=now.accepted.at[unit].set(1.0))
        rates[unit] += added[unit]
        left -= np.outer(n[unit], added[unit])
        np.testing.assert_allclose(regression.gram, rates @ rates.T, atol=2e-4)
        np.testing.assert_allclose(regression.cross, rates @ left.T, atol=2e-4)
        np.testing.assert_allclose(regression.square, (left**2).sum() - first, atol=2e-3)
        np.testing.assert_allclose(with_left, added @ left.T, atol=2e-4)


def test_a_proposal_that_is_not_finite_is_refused_and_the_other_units_move(monkeypatch):
    propose = network_units._propose_read_outs

    def spoil_one(*arguments):
        units, log_ratio = propose(*arguments)
        return units._replace(loading=units.loading.at[2].set(jnp.nan)), log_ratio

    monkeypatch.setattr(network_units, "_propose_read_outs", spoil_one)
    counts = np.random.default_rng(0).poisson(1.0, (4, 20, 6))
    module = load_model("low_rank_rnn_poisson")
    arrays, _ = module.inputs(recording(time=0.01, counts=counts), rank=2)
    seen = Seen.of(arrays["activity"], arrays["mask"])
    chain = first_link(jax.random.key(0), *module.CONDITIONALS.begin(arrays))
    step = jax.jit(lambda chain: sweep(chain, module.CONDITIONALS, seen, arrays, 0))
    for _ in range(20):
        chain, stats = step(chain)
        assert not stats["failed_updates"]
    assert [unit for unit, gain in enumerate(chain.parameters.gain) if gain == 1] == [2]
