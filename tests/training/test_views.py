"""Views depend on (seed, epoch, image) alone: not on batches, their order, or workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddoq.machine.streams import seed_sequence
from ddoq.training import views as views_module
from ddoq.training.recipe import OPERATIONS, Recipe
from ddoq.training.training_set import TrainingSet
from ddoq.training.views import View, Views, view_batches

CPU = torch.device("cpu")
ALL: Any = OPERATIONS
RECIPES = {
    "d4m": Recipe(augment=("crop", "flip"), mix="cutmix"),
    "rded": Recipe(augment=("shuffle", "crop", "flip"), patches=2, crop_scale=0.5, mix="cutmix"),
    "mixup": Recipe(augment=("flip",), mix="mixup", mix_alpha=0.8),
    "dsa": Recipe(augment=("dsa",)),
    "all": Recipe(augment=ALL, patches=3, mix="cutmix", mix_probability=0.5),
}


def images(n: int = 23, channels: int = 3, side: int = 12) -> TrainingSet:
    pixels = torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    mean, std = torch.full((channels,), 0.4), torch.full((channels,), 0.2)
    return TrainingSet(pixels, torch.arange(n) % 2, torch.ones(n), ("a", "b"), mean, std)


def whole(recipe: Recipe, size: int, *, epoch: int = 3, workers: int = 0, order: torch.Tensor | None = None) -> View:
    """The views of a set, made in batches and put together in the order of the images."""
    data = images()
    order = torch.arange(23) if order is None else order
    plan = [(epoch, batch) for batch in torch.split(order, size)]
    parts = list(view_batches(Views(data, recipe, CPU), plan, workers))
    back = torch.cat([part.index for part in parts]).argsort()

    def together(field: str) -> Any:
        found = [getattr(part, field) for part in parts]
        return None if found[0] is None else torch.cat(found)[back]

    return View(epoch, *map(together, ("images", "index", "partner", "share")))


def same(one: View, other: View) -> bool:
    fields = ("images", "index", "partner", "share")
    pairs = [(getattr(one, field), getattr(other, field)) for field in fields]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", RECIPES)
def test_any_batch_size_and_order_gives_the_same_bits(name: str) -> None:
    recipe = RECIPES[name]
    once = whole(recipe, 23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(5))
    for size in (1, 5, 16):
        assert same(whole(recipe, size), once)
    assert same(whole(recipe, 7, order=order), once)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_gives_the_same_bits(workers: int) -> None:
    for recipe in RECIPES.values():
        assert same(whole(recipe, 4, workers=workers), whole(recipe, 4))


@pytest.mark.parametrize("name", RECIPES)
def test_seeds_and_epochs_differ(name: str) -> None:
    recipe = RECIPES[name]
    views = Views(images(), recipe, CPU)
    index = torch.arange(23)
    first = views(0, index)
    assert same(first, views(0, index))
    assert not torch.equal(first.images, views(1, index).images)
    other = Recipe(**{f: getattr(recipe, f) for f in ("augment", "mix", "patches")}, seed=1)
    assert not torch.equal(first.images, Views(images(), other, CPU)(0, index).images)
    given = Recipe(**{**recipe.views, "seed": 7, "view_seed": 0})
    assert same(Views(images(), given, CPU)(0, index), first)  # the views' seed counts


def test_numbers_are_columns_of_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever are used, and however many rows are drawn at once."""
    widths = {"crop": 22, "flip": 1, "jitter": 6, "lighting": 3, "dsa": 4, "mix": 4, "shuffle": 6}
    whole = np.random.default_rng(seed_sequence(5, "views", 3)).random((23, 46))
    columns = dict(zip(widths, np.split(whole, np.cumsum(list(widths.values()))[:-1], axis=1), strict=True))
    for rows, used in ((1 << 14, ("flip", "mix")), (4, tuple(widths)), (23, ("dsa",))):
        monkeypatch.setattr(views_module, "ROWS", rows)
        views_module._epoch.cache_clear()
        table, _ = views_module._epoch(5, 3, 23, 3, used)
        assert tuple(table) == used
        assert all(np.array_equal(table[name], columns[name]) for name in used)


def test_partners_are_a_permutation_of_the_whole_set() -> None:
    view = whole(RECIPES["d4m"], 4)
    assert view.partner is not None
    assert sorted(view.partner.tolist()) == list(range(23))
    assert view.partner.tolist() != list(range(23))


def test_a_mixed_view_is_made_of_both_images_views() -> None:
    recipe = Recipe(mix="cutmix")
    view, data = whole(recipe, 23), images()
    assert view.partner is not None
    assert view.share is not None
    own, others = (data.images[rows].float() / 255 for rows in (view.index, view.partner))
    is_own, is_other = ((view.images == source).all(1) for source in (own, others))
    assert (is_own | is_other).all()
    assert (is_own.float().mean((1, 2)) > view.share - 1e-6).all()
    assert (is_other.float().mean((1, 2)) > 1 - view.share - 1e-6).all()
    mixed = Views(data, Recipe(mix="mixup"), CPU)(0, torch.arange(23))
    assert mixed.partner is not None
    assert mixed.share is not None
    share = mixed.share[:, None, None, None]
    wanted = share * own + (1 - share) * data.images[mixed.partner].float() / 255
    torch.testing.assert_close(mixed.images, wanted)


def test_shares_are_beta_distributed() -> None:
    views = Views(images(), Recipe(mix="mixup", mix_alpha=0.4), CPU)
    shares = torch.cat([v.share for e in range(60) if (v := views(e, torch.arange(23))).share is not None])
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.02  # the variance of Beta(a, a)
    half = Views(images(), Recipe(mix="cutmix", mix_probability=0.5), CPU)
    kept = torch.cat([v.share for e in range(60) if (v := half(e, torch.arange(23))).share is not None])
    assert 0.4 < (kept == 1).float().mean() < 0.65  # some boxes are empty beside


def test_images_that_nothing_changes_stay_bytes() -> None:
    view = whole(Recipe(), 5)
    assert view.images.dtype == torch.uint8
    assert torch.equal(view.images, images().images)


def test_grey_images_take_every_operation() -> None:
    data = images(channels=1)
    view = Views(data, RECIPES["all"], CPU)(0, torch.arange(23))
    assert view.images.shape == (23, 1, 12, 12)
    assert view.images.isfinite().all()
