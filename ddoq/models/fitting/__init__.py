"""How a codec and a diffusion model of one's own are trained."""
