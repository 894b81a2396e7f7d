"""NumPyro distributions of paths and loadings."""
