"""Opening folders of images, and every kind of image: class order, conversion, bad input by name."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddoq.data.image_data import open_data
from ddoq.storage.image_folder import write_images


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def folder(root: Path, classes: dict[str, Sequence[Any]]) -> Path:
    """A folder of class folders; each image an array or PIL image, or (file name, bytes)."""
    for name, images in classes.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(images):
            if isinstance(image, tuple):
                (root / name / image[0]).write_bytes(image[1])
            else:
                pil = image if isinstance(image, Image.Image) else Image.fromarray(image)
                pil.save(root / name / f"{i}.png")
    return root


def one(image: Image.Image | np.ndarray, **options: Any) -> np.ndarray:
    """Pixels of a single image through the whole conversion."""
    return open_data(([image], [0]) if isinstance(image, Image.Image) else (image[None], [0]), **options).images([0])[0]


def jpeg(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_folder_sorted_names_nested_images_and_other_files(tmp_path: Path) -> None:
    root = folder(tmp_path, {"10": [noise(8, 8, 3)], "2": [noise(8, 8, 3, seed=1)] * 2, "1": [noise(8, 8, 3, seed=2)]})
    (root / "2" / "deep" / "er").mkdir(parents=True)
    Image.fromarray(noise(8, 8, 3, seed=3)).save(root / "2" / "deep" / "er" / "z.PNG")
    for other in (".hidden.png", "notes.txt", "Thumbs.db", "labels.csv"):
        (root / "2" / other).write_bytes(b"not an image")
    (root / "2" / ".cache").mkdir()
    (root / "2" / ".cache" / "a.png").write_bytes(b"not an image")
    (root / ".git").mkdir()
    (root / "README.md").write_text("about")
    data = open_data(root)
    assert data.class_names == ("1", "10", "2")
    assert data.labels.tolist() == [0, 1, 2, 2, 2]
    assert (data.image_size, data.channels, len(data)) == (8, 3, 5)
    assert np.array_equal(data.images([4])[0], noise(8, 8, 3, seed=3).transpose(2, 0, 1))
    assert data.where(4) == str(root / "2" / "deep" / "er" / "z.PNG")


def test_linked_class_folder_and_a_link_in_a_circle(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", {"a": [noise(8, 8)]})
    folder(tmp_path / "elsewhere", {"b": [noise(8, 8, seed=1)] * 2})
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "again").symlink_to(root / "a")
    assert open_data(root).labels.tolist() == [0, 1, 1]


def test_fingerprint_of_a_folder(tmp_path: Path) -> None:
    small, large = noise(8, 8), noise(9, 9)
    same = [folder(tmp_path / name, {"a": [small], "b": [large]}) for name in ("one", "two")]
    assert len({open_data(root).fingerprint for root in same}) == 1
    others = [
        folder(tmp_path / "renamed", {"a": [small], "c": [large]}),
        folder(tmp_path / "more", {"a": [small, small], "b": [large]}),
        folder(tmp_path / "resized", {"a": [large], "b": [large]}),
    ]
    assert len({open_data(root).fingerprint for root in [same[0], *others]}) == 4


def test_fingerprint_of_a_folder_sees_other_pixels_in_files_of_one_size(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a": [], "b": []})
    for name in ("a", "b"):
        Image.fromarray(noise(8, 8, 3)).save(root / name / "0.bmp")
    before, size = open_data(root).fingerprint, (root / "b" / "0.bmp").stat().st_size
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "b" / "0.bmp")
    assert (root / "b" / "0.bmp").stat().st_size == size
    assert open_data(root).fingerprint != before


def test_image_folder_of_ddoq_keeps_its_names_and_order(tmp_path: Path) -> None:
    names = ["zebra", "AC/DC", "ape"]
    images = noise(3, 1, 8, 8)
    write_images(tmp_path / "images", images, np.array([0, 1, 2]), np.ones(3), np.ones(3, int), names, [{}] * 3)
    data = open_data(tmp_path / "images")
    assert data.class_names == tuple(names)
    assert data.labels.tolist() == [0, 1, 2]
    assert np.array_equal(data.images([0, 1, 2]), images)


def test_hostile_metadata_is_refused(tmp_path: Path) -> None:
    folder_ = tmp_path / "images"
    write_images(folder_, noise(2, 1, 8, 8), np.array([0, 1]), np.ones(2), np.ones(2, int), ["a", "b"], [{}] * 2)
    whole = (folder_ / "metadata.jsonl").read_text(encoding="utf-8")
    changes = [
        ("0000_a/00000.png", "../../etc/passwd", "outside its folder"),
        ("0000_a/00000.png", "/etc/passwd", "outside its folder"),
        ('"label": 1', '"label": 7', "not classes 0 to C - 1"),
        ('"label": 1', '"label": 0', "both 'a' and 'b'"),
        ('"label": 1', '"label": "1"', "line 2"),
        ('"label": 1', '"label": true', "line 2"),
        ('"weight": 1.0', '"weight": "heavy"', "line 1"),
        ("{", "[", "line 1"),
        ('"sha256"', '"sha255"', "line 1"),
        ('"class_name"', '"clas_name"', "line 1"),  # still recognised as ddoq's, not read as plain class folders
    ]
    for old, new, message in changes:
        (folder_ / "metadata.jsonl").write_text(whole.replace(old, new), encoding="utf-8")
        with pytest.raises(RuntimeError, match=f"metadata.jsonl.*{message}"):
            open_data(folder_)


@pytest.mark.parametrize("row", ['"text": "a cat"', '"class_name": "cat", "label": 0', '"sha256": "0f", "label": 0'])
def test_metadata_of_others_is_left_alone(tmp_path: Path, row: str) -> None:
    root = folder(tmp_path, {"a": [noise(8, 8)], "b": [noise(8, 8)]})
    (root / "metadata.jsonl").write_text(f'{{"file_name": "a/0.png", {row}}}\n')
    assert open_data(root).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": [noise(8, 8)], "empty": []}, "class folder .*empty has no images"),
        ({"a": [noise(8, 8)], "texts": [("a.txt", b"x")]}, "class folder .*texts has no images"),
        ({}, "no class folders"),
    ],
)
def test_empty_class_folder(tmp_path: Path, classes: dict[str, Any], message: str) -> None:
    folder(tmp_path, classes)
    with pytest.raises(ValueError, match=message):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("places", "train"),
    [
        (["train/cat", "train/dog", "test/cat", "test/dog"], "train"),
        (["Training/cat", "Validation/cat"], "Training"),
        (["test", "train/cat", "train/dog"], "train"),  # the images to test on without labels
        (["val/cat"], "val"),
    ],
)
def test_the_parent_of_splits_is_refused(tmp_path: Path, places: list[str], train: str) -> None:
    folder(tmp_path, {place: [noise(8, 8)] for place in places})
    with pytest.raises(ValueError, match=rf"holds splits .*'{train}' \('cat'.*did you mean {tmp_path / train}\?"):
        open_data(tmp_path)
    assert "cat" in open_data(tmp_path / train).class_names


@pytest.mark.parametrize("places", [["cat/a", "train/a"], ["test", "train"], ["train", "train/engines"]])
def test_classes_that_only_resemble_splits_are_read(tmp_path: Path, places: list[str]) -> None:
    for place in places:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(8, 8)).save(tmp_path / place / "0.png")
    assert open_data(tmp_path).class_names == tuple(dict.fromkeys(place.split("/")[0] for place in places))
    assert len(open_data(tmp_path)) == len(places)


def test_class_folder_that_is_not_utf8(tmp_path: Path) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(ValueError, match=r"caf\\xe9.* not UTF-8"):
        open_data(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_data(tmp_path / "nowhere")


def test_run_folder_instead_of_its_images(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "latents").mkdir()
    with pytest.raises(ValueError, match="give its images/ folder"):
        open_data(tmp_path)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole = jpeg(noise(32, 32, 3))
    for i, content in enumerate([whole[:-200], whole[:300], b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 30]):
        root = folder(tmp_path / str(i), {"a": [("good.jpg", whole)], "b": [("bad.jpg", content)]})
        with pytest.raises(OSError, match=r"b/bad\.jpg cannot be read as an image") as refused:
            open_data(root).images([0, 1])
        assert str(refused.value).count("bad.jpg") == 1
        assert str(refused.value).endswith("; remove or replace it")


def test_truncated_file_is_found_with_a_whole_header(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a": [("0.jpg", jpeg(noise(32, 32, 3)))], "b": [("1.jpg", jpeg(noise(32, 32, 3))[:-100])]})
    data = open_data(root)  # opening decodes headers only
    data.images([0])
    with pytest.raises(OSError, match=r"b/1\.jpg cannot be read as an image: .*truncated"):
        data.images([0, 1])


# ---- the image -------------------------------------------------------------------------------------------------------


def test_grey_modes_keep_their_values() -> None:
    grey = noise(8, 8)
    image = Image.fromarray(grey)
    assert np.array_equal(one(image), grey[None])
    assert np.array_equal(one(image.convert("RGB")), grey[None])  # no colour: one channel
    assert np.array_equal(one(image, channels=3), np.stack([grey] * 3))
    bits = Image.fromarray(grey > 100)
    assert bits.mode == "1"
    assert np.array_equal(one(bits), np.where(grey > 100, 255, 0)[None])


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_are_scaled(mode: str) -> None:
    values = np.array([[0, 255, 256], [128, 32768, 65535], [257, 65407, 1000]], np.uint16)
    image = Image.fromarray(values.astype({"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]))
    assert image.mode == mode
    assert one(image)[0].tolist() == [[0, 1, 1], [0, 128, 255], [1, 255, 4]]


def test_sixteen_bit_file(tmp_path: Path) -> None:
    values = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    data = open_data(folder(tmp_path, {"a": [Image.fromarray(values)]}))
    assert np.array_equal(data.images([0])[0, 0], np.rint(values / 257.0))


def test_float_mode() -> None:
    assert one(Image.fromarray(np.array([[0, 0.5], [1, 0.25]], np.float32)))[0].tolist() == [[0, 128], [255, 64]]
    with pytest.raises(ValueError, match=r"image 0 .*in \[0, 1\], found 0 to 2"):
        one(Image.fromarray(np.array([[0, 2.0]], np.float32)), image_size=1)


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    colour, alpha = noise(8, 8, 3), noise(8, 8, 1, seed=1)
    wanted = (colour * (alpha / 255.0) + 255 * (1 - alpha / 255.0)).transpose(2, 0, 1)
    rgba = np.concatenate([colour, alpha], axis=2)
    assert np.abs(one(Image.fromarray(rgba)) - wanted).max() <= 1
    assert np.abs(one(rgba) - wanted).max() <= 1  # an array with four channels
    grey = np.concatenate([colour[..., :1], alpha], axis=2)
    assert np.abs(one(Image.fromarray(grey)) - wanted[:1]).max() <= 1
    invisible = np.zeros((8, 8, 4), np.uint8)
    assert one(Image.fromarray(invisible)).min() == 255


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=0)
    image.save(tmp_path / "half.png", transparency=bytes([128, 255]))
    for name, left in (("plain", [255, 0, 0]), ("clear", [255, 255, 255]), ("half", [255, 127, 127])):
        with Image.open(tmp_path / f"{name}.png") as file:
            assert file.mode == "P"
            pixels = one(file.crop((0, 0, 1, 1)), channels=3)
        assert pixels.reshape(-1).tolist() == left
    both = one(image.resize((2, 2)))
    assert both[:, 0, 0].tolist() == [255, 0, 0]
    assert both[:, 0, 1].tolist() == [0, 0, 255]


def test_transparent_colour_of_rgb_and_grey(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4, 3), 10, np.uint8)).save(tmp_path / "rgb.png", transparency=(10, 10, 10))
    Image.fromarray(np.full((4, 4), 10, np.uint8)).save(tmp_path / "grey.png", transparency=10)
    for name in ("rgb", "grey"):
        with Image.open(tmp_path / f"{name}.png") as file:
            assert one(file).min() == 255


def test_cmyk() -> None:
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert one(image)[:, 0, 0].tolist() == [255, 0, 0]


def test_exif_orientation(tmp_path: Path) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 200  # light on top
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
    sideways = Image.fromarray(np.rot90(upright).copy())
    (tmp_path / "a").mkdir()
    sideways.save(tmp_path / "a" / "0.png", exif=exif)
    assert np.array_equal(open_data(tmp_path, channels=3).images([0])[0], upright.transpose(2, 0, 1))


def test_crop_is_central_and_resizing_is_antialiased() -> None:
    wide = np.zeros((16, 32), np.uint8)
    wide[:, 8:24] = np.tile([0, 255], (16, 8))  # the finest stripes, only in the central square
    pixels = one(Image.fromarray(wide), image_size=4)[0]
    assert np.abs(pixels[:, 1:3].astype(int) - 127).max() <= 8  # stripes average out instead of aliasing
    tall = np.full((30, 10), 7, np.uint8)
    tall[10:20] = 90
    assert (one(Image.fromarray(tall), image_size=10)[0] == 90).all()


def test_extreme_shapes() -> None:
    for shape in ((1, 1), (1, 500), (500, 1), (3, 2)):
        assert one(np.full(shape, 9, np.uint8), image_size=16).tolist() == np.full((1, 16, 16), 9).tolist()


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(28, 28)] * 3, 28),
        ([(500, 500)] * 2, 500),
        ([(40, 60), (70, 50), (90, 45)], 32),  # median of 40, 50, 45 is 45
        ([(500, 375), (400, 600), (300, 301)], 256),
        ([(12, 10), (9, 11)], 9),  # below 16 there is no multiple
        ([(28, 28), (28, 30)], 16),
    ],
)
def test_default_size(tmp_path: Path, sizes: list[tuple[int, int]], side: int) -> None:
    root = folder(tmp_path, {"a": [Image.new("L", size) for size in sizes]})
    assert open_data(root).image_size == side
    assert open_data(root).images([0]).shape == (1, 1, side, side)


def test_channels_are_found_by_content(tmp_path: Path) -> None:
    grey = Image.fromarray(noise(8, 8)).convert("RGB")
    assert open_data(folder(tmp_path / "grey", {"a": [grey, noise(8, 8)]})).channels == 1
    mixed = folder(tmp_path / "mixed", {"a": [noise(8, 8), noise(8, 8, 3)]})
    assert open_data(mixed).channels == 3
    assert open_data(mixed, channels=1).images([0, 1]).shape == (2, 1, 8, 8)
    almost = np.stack([noise(8, 8)] * 3, axis=2)
    almost[7, 7, 2] ^= 1
    assert open_data((np.stack([np.stack([noise(8, 8)] * 3, axis=2), almost]), [0, 1])).channels == 3


def test_what_cannot_be_data() -> None:
    for wrong in (None, 3, noise(4, 8, 8), {"images": []}, iter([])):
        with pytest.raises(TypeError, match="give a folder of class folders"):
            open_data(wrong)


@pytest.mark.parametrize("options", [{"image_size": 0}, {"image_size": True}, {"image_size": 2.5}, {"channels": 2}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        open_data((noise(2, 8, 8), [0, 1]), **options)


def test_opened_data_can_be_opened_at_another_size() -> None:
    data = open_data((noise(2, 8, 8), [0, 1]))
    again = open_data(data, image_size=4, channels=3)
    assert again.images([0]).shape == (1, 3, 4, 4)
    assert open_data(data).image_size == 8


def test_mnist_labels_and_speedy_path(data_file: Any) -> None:
    with np.load(data_file("mnist/mnist.npz")) as file:
        images, labels = file["x_train"][:500], file["y_train"][:500]
    data = open_data((images, labels))
    assert (data.image_size, data.channels, data.class_names) == (28, 1, tuple("0123456789"))
    assert np.array_equal(data.images(range(500))[:, 0], images)
    assert np.array_equal(data.labels, labels)


def test_a_data_set_is_not_changed_but_replaced() -> None:
    data = open_data((np.zeros((3, 8, 8), np.uint8), ["cat", "dog", "dog"]))
    with pytest.raises(FrozenInstanceError):
        data.labels = np.zeros(3, np.int64)  # type: ignore[misc]
    other = open_data(data.renumbered(np.array([1, 0, 0]), ("dog", "cat")), image_size=4)
    assert (other.class_names, other.labels.tolist(), other.image_size) == (("dog", "cat"), [1, 0, 0], 4)
    assert (data.class_names, data.labels.tolist(), data.image_size) == (("cat", "dog"), [0, 1, 1], 8)
