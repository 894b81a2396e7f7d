"""Is the fit to be trusted? Verdicts in plain words."""
