"""Codecs: round trips, folders, fingerprints, mistakes in a user's codec, and the fitted autoencoder."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddoq.data.image_data import open_data
from ddoq.machine.torchvision import ensure_importable
from ddoq.models.codecs.codec import open_codec
from ddoq.models.fingerprint import fingerprint
from ddoq.models.fitting.autoencoder import fit_codec, latent_factor

ensure_importable()
from diffusers import AutoencoderKL, AutoencoderTiny  # noqa: E402


def tiny_kl(**config: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=[8, 16],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        **config,
    )


def tiny_tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


def some_images(n: int = 3, channels: int = 3, side: int = 8) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_identity_returns_the_images_and_clips() -> None:
    codec = open_codec("identity")
    images = some_images()
    assert torch.equal(codec.decode(codec.encode(images)), images)
    assert codec.decode(torch.tensor([[[[-1.0, 2.0]]]])).tolist() == [[[[0.0, 1.0]]]]


def test_autoencoder_kl_scales_its_posterior_mean() -> None:
    model = tiny_kl(scaling_factor=0.5, shift_factor=0.25).eval()
    codec = open_codec(model)
    images = some_images()
    with torch.no_grad():
        mean = model.encode(images * 2 - 1).latent_dist.mean
        decoded = model.decode(mean).sample
    latents = codec.encode(images)
    assert latents.shape == (3, 4, 4, 4)
    torch.testing.assert_close(latents, (mean - 0.25) * 0.5)
    torch.testing.assert_close(codec.decode(latents), (decoded / 2 + 0.5).clamp(0, 1))


def test_latents_mean_and_std_are_per_channel() -> None:
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    plain, scaled = (
        open_codec(tiny_kl(scaling_factor=1.0)),
        open_codec(tiny_kl(scaling_factor=2.0, latents_mean=mean, latents_std=std)),
    )
    images = some_images()
    raw = plain.encode(images)
    expected = (raw - torch.tensor(mean).reshape(1, 4, 1, 1)) / torch.tensor(std).reshape(1, 4, 1, 1) * 2
    torch.testing.assert_close(scaled.encode(images), expected)
    torch.testing.assert_close(scaled.decode(expected), plain.decode(raw))


def test_autoencoder_tiny_takes_images_from_minus_one_to_one() -> None:
    model = tiny_tiny().eval()
    codec = open_codec(model)
    images = some_images()
    with torch.no_grad():
        latents = model.encode(images * 2 - 1).latents
        decoded = (model.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(codec.encode(images), latents)
    torch.testing.assert_close(codec.decode(latents), decoded)


@pytest.mark.parametrize("make", [lambda: tiny_kl(scaling_factor=0.7, shift_factor=0.1), tiny_tiny], ids=["kl", "tiny"])
def test_folder_gives_the_same_as_the_object(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path / "plain")
    model.save_pretrained(tmp_path / "pipeline" / "vae")
    images = some_images()
    expected = open_codec(model)
    for folder in (tmp_path / "plain", str(tmp_path / "pipeline")):
        codec = open_codec(folder)
        assert torch.equal(codec.encode(images), expected.encode(images))
        assert fingerprint(codec) == fingerprint(expected)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    tiny_kl().save_pretrained(tmp_path, safe_serialization=False)
    assert (tmp_path / "diffusion_pytorch_model.bin").is_file()
    with pytest.raises(OSError, match=r"diffusion_pytorch_model\.safetensors"):
        open_codec(tmp_path)


def test_half_precision_model_gives_float32_and_is_upcast_where_its_configuration_says() -> None:
    images = some_images()
    exact = open_codec(tiny_kl()).encode(images)
    half = open_codec(tiny_kl(force_upcast=False).half()).encode(images)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, atol=5e-3, rtol=0)  # float16 arithmetic of a few layers
    upcast = open_codec(tiny_kl(force_upcast=True).half())
    assert upcast.encode(images).dtype == torch.float32
    assert next(upcast.model.parameters()).dtype == torch.float32  # type: ignore[attr-defined]


def test_channels_follow_the_model_and_wrong_ones_are_named() -> None:
    codec = open_codec(tiny_kl())
    assert codec.channels == 3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="3"):
        codec.encode(some_images(channels=1))
    data = open_data((np.zeros((2, 8, 8), np.uint8), [0, 1]), channels=codec.channels)  # type: ignore[attr-defined]
    assert codec.encode(torch.from_numpy(data.images([0, 1])).float() / 255).shape == (2, 4, 4, 4)
    with pytest.raises(ValueError, match="5 channels"):
        open_codec(tiny_kl(in_channels=5))


class Shifted:
    """A user's codec that is no module."""

    def __init__(self, shift: float = 0.5) -> None:
        self.shift = shift
        self.table = np.arange(3.0)

    def encode(self, images: Tensor) -> Tensor:
        return images - self.shift

    def decode(self, latents: Tensor) -> Tensor:
        return latents + self.shift


def test_users_object_is_a_codec() -> None:
    codec = open_codec(Shifted())
    images = some_images()
    torch.testing.assert_close(codec.decode(codec.encode(images)), images)


@pytest.mark.parametrize(
    ("encode", "error", "message"),
    [
        (lambda x: x[:-1], ValueError, "3 images"),
        (lambda x: x.numpy(), TypeError, "ndarray"),
        (lambda x: (x * 255).to(torch.uint8), TypeError, "uint8"),
        (lambda x: x.mean((1, 2, 3)), ValueError, "3 images"),
    ],
    ids=["batch", "array", "integers", "shape"],
)
def test_mistakes_of_a_users_encode_are_named(encode: Any, error: type[Exception], message: str) -> None:
    codec = Shifted()
    codec.encode = encode  # type: ignore[method-assign]
    with pytest.raises(error, match=rf"Shifted.encode.*{message}"):
        open_codec(codec).encode(some_images())


@pytest.mark.parametrize(
    ("decode", "error", "message"),
    [
        (lambda z: z.numpy(), TypeError, "ndarray"),
        (lambda z: (z * 255).to(torch.uint8), TypeError, "uint8"),
    ],
    ids=["array", "integers"],
)
def test_mistakes_of_a_users_decode_are_named(decode: Any, error: type[Exception], message: str) -> None:
    codec = Shifted()
    codec.decode = decode  # type: ignore[method-assign]
    with pytest.raises(error, match=rf"Shifted.decode.*{message}"):
        open_codec(codec).decode(some_images())


def test_what_is_no_codec_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no/such/folder"):
        open_codec("no/such/folder")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        open_codec(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="UNet2DModel"):
        open_codec(tmp_path)
    for text, what in (("[]", "list"), ("{", "not JSON")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"config\.json .*{what}"):
            open_codec(tmp_path)
    with pytest.raises(TypeError, match="dict"):
        open_codec({})
    codec = Shifted()
    codec.channels = 4  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="channels"):
        open_codec(codec)


def test_fingerprint_tells_weights_configuration_and_attributes_apart() -> None:
    assert fingerprint(open_codec(tiny_kl())) == fingerprint(open_codec(tiny_kl()))
    changed = tiny_kl()
    with torch.no_grad():
        changed.decoder.conv_out.bias[0] += 1e-3
    prints = [
        fingerprint(open_codec(model)) for model in (tiny_kl(), changed, tiny_kl(scaling_factor=0.5), tiny_tiny())
    ]
    other_table = Shifted()
    other_table.table[1] = 7
    prints += [fingerprint(open_codec(codec)) for codec in ("identity", Shifted(), Shifted(0.4), other_table)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(open_codec(Shifted())) == fingerprint(open_codec(Shifted()))
    named = Shifted()
    named.fingerprint = "version 3"  # type: ignore[attr-defined]
    assert fingerprint(open_codec(named)) == "version 3"


def variant(**attributes: Any) -> Any:
    codec = Shifted()
    vars(codec).update(attributes)
    return codec


class Scaled(torch.nn.Module):
    """A user's codec that is a module, with settings beside its weights."""

    def __init__(self, scale: Any = 0.5, activation: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(activation or torch.nn.ReLU())
        self.scale = scale
        self.config = {"object": object}
        self.cache: Any = threading.Lock  # a function
        self._lock = threading.Lock()
        self.parents = [self]
        self.register_buffer("table", torch.arange(3.0), persistent=False)

    def encode(self, images: Tensor) -> Tensor:
        return images * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        return latents / self.scale


def test_fingerprint_covers_all_that_attributes_hold() -> None:
    torch.manual_seed(0)
    other_table = Scaled()
    other_table.table[0] = 7  # type: ignore[operator]
    other_part = Scaled()
    other_part.layer[0].slope = 2.0  # type: ignore[assignment]
    changed = variant(inner=tiny_kl())
    with torch.no_grad():
        changed.inner.decoder.conv_out.bias[0] += 1e-3
    codecs = [
        *(
            Scaled(scale)
            for scale in (0.1, 0.9, [0.1], (0.1,), {0.1}, {"a": 0.1}, {"b": 0.1}, None, math.sin, math.cos)
        ),
        *(Scaled([torch.full((2,), value)]) for value in (1.0, 2.0)),
        *(Scaled({"deep": ([np.full(2, value)],)}) for value in (1.0, 2.0)),
        *(Scaled(np.array(words)) for words in (["a", "b"], ["a", "c"])),
        *(Scaled(np.array(objects, dtype=object)) for objects in ([1, None], [1, "x"])),
        *(Scaled(SimpleNamespace(a=value, where=Path("x"))) for value in (1, 2)),
        *(Scaled(functools.partial(math.pow, value)) for value in (1, 2)),
        *(Scaled(np.random.default_rng(value)) for value in (1, 2)),
        *(Scaled(dtype) for dtype in (torch.float16, torch.float32)),
        *(Scaled(open_codec(model)) for model in ("identity", tiny_kl(), tiny_tiny())),
        Scaled(activation=torch.nn.GELU()),
        Scaled(activation=torch.nn.GELU("tanh")),
        other_table,
        other_part,
        variant(inner=tiny_kl()),
        changed,
        variant(_hidden=1),
        variant(_hidden=2),
    ]
    prints = [fingerprint(open_codec(codec)) for codec in codecs]
    assert len(set(prints)) == len(prints)
    assert fingerprint(Scaled({"a": 1, "b": {2, "3"}})) == fingerprint(Scaled({"b": {"3", 2}, "a": 1}))
    assert fingerprint(variant(device=torch.device("cpu"))) == fingerprint(variant(device=torch.device("cuda")))
    assert fingerprint(Scaled().train()) == fingerprint(Scaled().eval())


def test_fingerprint_refuses_what_it_cannot_describe() -> None:
    for codec, where in (
        (variant(client=threading.Lock()), r"Shifted\.client is a lock"),
        (Scaled({"a": [threading.Lock()]}), r"Scaled\.scale\[.*\]\[0\] is a lock"),
        (variant(table=torch.empty(2, device="meta")), r"Shifted\.table is a .*tensor on meta"),
    ):
        with pytest.raises(TypeError, match=rf"{where}.*`fingerprint`"):
            fingerprint(open_codec(codec))
    own = variant(client=threading.Lock(), fingerprint="version 3")
    assert fingerprint(open_codec(own)) == "version 3"


OTHER_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from test_codecs import Scaled, variant, tiny_kl, fingerprint
print(fingerprint(Scaled({"a": {"x", "y", 3}})), fingerprint(variant(inner=[tiny_kl()])))
"""


def test_fingerprint_is_the_same_in_another_process() -> None:
    command = [sys.executable, "-c", OTHER_PROCESS, str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [fingerprint(Scaled({"a": {"x", "y", 3}})), fingerprint(variant(inner=[tiny_kl()]))]


def test_latent_factor_divides_and_leaves_at_least_four() -> None:
    sides = {8: 2, 28: 4, 32: 8, 64: 8, 7: 1, 3: 1, 112: 8, 30: 2, 12: 2}
    assert {side: latent_factor(side) for side in sides} == sides


def digits(n: int = 200) -> Any:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return open_data(((bunch.images[:n] * 15).astype(np.uint8), bunch.target[:n]))


def test_fitted_codec_learns_and_opens_like_any_other(tmp_path: Path) -> None:
    data = digits()
    facts = fit_codec(data, tmp_path / "codec", seed=0, base_channels=8, steps=150, progress=False)
    assert facts["factor"] == 2
    codec = open_codec(tmp_path / "codec")
    images = torch.from_numpy(data.images(range(200))).float() / 255
    latents = codec.encode(images)
    assert latents.shape == (200, 4, 4, 4)
    assert float(latents.mean()) == pytest.approx(0, abs=1e-3)  # the configuration's shift
    assert float(latents.std()) == pytest.approx(1, abs=1e-3)  # and scale, over all 200 images
    error = float((codec.decode(latents) - images).square().mean())
    assert error < 0.2 * float((images - images.mean(0)).square().mean())  # what the mean image leaves
    assert -10 * np.log10(error) == pytest.approx(facts["psnr"], abs=1e-2)


def test_fitted_codec_is_the_same_to_the_byte_and_leaves_torch_alone(tmp_path: Path) -> None:
    for name, torch_seed in (("a", 1), ("b", 2)):
        torch.manual_seed(torch_seed)
        before = torch.get_rng_state()
        fit_codec(digits(), tmp_path / name, seed=3, base_channels=8, steps=3, progress=False)
        assert torch.equal(torch.get_rng_state(), before)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "diffusion_pytorch_model.safetensors" in files
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    fit_codec(digits(), tmp_path / "c", seed=4, base_channels=8, steps=3, progress=False)
    weights = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()


def test_fit_codec_refuses_what_it_cannot_train(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="base_channels"):
        fit_codec(digits(), tmp_path, seed=0, base_channels=12, progress=False)
    for steps in (0, 2.5, True):
        with pytest.raises((TypeError, ValueError), match="steps must be"):
            fit_codec(digits(), tmp_path, seed=0, steps=steps, progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 8, 9, 10])
def test_a_codec_is_fitted_in_any_number_of_steps(tmp_path: Path, steps: int) -> None:
    facts = fit_codec(digits(8), tmp_path, seed=0, base_channels=8, steps=steps, progress=False)
    assert facts["steps"] == steps


def test_a_codec_fit_that_diverges_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddoq.models.fitting.autoencoder.LEARNING_RATE", 1e30)
    with pytest.raises(ValueError, match=r"codec diverged at step \d of 8.*another seed.*codec of your own"):
        fit_codec(digits(8), tmp_path / "codec", seed=0, base_channels=8, steps=8, progress=False)
    assert not (tmp_path / "codec").exists()
