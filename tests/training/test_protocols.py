"""Protocols: every number that defines one, as published; what differs is named; what is not defined is refused."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from ddoq.training.protocols import FEWEST_STEPS, PROTOCOLS, changes_of, recipe_for
from ddoq.training.recipe import DSA, SILENT, Recipe, read_settings
from ddoq.training.training_set import TrainingSet


def images(ipc: int = 10, classes: int = 10, size: int = 224) -> TrainingSet:
    """A set of the shape; its pixels take no memory."""
    labels = torch.arange(classes).repeat_interleave(ipc)
    pixels = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(len(labels), 3, size, size)
    names = tuple(map(str, range(classes)))
    return TrainingSet(pixels, labels, torch.ones(len(labels)), names, torch.zeros(3), torch.ones(3))


def of(protocol: str, student: str = "resnet18", changes: dict[str, Any] | None = None, **shape: int) -> Recipe:
    return recipe_for(protocol, student, images(**shape), changes=changes)


def has(recipe: Recipe, **values: Any) -> None:
    """Each value, and every other field at its default, which is protocol "dc"."""
    for field in fields(Recipe):
        if field.name not in SILENT:
            assert getattr(recipe, field.name) == values.get(field.name, field.default), field.name
    assert recipe.protocol == {"rd3": "rd3 (from secondary sources)"}.get(recipe.name, recipe.name)


SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
ADAMW = {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01, "decay_1d": False, "momentum": 0.9}
SOFT = {
    **ADAMW,
    "labels": "soft",
    "epochs": 300,
    "mix": "cutmix",
    "mix_alpha": 1.0,
    "temperature": 20.0,
    "test_crop": True,
}
RDED = {**SOFT, "augment": ("shuffle", "crop", "flip"), "schedule": "smoothed", "check_from": 0.8}
PATCHES = {"patches": 2, "crop_scale": 0.5}


def test_dc() -> None:
    has(of("dc"), **SGD, epochs=300, batch_size=256, schedule="half", temperature=1.0)
    recipe = of("dc")
    assert [recipe.lr_at(epoch) for epoch in (0, 149, 150, 299)] == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_dsa() -> None:
    has(of("dsa"), **SGD, epochs=1000, batch_size=256, schedule="half", augment=("dsa",))
    assert of("dsa").dsa == "color_crop_cutout_flip_scale_rotate"


def test_d4m() -> None:
    values = {**SOFT, "augment": ("crop", "flip"), "crop_scale": 0.08, "schedule": "cosine", "accumulate": 2}
    has(of("d4m", ipc=10, classes=1000), **values, batch_size=1024)
    has(of("d4m", ipc=10, classes=10), **values, batch_size=100)
    recipe = of("d4m")
    for epoch in (0, 1, 150, 299):
        assert recipe.lr_at(epoch) == pytest.approx(0.001 * 0.5 * (1 + math.cos(math.pi * epoch / 300)))
    assert recipe.test_side(224) == 256  # Resize(256), CenterCrop(224)
    assert [epoch for epoch in range(300) if recipe.tests_after(epoch)] == [299]


@pytest.mark.parametrize(
    ("ipc", "classes", "batch"),
    [(50, 10, 100), (10, 10, 50), (1, 10, 10), (50, 100, 200), (10, 1000, 100), (1, 1000, 20), (10, 200, 100)],
)
def test_rded(ipc: int, classes: int, batch: int) -> None:
    has(of("rded", ipc=ipc, classes=classes), **RDED, **PATCHES, batch_size=batch)


def test_rded_batches_are_at_most_the_images() -> None:
    assert of("rded", ipc=1, classes=5).batch_size == 5


def test_rded_below_128_pixels_has_whole_images() -> None:
    has(of("rded", size=64), **RDED, patches=1, crop_scale=1.0, batch_size=50)
    assert of("rded", size=128).patches == 2
    assert of("rded", size=64).test_side(64) == 72


@pytest.mark.parametrize(
    ("student", "lr"),
    [
        ("resnet18", 1e-3),
        ("resnet101", 1e-3),
        ("convnet3", 1e-3),
        ("efficientnet_b0", 2e-3),
        ("mobilenetv2", 2.5e-3),
        ("mobilenetv2_100", 2.5e-3),
        ("swin_tiny", 1e-4),
        ("vit_tiny", 1e-4),
        ("alexnet", 1e-4),
        ("vgg11", 5e-4),
    ],
)
def test_rded_rates_by_student(student: str, lr: float) -> None:
    assert of("rded", student).lr == lr


def test_rded_on_cifar_100_with_convnet3() -> None:
    recipe = of("rded", "convnet3", ipc=10, classes=100, size=32)
    assert (recipe.batch_size, recipe.lr) == (25, 0.002)


def test_rded_ends_at_half_the_rate_and_looks_after_four_fifths() -> None:
    recipe = of("rded")
    for epoch in (0, 100, 299):
        assert recipe.lr_at(epoch) == pytest.approx(0.001 * 0.5 * (1 + math.cos(math.pi * epoch / 600)))
    assert recipe.lr_at(300) == pytest.approx(0.0005)
    assert [epoch for epoch in range(300) if recipe.tests_after(epoch)] == [249, 259, 269, 279, 289, 299]


@pytest.mark.parametrize("ipc", [2, 20, 100])
def test_rded_refuses_what_it_does_not_define(ipc: int) -> None:
    with pytest.raises(ValueError, match=rf"1, 10 or 50 images of every class, this set has {ipc}"):
        of("rded", ipc=ipc)
    ragged = images()
    ragged.labels[0] = 1
    with pytest.raises(ValueError, match="this set has 9 to 11"):
        recipe_for("rded", "resnet18", ragged)


def test_rd3() -> None:
    adam = {"optimizer": "adam", "weight_decay": 0.0, "batch_size": 50, "epochs": 400, "check_from": 1.0}
    for ipc in (10, 20):
        has(of("rd3", ipc=ipc, classes=1000), **{**RDED, **PATCHES, **adam})


@pytest.mark.parametrize(
    ("ipc", "classes", "epochs"),
    [
        (1, 10, 3000), (10, 10, 2000), (11, 10, 1500), (50, 10, 1500), (100, 10, 1000), (200, 10, 1000),
        (500, 10, 500), (501, 10, 300), (1, 100, 2000), (10, 100, 1300), (50, 100, 1000), (100, 100, 600),
    ],
)  # fmt: skip
def test_hard(ipc: int, classes: int, epochs: int) -> None:
    augment = {"augment": ("crop", "flip", "jitter", "lighting"), "crop_scale": 0.5, "mix": "cutmix"}
    has(of("hard", ipc=ipc, classes=classes), **SGD, **augment, epochs=epochs, batch_size=64, schedule="steps")


def test_hard_with_many_classes_and_with_small_images() -> None:
    many = of("hard", classes=1000)
    assert (many.lr, many.weight_decay, many.batch_size, many.epochs) == (0.1, 1e-4, 128, 2000)
    small = {"augment": ("dsa",), "dsa": "color_crop_flip_scale_rotate", "mix": "cutmix", "mix_probability": 0.5}
    has(of("hard", size=32), **SGD, **small, epochs=1000, batch_size=64, schedule="steps")


def test_hard_rate_falls_to_a_fifth_twice() -> None:
    recipe = of("hard", changes={"epochs": 600})
    rates = [recipe.lr_at(epoch) for epoch in (0, 399, 400, 499, 500, 599)]
    assert rates == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004])


def test_every_change_is_named() -> None:
    changes = {"epochs": 3, "temperature": 4.0, "augment": ("flip",), "mix_weights": "base", "lr": None}
    recipe = of("rded", changes=changes)
    assert recipe.protocol == "rded, epochs=3, augment=flip, mix_weights=base, temperature=4.0"
    same = of("rded", changes={"epochs": 300, "batch_size": 50})
    assert same.protocol == "rded"
    assert Recipe(epochs=100, lr=0.1).protocol == "dc, epochs=100, lr=0.1"


def test_every_value_is_in_the_settings() -> None:
    recipe = of("d4m", size=8)
    data = images(size=8)
    settings = recipe.settings(data, None, torch.device("cpu"), {"made": "online", "teacher": "T"})
    assert settings["protocol"] == "d4m"
    assert settings["labels"] == "soft"
    assert settings["soft_labels"] == {"made": "online", "teacher": "T"}
    assert {f.name for f in fields(Recipe)} - set(settings) == {"name", "published"}
    assert "another machine" in settings["elsewhere"]


def steps(protocol: str, **shape: int) -> int:
    recipe = of(protocol, **shape)
    return recipe.epochs * -(-len(images(**shape).labels) // recipe.batch_size)


def test_steps_that_rates_are_made_for() -> None:
    published = [protocol for protocol in PROTOCOLS if protocol != "teacher"]
    assert min(steps(protocol, ipc=1, classes=10) for protocol in published) == FEWEST_STEPS
    of_imagenet = {protocol: steps(protocol, ipc=10, classes=1000) for protocol in ("d4m", "rded", "rd3")}
    assert of_imagenet == {"d4m": 3000, "rded": 30_000, "rd3": 80_000}


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=f"'d4' is not known: use one of {', '.join(PROTOCOLS)}"):
        of("d4")
    with pytest.raises(ValueError, match="'temprature' is no setting"):
        of("dc", changes={"temprature": 3})
    for name in ("student", "labels"):
        with pytest.raises(ValueError, match=f"'{name}' is no setting"):
            of("dc", changes={name: "soft"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("accumulate", True),
        ("temperature", 0.0),
        ("mix_probability", 1.5),
        ("crop_scale", 2.0),
        ("optimizer", "lion"),
        ("schedule", "flat"),
        ("augment", ("blur",)),
        ("augment", "crop"),
        ("augment", ("crop", "crop")),
        ("dsa", "color_warp"),
        ("precision", "float16"),
    ],
)
def test_values_out_of_range(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        Recipe(**{name: value})


def test_settings_as_text() -> None:
    texts = ["mix_weights=base", "decay_1d=True", "accumulate=4", "label_epochs=8", f"dsa={DSA}", "augment=none"]
    assert read_settings(texts) == {
        "mix_weights": "base",
        "decay_1d": True,
        "accumulate": 4,
        "label_epochs": 8,
        "dsa": DSA,
        "augment": (),
    }
    for text in ("accumulate=many", "decay_1d=perhaps", "name=dc", "accumulate", "colour=red"):
        with pytest.raises(ValueError, match=text.partition("=")[0]):
            read_settings([text])


def test_a_setting_given_twice() -> None:
    with pytest.raises(ValueError, match="epochs is given twice, as 2 and in settings as 3"):
        changes_of({"epochs": 3}, epochs=2)


def test_pool_of_label_epochs() -> None:
    """The first round in order, then every epoch of the pool once in each round, in other orders."""
    recipe = Recipe(epochs=40, augment=("flip",), label_epochs=8)
    rounds = [[recipe.view_epoch(epoch) for epoch in range(8 * k, 8 * k + 8)] for k in range(5)]
    assert rounds[0] == list(range(8))
    assert all(sorted(order) == rounds[0] for order in rounds)
    assert len(set(map(tuple, rounds))) == 5
    assert [Recipe(augment=("flip",)).view_epoch(epoch) for epoch in (0, 7, 299)] == [0, 7, 299]
    assert Recipe().view_epoch(7) == 0  # the images never change


def test_the_page_of_protocols_says_what_the_code_does() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    (_, *names), _, *body = [row for row in rows if len(row) == len(rows[0])]
    assert [protocol for protocol, *_ in body] == list(PROTOCOLS)
    for protocol, *cells in body:
        recipe = of(protocol, size=64)
        values = [getattr(recipe, name) for name in names]
        assert cells == [", ".join(v) or "none" if isinstance(v, tuple) else f"{v}" for v in values], protocol
