"""Defines D4M with the published settings of its authors: our own method with other defaults.

Source: github.com/suduo94/D4M. Stable Diffusion 1.5 at 512 pixels, scikit-learn's MiniBatchKMeans, samples of the
posterior, their prompt and negative prompt, images written at 224 pixels, no weights. With weighting="density" these
images have the weights of DDOQ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddoq.data.weights import Weighting
from ddoq.methods.ddoq import DDOQ, Quantizer, make_images
from ddoq.methods.task import Method
from ddoq.models.codecs.autoencoder import Posterior


@dataclass(frozen=True)
class D4M(DDOQ):
    """The options of D4M (Su et al., CVPR 2024): those of "ddoq", with its authors' settings as defaults."""

    diffusion: Any = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    strength: float | None = 0.7
    steps: int = 50
    guidance: float = 8.0
    prompt: str | None = "{}"
    negative_prompt: str | None = "cartoon, anime, painting"
    posterior: Posterior = "sample"
    quantizer: Quantizer = "minibatch"


WEIGHTINGS: tuple[Weighting, ...] = ("uniform", "density", "reencoded", "sqrt")
METHOD = Method("d4m", D4M, make_images, weightings=WEIGHTINGS, image_size=512, output_size=224)
