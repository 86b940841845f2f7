"""The levers that need a GPU: products in 8 bits, page-locked weights on a stream of their own, choices by measuring.

Run by `pytest -m gpu tests/gpu` on a machine with a CUDA device.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from headless.compute import compute_capability
from Wan2GP.engine.residency.standby import Standby
from Wan2GP.engine.speed.attention import KERNELS, NATIVE, fastest, measure_attention, works
from Wan2GP.engine.speed.fp8 import IN_16_BITS, IN_FP8, Fp8Choice, check_fp8, in_fp8, measure_linear
from Wan2GP.errors import ModelUnavailable
from Wan2GP.weights.fp8 import quantised

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = torch.device("cuda")


@pytest.fixture
def in_8_bits() -> None:
    try:
        check_fp8(CUDA)
    except ModelUnavailable as error:
        pytest.skip(str(error))


def test_the_driver_says_of_the_gpu_what_torch_says() -> None:
    assert compute_capability(0) == torch.cuda.get_device_capability(0)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(512, 512, device=CUDA, dtype=torch.bfloat16) for _ in range(3))).requires_grad_(
        False
    )


@pytest.mark.usefixtures("in_8_bits")
@pytest.mark.parametrize("tokens", [1, 77, 4096])
def test_a_layer_computes_the_product_of_its_8_bit_factors(tokens: int) -> None:
    linear = layers()[0]
    layer, rows = in_fp8(linear), torch.randn(2, tokens, 512, device=CUDA, dtype=torch.bfloat16)
    data, scale = quantised(rows)
    weight = layer.weight.float() * layer.scale.t()
    expected = (data.float() * scale) @ weight.t() + linear.bias.float()
    off = (layer(rows).float() - expected).norm() / expected.norm()
    assert layer(rows).dtype == torch.bfloat16 and off < 0.01


@pytest.mark.usefixtures("in_8_bits")
def test_weights_in_8_bits_come_back_from_page_locked_memory_block_by_block() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList(in_fp8(layer) for layer in layers())
    rows = torch.randn(64, 512, device=CUDA, dtype=torch.bfloat16)

    def run() -> torch.Tensor:
        found = rows
        for block in model.blocks:
            found = block(found)
        return found

    before, standby = run(), Standby(model, CUDA)
    standby.bring()
    for _ in range(3):
        standby.park(pinned=True)
        assert standby.pinned and {each.device.type for each in model.parameters()} == {"cpu"}
        standby.bring(ahead=True)
        assert torch.equal(run(), before)


@pytest.mark.usefixtures("in_8_bits")
def test_each_size_is_measured_and_the_faster_form_is_kept(tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        num_attention_heads=8, attention_head_dim=128, ffn_dim=4096, num_layers=1, text_dim=64, freq_dim=32
    )
    found = Fp8Choice(CUDA, tmp_path, tokens=8192).layers(model)
    kept = json.loads((tmp_path / "measured_choices.json").read_text())
    assert len(kept) == 3 and set(kept.values()) <= {IN_FP8, IN_16_BITS}
    assert bool(found) == (IN_FP8 in kept.values())
    large = measure_linear((5120, 13824), torch.bfloat16, CUDA, compiled=False)
    assert 0 < large.fp8 < 2 * large.plain


def test_torchs_own_kernel_is_among_those_that_are_measured() -> None:
    usable = [kernel for kernel in KERNELS if works(kernel, CUDA)]
    measured = measure_attention((1, 4096, 8, 128), torch.bfloat16, CUDA, usable)
    assert NATIVE in {each.kernel for each in measured} and fastest(measured) in usable


def test_channels_last_survive_page_locked_memory() -> None:
    convolution = nn.Conv3d(16, 16, 3, device=CUDA).to(memory_format=torch.channels_last_3d).requires_grad_(False)
    before, standby = convolution.weight.clone(), Standby(convolution, CUDA)
    standby.bring()
    standby.park(pinned=True)
    standby.bring()
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(convolution.weight, before)
