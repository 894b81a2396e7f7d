"""What a recording holds, as a digest: equal content has one digest, wherever it was read from."""

import hashlib
import json
from typing import Any

import numpy as np
import xarray as xr

_PROVENANCE = ("source", "read", "left_out")


def content_digest(recording: xr.Dataset) -> str:
    """SHA-256 of all values, names, dims and attributes, in hexadecimal digits; where it was read from is left out."""
    digest = hashlib.sha256()
    for name in sorted(map(str, recording.variables)):
        each = recording[name]
        # Text comes back from files in other dtypes.
        is_text = each.dtype.kind in "OUT"
        held = [name, each.dims, each.shape, "text" if is_text else each.dtype.str]
        digest.update(json.dumps(held).encode())
        digest.update(json.dumps(each.values.tolist()).encode() if is_text else np.ascontiguousarray(each.values).data)
    attrs = {name: value for name, value in recording.attrs.items() if name not in _PROVENANCE}
    digest.update(json.dumps(attrs, sort_keys=True, default=_plain).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
