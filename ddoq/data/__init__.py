"""Data sets: images from any source, classes matched by name, full and distilled sets, weights."""
