"""Generative building blocks of latent dynamics: what model files share."""
