"""Tiny random pipelines, made offline: Stable Diffusion, XL and DiT, with their text encoders and tokenizers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from ddoq.machine.torchvision import ensure_importable

ensure_importable()
from diffusers import (  # noqa: E402
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from transformers import (  # noqa: E402
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

WIDTH, LENGTH = 32, 40  # of the text encoders; tokens of a prompt
LETTERS = [chr(code) for code in range(33, 127)]
VOCABULARY = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer() -> CLIPTokenizer:
    """One token for each letter."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps({token: number for number, token in enumerate(VOCABULARY)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=LENGTH)


def text_encoder(kind: Any = CLIPTextModel, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=len(VOCABULARY) - 2,
        eos_token_id=len(VOCABULARY) - 1,
        projection_dim=16,
    )
    return kind(config).eval()


def vae(**config: Any) -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=[8, 16],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        **{"scaling_factor": 0.5, **config},
    ).eval()


def unet(kind: Any = UNet2DConditionModel, **config: Any) -> Any:
    torch.manual_seed(2)
    return kind(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **{"cross_attention_dim": WIDTH, **config},
    ).eval()


def stable(scheduler: Any = None, unet_kind: Any = UNet2DConditionModel) -> StableDiffusionImg2ImgPipeline:
    """Stable Diffusion on images of 16 x 16."""
    return quiet(
        StableDiffusionImg2ImgPipeline(
            vae=vae(),
            text_encoder=text_encoder(),
            tokenizer=tokenizer(),
            unet=unet(unet_kind),
            scheduler=scheduler or DDIMScheduler(clip_sample=False, **SD),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def stable_xl(scheduler: Any = None) -> StableDiffusionXLImg2ImgPipeline:
    """Stable Diffusion XL on images of 16 x 16."""
    told = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    return quiet(
        StableDiffusionXLImg2ImgPipeline(
            vae=vae(),
            text_encoder=text_encoder(),
            text_encoder_2=text_encoder(CLIPTextModelWithProjection, seed=3),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet(cross_attention_dim=2 * WIDTH, projection_class_embeddings_input_dim=16 + 6 * 8, **told),
            scheduler=scheduler or DDIMScheduler(clip_sample=False, **SD),
            add_watermarker=False,
        )
    )


def dit(scheduler: Any = None, id2label: dict[int, str] | None = None, classes: int = 3) -> DiTPipeline:
    """A DiT on images of 16 x 16, with learned variance as the published one."""
    torch.manual_seed(4)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=classes,
    )
    names = id2label or {0: "cat", 1: "dog", 2: "fox, red fox"}
    pipeline = quiet(DiTPipeline(transformer.eval(), vae(), scheduler or DDIMScheduler(clip_sample=False), names))
    pipeline.names = names
    return pipeline


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(pipeline: Any, folder: Path) -> Path:
    """Save a pipeline; a DiT's id2label, which diffusers does not save, is put where the published ones have it."""
    pipeline.save_pretrained(folder)
    if hasattr(pipeline, "names"):
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "id2label": pipeline.names}))
    return folder
