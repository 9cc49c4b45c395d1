"""CLIP text encoders as Stable Diffusion uses them: prompts to what its UNet is conditioned on.

1.x, 2.x   the encoder's last hidden state
XL         the last hidden state but one of each of two encoders, side by side, and the second's pooled embedding
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddoq.machine.extras import need
from ddoq.models.parts import Parts

BATCH = 64  # prompts at a time
KINDS = {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}


class TextEncoders:
    """The text encoders of a pipeline and their tokenizers: one, or XL's two."""

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[Any], *, xl: bool) -> None:
        self.tokenizers = list(tokenizers)
        self.encoders = [encoder.eval() for encoder in encoders]
        self.xl = xl

    @classmethod
    def of_parts(cls, parts: Parts, *, xl: bool, dtype: torch.dtype | None) -> TextEncoders:
        """Open those that a pipeline has."""
        names = list(KINDS) if xl else ["text_encoder"]
        for name in names:
            if (kind := parts.kind(name)) != KINDS[name]:
                raise ValueError(f"{name} of {parts.name} is {kind or 'absent'}: ddoq knows {KINDS[name]} there")
        transformers = need("transformers", "a text encoder")

        encoders = [parts.load(name, getattr(transformers, KINDS[name])) for name in names]
        tokenizers = [
            parts.load(name.replace("text_encoder", "tokenizer"), transformers.CLIPTokenizer) for name in names
        ]
        return cls(tokenizers, [encoder.to(dtype or encoder.dtype) for encoder in encoders], xl=xl)

    def tokens(self, prompts: Sequence[str]) -> list[Tensor]:
        """Token numbers (prompts, length), one tensor for each encoder; ValueError for a prompt that is too long."""
        numbers = []
        for tokenizer in self.tokenizers:
            length = tokenizer.model_max_length
            for prompt, ids in zip(prompts, tokenizer(list(prompts)).input_ids, strict=True):
                if len(ids) > length:
                    raise ValueError(
                        f"the prompt {prompt!r} has {len(ids)} tokens, the model reads {length}: shorten it"
                    )
            padded = tokenizer(list(prompts), padding="max_length", max_length=length, return_tensors="pt")
            numbers.append(padded.input_ids)
        return numbers

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Hidden states (prompts, length, width) and, for XL, pooled embeddings (prompts, width), on the CPU.

        The encoders visit `device` for it, and go back to where they were: they are not wanted again.
        """
        tokens = self.tokens(prompts)
        hidden: list[Tensor] = []
        pooled = None
        for encoder, numbers in zip(self.encoders, tokens, strict=True):
            home = encoder.device
            try:
                encoder.to(device)
                parts = torch.split(numbers, BATCH)
                outputs = [encoder(part.to(device), output_hidden_states=self.xl) for part in parts]
            finally:
                encoder.to(home)
            states = [output.hidden_states[-2] if self.xl else output[0] for output in outputs]
            hidden.append(torch.cat(states).cpu())
            pooled = torch.cat([output[0] for output in outputs]).cpu() if self.xl else None
        return torch.cat(hidden, dim=-1), pooled

    @cached_property
    def fingerprint(self) -> str:
        """Of the encoders' weights; the tokenizers show in the tokens."""
        digest = hashlib.sha256()
        for encoder in self.encoders:
            digest.update(type(encoder).__name__.encode())
            for name, value in sorted(encoder.state_dict().items()):
                digest.update(f"{name}:{value.dtype}{tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
