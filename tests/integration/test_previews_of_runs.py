"""What runs of the engine look like on their way: a linear projection of the predicted latents, beside the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from engine_runs import picture, run_engine
from preview_runs import PATIENCE_S, Seen, frames_of, shrunk
from stock_runs import TinyWeights
from tiny_flux import tiny_flux, tiny_z_image
from tiny_hunyuan import tiny_hunyuan, tiny_hunyuan_i2v
from tiny_ltx import tiny_ltx
from tiny_models import TINY_WAN
from tiny_qwen import TINY_QWEN

from headless.generation import GenerationTask, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from training.tiny_wan.measure import psnr
from training.tiny_wan.shapes import ALL_PROMPTS, FRAMES, SIDE, prompt
from Wan2GP import wgp
from Wan2GP.engine.latent_pictures import least_squares, projection_of, show
from Wan2GP.media import read_frames, read_image
from Wan2GP.media.preview import LONGEST_SIDE, MOST_BYTES

FEW = {"prompt": "a red circle", "num_inference_steps": 3, "seed": 5}
CLIP = FEW | {"resolution": "32x32", "video_length": 17}
SHORT = FEW | {"resolution": "48x32", "video_length": 9, "flow_shift": 5}
START = picture(1, 32, 32)
#: model -> its tiny weights, a run, frames of its preview
RUNS: dict[str, tuple[Callable[[Path], Path], dict[str, Any], int]] = {
    "vace_1.3B": (TINY_WAN["vace_1.3B"], CLIP | {"video_prompt_type": "I", "image_refs": [START]}, 5),
    "sky_df_1.3B": (TINY_WAN["sky_df_1.3B"], CLIP | {"image_start": START}, 5),
    "flux": (tiny_flux, FEW | {"resolution": "96x64"}, 1),
    "z_image": (tiny_z_image, FEW | {"resolution": "96x64"}, 1),
    "qwen_image_20B": (TINY_QWEN["qwen_image_20B"], FEW | {"resolution": "64x48"}, 1),
    "ltxv_13B": (tiny_ltx, CLIP | {"resolution": "64x32", "image_start": START}, 3),
    "hunyuan": (tiny_hunyuan, SHORT, 3),
    "hunyuan_i2v": (tiny_hunyuan_i2v, SHORT | {"image_start": START}, 3),
}
#: whose way is that of another
SLOW = {"sky_df_1.3B", "z_image", "hunyuan", "hunyuan_i2v"}
STEPS = 8
TRAINED = Path(wgp.__file__).parent / "tiny_wan" / "base"
#: of the trained model's last prediction, at the least: it has 18.0 dB here, and the best plane through all that it
#: draws 21.5; and how like the brightness is (0.75), for most of a picture is dark
PSNR_DB, ALIKE = 16, 0.6
WATCHED = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNS]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> TinyWeights:
    builders = {name: builder for name, (builder, _, _) in RUNS.items()}
    return TinyWeights(builders, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def trained_vae() -> AutoencoderKLWan:
    """That of the tiny Wan that ships."""
    return AutoencoderKLWan.from_pretrained(TRAINED / "vae").eval()


def pixels_of(model: str, seen: Seen | None = None, **values: Any) -> np.ndarray:
    """All pixels that the run wrote, without loss."""
    ours = {"lossless": True} | ({"watcher": seen.watcher} if seen else {})
    run = run_engine(seen.hear if seen else None, model_type=model, **values | {"plugin_data": ours})
    assert run.returned and run.data("error") == [], run.data("error")
    (file,) = run.files
    return read_image(file)[None] if file.suffix == ".png" else np.stack([*read_frames(file)])


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNS]
)
def test_a_run_that_is_watched_makes_the_same_and_shows_it_on_its_way(
    weights: TinyWeights, tmp_path: Path, model: str
) -> None:
    _, values, count = RUNS[model]
    seen = Seen(first=3)
    with weights.under(tmp_path / "rows", model):
        alone, watched = pixels_of(model, **values), pixels_of(model, seen, **values)
    assert np.array_equal(alone, watched)
    preview = seen.next()
    frames = frames_of(preview)
    assert (preview.step, len(frames), max(frames.shape[1:3])) == (3, count, LONGEST_SIDE)
    height, width = alone.shape[1:3]
    assert frames.shape[1] / frames.shape[2] == pytest.approx(height / width, abs=0.02)
    assert seen.nothing()


def test_what_the_trained_model_shows_is_what_it_then_decodes(tmp_path: Path) -> None:
    """The last prediction against the frames that it is decoded to, each at the size of the latents; by the queue."""
    clip = {"prompt": prompt(*ALL_PROMPTS[0]), "num_inference_steps": STEPS, "seed": 2_000_000, "video_length": FRAMES}
    seen, options = Seen(first=STEPS), GenerationOptions.parse(clip | {"resolution": f"{SIDE}x{SIDE}"})
    task = GenerationTask(
        id="a", model="tiny_wan_t2v", options=options, output_dir=tmp_path, lossless=True, watcher=seen.watcher
    )  # fmt: skip

    def hear(progress: Progress) -> None:
        seen.hear("progress", [(progress.step, progress.total), progress.phase])

    with HeadlessTaskQueue(WanOrchestrator(checkpoints=tmp_path, definitions=[], device="cpu")) as queue:
        result = queue.submit(task, on_progress=hear).result(timeout=PATIENCE_S)
    frames = np.stack([*read_frames(result.output)])
    preview, cells = seen.next(), (SIDE // 8, SIDE // 8)
    means = frames[1:].reshape(-1, 4, *frames.shape[1:]).mean(axis=1)
    shown, truth = shrunk(frames_of(preview), cells), shrunk(np.stack([frames[0], *means]), cells)
    assert (preview.step, len(shown)) == (STEPS, 5)
    assert psnr(shown, truth) > PSNR_DB
    assert np.corrcoef(shown.mean(axis=3).ravel(), truth.mean(axis=3).ravel())[0, 1] > ALIKE


def test_a_published_projection_is_taken_for_a_vae_of_its_kind_alone() -> None:
    """VAEs of the real shapes and of others, on no device: nothing is computed with them."""
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "wan_2_1": ("AutoencoderKLWan", {}),
        "wan_2_2": ("AutoencoderKLWan", {"base_dim": 160, "z_dim": 48, "in_channels": 12, "out_channels": 12}),
        "qwen": ("AutoencoderKLQwenImage", {}),
        "flux": ("AutoencoderKL", {"latent_channels": 16, "block_out_channels": (128,)}),
        "ltx": ("AutoencoderKLLTXVideo", {}),
        "hunyuan": ("AutoencoderKLHunyuanVideo", {}),
        "narrow": ("AutoencoderKLHunyuanVideo", {"block_out_channels": (32, 32, 32, 32)}),
        "sdxl": ("AutoencoderKL", {"latent_channels": 4, "block_out_channels": (128,)}),
    }
    found = {}
    for name, (kind, config) in kinds.items():
        with torch.device("meta"):
            vae = getattr(diffusers, kind)(**config)
        found[name] = projection_of(vae, torch.device("cpu"))
    channels = {name: None if each is None else len(each.factors) for name, each in found.items()}
    real = {"wan_2_1": 16, "wan_2_2": 48, "qwen": 16, "flux": 16, "ltx": 128, "hunyuan": 16}
    assert channels == real | {"narrow": None, "sdxl": None}
    assert torch.equal(found["qwen"].factors, found["wan_2_1"].factors)


def test_a_projection_is_the_plane_through_latents_and_colours() -> None:
    drawn = torch.Generator().manual_seed(0)
    factors, bias = torch.randn(4, 3, generator=drawn).double() / 10, torch.tensor([0.1, -0.2, 0.3]).double()
    latents = torch.randn(4, 2, 8, 6, generator=drawn).double()
    colours = (torch.einsum("cfhw,cr->fhwr", latents, factors) + bias).clamp(-1, 1)
    found = least_squares(latents.flatten(1).T, colours.reshape(-1, 3)).pixels(latents.float())
    assert (found.shape, found.dtype) == ((2, 8, 6, 3), torch.uint8)
    assert (found.double() - (colours + 1) * 127.5).abs().max() < 2


def test_a_long_video_is_shown_in_a_few_small_frames(trained_vae: AutoencoderKLWan) -> None:
    seen = Seen()
    seen.watcher.begin()
    coarse = torch.randn(1, 12, 6, 8, 13, generator=torch.Generator().manual_seed(0))
    latents = torch.nn.functional.interpolate(coarse, size=(41, 60, 104), mode="trilinear")
    show(seen.watcher, 1, trained_vae, lambda: latents)
    preview = seen.next()
    assert len(preview.image) <= MOST_BYTES
    assert frames_of(preview).shape == (7, round(LONGEST_SIDE * 60 / 104), LONGEST_SIDE, 3)


def test_nothing_is_computed_for_nobody_or_too_early(trained_vae: AutoencoderKLWan) -> None:
    asked: list[int] = []

    def latents() -> torch.Tensor:
        asked.append(1)
        return torch.zeros(1, 12, 1, 8, 8)

    early = Seen(first=3)
    show(None, 1, trained_vae, latents)
    show(early.watcher, 1, trained_vae, latents)
    early.watcher.begin()
    show(early.watcher, 1, trained_vae, latents)
    assert asked == []
    early.steps = 2
    show(early.watcher, 3, trained_vae, latents)
    assert (asked, early.next().step) == ([1], 3)


def test_a_vae_that_is_somewhere_else_is_not_asked(trained_vae: AutoencoderKLWan) -> None:
    """One that rests on the host stays there while the transformer is at work."""
    other = AutoencoderKLWan.from_config(trained_vae.config)
    assert projection_of(other, torch.device("meta")) is None
    assert projection_of(other, torch.device("cpu")) is not None
