"""Generative models: codecs, latent diffusion, and how both are fitted."""
