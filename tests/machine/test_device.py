"""The device by its name: what is known, and what is refused before any work."""

from __future__ import annotations

import pytest
import torch

import ddoq
from ddoq.machine.device import deterministic, torch_device


def test_known_devices() -> None:
    assert torch_device("cpu") == torch.device("cpu")
    assert torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.cuda.is_available():
        assert torch_device("cuda:0") == torch.device("cuda:0")


@pytest.mark.parametrize("device", ["foo", "", "gpu", "cpu:0", "cuda:", "cuda:-1", "mps", None])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda'"):
        torch_device(device)


def test_absent_gpus() -> None:
    with pytest.raises(ValueError, match="device 'cuda:99' is not there"):
        torch_device("cuda:99")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not there, torch sees no CUDA GPU"):
            torch_device("cuda")


def test_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="cuda:99"):
        ddoq.train("not a data set", device="cuda:99", progress=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cuda:99"):
        ddoq.evaluate("no-such-run", None, device="cuda:99")


def test_a_gpu_takes_no_kernel_of_attention_that_adds_up_in_any_order() -> None:
    def fused() -> tuple[bool, bool, bool]:
        flags = torch.backends.cuda
        return flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled(), flags.cudnn_sdp_enabled()

    before = fused()
    with deterministic(torch.device("cuda")):
        assert fused() == (False, False, False)
        assert torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cudnn.deterministic
    with deterministic(torch.device("cpu")):
        assert fused() == before == (True, True, True)
    assert fused() == before
