"""Is there a ring in fitted dynamics on which the state stays where it is? Only bands can tell."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from connectinfer.inference.drift import stored_drift

_SECTORS, _DRAWS = 24, 100
_RADII = (0.5, 1.0, 1.5)


def describe_ring(result: xr.DataTree, angle: np.ndarray) -> str:
    """90 % bands of the drift along and across the ring of mean states at every `angle (trial, time)`."""
    posterior = result["posterior"].to_dataset()
    path = posterior["latent"].mean(("chain", "draw")).transpose("trial", "time", "latent_dim").values
    sector = np.floor(angle % (2 * np.pi) / (2 * np.pi) * _SECTORS).astype(int) % _SECTORS
    ring = np.stack([path[sector == k].mean(0) for k in range(_SECTORS)])
    centre, width = ring.mean(0), 2 * np.pi / _SECTORS
    tangent = (np.roll(ring, -1, 0) - np.roll(ring, 1, 0)) / (2 * width)
    states = centre + np.array(_RADII)[:, None, None] * (ring - centre)
    drifts = _drifts(result, states)
    tau = float(result["drift"].attrs["tau"])
    turning = np.degrees((drifts[:, 1] * tangent).sum(-1) / (tangent**2).sum(-1)) / tau
    outward = (ring - centre) / np.linalg.norm(ring - centre, axis=-1, keepdims=True)
    radial = (drifts * outward).sum(-1).mean(-1) / np.linalg.norm(ring - centre, axis=-1).mean()
    low, high = np.quantile(turning, [0.05, 0.95], axis=0)
    bands = [np.quantile(each, [0.05, 0.5, 0.95]) for each in radial.T]
    across = ", ".join(
        f"{middle:+.2f} [{lower:+.2f}, {upper:+.2f}] at {radius} radii"
        for radius, (lower, middle, upper) in zip(_RADII, bands, strict=True)
    )
    return (
        f"along the ring, bands exclude 0 in {int(((low > 0) | (high < 0)).sum())} of {_SECTORS} sectors "
        f"(largest median {np.abs(np.median(turning, 0)).max():.0f} degrees/s, median band width "
        f"{np.median(high - low):.0f}); outwards {across}, in radii per tau"
    )


def _drifts(result: xr.DataTree, states: np.ndarray) -> np.ndarray:
    """Of posterior draws at states, in latent units per tau."""
    flat = result["posterior"].to_dataset().stack(sample=("chain", "draw"))
    chosen = np.linspace(0, flat.sizes["sample"] - 1, _DRAWS).astype(int)
    apply = jax.jit(lambda drift, z: drift(z))
    drifts = [stored_drift(flat.isel(sample=i), result["drift"].attrs) for i in chosen]
    return np.stack([np.asarray(apply(drift, jnp.asarray(states, float)), float) for drift in drifts])
