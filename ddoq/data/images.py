"""Turns one image, whatever PIL, NumPy or torch calls one, into uint8 pixels of the wanted size and channels.

Order: EXIF orientation, 8 bits, transparency composited on white, the largest centred square resized (bicubic,
antialiased), grey or RGB. The first frame stands for an animation. 16-bit grey is scaled by 255/65535; floats must lie
in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Array = np.ndarray[Any, Any]


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Say which image was at fault: ValueError for bad values, OSError for what cannot be read."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{where}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error, EOFError, IndexError ...
        raise OSError(f"{where} cannot be read as an image: {reason(error)}; remove or replace it") from error


def reason(error: Exception) -> str:
    """What a decoder's error says, without the file, which the caller names.

    >>> reason(UnidentifiedImageError("cannot identify image file 'broken.png'"))
    'of no format that Pillow knows, or damaged'
    """
    if isinstance(error, UnidentifiedImageError):
        return "of no format that Pillow knows, or damaged"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def to_pixels(image: Image.Image | Array, size: int, channels: int) -> Array:
    """uint8 (channels, size, size) of a PIL image or of an array as `as_array` gives it."""
    flat = _flat(image if isinstance(image, Image.Image) else _from_array(image))
    if flat.size != (size, size):
        width, height = flat.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        flat = flat.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = np.asarray(flat.convert("L" if channels == 1 else "RGB"))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def is_grey(image: Image.Image | Array) -> bool:
    """Whether an image has no colour; decodes only what may have some."""
    if isinstance(image, Image.Image):
        if image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16"):
            return True
        image = np.asarray(_flat(image))
    elif image.ndim == 3 and image.shape[2] == 4:
        image = np.asarray(_flat(_from_array(image)))
    return image.ndim == 2 or image.shape[2] == 1 or bool(np.all(image[..., :1] == image[..., 1:3]))


def as_array(image: Any, *, channels_first: bool) -> Array:
    """uint8 (h, w) or (h, w, 1, 3 or 4) of an array or tensor that holds one image: uint8, bool, or floats in [0,
    1].
    """
    array = np.asarray(image)
    if array.ndim == 3 and channels_first:
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ValueError(f"an image must have 1, 3 or 4 channels and at least one pixel, got the shape {array.shape}")
    return to_uint8(array)


def to_uint8(array: Array) -> Array:
    """Pixel values as uint8: uint8 as they are, bool as 0 and 255, floats in [0, 1] rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.kind != "f":
        raise TypeError(f"pixels must be uint8, or floats in [0, 1], not {array.dtype}: convert them first")
    check_range(array)
    scaled: Array = np.rint(array.astype(np.float32) * np.float32(255))
    return scaled.astype(np.uint8)


def check_range(array: Array) -> None:
    """ValueError if floats are not finite or leave [0, 1]."""
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ValueError(f"float pixels must be finite and in [0, 1], found {low:.6g} to {high:.6g}: rescale them")


@cache
def image_extensions() -> frozenset[str]:
    """File name extensions, in lower case with the dot, that PIL can open."""
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def _from_array(array: Array) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array))


def _flat(image: Image.Image) -> Image.Image:
    """8-bit grey or RGB, upright and opaque."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_deep(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """8-bit grey of a 16-bit, 32-bit or float image."""
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray(to_uint8(values))
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"grey values must lie in 0 to 65535, found {values.min()} to {values.max()}")
    return Image.fromarray(np.rint(values.astype(np.float64) * (255 / 65535)).astype(np.uint8))
