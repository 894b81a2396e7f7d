"""New networks drawn from a posterior."""
