"""What comes in: recordings and connectomes as labelled xarray datasets, and the readers of their files."""
