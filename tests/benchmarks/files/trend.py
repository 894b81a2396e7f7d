"""Signals with a trend: small enough that a flow can learn its whole posterior.

Generative story:
    trend   level_u ~ N(0, 1),  slope_u ~ N(0, 1),  noise_u ~ LogNormal(log 0.5, 0.5)
    signal  y_rtu ~ N(level_u + slope_u t, noise_u^2)

Symbols: signal y (trial r, time t, unit u), t from -1 to 1 over a trial; level, slope, noise (unit).
Source: none.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

CARD = {"system": "calibration of flows", "engine": "flow_posterior", "minutes": 1}
DIMS = {"level": ["unit"], "slope": ["unit"], "noise": ["unit"]}


def inputs(data):
    """Arrays and coordinates from a recording of rates."""
    return {"rates": data["rates"].values}, {name: data[name].values for name in ("trial", "time", "unit")}


def model(rates):
    """Joint law of trends and signals."""
    n_trials, n_bins, n_units = rates.shape
    level = numpyro.sample("level", dist.Normal(jnp.zeros(n_units), 1.0).to_event(1))
    slope = numpyro.sample("slope", dist.Normal(jnp.zeros(n_units), 1.0).to_event(1))
    noise = numpyro.sample("noise", dist.LogNormal(jnp.full(n_units, jnp.log(0.5)), 0.5).to_event(1))
    time = jnp.linspace(-1, 1, n_bins)[:, None]
    with (
        numpyro.plate("trial", n_trials, dim=-3),
        numpyro.plate("time", n_bins, dim=-2),
        numpyro.plate("unit", n_units, dim=-1),
    ):
        numpyro.sample("signal", dist.Normal(level + slope * time, noise), obs=rates)
