"""CIFAR-10's ResNet-20 and -56 (akamaster/pytorch_resnet_cifar10, BSD-2) as judges: not part of the package.

Three stages of basic blocks at 16, 32 and 64 channels, option-A shortcuts (stride-2 slice, zero-padded channels),
global mean, linear. Weights: `cifar_resnet/resnet{20,56}.safetensors`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride = channels_out // channels_in
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            more = x.shape[1] // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """Logits of images (b, 3, 32, 32) in [0, 1]; `features` gives the 64 means before the last layer."""

    def __init__(self, depth: int, weights: Path) -> None:
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for stage in (1, 2, 3):
            before, width = widths[stage - 1], widths[stage]
            blocks = [Block(before if i == 0 else width, width) for i in range(n)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(3, 1, 1), persistent=False)
        self.load_state_dict(load_file(weights))
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1((images - self.mean) / self.std)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return x.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(images))
        return logits
