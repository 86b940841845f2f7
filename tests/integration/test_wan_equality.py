"""Our denoise loop against diffusers' own pipelines: the same weights, noise levels, noise and prompts give the same
latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import grey_video, picture
from PIL import Image
from tiny_models import TINY_WAN
from wan_runs import CLIP, Tiny, tiny_models

from Wan2GP.engine.wan.steps import plan_steps
from Wan2GP.media import write_video

TOLERANCE = 1e-4
SIZE = {"width": 64, "height": 64}
START, END = picture(1, **SIZE), picture(2, **SIZE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_models(tmp_path_factory)


def scheduler_at(levels: np.ndarray, solver: str) -> Any:
    """diffusers' scheduler of a solver over given noise levels, with timesteps that are not rounded."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    multistep = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    cls, options = {
        "euler": (FlowMatchEulerDiscreteScheduler, {}),
        "unipc": (UniPCMultistepScheduler, multistep),
        "dpm++": (DPMSolverMultistepScheduler, multistep),
    }[solver]

    class AtLevels(cls):
        def set_timesteps(self, num_inference_steps: int, device: Any = None, **_: Any) -> None:
            if solver == "dpm++":
                super().set_timesteps(num_inference_steps, device=device)
                below_one = np.append(np.minimum(levels, 1 - 1e-6), 0)
                self.sigmas = torch.tensor(below_one, dtype=torch.float32)
            else:
                super().set_timesteps(sigmas=levels.copy(), device=device)
            self.timesteps = torch.tensor(levels * 1000, dtype=torch.float32)

    return AtLevels(**options)


def compared(model: Tiny, architecture: str, values: dict[str, Any], **call: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Our latents and the pipeline's. `call`: what the pipeline is given beyond what both have in common."""
    import diffusers

    ours = model.latents(**values)
    request = model.request(**values)
    steps, levels = plan_steps(request.sampling, tuple(model.parts.experts), model.parts.boundary_ratio)
    kind = call.pop("pipeline", "WanPipeline")
    cls = kind if isinstance(kind, type) else getattr(diffusers, kind)
    pipeline = cls.from_pretrained(model.weights)
    pipeline.scheduler = scheduler_at(levels, request.sampling.solver)
    pipeline.set_progress_bar_config(disable=True)
    prompts = model.prompts(CLIP["prompt"], CLIP["negative_prompt"])
    frames = ours.shape[2] + len(call.get("reference_images") or ())
    shape = (1, model.parts.latent_channels, frames, *ours.shape[3:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(CLIP["seed"]))
    theirs = pipeline(
        prompt_embeds=prompts.positive,
        negative_prompt_embeds=prompts.negative,
        num_frames=17,
        num_inference_steps=len(steps),
        guidance_scale=request.sampling.guidance_scale,
        latents=noise,
        output_type="latent",
        **SIZE,
        **call,
    ).frames
    return ours, theirs[:, :, frames - ours.shape[2] :]


def require_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ours.std() > 0.3
    assert (ours - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize("solver", ["unipc", "euler", "dpm++"])
@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_text_to_video(tiny, solver, guidance):
    values = {"sample_solver": solver, "guidance_scale": guidance, "num_inference_steps": 6}
    require_equal(*compared(tiny("t2v"), "t2v", values))


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_image_to_video(tiny, solver):
    values = {"sample_solver": solver, "image_start": START}
    call = {"image": Image.fromarray(START), "pipeline": "WanImageToVideoPipeline"}
    require_equal(*compared(tiny("i2v"), "i2v", values, **call))


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_first_and_last_frame_to_video(tiny, solver):
    values = {"sample_solver": solver, "image_start": START, "image_end": END}
    call = {
        "image": Image.fromarray(START),
        "last_image": Image.fromarray(END),
        "pipeline": "WanImageToVideoPipeline",
    }
    require_equal(*compared(tiny("flf2v_720p"), "flf2v_720p", values, **call))


def test_fun_inp_with_an_end_image_sees_the_first_image_alone(tiny):
    """The stock pipeline gives the encoder both images, which a transformer for one cannot take."""
    from diffusers import WanImageToVideoPipeline

    class OneImage(WanImageToVideoPipeline):
        def encode_image(self, image: Any, device: Any = None) -> torch.Tensor:
            return super().encode_image(image[0] if isinstance(image, list) else image, device)

    values = {"image_start": START, "image_end": END}
    call = {"image": Image.fromarray(START), "last_image": Image.fromarray(END), "pipeline": OneImage}
    require_equal(*compared(tiny("fun_inp"), "fun_inp", values, **call))


@pytest.mark.parametrize("solver", ["unipc", "euler"])
@pytest.mark.parametrize("architecture", ["vace_1.3B", "vace_14B_2_2"])
@pytest.mark.parametrize("references", [0, 2])
def test_vace(tiny, tmp_path: Path, architecture, solver, references):
    guide = [picture(10 + number, **SIZE) for number in range(17)]
    write_video(tmp_path / "guide.mkv", guide, fps=16, codec="ffv1")
    levels = [0] * 5 + [255] * 12
    grey_video(tmp_path / "mask.mkv", levels, **SIZE)
    pictures = [picture(3, 64, 64), picture(4, 64, 64)][:references]
    values = {
        "sample_solver": solver,
        "video_guide": str(tmp_path / "guide.mkv"),
        "video_mask": str(tmp_path / "mask.mkv"),
        "video_prompt_type": "VA" + "I" * bool(references),
        "image_refs": pictures or None,
        "image_refs_relative_size": 100,
        "control_net_weight": 0.7,
    }
    call = {
        "video": [Image.fromarray(frame) for frame in guide],
        "mask": [Image.new("L", (64, 64), level) for level in levels],
        "reference_images": [Image.fromarray(each) for each in pictures] or None,
        "conditioning_scale": 0.7,
        "pipeline": "WanVACEPipeline",
    }
    require_equal(*compared(tiny(architecture), architecture, values, **call))


def test_vace_without_any_control(tiny):
    require_equal(*compared(tiny("vace_1.3B"), "vace_1.3B", {}, pipeline="WanVACEPipeline"))


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_two_experts(tiny, solver):
    values = {"sample_solver": solver, "num_inference_steps": 6, "guidance_phases": 2, "guidance2_scale": 2.0}
    require_equal(*compared(tiny("t2v_2_2"), "t2v_2_2", values, guidance_scale_2=2.0))
    call = {"image": Image.fromarray(START), "guidance_scale_2": 2.0, "pipeline": "WanImageToVideoPipeline"}
    require_equal(*compared(tiny("i2v_2_2"), "i2v_2_2", values | {"image_start": START}, **call))


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_the_5b_model_with_and_without_an_image(tiny, solver):
    model = tiny("ti2v_2_2")
    require_equal(*compared(model, "ti2v_2_2", {"sample_solver": solver}))
    values = {"sample_solver": solver, "image_start": START}
    call = {"image": Image.fromarray(START), "pipeline": "WanImageToVideoPipeline"}
    require_equal(*compared(model, "ti2v_2_2", values, **call))


def test_every_architecture_of_a_stock_pipeline_is_compared():
    others = ("phantom", "recam", "fantasy", "sky", "i2v_2_2_svi2pro")
    assert {name for name in TINY_WAN if not name.startswith(others)} == {
        "t2v", "t2v_1.3B", "t2v_2_2", "i2v", "i2v_2_2", "flf2v_720p", "fun_inp", "fun_inp_1.3B", "ti2v_2_2",
        "vace_1.3B", "vace_14B", "vace_14B_2_2",
    }  # fmt: skip
