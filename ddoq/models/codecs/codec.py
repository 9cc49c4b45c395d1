"""Defines what a codec is, and opens one from an object, a folder or an id.

A codec is any object with `encode` and `decode`; `open_codec` makes one from a name, a folder, a hub id, a diffusers
autoencoder or a pipeline that has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ddoq.machine.device import Precision
from ddoq.models.codecs.identity import IdentityCodec
from ddoq.models.fingerprint import fingerprint
from ddoq.models.parts import AUTOENCODERS, as_dtype, open_parts

if TYPE_CHECKING:
    from ddoq.models.codecs.autoencoder import Posterior

__all__ = ["Codec", "open_codec"]


@runtime_checkable
class Codec(Protocol):
    """What ddoq asks of a codec.

    An attribute `channels` (1 or 3) says which images it takes; without it, those that the data has. Where an attribute
    `posterior` is "sample", `encode` gets a second argument, a torch.Generator for each image.
    """

    def encode(self, images: Tensor) -> Tensor:
        """Images (b, c, h, w) float32 in [0, 1] to latents (b, *latent_shape)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, *latent_shape) float32 to images (b, c, h, w) in [0, 1]."""
        ...


def open_codec(
    codec: Any,
    *,
    device: torch.device | str = "cpu",
    posterior: Posterior = "mean",
    precision: Precision = "auto",
) -> Codec:
    """Make a codec of a name, a folder, a hub id or an object.

    Parameters
    ----------
    codec
        "identity"; a local folder or hub id with a diffusers AutoencoderKL or AutoencoderTiny, or with a pipeline that
        has one; such an autoencoder or pipeline (it is put on `device` and in evaluation mode); or any object with
        `encode(images)` and `decode(latents)`, whose results are then checked.
    device
        Where a diffusers autoencoder computes. Other objects get CPU tensors unless this is a GPU.
    posterior
        "mean": an image's latent is the mean of its posterior; "sample": a sample of it.
    precision
        Of a diffusers autoencoder. "auto": of an object its own; else bfloat16 on a GPU that has it, float32 on others.

    Raises
    ------
    FileNotFoundError
        The folder, or the file in it that says what it holds, is absent; the hub does not give the id.
    TypeError, ValueError
        The object has no `encode` and `decode`, the folder holds another kind of model, or there is no posterior.

    Examples
    --------
    >>> import torch
    >>> codec = open_codec("identity")
    >>> images = torch.rand(2, 3, 8, 8)
    >>> bool((codec.decode(codec.encode(images)) == images).all())
    True
    """
    if posterior not in ("mean", "sample"):
        raise ValueError(f"posterior must be 'mean' or 'sample', got {posterior!r}")
    named = isinstance(codec, str) and codec == "identity"
    parts = None if named else open_parts(codec, "codec")
    autoencoder = {base.__name__ for base in type(codec).__mro__} & {*AUTOENCODERS}  # without importing diffusers
    if parts is not None or autoencoder:
        from ddoq.models.codecs.autoencoder import AutoencoderCodec

        if parts is not None:
            return AutoencoderCodec.of_parts(parts, device, posterior=posterior, precision=precision)
        dtype = None if precision == "auto" else as_dtype(precision)
        return AutoencoderCodec(codec, device, posterior=posterior, dtype=dtype)
    if posterior == "sample":
        raise ValueError(f"codec {codec!r:.100} has no posterior to sample from: use posterior='mean'")
    if named:
        return IdentityCodec()
    if callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None)):
        return _CheckedCodec(codec)
    raise TypeError(
        "codec must be 'identity', a folder, a hub id, a diffusers autoencoder or pipeline, or an object with encode "
        f"and decode; got {type(codec).__name__}"
    )


class _CheckedCodec:
    """A user's codec, with its results checked, so that a mistake in it is named where it is made."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.channels: int | None = getattr(codec, "channels", None)
        if self.channels not in (None, 1, 3):
            raise ValueError(f"{_name(codec)}.channels must be 1 or 3, got {self.channels!r}")

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.codec)

    def encode(self, images: Tensor) -> Tensor:
        """Values are not checked here: the encode stage names the class and index of a bad one."""
        latents = self.codec.encode(images)
        what = f"{_name(self.codec)}.encode"
        _check_tensor(latents, what)
        if latents.ndim < 2 or len(latents) != len(images) or latents[0].numel() == 0:
            raise ValueError(
                f"{what} returned shape {tuple(latents.shape)} for {len(images)} images: one row for each is needed"
            )
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Shape and values are not checked here: the synthesis names the class and position of a bad one."""
        images = self.codec.decode(latents)
        _check_tensor(images, f"{_name(self.codec)}.decode")
        return images


def _check_tensor(value: Any, what: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} must return a torch tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{what} must return floating-point numbers, got {value.dtype}")


def _name(obj: object) -> str:
    return type(obj).__qualname__
