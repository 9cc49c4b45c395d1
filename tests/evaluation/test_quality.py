"""Quality measures: by hand, laws, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

import ddoq
from ddoq.evaluation.metrics import agreement, density_coverage, fid, kid, precision_recall
from ddoq.evaluation.quality import Quality, image_quality
from ddoq.models.codecs.codec import open_codec

REAL, FAKE = [[0.0], [1.0], [3.0], [10.0]], [[0.5], [4.0], [-3.0], [30.0]]
# real radii: k = 1: 1 1 2 7, k = 2: 3 2 3 9; those of the others: k = 1: 3.5 3.5 3.5 26


def test_precision_and_recall_by_hand() -> None:
    # 0.5 lies in the balls of 0 and 1, 4 in those of 3 and 10, -3 and 30 in none
    assert precision_recall(REAL, FAKE, k=1) == (0.5, 1.0)
    # -3 is at exactly the second radius of 0, and the ball is closed
    assert precision_recall(REAL, FAKE, k=2) == (0.75, 1.0)
    assert precision_recall(REAL, [[100.0], [101.0]], k=1) == (0.0, 0.0)
    assert precision_recall(FAKE, REAL, k=1) == (1.0, 0.5)


def test_density_and_coverage_by_hand() -> None:
    assert density_coverage(REAL, FAKE, k=1) == (4 / 4, 1.0)
    # k = 2: 0.5 in the balls of 0, 1, 3; 4 in 3, 10; -3 in 0 alone, with 3 to 1 beyond its 2
    assert density_coverage(REAL, FAKE, k=2) == (6 / (2 * 4), 1.0)
    assert density_coverage(REAL, [[9.0], [9.1]], k=1) == (2 / 2, 0.25)


def test_kid_by_hand() -> None:
    # two features: (x y / 2 + 1)^3
    x, y = [[0.0, 2.0], [2.0, 0.0]], [[2.0, 2.0], [0.0, 0.0]]
    assert kid(x, y, subset_size=2) == (1 + 1 - 2 * (27 + 1 + 27 + 1) / 4, 0.0)


def test_kid_is_unbiased_whatever_the_size_of_its_subsets() -> None:
    rng = np.random.default_rng(0)
    means = [kid(rng.normal(size=(60, 3)), rng.normal(size=(20, 3)), subsets=3, seed=i)[0] for i in range(300)]
    assert abs(np.mean(means)) < 3 * np.std(means) / 300**0.5
    x, y = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2)) + 1
    small, large = (kid(x, y, subset_size=size) for size in (20, 300))
    assert small[0] == pytest.approx(large[0], rel=0.25)
    assert small[1] > large[1] > 0


def test_kid_depends_on_its_seed_alone() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 50, 4))
    assert kid(x, y, seed=3) == kid(x, y, seed=3) != kid(x, y, seed=4)


@pytest.mark.parametrize("size", [1, 0, -3, 4])  # the unbiased estimate divides by size - 1
def test_kid_of_subsets_that_there_are_not(size: int) -> None:
    with pytest.raises(ValueError, match=f"100 subsets of {size} from 3 and 3"):
        kid([[0.0], [1.0], [2.0]], [[0.0], [1.0], [2.0]], subset_size=size)


def test_fid_of_what_was_moved_and_stretched() -> None:
    x = np.random.default_rng(2).normal(size=(2048, 5)) * [1, 2, 3, 4, 5] + 7
    assert_allclose(fid(x, x), 0, atol=1e-9)
    assert_allclose(fid(x, x + np.array([1, 2, 0, 0, 0])), 5)
    centred = x - x.mean(axis=0)
    assert_allclose(fid(centred, 3 * centred), 4 * np.trace(np.cov(x.T)))  # (3 - 1)^2 in each direction
    turned, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))
    assert_allclose(fid(x @ turned, 2 * x @ turned), fid(x, 2 * x))


def test_fid_of_few_is_refused_with_the_reason() -> None:
    x = np.zeros((2048, 2))
    with pytest.raises(ValueError, match=r"2,048 images .* not 2,047 and 2,048.*full rank.*bias.*KID"):
        fid(x, x[1:])
    with pytest.raises(ValueError, match="not 2,048 and 2,047"):
        fid(x[1:], x)


def test_laws() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1500, 6))  # more than a block
    y = rng.normal(size=(300, 6)) * 0.7
    assert precision_recall(x, x[::3]) == (1.0, pytest.approx(1, abs=0.2))
    assert density_coverage(x, x)[1] == 1
    for measure in (precision_recall, density_coverage):  # unchanged by shifts and scales
        assert measure(x, y) == measure(2 * x + 100, 2 * y + 100)
    narrow, wide = density_coverage(x, y), density_coverage(x, 5 * y)
    assert narrow[0] > wide[0]
    assert precision_recall(x, y)[0] > precision_recall(x, 5 * y)[0]


def test_against_plain_loops() -> None:
    rng = np.random.default_rng(5)
    x, y, k = rng.normal(size=(40, 3)), rng.normal(size=(25, 3)), 3

    def radius(i: int, points: np.ndarray) -> float:
        return float(np.sort(np.linalg.norm(points - points[i], axis=1))[k])

    inside = np.array([[np.linalg.norm(x[i] - q) <= radius(i, x) for q in y] for i in range(40)])
    back = np.array([[np.linalg.norm(y[j] - p) <= radius(j, y) for p in x] for j in range(25)])
    assert precision_recall(x, y, k) == (inside.any(axis=0).mean(), back.any(axis=0).mean())
    assert density_coverage(x, y, k) == (inside.sum() / (k * 25), inside.any(axis=1).mean())


def test_agreement_by_hand() -> None:
    logits = [[3.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    assert agreement(logits, [0, 2, 1], ["a", "b", "c"]) == 2 / 3
    assert agreement(logits, [0, 1, 1], ["c", "a"], ["c", "b", "a"]) == 1  # by name; the judge knows one more
    with pytest.raises(ValueError, match="does not know class 'd'"):
        agreement(logits, [0, 0, 0], ["d"], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"logits \(3, 3\) for 3 images and 2 classes"):
        agreement(logits, [0, 0, 0], ["a", "b"])


# ---- images ----------------------------------------------------------------------------------------------------------


def pictures(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Dark ants and light zebras."""
    rng = np.random.default_rng(seed)
    shades = np.arange(n) % 2 * 120 + 20
    return (shades[:, None, None] + rng.integers(0, 60, (n, 4, 4))).astype(np.uint8), ["ant", "zebra"] * (n // 2)


def light(images: Tensor) -> Tensor:
    """A judge: the lighter an image, the more a zebra."""
    return torch.stack([-images.mean((1, 2, 3)), images.mean((1, 2, 3)) - 0.8], dim=1)


@pytest.mark.parametrize("features", [lambda images: images.flatten(1), open_codec("identity")])
def test_images_and_judge(features: Any, tmp_path: Path) -> None:
    real = pictures(80, 0)
    small = ddoq.distill(
        real, tmp_path / "run", ipc=5, codec="identity", synthesis="decode", controls=["nearest"], progress=False
    )
    found = image_quality(small, real, features, judge=light, device="cpu")
    assert (found.images, found.real, found.fid) == (10, 80, None)
    assert found.agreement == 1
    assert image_quality(small, real, features, judge=light, judge_names=["zebra", "ant"], device="cpu").agreement == 0
    nearest = image_quality(ddoq.load(tmp_path / "run", synthesis="nearest"), real, features, device="cpu")
    assert (nearest.precision, nearest.agreement) == (1, None)
    noise = (np.random.default_rng(1).integers(0, 255, (10, 4, 4), np.uint8), ["ant", "zebra"] * 5)
    assert image_quality(noise, real, features, device="cpu").kid > nearest.kid
    x = np.stack(real[0]).reshape(80, -1) / np.float32(255)
    y = small.images.flatten(1).numpy() / np.float32(255)
    assert (found.kid, found.kid_std) == pytest.approx(kid(x, y))
    assert (found.precision, found.recall) == precision_recall(x, y)
    assert (found.density, found.coverage) == density_coverage(x, y)


class Halves(torch.nn.Module):
    """A codec that is a module: what it encodes to is not what it is called for."""

    def encode(self, images: Tensor) -> Tensor:
        return images[..., ::2] * 3

    def decode(self, latents: Tensor) -> Tensor:
        return (latents / 3).repeat_interleave(2, dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def test_a_codec_that_is_a_module_is_encoded_with() -> None:
    x, y = pictures(20, 0), pictures(12, 1)
    found = image_quality(y, x, Halves(), device="cpu")
    latents = [pixels[:, :, ::2].reshape(len(pixels), -1) / np.float32(255) * 3 for pixels, _ in (x, y)]
    assert (found.kid, found.kid_std) == pytest.approx(kid(*latents))


def test_a_diffusers_autoencoder_is_a_codec() -> None:
    from ddoq.machine.torchvision import ensure_importable

    ensure_importable()
    import diffusers

    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(4,), norm_num_groups=2, latent_channels=2
    )
    x, y = pictures(20, 0), pictures(12, 1)
    found = image_quality(y, x, model, device="cpu")
    codec = open_codec(model)
    latents = [codec.encode(torch.from_numpy(part[0][:, None]) / 255).flatten(1).numpy() for part in (x, y)]
    assert (found.kid, found.kid_std) == pytest.approx(kid(*latents), rel=1e-4)


def test_timm_model_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    from ddoq.machine.torchvision import ensure_importable

    ensure_importable()
    import timm

    create, asked = timm.create_model, []

    def offline(name: str, pretrained: bool, num_classes: int) -> Any:
        asked.append((name, pretrained, num_classes))
        torch.manual_seed(0)
        return create(name, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", offline)
    seen: list[tuple[int, ...]] = []
    register = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, arguments: seen.append(tuple(arguments[0].shape)) if not seen else None
    )
    try:
        found = image_quality(pictures(8, 0), pictures(12, 1), "test_resnet.r160_in1k", device="cpu")
    finally:
        register.remove()
    assert asked == [("test_resnet.r160_in1k", True, 0)]
    assert seen == [(12, 3, 160, 160)]
    assert found.images == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": lambda images: images}, r"the feature model gave \(20, 1, 4, 4\) for 20 images"),
        ({"features": lambda images: images.flatten(1) / 0}, "NaN or infinity for image 0"),
        ({"judge": lambda images: images.flatten(1)}, r"the judge gave logits \(20, 16\)"),
        ({"with_fid": True}, "FID needs"),
        ({"images": pictures(2, 0)}, "at least 4 of both"),
    ],
)
def test_bad_models_and_sets(options: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"images": pictures(20, 0), "features": lambda images: images.flatten(1), **options}
    with pytest.raises(ValueError, match=message):
        image_quality(data=pictures(20, 1), device="cpu", **settings)


def test_features_of_another_kind() -> None:
    with pytest.raises(TypeError, match="function, the name of a timm model or a codec, got int"):
        image_quality(pictures(8, 0), pictures(8, 1), 3, device="cpu")


def test_text() -> None:
    text = str(Quality(10, 2000, 0.5, 0.25, 1, 0.5, 1.5, 0.25, 12.345, 0.5))
    assert text == (
        "10 images beside 2,000 real ones: KID 0.5000 ± 0.2500, precision 1.000, recall 0.500, density 1.500, "
        "coverage 0.250, FID 12.35, agreement 50.0 %"
    )
