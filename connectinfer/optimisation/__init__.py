"""The one compiled, resumable training loop and its checkpoints."""
