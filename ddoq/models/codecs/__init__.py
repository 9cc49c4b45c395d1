"""Codecs: images to latents and back."""
