"""Our options in the words of checkouts of several versions, and a checkout's models as callers plan with them."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from upstream_checkouts import OLD, PARAMETERS, RENAMED, checkout

from headless.bridge import child
from headless.bridge.environment import child_variables
from headless.bridge.failures import failure, reported
from headless.bridge.keywords import settings_of, translated
from headless.bridge.models import CheckoutModels
from headless.checkout import inspect_wan_dir
from headless.options import GenerationOptions
from Wan2GP.errors import EngineError, InvalidInput, OutOfMemory, UnknownModel, Unsupported
from Wan2GP.parameters import PLUMBING

DEFAULTS: dict[str, dict[str, Any]] = {
    OLD: {"multi_prompts_gen_type": 0, "prompt": "a sample of theirs", "type": "not a parameter"},
    RENAMED: {"multi_prompts_gen_type": "PG", "prompt": "a sample of theirs", "flow_shift": 7},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> CheckoutModels:
    folder = checkout(tmp_path_factory.mktemp("one") / "checkout", OLD)
    (folder / "finetunes" / "t2v.json").write_text(json.dumps({"model": {"URLs": ["https://x/a/mine.safetensors"]}}))
    (folder / "finetunes" / "mine.json").write_text(json.dumps({"model": {"architecture": "i2v", "URLs": "t2v"}}))
    (folder / "ckpts").mkdir()
    (folder / "ckpts" / "mine.safetensors").write_bytes(b"")
    return CheckoutModels(inspect_wan_dir(folder))


def called(models: CheckoutModels, shape: str, model: str = "t2v", **options: Any) -> dict[str, Any]:
    given = GenerationOptions.parse({"prompt": "a cat"} | options)
    settings = settings_of(given, models[model].info, parameters=PARAMETERS[shape], defaults=DEFAULTS[shape])
    return dict(settings.values)


@pytest.mark.parametrize("shape", [OLD, RENAMED])
def test_every_parameter_gets_a_value_and_nothing_else_does(models: CheckoutModels, shape: str) -> None:
    assert set(called(models, shape)) == set(PARAMETERS[shape]) - PLUMBING


def test_precedence_is_our_table_then_the_checkouts_defaults_then_the_task(models: CheckoutModels) -> None:
    assert called(models, OLD)["flow_shift"] == 3
    assert called(models, RENAMED)["flow_shift"] == 7
    assert called(models, RENAMED, flow_shift=2)["flow_shift"] == 2
    without = settings_of(GenerationOptions(), models["t2v"].info, parameters=PARAMETERS[OLD], defaults=DEFAULTS[OLD])
    assert without.values["prompt"] == "", "a sample prompt is nobody's wish"


def test_settings_are_found_under_the_names_of_other_versions(models: CheckoutModels) -> None:
    asked = {"slg_switch": 1, "slg_layers": [3], "slg_start_perc": 5}
    old, new = called(models, OLD, **asked), called(models, RENAMED, **asked)
    assert [old[name] for name in asked] == [1, [3], 5]
    assert [new[name.replace("slg", "perturbation")] for name in asked] == [1, [3], 5]


def test_renames_go_both_ways() -> None:
    old, new = frozenset(PARAMETERS[OLD]), frozenset(PARAMETERS[RENAMED])
    older = {"MMAudio_setting": 1, "MMAudio_prompt": "rain", "seedvc_voice_sample": "v.wav"}
    newer = {"postprocess_audio": "mmaudio", "postprocess_audio_prompt": "rain", "replace_voice_sample": "v.wav"}
    assert translated(older, new) == newer
    assert translated(newer, old) == {"MMAudio_setting": 1, "MMAudio_prompt": "rain"}
    assert translated({"MMAudio_setting": 0}, new) == {}
    assert translated({"replace_voice_sample": "v.wav"}, frozenset({"seedvc_voice_sample"})) == {
        "seedvc_voice_sample": "v.wav"
    }


@pytest.mark.parametrize(
    ("asked", "letters", "number"), [(None, "FG", 2), ("PG", "FG", 2), ("W", "W", 1), ("PW", "PW", 1)]
)
def test_a_prompt_is_one_prompt_in_letters_or_numbers(
    models: CheckoutModels, asked: str | None, letters: str, number: int
) -> None:
    options = {} if asked is None else {"multi_prompts_gen_type": asked}
    assert called(models, RENAMED, **options)["multi_prompts_gen_type"] == letters
    assert called(models, OLD, **options)["multi_prompts_gen_type"] == number


def test_versions_without_paragraphs_get_them_as_lines(models: CheckoutModels) -> None:
    text = "first\nof one\n\nsecond"
    given = {"prompt": text, "multi_prompts_gen_type": "PW"}
    assert called(models, OLD, **given)["prompt"] == "first of one\nsecond"
    assert called(models, RENAMED, **given)["prompt"] == text


def test_media_are_announced_by_their_letters(models: CheckoutModels) -> None:
    silent = called(models, OLD, "vace_14B", video_guide="g.mp4", video_mask="m.mp4", image_start="s.png")
    assert (silent["video_prompt_type"], silent["image_prompt_type"]) == ("VA", "S")
    told = called(models, OLD, "vace_14B", video_guide="g.mp4", video_mask="m.mp4", video_prompt_type="VM")
    assert told["video_prompt_type"] == "VMA", "a mask that is not announced is not used there"


def test_lengths_begin_where_the_model_does_and_image_models_make_images(models: CheckoutModels) -> None:
    assert called(models, OLD, "vace_14B", video_length=1)["video_length"] == 17
    assert called(models, OLD, video_length=33)["video_length"] == 33
    still = called(models, RENAMED, "z_image")
    assert (still["image_mode"], still["video_length"]) == (1, 1)


def test_what_a_version_lacks_is_refused_or_noted(models: CheckoutModels) -> None:
    with pytest.raises(Unsupported, match=r"^vid2vid_init_video: "):
        called(models, OLD, vid2vid_init_video="v.mp4")
    given = GenerationOptions(prompt="a cat", motion_amplitude=1.2, sigmas=[1.0, 0.5])
    settings = settings_of(given, models["t2v"].info, parameters=PARAMETERS[OLD], defaults={})
    assert [note.split(" ")[0] for note in settings.notes] == ["motion_amplitude", "sigmas"]


# ---- models


def test_models_are_those_of_its_defaults_and_finetunes(models: CheckoutModels) -> None:
    assert {each.name for each in models.infos()} == {"t2v", "i2v", "vace_14B", "z_image", "newcomer", "mine"}
    assert models["mine"].info.required == {"text", "image_start"}
    assert models["z_image"].info.image_output
    stranger = models["newcomer"].info
    assert (stranger.fps, stranger.min_frames) == (24, 9) and stranger.takes("control_video", "audio", "image_end")
    with pytest.raises(UnknownModel, match=r"^model: the checkout .* has no model 't2w'. Did you mean 't2v'"):
        models["t2w"]


def test_the_files_that_a_model_is_loaded_from_are_found_through_references(models: CheckoutModels) -> None:
    assert [path.name for path in models.weight_files("t2v")] == ["t2v.json", "mine.safetensors"]
    assert [path.name for path in models.weight_files("mine")] == ["mine.json", "mine.safetensors"]
    assert [path.name for path in models.weight_files("vace_14B")] == ["mine.safetensors"]


# ---- the interpreter


def test_the_interpreters_side_needs_nothing_but_python_3_10() -> None:
    folder = Path(str(child.__file__)).parent
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names} | {
            str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        foreign = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
        # of the checkout's environment, when an image is handed over
        assert {name for name in foreign if not name.startswith("headless.bridge.child")} <= {"PIL"}, path


def test_a_gpu_is_chosen_among_those_that_the_worker_sees() -> None:
    def shown(device: str | None, **given: str) -> str | None:
        return child_variables(given, device).get("CUDA_VISIBLE_DEVICES")

    assert shown(None) is None and shown("cuda") is None
    assert shown("cuda:1") == "1" and shown("cuda:1", CUDA_VISIBLE_DEVICES="4,6") == "6"
    assert shown("cpu") == ""
    with pytest.raises(InvalidInput, match=r"^device: 'mps' is none"):
        shown("mps")


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("torch.OutOfMemoryError", "CUDA out of memory.", OutOfMemory),
        ("builtins.MemoryError", "", OutOfMemory),
        ("gradio.exceptions.Error", "no such LoRA", InvalidInput),
        ("gradio.exceptions.Error", "you have unsufficient VRAM", OutOfMemory),
        ("builtins.ValueError", "?", EngineError),
    ],
)
def test_an_exception_of_another_interpreter_is_classed(kind: str, text: str, error: type[Exception]) -> None:
    assert type(failure({"type": kind, "text": text}, final=False)) is error


def test_what_is_reported_instead_of_raised_is_classed() -> None:
    assert type(reported("likely that you have insufficient VRAM")) is OutOfMemory
    assert str(reported("nobody knows")) == "the checkout failed: nobody knows"
