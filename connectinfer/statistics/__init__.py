"""Statistics of recorded and predicted activity, on plain arrays."""
