"""Every definition of the Qwen-Image families, with tiny weights of its architecture, through the call to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import Run, picture, run_engine
from qwen_runs import Tiny, tiny_models
from stock_runs import definitions_of
from tiny_qwen import TINY_QWEN

from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import probe_image, read_image

QWEN = definitions_of("qwen_image", "qwen_image_edit", "qwen_image_edit_plus")
EDITS = [name for name in QWEN if "edit" in name]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_models(tmp_path_factory)


@pytest.fixture
def resident(tiny, tmp_path: Path):
    """Puts the tiny model of a definition's architecture under the definition."""

    def make(name: str) -> Tiny:
        model: Tiny = tiny(name)
        folder = {"checkpoints": model.folder, "definitions": [model.rows], "save_path": tmp_path / "out"}
        wgp.configure(**folder, device="cpu")
        return model

    yield make
    wgp.release_model()
    wgp.configure(definitions=[])


def call(name: str, **values: Any) -> dict[str, Any]:
    shown = {"image_refs": [picture(3)]} if name in EDITS else {}
    still = {"prompt": "a red circle", "resolution": "64x48", "num_inference_steps": 3, "seed": 5}
    return {"model_type": name, **still, **shown, **values}


def stills(run: Run) -> list[np.ndarray]:
    assert run.returned and run.data("error") == []
    return [read_image(path) for path in run.files]


@pytest.mark.parametrize("name", QWEN)
def test_a_definition_makes_its_image_and_makes_it_again(resident, name):
    resident(name)
    first, again = run_engine(**call(name)), run_engine(**call(name))
    info = probe_image(first.files[0])
    assert (info.width, info.height, info.format) == (64, 48, "png")
    assert stills(first)[0].std() > 10
    assert first.files != again.files
    assert np.array_equal(stills(first)[0], stills(again)[0])


def test_there_are_tiny_weights_of_every_architecture():
    assert set(TINY_QWEN) == {load_definitions()[name].architecture_name for name in QWEN}


def test_settings_are_those_that_users_know():
    rows = load_definitions()
    for name in QWEN:
        assert rows[name].settings["num_inference_steps"] == 30 and rows[name].settings["guidance_scale"] == 4
        assert rows[name].architecture.lora_folder == "qwen" and rows[name].licence == "Apache-2.0"
    sizes = {name: rows[name].settings["resolution"] for name in QWEN}
    assert {name for name, size in sizes.items() if size == "1024x1024"} == {
        "qwen_image_edit_plus_20B",
        "qwen_image_edit_plus2_20B",
    }


@pytest.mark.parametrize("asked, made", [("71x63", (64, 48)), ("65x80", (64, 80)), ("17x33", (16, 32))])
def test_sizes_are_floored_to_whole_tokens(resident, asked, made):
    resident("qwen_image_20B")
    info = probe_image(run_engine(**call("qwen_image_20B", resolution=asked)).files[0])
    assert (info.width, info.height) == made


def test_a_batch_counts_its_seeds_up(resident):
    resident("qwen_image_20B")
    batch = stills(run_engine(**call("qwen_image_20B", batch_size=2)))
    alone = [stills(run_engine(**call("qwen_image_20B", seed=seed)))[0] for seed in (5, 6)]
    assert len(batch) == 2 and not np.array_equal(*alone)
    assert all(np.array_equal(one, other) for one, other in zip(batch, alone, strict=True))


def changed(tiny_model: Tiny, **values: Any) -> float:
    """How far the latents of a run are from those of the same run without the values."""
    base = {"image_refs": [picture(3)]} if tiny_model.name in EDITS else {}
    return float((tiny_model.latents(**base) - tiny_model.latents(**base | values)).abs().max())


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "a blue square"},
        {"negative_prompt": "square"},
        {"guidance_scale": 1.5},
        {"system_prompt": "You are a painter of signs."},
        {"sample_solver": "lightning"},
        {"sigmas": [1.0, 0.9, 0.5, 0.1]},
        {"seed": 6},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_setting_acts(tiny, values):
    assert changed(tiny("qwen_image_20B"), **values) > 1e-4


@pytest.mark.parametrize("name", ["qwen_image_edit_20B", "qwen_image_edit_plus_20B"])
def test_the_picture_acts_whether_it_is_a_reference_or_the_control_image(tiny, name):
    model, shown = tiny(name), picture(3)
    assert changed(model, image_refs=[picture(4)]) > 1e-3
    assert changed(model, image_refs=None, image_guide=shown) == 0


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_model_makes_an_image_of_text_alone_where_no_letter_speaks_of_a_picture(tiny, name):
    model = tiny(name)
    alone = model.latents(video_prompt_type="")
    assert (alone - model.latents(video_prompt_type="KI", image_refs=[picture(3)])).abs().max() > 1e-3
    if name == "qwen_image_edit_20B":
        assert torch.equal(alone, tiny("qwen_image_20B").latents())


def test_every_one_of_several_pictures_acts_in_its_place(tiny):
    model, one, other = tiny("qwen_image_edit_plus_20B"), picture(3), picture(4)
    pair = model.latents(image_refs=[one, other])
    assert (pair - model.latents(image_refs=[one])).abs().max() > 1e-3
    assert (pair - model.latents(image_refs=[other, one])).abs().max() > 1e-3
    assert (pair - model.latents(image_guide=one, image_refs=[other])).abs().max() == 0


def test_guidance_of_one_asks_the_transformer_once_a_step(tiny):
    model = tiny("qwen_image_20B")
    for guidance, passes in ((1.0, 4), (3.0, 8)):
        with model.watched() as calls:
            model.latents(guidance_scale=guidance)
        assert len(calls) == passes


def test_progress_counts_the_steps_of_every_still(resident):
    resident("qwen_image_20B")
    run = run_engine(**call("qwen_image_20B", batch_size=2))
    steps = [where for where, phase, _ in run.data("progress") if phase == "denoising"]
    assert steps == [(0, 6), (1, 6), (2, 6), (3, 6), (3, 6), (4, 6), (5, 6), (6, 6)]


@pytest.mark.parametrize("at", [0, 2])
def test_a_cancelled_run_leaves_no_file_and_the_next_one_is_as_ever(resident, tmp_path: Path, at):
    resident("qwen_image_20B")
    before = stills(run_engine(**call("qwen_image_20B")))[0]
    files = set((tmp_path / "out").iterdir())

    def stop(event: str, data: Any, state: dict[str, Any]) -> None:
        if event == "progress" and data[1] == "denoising" and data[0][0] == at:
            wgp.abort_generation(state)

    stopped = run_engine(stop, **call("qwen_image_20B"))
    assert stopped.files == [] and set((tmp_path / "out").iterdir()) == files
    assert [phase for _, phase, _ in stopped.data("progress")].count("decoding") == 0
    assert np.array_equal(stills(run_engine(**call("qwen_image_20B")))[0], before)


@pytest.mark.parametrize(
    "name, values, error, message",
    [
        ("qwen_image_20B", {"image_refs": [picture(1)]}, Unsupported, "image_refs.*does not take it"),
        ("qwen_image_20B", {"image_guide": picture(1)}, InvalidInput, "image_guide.*image_mask"),
        ("qwen_image_20B", {"sample_solver": "unipc"}, InvalidInput, "sample_solver.*default, lightning"),
        ("qwen_image_20B", {"guidance_phases": 2}, InvalidInput, "guidance_phases.*at most 1"),
        ("qwen_image_20B", {"image_mode": 2}, InvalidInput, "image_mask.*missing"),
        ("qwen_image_20B", {"image_mask": picture(1)}, InvalidInput, "image_mask.*image_guide"),
        ("qwen_image_20B", {"model_mode": 2}, Unsupported, "model_mode.*masked denoising"),
        ("qwen_image_20B", {"video_guide_outpainting": "10 0 0 0"}, Unsupported, "video_guide_outpainting.*outside"),
        ("qwen_image_20B", {"video_prompt_type": "Q"}, Unsupported, "video_prompt_type.*letter Q"),
        ("qwen_image_edit_20B", {"image_refs": None}, InvalidInput, "image_refs: is missing"),
        ("qwen_image_edit_20B", {"image_refs": [picture(1, 1, 201)]}, InvalidInput, "image_refs.*too long a picture"),
        ("qwen_image_edit_20B", {"image_refs": [picture(1), picture(2)]}, Unsupported, "image_refs.*up to 1.*Plus"),
        ("qwen_image_edit_plus_20B", {"image_refs": [picture(1)] * 9}, Unsupported, "image_refs.*up to 8"),
        ("qwen_image_edit_plus_20B", {"video_prompt_type": "PV"}, Unsupported, "video_prompt_type.*pose"),
        ("qwen_image_edit_plus2_20B", {"video_prompt_type": "DV"}, Unsupported, "video_prompt_type.*depth"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_is_asked(resident, name, values, error, message):
    resident(name)
    with pytest.raises(error, match=message):
        wgp.check_generation(**call(name, **values))


def test_outpainting_of_nothing_is_no_outpainting(tiny):
    assert changed(tiny("qwen_image_20B"), video_guide_outpainting="0 0 0 0") == 0


def test_weights_of_a_layered_model_are_refused(resident):
    import json

    model = Tiny(resident("qwen_image_20B").folder / "layered", "qwen_image_20B")
    path = model.weights / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_layer3d_rope": True}))
    wgp.configure(definitions=[model.rows])
    with pytest.raises(ModelUnavailable, match=r"qwen_image_20B.*Qwen-Image-Layered"):
        wgp.load_models("qwen_image_20B")


def test_more_pictures_than_the_model_was_made_for_are_remarked_on(resident):
    resident("qwen_image_edit_plus_20B")
    run = run_engine(**call("qwen_image_edit_plus_20B", image_refs=[picture(number) for number in range(4)]))
    assert [note for note in run.data("info") if "4 pictures" in note]


def test_a_prompt_that_is_too_long_is_remarked_on(resident):
    resident("qwen_image_20B")
    run = run_engine(**call("qwen_image_20B", prompt="x" * 2000, guidance_scale=1))
    assert [note for note in run.data("info") if "1024 tokens" in note]


@pytest.mark.parametrize("name", ["qwen_image_20B", "qwen_image_edit_plus2_20B"])
def test_in_half_precision_as_on_an_accelerator_the_picture_is_nearly_the_same(tmp_path: Path, name):
    model = Tiny(tmp_path, name)
    values: dict[str, Any] = {
        "hires_scale": 1.5,
        "hires_steps": 2,
        "image_refs": [picture(3)] if name in EDITS else None,
    }
    exact = model.frames(**values)[0].astype(int)
    model.pipeline.to(torch.bfloat16)
    assert {part.dtype for part in (model.pipeline.transformer, model.pipeline.vae)} == {torch.bfloat16}
    half = model.frames(**values)[0].astype(int)
    assert np.abs(half - exact).mean() < 3


def test_weights_on_disk_are_verified_and_a_missing_one_is_named(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    from Wan2GP.layout import where
    from Wan2GP.weights.checking import check_weights

    model = Tiny(tmp_path, "qwen_image_edit_plus2_20B")
    places = where(model.definition, tmp_path)
    assert places is not None
    lines = list(check_weights(model.definition, places))
    assert any("fit QwenImageTransformer2DModel" in line for line in lines)
    file = next(places.transformer.glob("*.safetensors"))
    weights = load_file(file)
    del weights["img_in.weight"]
    save_file(weights, file)
    with pytest.raises(ModelUnavailable, match=r"lacks img_in\.weight"):
        list(check_weights(model.definition, places))
    with pytest.raises(ModelUnavailable, match=r"qwen_image_edit_plus2_20B.*lacks img_in\.weight"):
        model.load()
