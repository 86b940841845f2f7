"""Flux, Flux Kontext and Z-Image: every definition on tiny weights, against diffusers' own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import picture, run_engine
from PIL import Image
from safetensors.torch import save_file
from stock_runs import TinyWeights, definitions_of
from tiny_flux import tiny_flux, tiny_kontext, tiny_schnell, tiny_z_image

from Wan2GP import wgp
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import read_image

BUILDERS = {
    "flux": tiny_flux,
    "flux_schnell": tiny_schnell,
    "flux_dev_kontext": tiny_kontext,
    "z_image": tiny_z_image,
    "z_image_base": tiny_z_image,
}
NAMES = definitions_of("flux", "flux_kontext", "z_image")
CALL = {"prompt": "a red circle", "resolution": "96x64", "num_inference_steps": 4, "seed": 5}
GIVEN = picture(4, 96, 64)
#: one level of 255: diffusers' pictures and ours are rounded from the same numbers
LEVEL = 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> TinyWeights:
    return TinyWeights(BUILDERS, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture
def engine(weights, tmp_path: Path):
    with weights.under(tmp_path / "rows", *NAMES):
        yield


def still(name: str, **values: Any) -> np.ndarray:
    run = run_engine(model_type=name, **CALL | values)
    assert run.returned and run.data("error") == [], run.data("error")
    (file,) = run.files
    return read_image(file)


def theirs(weights: TinyWeights, pipeline: str, architecture: str, **call: Any) -> np.ndarray:
    """The picture of diffusers' own pipeline, loaded by its own loader."""
    import diffusers

    loaded = getattr(diffusers, pipeline).from_pretrained(weights.of(architecture))
    loaded.set_progress_bar_config(disable=True)
    common = {"prompt": CALL["prompt"], "width": 96, "height": 64, "num_inference_steps": 4}
    made = loaded(generator=torch.Generator().manual_seed(5), **common | call)
    return np.asarray(made.images[0])


def require_equal(ours: np.ndarray, other: np.ndarray) -> None:
    assert ours.shape == other.shape and ours.std() > 10
    assert np.abs(ours.astype(int) - other).max() <= LEVEL


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_makes_its_stills_and_makes_them_again(engine, name: str):
    given = {"image_refs": [picture(3)]} if name == "flux_dev_kontext" else {}
    values = CALL | given | {"model_type": name, "batch_size": 2}
    first, again = run_engine(**values), run_engine(**values)
    pictures = [[read_image(file) for file in run.files] for run in (first, again)]
    assert [each.shape for each in pictures[0]] == [(64, 96, 3)] * 2
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(*pictures[0])
    assert all(file.suffix == ".png" for file in first.files)
    # The second still is the one that the next seed makes.
    assert np.array_equal(pictures[0][1], still(name, seed=6, **given))


@pytest.mark.parametrize("name", ["flux", "flux_krea"])
def test_flux_equals_diffusers(engine, weights, name: str):
    ours = still(name, embedded_guidance_scale=3.0)
    require_equal(ours, theirs(weights, "FluxPipeline", "flux", guidance_scale=3.0))
    assert not np.array_equal(ours, still(name, embedded_guidance_scale=9.0))


def test_schnell_reads_fewer_tokens_and_has_no_guidance(engine, weights):
    require_equal(still("flux_schnell"), theirs(weights, "FluxPipeline", "flux_schnell", max_sequence_length=256))


def test_flux_draws_an_image_anew(engine, weights):
    ours = still("flux", image_guide=GIVEN, denoising_strength=0.5, embedded_guidance_scale=3.0)
    call = {"image": Image.fromarray(GIVEN), "strength": 0.5, "guidance_scale": 3.0}
    require_equal(ours, theirs(weights, "FluxImg2ImgPipeline", "flux", **call))


def test_flux_draws_the_white_of_a_mask_anew(engine, weights):
    mask = np.zeros((64, 96, 3), np.uint8)
    mask[:, 48:] = 255
    values = {"image_guide": GIVEN, "image_mask": mask, "denoising_strength": 0.75, "image_mode": 2}
    ours = still("flux", **values, embedded_guidance_scale=3.0)
    call = {"image": Image.fromarray(GIVEN), "mask_image": Image.fromarray(mask).convert("L"), "strength": 0.75}
    require_equal(ours, theirs(weights, "FluxInpaintPipeline", "flux", guidance_scale=3.0, **call))


def test_kontext_looks_at_its_reference(engine, weights):
    reference = picture(3, 96, 64)
    ours = still("flux_dev_kontext", image_refs=[reference], embedded_guidance_scale=2.5)
    call = {"image": Image.fromarray(reference), "max_area": 96 * 64, "_auto_resize": False, "guidance_scale": 2.5}
    require_equal(ours, theirs(weights, "FluxKontextPipeline", "flux_dev_kontext", **call))
    assert not np.array_equal(ours, still("flux_dev_kontext", image_refs=[picture(8, 96, 64)]))
    assert not np.array_equal(ours, still("flux_dev_kontext", video_prompt_type=""))
    assert wgp.check_generation(model_type="flux_dev_kontext", **CALL, image_refs=[reference]) == ()


def test_z_image_equals_diffusers_with_and_without_guidance(engine, weights):
    require_equal(still("z_image"), theirs(weights, "ZImagePipeline", "z_image", guidance_scale=0.0))
    values = {"guidance_scale": 4.0, "negative_prompt": "a blue square"}
    require_equal(still("z_image_base", **values), theirs(weights, "ZImagePipeline", "z_image_base", **values))


def test_z_image_draws_an_image_anew(engine, weights):
    ours = still("z_image", image_start=GIVEN, denoising_strength=0.6)
    call = {"image": Image.fromarray(GIVEN), "strength": 0.6, "guidance_scale": 0.0}
    require_equal(ours, theirs(weights, "ZImageImg2ImgPipeline", "z_image", **call))


@pytest.mark.parametrize(("name", "given"), [("flux", {"image_guide": GIVEN}), ("z_image", {"image_start": GIVEN})])
def test_the_steps_that_are_reported_are_those_that_are_run(engine, name: str, given: dict[str, Any]):
    run = run_engine(model_type=name, **CALL | given | {"num_inference_steps": 10, "denoising_strength": 0.55})
    told = [data[0] for data in run.data("progress") if data[1] == "denoising"]
    assert told == [(step, 6) for step in range(7)]


def test_noise_levels_that_these_models_do_not_run_do_not_count_their_steps(engine):
    run = run_engine(model_type="flux", **CALL, sigmas=[1.0, 0.5])
    assert [data[0] for data in run.data("progress") if data[1] == "denoising"][-1] == (4, 4)
    assert any("sigmas" in note and "ignored" in note for note in run.data("info"))


def test_a_cancelled_run_leaves_no_file_and_harms_no_later_one(engine, tmp_path: Path):
    before = still("flux")

    def stop(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0][0] == 2:
            wgp.abort_generation(state)

    cancelled = run_engine(stop, model_type="flux", **CALL)
    assert cancelled.returned and cancelled.files == []
    assert [data[0] for data in cancelled.data("progress") if data[1] == "denoising"][-1] == (2, 4)
    assert not [data for data in cancelled.data("progress") if data[1] == "decoding"]
    assert np.array_equal(before, still("flux"))


LAYER = "transformer_blocks.0.attn.to_q"


def lora(folder: Path, weights: Path, naming: str) -> Path:
    """A LoRA on one layer of Flux, in one of the ways that files in circulation name it."""
    from safetensors.torch import load_file

    side = load_file(next((weights / "transformer").glob("*.safetensors")))[f"{LAYER}.weight"].shape[0]
    noise = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, side, generator=noise), torch.randn(side, 2, generator=noise)
    names = {
        "diffusers": (f"transformer.{LAYER}.lora_A.weight", f"transformer.{LAYER}.lora_B.weight"),
        "bare": (f"{LAYER}.lora_down.weight", f"{LAYER}.lora_up.weight"),
        "kohya": tuple(f"lora_unet_{LAYER.replace('.', '_')}.lora_{way}.weight" for way in ("down", "up")),
    }
    path = folder / f"{naming}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if naming == "xlabs":
        names[naming] = tuple(f"double_blocks.0.processor.qkv_lora1.{way}.weight" for way in ("down", "up"))
        up = torch.cat([up, torch.zeros(2 * side, 2)])
    save_file(dict(zip(names[naming], (down, up), strict=True)), path)
    return path


@pytest.mark.parametrize("naming", ["diffusers", "bare", "kohya", "xlabs"])
def test_a_lora_acts_while_it_counts_and_is_taken_out_exactly(weights, tmp_path: Path, naming: str):
    file = lora(tmp_path / "rows" / "loras" / "flux", weights.of("flux"), naming)
    with weights.under(tmp_path / "rows", "flux"):
        plain = still("flux")
        given = {"activated_loras": [file.name]}
        whole = still("flux", **given)
        assert not np.array_equal(plain, whole)
        assert not np.array_equal(whole, still("flux", **given, loras_multipliers="1,0"))
        assert np.array_equal(plain, still("flux", **given, loras_multipliers="0"))
        assert np.array_equal(plain, still("flux"))


def test_all_namings_of_a_lora_mean_the_same(weights, tmp_path: Path):
    folder = tmp_path / "rows" / "loras" / "flux"
    files = [lora(folder, weights.of("flux"), naming) for naming in ("diffusers", "bare", "kohya", "xlabs")]
    with weights.under(tmp_path / "rows", "flux"):
        made = [still("flux", activated_loras=[file.name]) for file in files]
    assert all(np.array_equal(made[0], each) for each in made[1:])


@pytest.mark.parametrize("ending", ["cancel", "failure"])
def test_a_run_that_does_not_end_gives_the_weights_back_too(weights, tmp_path: Path, ending: str):
    file = lora(tmp_path / "rows" / "loras" / "flux", weights.of("flux"), "diffusers")

    def end(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0][0] == 2:
            if ending == "failure":
                raise RuntimeError("CUDA out of memory")
            wgp.abort_generation(state)

    with weights.under(tmp_path / "rows", "flux"):
        model: Any = wgp.load_models("flux")[0]
        layer = model._pipeline.transformer.get_submodule(LAYER)
        own = layer.weight.clone()
        run = run_engine(end, model_type="flux", **CALL, activated_loras=[file.name], batch_size=2)
        assert run.files == [] and run.returned == (ending == "cancel")
        assert torch.equal(layer.weight, own)


@pytest.mark.parametrize(
    ("name", "values", "error", "field"),
    [
        ("flux", {"image_mask": GIVEN}, InvalidInput, "image_mask"),
        ("flux", {"image_guide": GIVEN, "denoising_strength": 0.1}, InvalidInput, "denoising_strength"),
        ("flux", {"image_start": GIVEN}, Unsupported, "image_start"),
        ("flux", {"image_guide": GIVEN, "image_mode": 2}, InvalidInput, "image_mask"),
        (
            "flux",
            {"image_guide": GIVEN, "image_mask": GIVEN, "video_prompt_type": "NA"},
            Unsupported,
            "video_prompt_type",
        ),
        ("flux_dev_kontext", {"image_refs": [GIVEN, GIVEN]}, Unsupported, "image_refs"),
        ("flux_dev_kontext", {}, InvalidInput, "image_refs"),
        ("z_image", {"image_guide": GIVEN}, Unsupported, "image_guide"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(engine, name: str, values: dict[str, Any], error: type, field: str):
    with pytest.raises(error, match=field):
        run_engine(model_type=name, **CALL | values)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder_2"])
def test_weights_that_do_not_fit_are_refused_with_the_cure(tmp_path: Path, part: str):
    from safetensors.torch import load_file

    folder = tiny_flux(tmp_path / "flux")
    file = next((folder / part).glob("*.safetensors"))
    kept = load_file(file)
    kept.pop(sorted(kept)[-1])
    save_file(kept, file, metadata={"format": "pt"})
    with (
        TinyWeights({"flux": lambda _: folder}, lambda name: tmp_path).under(tmp_path / "rows", "flux"),
        pytest.raises(ModelUnavailable, match=r"flux cannot be loaded from .*(lacks|do not fit)"),
    ):
        run_engine(model_type="flux", **CALL)
