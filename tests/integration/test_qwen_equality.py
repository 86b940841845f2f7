"""Our loop against diffusers' own Qwen-Image pipelines: the same weights, seed and prompts give the same latents.

A stock edit pipeline is given what this package has instead of torchvision and of its text encoder's blindness: a
processor made here of transformers' image processor without torchvision, and the kinds of the tokens, which the
pipeline does not hand on and without which the rows and columns of a picture are lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import picture
from PIL import Image
from qwen_runs import STILL, Tiny, tiny_models
from transformers import BatchFeature

from Wan2GP.engine.stock.tokens import packed

TOLERANCE = 1e-4
SIZE = {"width": 96, "height": 64}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_models(tmp_path_factory)


class Processor:
    """Tokens and patches of a chat, as Qwen2VLProcessor makes them."""

    def __init__(self, tokenizer: Any) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self._tokenizer = tokenizer
        self._pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12_845_056})

    def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> BatchFeature:
        shown = images if isinstance(images, list) else [images]
        cut = self._pictures(shown, return_tensors="pt")
        chat = text[0]
        for grid in cut["image_grid_thw"]:
            chat = chat.replace("<|image_pad|>", "<|place|>" * (int(grid.prod()) // 4), 1)
        tokens = self._tokenizer([chat.replace("<|place|>", "<|image_pad|>")], return_tensors="pt")
        return BatchFeature({**tokens, **cut})


def stock(model: Tiny, name: str) -> Any:
    """diffusers' pipeline over the parts of ours."""
    import diffusers

    cls = getattr(diffusers, name)
    parts = dict(model.pipeline.components)
    if "Edit" in name:
        parts["processor"] = None
    pipeline = cls(**parts)
    pipeline.processor = Processor(parts["tokenizer"])
    before = pipeline.prompt_template_encode.split("<|im_start|>user\n")[0] + "<|im_start|>user\n"
    # The published number of tokens is that of the published vocabulary.
    pipeline.prompt_template_encode_start_idx = len(parts["tokenizer"](before)["input_ids"])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def kinds_of_tokens(tiny):
    """Gives text encoders the kinds of their tokens, where a pipeline does not."""
    hooks = []

    def of(name: str) -> None:
        encoder = tiny(name).pipeline.text_encoder

        def add(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, given | {"mm_token_type_ids": (given["input_ids"] == encoder.config.image_token_id).int()}

        hooks.append(encoder.register_forward_pre_hook(add, with_kwargs=True))

    yield of
    for hook in hooks:
        hook.remove()


def require_equal(model: Tiny, pipeline: Any, values: dict[str, Any], **call: Any) -> None:
    values = STILL | {"resolution": "{width}x{height}".format(**SIZE)} | values
    guided = values["guidance_scale"] > 1
    width, height = map(int, values["resolution"].split("x"))
    theirs = pipeline(
        prompt=values["prompt"],
        negative_prompt=values["negative_prompt"] if guided else None,
        true_cfg_scale=values["guidance_scale"],
        width=width,
        height=height,
        num_inference_steps=values["num_inference_steps"],
        generator=torch.Generator().manual_seed(values["seed"]),
        output_type="latent",
        **call,
    ).images
    ours = packed(model.latents(**values))
    assert ours.shape == theirs.shape and ours.std() > 0.3
    assert (ours - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("steps", [2, 5])
def test_text_to_image(tiny, guidance, steps):
    model = tiny("qwen_image_20B")
    require_equal(model, stock(model, "QwenImagePipeline"), {"guidance_scale": guidance, "num_inference_steps": steps})


def test_pixels_of_text_to_image(tiny):
    model = tiny("qwen_image_20B")
    theirs = stock(model, "QwenImagePipeline")(
        prompt=STILL["prompt"],
        true_cfg_scale=1.0,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        **SIZE,
    ).images[0]
    ours = model.frames(resolution="96x64", guidance_scale=1.0)[0]
    assert np.abs(ours / 255 - theirs).max() <= 0.5 / 255 + TOLERANCE


def test_the_lightning_schedule_is_that_of_its_published_scheduler(tiny):
    import math

    from diffusers import FlowMatchEulerDiscreteScheduler

    model = tiny("qwen_image_20B")
    pipeline = stock(model, "QwenImagePipeline")
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=math.log(3),
        max_image_seq_len=8192,
        max_shift=math.log(3),
        shift_terminal=None,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    )
    require_equal(model, pipeline, {"sample_solver": "lightning", "guidance_scale": 1.0})


def test_inpainting(tiny):
    """Whole latent pixels, and the latents of the picture instead of a sample of them: the stock pipeline draws one."""
    from Wan2GP.engine.qwen.latents import encode

    model = tiny("qwen_image_20B")
    guide, mask = picture(7, **SIZE), np.zeros((64, 96, 3), np.uint8)
    mask[16:48, 32:64] = 255
    latents = encode(model.pipeline, guide)
    values = {"image_guide": guide, "image_mask": mask, "denoising_strength": 0.6, "num_inference_steps": 5}
    call = {"image": latents, "masked_image_latents": latents, "strength": 0.6}
    pipeline = stock(model, "QwenImageInpaintPipeline")
    require_equal(model, pipeline, values, mask_image=Image.fromarray(mask).convert("L"), **call)


@pytest.fixture
def small_pictures(monkeypatch):
    """The stock edit pipelines read pictures at the result's area, as ours does for small results, not at 1024 x 1024.

    That the sizes for larger results are theirs is held in the unit tests; this is about what follows.
    """
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    area, dimensions = SIZE["width"] * SIZE["height"], pipeline_qwenimage_edit.calculate_dimensions
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda _, ratio: dimensions(area, ratio))
    for name in ("VAE_IMAGE_SIZE", "CONDITION_IMAGE_SIZE"):
        monkeypatch.setattr(pipeline_qwenimage_edit_plus, name, area)


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_edit(tiny, kinds_of_tokens, small_pictures, guidance):
    model, shown = tiny("qwen_image_edit_20B"), picture(3, 90, 60)
    kinds_of_tokens(model.name)
    values = {"image_refs": [shown], "guidance_scale": guidance}
    require_equal(model, stock(model, "QwenImageEditPipeline"), values, image=Image.fromarray(shown))


@pytest.mark.parametrize("name", ["qwen_image_edit_plus_20B", "qwen_image_edit_plus2_20B"])
def test_edit_plus_with_two_pictures_of_different_shapes(tiny, kinds_of_tokens, small_pictures, name):
    model, pictures = tiny(name), [picture(3, 90, 60), picture(4, 40, 50)]
    kinds_of_tokens(name)
    shown = [Image.fromarray(each) for each in pictures]
    require_equal(model, stock(model, "QwenImageEditPlusPipeline"), {"image_refs": pictures}, image=shown)
