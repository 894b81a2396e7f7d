"""One method on the recipe, alone in its process: `python -m methods.door MODULE FUNCTION SIZES LIMIT SETTINGS`.

SIZES and SETTINGS are JSON objects, LIMIT is in seconds; the track is printed as JSON.
"""

import importlib
import json
import sys

from methods.track import Track
from recipe import simulate_recipe


def main() -> None:
    """Imports and data first, so that the clock starts where a user's would."""
    module, function, sizes, limit, settings = sys.argv[1:]
    method = getattr(importlib.import_module(f"methods.{module}"), function)
    recipe = simulate_recipe("limit cycle", 0, **json.loads(sizes))
    track = Track(recipe, float(limit))
    method(recipe, track, **json.loads(settings))
    print(json.dumps(track.points))


if __name__ == "__main__":
    main()
