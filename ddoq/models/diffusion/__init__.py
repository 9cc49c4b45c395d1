"""Conditional latent diffusion models: a point becomes a plausible latent of its class."""
