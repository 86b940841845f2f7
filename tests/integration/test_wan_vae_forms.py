"""The forms of Wan's VAE: 16 bits and channels last, against 32 bits, on the VAE that this project trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from training.tiny_wan.measure import cases, psnr
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Place
from Wan2GP.engine.residency.memory import Memory
from Wan2GP.engine.wan.latents import decode, encode, to_tensor
from Wan2GP.engine.wan.loading import load_parts
from Wan2GP.engine.wan.parts import WanParts

Form = Callable[..., WanParts]


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> Form:
    memory, folder = Memory(), tmp_path_factory.mktemp("weights")

    @cache
    def of(**asked: int) -> WanParts:
        return load_parts(load_definitions()["tiny_wan_t2v"], Place(folder, "cpu", memory=memory, **asked))

    return of


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return next(cases(1)).truth[:9]


def through(parts: WanParts, clip: np.ndarray) -> np.ndarray:
    return decode(parts, encode(parts, to_tensor(clip)))


def test_a_vae_of_16_bits_loses_less_than_it_loses_anyway(form: Form, clip: np.ndarray) -> None:
    plain, small = form(), form(vae_bits=16)
    assert {each.dtype for each in small.vae.parameters()} == {torch.bfloat16}
    back, rounded = through(plain, clip), through(small, clip)
    assert psnr(rounded, back) > 50
    assert abs(psnr(rounded, clip) - psnr(back, clip)) < 0.5


def test_channels_last_change_no_pixel_by_more_than_a_rounding(form: Form, clip: np.ndarray) -> None:
    plain, last = form(), form(vae_channels_last=True)
    weights = [each.weight for each in last.vae.modules() if isinstance(each, torch.nn.Conv3d)]
    assert all(each.is_contiguous(memory_format=torch.channels_last_3d) for each in weights)
    difference = np.abs(through(plain, clip).astype(int) - through(last, clip))
    assert difference.max() <= 1


def test_models_share_a_vae_of_the_same_form_alone(form: Form) -> None:
    assert form(vae_bits=16).vae is not form().vae
    assert form(vae_bits=16).transformer is form().transformer, "the files are the same"
