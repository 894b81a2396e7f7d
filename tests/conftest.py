"""What every test shares: checked shapes and types, a head-less canvas, a random key."""

import atexit
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"
# The workers of pytest-xdist inherit these: with one on each core, BLAS threads cost 10 to 35 % (measured).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Small shapes take longer to compile than to run; without most optimisations half as long (measured).
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

# What one test compiled, others need not compile again; the folder lasts as long as the run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache = tempfile.mkdtemp(prefix="connectinfer-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# The first example of a property compiles, which no deadline allows for.
settings.register_profile("connectinfer", deadline=None, derandomize=True, database=None)
settings.load_profile("connectinfer")

install_import_hook("connectinfer", "beartype.beartype")
_hook = sys.meta_path[0]

from connectinfer import zoo  # noqa: E402  # what is imported before the hook goes unchecked


def _checked_spec(name: str, path: Path):
    # Model files are loaded by path, past the hook, so they are handed to it here.
    if name.startswith("connectinfer."):
        return _hook.find_spec(name, [str(path.parent)])
    return importlib.util.spec_from_file_location(name, path)


zoo.spec_from_file_location = _checked_spec


@pytest.fixture
def key():
    """A random key with a fixed seed."""
    import jax

    return jax.random.key(0)


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Shells start what runs in the background deaf to Ctrl-C, which many tests send."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
