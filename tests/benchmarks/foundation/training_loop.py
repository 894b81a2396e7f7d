"""Steps per second of the compiled training loop against flowjax's own, on a small flow."""

import time

import flowjax.distributions
import flowjax.flows
import jax
import numpy as np
import optax
import paramax
from flowjax.train import fit_to_data

from connectinfer.optimisation.loop import minimise

CLAIM = "training_loop"
TARGET = "at least 5x flowjax's own loop in steps per second on a small flow"

N, BATCH = 1000, 100


def run(quick: bool) -> dict:
    """Both train the same masked autoregressive flow on the same data, batch size and optimiser."""
    data = jax.random.normal(jax.random.key(0), (N, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]], np.float32)
    base = flowjax.distributions.Normal(np.zeros(2, np.float32))
    flow = flowjax.flows.masked_autoregressive_flow(jax.random.key(1), base_dist=base, flow_layers=2, nn_width=16)
    ratios, lines = [], []
    for repeat in range(1 if quick else 5):
        theirs, ours = _flowjax_rate(flow, data, repeat), _our_rate(flow, data, repeat, 200 if quick else 2000)
        ratios.append(ours / theirs)
        lines.append(f"flowjax {theirs:.0f} steps/s, ours {ours:.0f} steps/s, ratio {ours / theirs:.1f}")
    ratio = float(np.median(ratios))
    return {"value": f"{ratio:.1f}x", "passed": ratio >= 5, "details": "\n".join(lines)}


def _flowjax_rate(flow, data, repeat: int) -> float:
    # One proportion for validation is flowjax's default; its cost is part of the loop that users run.
    train = lambda epochs: fit_to_data(  # noqa: E731
        jax.random.key(repeat),
        flow,
        data,
        max_epochs=epochs,
        max_patience=10**6,
        batch_size=BATCH,
        val_prop=0.1,
        show_progress=False,
        optimizer=optax.adam(5e-4),
    )
    train(2)
    started = time.perf_counter()
    train(20)
    long = time.perf_counter() - started
    return 20 * (int(0.9 * N) // BATCH) / long


def _our_rate(flow, data, repeat: int, steps: int) -> float:
    def loss(flow, key, data):
        batch = jax.random.choice(key, data, (BATCH,), replace=False)
        return -paramax.unwrap(flow).log_prob(batch).mean()

    started = time.perf_counter()
    minimise(jax.random.key(repeat), loss, flow, data, optimizer=optax.adam(5e-4), steps=steps, show_progress=False)
    return steps / (time.perf_counter() - started)
