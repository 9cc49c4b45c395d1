"""Makes student networks: the field's ConvNet with 3 or 4 blocks, and any timm model by name."""

from __future__ import annotations

import difflib

import torch
from torch import Tensor, nn

from ddoq.machine.extras import need

CONVNETS = {"convnet3": 3, "convnet4": 4}  # blocks; 2 to their power is the smallest image
SHORT = {  # names without timm's size of patches and images, which `_size_arguments` chooses
    "mobilenetv2": "mobilenetv2_100",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
}


class ConvNet(nn.Module):
    """The field's ConvNet: blocks of convolution, instance normalisation, ReLU and pooling, then a linear head.

    128 filters of 3 x 3 in each convolution, 2 x 2 average pooling. Source: ConvNet of VICO-UoE/DatasetCondensation
    (depth 3, "instancenorm" = GroupNorm with a group per channel, "avgpooling"). As there, the first convolution of a
    one-channel network pads by 3, not 1: 28 x 28 becomes 32 x 32.

    Parameters
    ----------
    n_classes
        Number of logits.
    channels
        1 or 3.
    image_size
        Side of the square images in pixels, at least 2^depth. The head's size depends on it.
    depth
        Blocks.
    width
        Filters of each convolution.

    Examples
    --------
    >>> import torch
    >>> ConvNet(n_classes=10, channels=1, image_size=28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, *, n_classes: int, channels: int, image_size: int, depth: int = 3, width: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side = image_size
        for block in range(depth):
            padding = 3 if block == 0 and channels == 1 else 1
            layers += [
                nn.Conv2d(channels if block == 0 else width, width, kernel_size=3, padding=padding),
                nn.GroupNorm(width, width),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
            side = (side + 2 * padding - 2) // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * side * side, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, n_classes) of normalised images (b, channels, image_size, image_size)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def create_student(name: str, *, n_classes: int, channels: int, image_size: int) -> nn.Module:
    """A student network with fresh weights from torch's global random stream.

    Parameters
    ----------
    name
        "convnet3", "convnet4", or the name of any timm model, such as "resnet18" (needs the extra `train`). Never
        pretrained, so nothing is downloaded. "mobilenetv2", "swin_tiny", "vit_tiny" and "vit_small" stand for timm's;
        the last three have smaller patches for images below 224 pixels.
    n_classes
        Number of logits.
    channels
        Channels of the images, 1 or 3.
    image_size
        Side of the square images in pixels; at least 8 for "convnet3", 16 for "convnet4". Given to the timm models of
        fixed input size.

    Raises
    ------
    ValueError
        A name that is not known, with the nearest names, or a size that the student cannot take.
    ModuleNotFoundError
        A name other than the ConvNets' where timm is not installed.

    Examples
    --------
    >>> student = create_student("convnet3", n_classes=10, channels=3, image_size=32)
    >>> sum(p.numel() for p in student.parameters())
    320010
    """
    if name in CONVNETS:
        depth = CONVNETS[name]
        if image_size < 2**depth:
            raise ValueError(f"{name} needs images of at least {2**depth} x {2**depth} pixels, got {image_size}")
        return ConvNet(n_classes=n_classes, channels=channels, image_size=image_size, depth=depth)
    near = difflib.get_close_matches(name.lower(), CONVNETS, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    timm = need("timm", f"student {name!r}{hint}, which is none of ddoq's own,")
    full = SHORT.get(name, name)
    if not timm.is_model(full):
        near = difflib.get_close_matches(name, [*CONVNETS, *SHORT, *timm.list_models()], n=5)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise ValueError(f"student {name!r} is neither 'convnet3' nor a timm model{hint}")
    # transformers and the like are built for one size; other models refuse the argument
    size = {"img_size": image_size} if timm.get_pretrained_cfg_value(full, "fixed_input_size") else {}
    size |= _size_arguments(name, image_size)
    model: nn.Module = timm.create_model(full, pretrained=False, in_chans=channels, num_classes=n_classes, **size)
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"student {name!r} cannot take {image_size} x {image_size} images: {error}") from error
    return model.train()


def _size_arguments(name: str, image_size: int) -> dict[str, int]:
    """Patches, and Swin's windows, of the short names: timm's at 224 pixels, smaller for smaller images.

    >>> _size_arguments("vit_tiny", 64), _size_arguments("swin_tiny", 64), _size_arguments("swin_tiny", 224)
    ({'patch_size': 4}, {'patch_size': 2, 'window_size': 4}, {'patch_size': 4, 'window_size': 7})
    """
    if name in ("vit_tiny", "vit_small"):  # the largest power of 2 that leaves 14 patches along a side
        return {"patch_size": 1 << max(0, (image_size // 14).bit_length() - 1)}
    if name == "swin_tiny":
        patch = 4 if image_size >= 224 else 2 if image_size >= 56 else 1
        return {"patch_size": patch, "window_size": 7 if image_size % 7 == 0 else 4}
    return {}
