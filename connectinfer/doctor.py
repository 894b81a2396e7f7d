"""What a report of trouble needs to say of the set-up."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import jax

import connectinfer
from connectinfer.zoo import list_models

_LIBRARIES = ("jax", "jaxlib", "numpyro", "diffrax", "equinox", "optax", "optimistix", "flowjax", "arviz", "xarray")


def set_up() -> list[tuple[str, str]]:
    """Versions, devices, precision, cores, compile cache and models, each by name."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return [
        ("connectinfer", f"{connectinfer.__version__} in {Path(__file__).parent}"),
        ("python", f"{platform.python_version()} on {platform.platform()}, {sys.executable}"),
        *((library, _installed(library)) for library in _LIBRARIES),
        ("devices", ", ".join(f"{device} ({device.device_kind})" for device in jax.devices())),
        ("cores", str(cores)),
        ("precision", "float64" if jax.config.jax_enable_x64 else "float32 (--precision float64)"),
        ("compile cache", _cache_state(Path(jax.config.jax_compilation_cache_dir))),
        ("models", f"{len(list_models())} in the zoo"),
    ]


def _cache_state(folder: Path) -> str:
    sizes = [file.stat().st_size for file in folder.glob("*") if file.is_file()]
    return (
        f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB "
        "(JAX_COMPILATION_CACHE_DIR moves it, JAX_ENABLE_COMPILATION_CACHE=0 turns it off, deleting it is safe)"
    )


def _installed(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"
