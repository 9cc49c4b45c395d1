"""Draws the distilled images with their weights as one picture."""

from __future__ import annotations

import io
import math
import unicodedata
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddoq.data.distilled import DistilledDataset
from ddoq.storage.files import write_atomic

MAX_CLASSES, MAX_IMAGES = 20, 50  # of a picture
MARGIN, NAME_HEIGHT, NAME_LETTERS = 28, 22, 20  # pixels, pixels, letters
INK, FAINT, BAR, TRACK, BORDER = (31, 35, 40), (110, 119, 129), (47, 111, 159), (234, 238, 242), (208, 215, 222)


def weights_picture(
    dataset: DistilledDataset,
    path: str | PathLike[str],
    *,
    max_classes: int = MAX_CLASSES,
    max_images: int = MAX_IMAGES,
) -> None:
    """Draw a distilled set as a PNG: a row per class, the heaviest image first, each image's weight under it.

    The bar under an image is its weight's share of the greatest weight drawn. Tiny images are enlarged by a whole
    number, pixel by pixel. More than ten images of a class are drawn smaller, in lines of at most 25.

    Parameters
    ----------
    dataset
        What `ddoq.distill` or `ddoq.load` returns.
    path
        The PNG file, written whole or not at all.
    max_classes, max_images
        How many classes, and images of each class, are drawn at most; what is left out is said in the picture.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed (extra `report`).

    Examples
    --------
    >>> weights_picture(ddoq.load("runs/mnist"), "weights.png")   # doctest: +SKIP
    """
    if max_classes < 1 or max_images < 1:
        raise ValueError(f"max_classes and max_images must be at least 1, got {max_classes} and {max_images}")
    labels, weights = dataset.labels.numpy(), dataset.weights.numpy()
    rows = [np.flatnonzero(labels == c) for c in range(len(dataset.class_names))][:max_classes]
    rows = [row[np.argsort(-weights[row], kind="stable")][:max_images] for row in rows]
    names = [_short(name) for name in dataset.class_names[: len(rows)]]
    layout = Layout.of(rows, names, dataset.images.shape[-1])
    canvas = np.full((layout.height, layout.width, 3), 255, np.uint8)
    texts = [Text(MARGIN, MARGIN + 10, _title(dataset), 19, INK, "left")]
    if dataset.method_label:
        texts.append(Text(MARGIN, MARGIN + 31, f"method {dataset.method_label}", 15, FAINT, "left"))
    drawn = np.concatenate(rows)
    heaviest = float(weights[drawn].max()) or 1.0
    top = layout.head
    for row, name in zip(rows, names, strict=True):
        texts.append(Text(layout.left - 18, top + layout.tile // 2, name, NAME_HEIGHT, INK, "right"))
        for position, index in enumerate(row):
            line, column = divmod(position, layout.per_line)
            x, y = layout.left + column * layout.step, top + line * layout.line_height
            _paint(canvas, _tile(dataset.images[index].numpy(), layout.tile), x, y, weights[index] / heaviest)
            number = f"{weights[index]:.2f}"
            texts.append(
                Text(x + layout.tile // 2, y + layout.tile + layout.under, number, layout.text, FAINT, "center")
            )
        top += layout.row_height(len(row))
    left_out = _left_out(dataset, rows)
    if left_out:
        texts.append(Text(MARGIN, layout.height - MARGIN, left_out, 16, FAINT, "left"))
    write_atomic(Path(path), _png(canvas, texts))


@dataclass(frozen=True)
class Layout:
    """Where things are, in pixels."""

    tile: int  # side of an image
    per_line: int  # images side by side
    left: int  # of the first image
    head: int  # height above the first row
    text: int  # height of a weight
    lengths: tuple[int, ...]  # images of each class

    @classmethod
    def of(cls, rows: list[NDArray[np.int64]], names: list[str], size: int) -> Layout:
        """Choose sizes for rows of images of `size` pixels."""
        most = max(map(len, rows))
        per_line = most if most <= 10 else math.ceil(most / math.ceil(most / 25))
        least = 96 if most <= 10 else 52
        tile = size * math.ceil(least / size) if size < least else min(size, least + 32)
        left = MARGIN + 18 + round(0.62 * NAME_HEIGHT * max(map(_letters, names)))
        return cls(tile, per_line, left, MARGIN + 46, 17 if most <= 10 else 14, tuple(map(len, rows)))

    @property
    def step(self) -> int:
        """From one image to the next."""
        return self.tile + (14 if self.tile >= 90 else 8)

    @property
    def under(self) -> int:
        """From the bottom of an image to the middle of its weight."""
        return 12 + self.text // 2

    @property
    def line_height(self) -> int:
        """From one line of images to the next of the same class."""
        return self.tile + self.under + self.text // 2 + 12

    def row_height(self, images: int) -> int:
        """Of a class, with the space below it."""
        return math.ceil(images / self.per_line) * self.line_height + (4 if self.per_line == max(self.lengths) else 14)

    @property
    def width(self) -> int:
        """Of the picture; at least what the title needs."""
        return max(self.left + self.per_line * self.step - (self.step - self.tile) + MARGIN, 760)

    @property
    def height(self) -> int:
        """Of the picture."""
        return self.head + sum(map(self.row_height, self.lengths)) + MARGIN + 8


@dataclass(frozen=True)
class Text:
    """A line of text of `height` pixels at (x, y), y its middle and downwards."""

    x: int
    y: int
    text: str
    height: int
    colour: tuple[int, int, int]
    align: str


def _title(dataset: DistilledDataset) -> str:
    full = int(dataset.counts.sum())
    return f"{len(dataset):,} images stand for {full:,}; under each its weight ({dataset.weighting})"


def _left_out(dataset: DistilledDataset, rows: list[NDArray[np.int64]]) -> str:
    """What the caps cut off, in words; empty if nothing."""
    classes, sizes = len(dataset.class_names), dataset.labels.bincount()
    parts = []
    if len(rows) < classes:
        parts.append(f"the first {len(rows)} of {classes} classes")
    if any(len(row) < int(sizes[c]) for c, row in enumerate(rows)):
        parts.append(f"the {max(map(len, rows))} heaviest of up to {int(sizes.max())} images per class")
    return f"drawn: {', '.join(parts)}" if parts else ""


def _tile(pixels: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
    """An image (c, h, w) as (tile, tile, 3): repeated pixels, or averaged where it is larger."""
    rgb = np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3))
    if tile % rgb.shape[0] == 0:
        factor = tile // rgb.shape[0]
        return rgb.repeat(factor, 0).repeat(factor, 1)
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((tile, tile), Image.Resampling.LANCZOS))


def _paint(canvas: NDArray[np.uint8], image: NDArray[np.uint8], x: int, y: int, share: float) -> None:
    """Put an image with a hairline border and its bar on the canvas."""
    tile = len(image)
    canvas[y - 1 : y + tile + 1, x - 1 : x + tile + 1] = BORDER
    canvas[y : y + tile, x : x + tile] = image
    bar = slice(y + tile + 5, y + tile + 9)
    canvas[bar, x : x + tile] = TRACK
    canvas[bar, x : x + round(share * tile)] = BAR


def _png(canvas: NDArray[np.uint8], texts: list[Text]) -> bytes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pictures need matplotlib: pip install 'ddoq[report]'", name=error.name) from error
    height, width = canvas.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    figure.figimage(canvas)
    for text in texts:
        options: dict[str, Any] = {"fontsize": text.height * 0.72, "fontfamily": "DejaVu Sans", "parse_math": False}
        colour = tuple(value / 255 for value in text.colour)
        x, y = text.x / width, 1 - text.y / height
        figure.text(x, y, text.text, ha=text.align, va="center_baseline", color=colour, **options)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks is drawn as boxes
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _letters(text: str) -> int:
    """Width of a text in letters; East Asian ones take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _short(name: str) -> str:
    """A class name in one line of at most NAME_LETTERS letters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in name).split())
    while _letters(line) > NAME_LETTERS:
        line = line.removesuffix("…")[:-1].rstrip() + "…"
    return line
