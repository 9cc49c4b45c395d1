"""Opening arrays, lists, torch and Hugging Face data sets: layouts, labels, class order, bad input by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddoq.data.image_data import open_data
from ddoq.storage.image_folder import write_images
from ddoq.training.training_set import TrainingSet, open_test


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# ---- arrays and lists ------------------------------------------------------------------------------------------------


def test_array_layouts_agree() -> None:
    array = noise(5, 8, 9, 3)
    wanted = open_data((array, range(5)), image_size=8).images(range(5))
    for other in (
        array.transpose(0, 3, 1, 2),
        np.asfortranarray(array),
        np.repeat(array, 2, axis=0)[::2],
        array / 255.0,
        (array / 255.0).astype(np.float16),
        array.astype(np.float32) / 255,
    ):
        assert np.array_equal(open_data((other, range(5)), image_size=8).images(range(5)), wanted)
    square = noise(5, 8, 8, 3)
    assert np.array_equal(open_data((square, range(5))).images([3, 1]), square.transpose(0, 3, 1, 2)[[3, 1]])
    grey = noise(5, 8, 8)
    for other in (grey, grey[..., None], grey[:, None]):
        assert np.array_equal(open_data((other, range(5))).images([4, 0]), grey[[4, 0], None])
    mask = grey > 100
    assert np.array_equal(open_data((mask, range(5))).images([0])[0, 0], np.where(mask[0], 255, 0))


def test_torch_tensors_are_arrays() -> None:
    import torch

    array = noise(4, 3, 8, 8)
    data = open_data((torch.from_numpy(array), torch.tensor([1, 0, 1, 0])))
    assert np.array_equal(data.images(range(4)), array)
    assert data.labels.tolist() == [1, 0, 1, 0]


def test_labels_of_arrays() -> None:
    array = noise(4, 8, 8)
    cases: list[tuple[Any, Any, tuple[str, ...], list[int]]] = [
        ([10, 2, 10, 1], None, ("1", "2", "10"), [2, 1, 2, 0]),
        (["10", "2", "10", "1"], None, ("1", "10", "2"), [1, 2, 1, 0]),
        (np.array([-1, 7, 7, -1], np.int8), None, ("-1", "7"), [0, 1, 1, 0]),
        (np.array(["猫", "AC/DC", "猫", "Übung"], object), None, ("AC/DC", "Übung", "猫"), [2, 0, 2, 1]),
        ([0, 1, 2, 1], ["b", "a", "c d"], ("b", "a", "c d"), [0, 1, 2, 1]),
        (["a", "b", "b", "a"], ["b", "a"], ("b", "a"), [1, 0, 0, 1]),
        (np.array([True, False, True, True]), ["no", "yes"], ("no", "yes"), [1, 0, 1, 1]),
    ]
    for labels, given, names, wanted in cases:
        data = open_data((array, labels), class_names=given)
        assert data.class_names == names
        assert data.labels.tolist() == wanted
        assert data.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, 2], None, "4 images but 3 labels"),
        ([0, 1, 5, 1], ["a", "b"], "image 2 has the label 5"),
        ([0, -1, 0, 1], ["a", "b"], "image 1 has the label -1"),
        (["a", "b", "c", "a"], ["a", "b"], "image 2 has the label c"),
        ([0, 0, 0, 0], ["a", "b"], "class 'b' has no images"),
        ([0, 1, 0, 1], ["a", "a"], "'a' is there twice"),
        ([0, 1, 0, 1], "ab", "sequence of texts"),
        ([0.5, 1, 0, 1], None, "integer"),
        ([[0], [1], [0], [1]], None, "shape"),
        ([0, "a", 1, "b"], None, "image 1 has the label 'a'"),
        (["a", None, "a", "b"], None, "image 1 has the label None"),
    ],
)
def test_bad_labels(labels: Any, names: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        open_data((noise(4, 8, 8), labels), class_names=names)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 8, 8), 16.0), r"image 0 \(class '0'\): .*found 16 to 16"),
        (np.full((2, 8, 8), 3, np.int64), "int64"),
        (np.stack([np.zeros((8, 8)), np.full((8, 8), np.nan)]), "image 1 .*finite"),
        (np.stack([np.zeros((8, 8)), np.full((8, 8), -0.1)]), "image 1 "),
        (np.zeros((2, 3, 8, 3), np.uint8), "may be"),
        (np.zeros((2, 8, 8, 2), np.uint8), "channels"),
        (np.zeros((2, 8), np.uint8), "shape"),
        (np.zeros((2, 0, 8), np.uint8), "shape"),
    ],
)
def test_bad_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        open_data((array, [0, 1]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([noise(8, 8), noise(8, 8), noise(8, 9)], [0, 1, 0]), r"image 2 has the shape \(8, 9\), image 0 \(8, 8\)"),
        (([noise(8, 8, 3), noise(8, 8)], [0, 1]), r"image 1 has the shape \(8, 8\)"),
        (([[[0, 1], [2]], [[0, 1], [2, 3]]], [0, 1]), "image 0: .*inhomogeneous"),
        (([Image.fromarray(noise(8, 8)), noise(8, 8)], [0, 1]), "image 1 .*PIL images all or none.*ndarray"),
        (((noise(8, 8), 0), (noise(8, 8), 1)), r"give \(image, label\) items in a list"),
        (((Image.fromarray(noise(8, 8)), "a"), (Image.fromarray(noise(8, 8)), "b")), r"items in a list"),
        ((noise(4, 8, 8), 3), "one integer or text per image, got 3"),
        ((noise(4, 8, 8), np.array(3)), "one integer or text per image, got array"),
        ((noise(2, 8, 8), [[0, 1], [2]]), "one integer or text per image: "),
        ((noise(4, 3), [0, 1, 0, 1]), r"shape \(4, 3\)"),
    ],
)
def test_pairs_that_are_none_are_explained(data: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        open_data(data)


def test_lists_of_arrays_and_of_tensors() -> None:
    import torch

    array = noise(4, 3, 8, 8)
    for images in (list(array), [torch.from_numpy(image) for image in array], array.tolist()):
        if isinstance(images[0], list):
            with pytest.raises(TypeError, match="uint8"):
                open_data((images, range(4)))
        else:
            assert np.array_equal(open_data((images, range(4))).images(range(4)), array)


def test_no_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        open_data((np.zeros((0, 8, 8), np.uint8), []))


def test_fingerprint_of_arrays() -> None:
    array, labels = noise(4, 8, 8), [0, 1, 0, 1]
    changed = array.copy()
    changed[3, 7, 7] ^= 1
    same = {
        open_data((array, labels)).fingerprint,
        open_data((array.copy(order="F"), np.array(labels, np.int8))).fingerprint,
        open_data((array, labels), image_size=4, channels=3).fingerprint,
    }
    others = {
        open_data((changed, labels)).fingerprint,
        open_data((array, [1, 0, 0, 1])).fingerprint,
        open_data((array, labels), class_names=["a", "b"]).fingerprint,
        open_data((array.reshape(4, 4, 16), labels)).fingerprint,
        open_data((array / 255.0, labels)).fingerprint,
    }
    assert len(same) == 1
    assert len(same | others) == 6


def test_list_of_pil_images() -> None:
    images = [Image.fromarray(noise(8, 8, 3, seed=i)) for i in range(3)]
    data = open_data((images, ["b", "a", "b"]))
    assert data.class_names == ("a", "b")
    assert np.array_equal(data.images([1])[0], noise(8, 8, 3, seed=1).transpose(2, 0, 1))
    assert data.fingerprint != open_data((images[::-1], ["b", "a", "b"])).fingerprint
    with pytest.raises(ValueError, match="3 images but 2 labels"):
        open_data((images, [0, 1]))


# ---- torch and Hugging Face ------------------------------------------------------------------------------------------


def test_torch_dataset() -> None:
    import torch
    from torch.utils.data import TensorDataset

    array = noise(4, 3, 8, 8)
    labels = torch.tensor([2, 0, 1, 2])
    data = open_data(TensorDataset(torch.from_numpy(array).float() / 255, labels))
    assert data.class_names == ("0", "1", "2")
    assert np.array_equal(data.images(range(4)), array)
    assert data.fingerprint == open_data(TensorDataset(torch.from_numpy(array), labels)).fingerprint
    named = open_data(TensorDataset(torch.from_numpy(array), labels), class_names=["c", "b", "a"])
    assert named.class_names == ("c", "b", "a")


class Named:
    """A Dataset in torch's sense, with torchvision's `classes`."""

    def __init__(self, items: list[Any], classes: list[str]) -> None:
        self.items, self.classes = items, classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_torch_dataset_with_classes_and_mixed_sizes() -> None:
    pictures = [Image.fromarray(noise(20, 30, 3)), Image.fromarray(noise(40, 20))]
    data = open_data(Named([(pictures[0], 1), (pictures[1], 0)], ["zebra", "ape"]))
    assert data.class_names == ("zebra", "ape")
    assert data.labels.tolist() == [1, 0]
    assert (data.image_size, data.channels) == (16, 3)
    arrays = open_data(Named([(noise(8, 8, 3), 0), (noise(8, 8, 3, seed=1), 1)], ["a", "b"]))
    assert np.array_equal(arrays.images([1])[0], noise(8, 8, 3, seed=1).transpose(2, 0, 1))


def test_distilled_data_keep_their_class_names() -> None:
    import torch

    from ddoq.data.distilled import DistilledDataset

    small = DistilledDataset(
        torch.from_numpy(noise(2, 1, 8, 8)),
        torch.tensor([1, 0]),
        torch.tensor([3, 4]),
        torch.ones(2, dtype=torch.float64),
        class_names=("zebra", "ant"),
        mean=torch.tensor([0.5]),
        std=torch.tensor([0.3]),
        manifest={},
        weighting="density",
        class_prior="balanced",
    )
    data = open_data(small)
    assert data.class_names == ("zebra", "ant")
    assert data.labels.tolist() == [1, 0]
    assert np.array_equal(data.images([0, 1]), noise(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(noise(8, 8), 0), (noise(8, 8), 2)], "image 1 has the label 2"),
        ([(noise(8, 8), 0)], "class 'b' has no images"),
        ([noise(8, 8), noise(8, 8)], "item 0 of the data set: .*image, label"),
        ([(noise(8, 8), 0), (np.full((8, 8), 7.0), 1)], "item 1 of the data set: .*found 7 to 7"),
        ([(noise(8, 8), 0), (noise(8, 8, 7), 1)], "item 1 of the data set: .*channels"),
        ([], "no images"),
    ],
)
def test_bad_torch_dataset(items: list[Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        open_data(Named(items, ["a", "b"]))


def test_random_transforms_are_refused() -> None:
    class Jittered(Named):
        def __getitem__(self, index: int) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return noise(8, 8, seed=self.calls), index % 2

    with pytest.raises(ValueError, match="random transforms"):
        open_data(Jittered([None] * 4, ["a", "b"]))


def test_given_names_must_not_contradict_the_data() -> None:
    with pytest.raises(ValueError, match=r"its own class names, \['a', 'b'\]: leave class_names out"):
        open_data(Named([(noise(8, 8), 0), (noise(8, 8), 1)], ["a", "b"]), class_names=["b", "a"])


def test_classes_of_other_names_and_the_remedy_that_is_named(tmp_path: Path) -> None:
    """Each kind of source names what renames its classes; done as it says, they match."""
    datasets = pytest.importorskip("datasets")
    images, labels = noise(4, 1, 8, 8), np.array([0, 1, 0, 1])
    like = TrainingSet.of(open_data((images[:, 0], labels), class_names=["cat", "dog"]))

    def refused(test: Any) -> str:
        with pytest.raises(ValueError, match=r"lacks 'dog' and has 'hund' beside.* only have other names, ") as caught:
            open_test(test, like)
        return str(caught.value).partition("other names, ")[2]

    for own in ({"class_names": ["cat", "hund"]}, {}):
        arrays = (images[:, 0], labels if own else np.array(["cat", "hund"])[labels])
        opened = open_data(arrays, **own)
        assert refused(opened) == "name the classes of arrays with class_names (--class-names)"
    assert open_test((images[:, 0], labels), like, ["cat", "dog"]).labels.tolist() == [0, 1, 0, 1]

    plain, ours, copy = tmp_path / "plain", tmp_path / "ours", tmp_path / "copy"
    write_images(ours, images, labels, np.ones(4), np.ones(4, int), ["cat", "hund"], [{}] * 4)
    shutil.copytree(ours, plain)
    for file in ("metadata.jsonl", "README.md"):
        (plain / file).unlink()
    for folder, name in (("0000_cat", "cat"), ("0001_hund", "hund")):
        (plain / folder).rename(plain / name)
    assert refused(plain) == f"rename the class folders of {plain}"
    (plain / "hund").rename(plain / "dog")
    assert len(open_test(plain, like).images) == 4
    assert refused(ours) == f"change class_name in metadata.jsonl of a copy of {ours}"
    shutil.copytree(ours, copy)
    text = (copy / "metadata.jsonl").read_text()
    (copy / "metadata.jsonl").write_text(text.replace('"class_name": "hund"', '"class_name": "dog"'))
    assert len(open_test(copy, like).images) == 4

    named = Named([(image[0], label) for image, label in zip(images, labels.tolist(), strict=True)], ["cat", "hund"])
    assert refused(named) == "change the data set's own classes or class_names"
    named.classes = ["cat", "dog"]
    assert len(open_test(named, like).images) == 4

    dataset = hugging_face([0, 1], ["cat", "hund"])
    remedy = refused(dataset)
    assert remedy == "rename them by dataset.cast_column('kind', datasets.ClassLabel(names=[...]))"
    call = remedy.removeprefix("rename them by ").replace("[...]", "['cat', 'dog']")
    assert len(open_test(eval(call, {"dataset": dataset, "datasets": datasets}), like).images) == 2


def hugging_face(labels: list[Any], names: list[str], images: list[Any] | None = None) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=names)})
    pictures = images or [Image.fromarray(noise(8, 8, 3, seed=i)) for i in range(len(labels))]
    return datasets.Dataset.from_dict({"picture": pictures, "kind": labels}, features=features)


def test_hugging_face_dataset() -> None:
    dataset = hugging_face([1, 0, 1], ["zebra", "ape"])
    data = open_data(dataset)
    assert data.class_names == ("zebra", "ape")
    assert data.labels.tolist() == [1, 0, 1]
    assert np.array_equal(data.images([2])[0], noise(8, 8, 3, seed=2).transpose(2, 0, 1))
    assert data.fingerprint == open_data(hugging_face([1, 0, 1], ["zebra", "ape"])).fingerprint
    assert data.fingerprint != open_data(dataset.select([2, 1, 0])).fingerprint
    assert np.array_equal(open_data(dataset.with_format("numpy")).images([0]), data.images([0]))


def test_hugging_face_dataset_of_fewer_classes_and_the_remedy_that_is_named() -> None:
    dataset = hugging_face([2, 0, 2], ["zebra", "owl", "ape"])
    with pytest.raises(ValueError, match="class 'owl' has no images") as caught:
        open_data(dataset)
    remedy = str(caught.value).partition(" by ")[2]
    data = open_data(eval(remedy, {"dataset": dataset}))
    assert data.class_names == ("ape", "zebra")
    assert data.labels.tolist() == [0, 1, 0]


def test_bad_hugging_face_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(ValueError, match="image 1 has the label -1"):
        open_data(hugging_face([0, -1], ["a"]))
    with pytest.raises((ValueError, TypeError), match="image 1 has the label None"):
        open_data(hugging_face([0, None], ["a"]))
    with pytest.raises(ValueError, match="class 'b' has no images"):
        open_data(hugging_face([0, 0], ["a", "b"]))
    with pytest.raises(ValueError, match=r"image 1 .*missing"):
        open_data(hugging_face([0, 1], ["a", "b"], [Image.fromarray(noise(8, 8)), None]))
    with pytest.raises(ValueError, match=r"ClassLabel.*class_encode_column"):
        open_data(datasets.Dataset.from_dict({"image": [Image.fromarray(noise(8, 8))], "label": ["a"]}))
    with pytest.raises(ValueError, match="set_transform"):
        open_data(hugging_face([0, 1], ["a", "b"]).with_transform(lambda rows: rows))
    with pytest.raises(TypeError, match="train"):
        open_data(datasets.DatasetDict({"train": hugging_face([0], ["a"])}))
