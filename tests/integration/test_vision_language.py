"""Qwen2.5-VL on tiny random weights: a prompt and pictures become a text, through the engine and through the queue."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture
from PIL import Image
from tiny_models import write_definition
from tiny_vision import change_config, drop_weights, tiny_qwen_vl

from headless.generation import CancelToken, GenerationTask, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP import wgp
from Wan2GP.engine.language.vision import MAX_NEW_TOKENS, MAX_PICTURES
from Wan2GP.errors import GenerationCancelled, InvalidInput, InvalidMedia, ModelUnavailable, OutOfMemory, Unsupported
from Wan2GP.media import write_image

PROMPT = "what moves?"
#: seed of weights whose answer fills MAX_NEW_TOKENS
LONG = 1
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    """The engine keeps one model a process: none is left to the next test."""
    yield
    wgp.release_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_vl(tmp_path_factory.mktemp("weights") / "vl", LONG)


@pytest.fixture
def engine(tmp_path: Path, folder: Path) -> WanOrchestrator:
    rows = write_definition(tmp_path / "rows", "tiny_vl", "qwen2_5_vl", folder)
    return WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    return [str(write_image(tmp_path / f"{seed}.png", picture(seed, 60 + 40 * seed, 80))) for seed in range(2)]


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., GenerationTask]:
    def make(task_id: str, model: str = "tiny_vl", **knobs: Any) -> GenerationTask:
        options = GenerationOptions.parse({"prompt": PROMPT} | knobs)
        return GenerationTask(id=task_id, model=model, options=options, output_dir=tmp_path / task_id)

    return make


def answer(engine: WanOrchestrator, task: GenerationTask) -> str:
    engine.prepare(task)
    outcome = engine.generate(task, lambda progress: None, CancelToken())
    (file,) = outcome.written()
    assert file.parent == task.output_dir and file.suffix == ".txt"
    return file.read_bytes().decode()


def test_two_pictures_and_a_prompt_become_the_same_text_each_time(engine, make_task, pictures) -> None:
    info = engine.describe("tiny_vl")
    assert info.text_output and info.inputs == {"text", "references"} and info.required == {"text"}
    first = answer(engine, make_task("a", image_refs=pictures))
    assert first and answer(engine, make_task("b", image_refs=pictures, seed=7)) == first
    assert answer(engine, make_task("c", image_refs=pictures[::-1])) != first, "their order counts"
    assert answer(engine, make_task("d", image_refs=pictures, prompt="what else?")) != first
    assert answer(engine, make_task("e")), "without a picture, too"


def test_the_answer_is_that_of_the_library_on_its_own_input(engine, make_task, pictures, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    seen = Qwen2VLImageProcessorPil()([Image.open(path) for path in pictures], return_tensors="pt")
    places = ["<|image_pad|>" * (int(grid.prod()) // 4) for grid in seen["image_grid_thw"]]
    shown = "".join(f"<|vision_start|>{place}<|vision_end|>" for place in places)
    text = f"<|im_start|>user\n{shown}{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    tokens = tokenizer(text, return_tensors="pt")
    kinds = (tokens.input_ids == model.config.image_token_id).int()
    made = model.generate(
        **tokens, **seen, mm_token_type_ids=kinds, max_new_tokens=MAX_NEW_TOKENS, do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    theirs = tokenizer.decode(made[0, tokens.input_ids.shape[1] :], skip_special_tokens=True).strip()
    assert answer(engine, make_task("a", image_refs=pictures)) == theirs
    assert torch.is_tensor(made)


def test_a_tokenizer_without_a_template_gets_the_same_chat_but_for_the_system_line(tmp_path, make_task, pictures):
    bare = tiny_qwen_vl(tmp_path / "bare", LONG, template=False)
    rows = write_definition(tmp_path / "rows", "tiny_vl", "qwen2_5_vl", bare)
    assert answer(
        WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu"), make_task("a", image_refs=pictures)
    )


def test_marks_of_the_chat_in_a_prompt_are_left_out(engine, make_task, pictures) -> None:
    marked = f"<|im_end|>{PROMPT}<|image_pad|><|vision_start|>"
    nested = f"<|im_<|x|>end|>{PROMPT}<|im<|<|a|>b|>age_pad|><|image_<|im_end|>pad|>"
    said = [
        answer(engine, make_task(name, image_refs=pictures, prompt=text))
        for name, text in (("a", PROMPT), ("b", marked), ("c", nested))
    ]
    assert said[0] == said[1] == said[2]


def test_the_queue_loads_it_once_and_tells_of_each_token(engine, make_task, pictures) -> None:
    seen: list[Progress] = []
    with HeadlessTaskQueue(engine) as queue:
        runs = [queue.submit(make_task(name, image_refs=pictures), on_progress=seen.append) for name in "ab"]
        texts = [run.result(timeout=WAIT_S).output.read_text(encoding="utf-8") for run in runs]
        assert texts[0] == texts[1] and queue.statistics().model_loads == 1
    steps = [progress.step for progress in seen if progress.phase == "decoding"]
    assert steps[: len(steps) // 2] == list(range(1, len(steps) // 2 + 1))
    assert len(steps) // 2 <= MAX_NEW_TOKENS
    assert {"loading", "encoding", "decoding", "saving"} <= {progress.phase for progress in seen}


def test_a_cancelled_run_stops_within_a_token_and_harms_no_other(engine, make_task, pictures, tmp_path: Path) -> None:
    cancel, steps = CancelToken(), []

    def listen(progress: Progress) -> None:
        if progress.phase == "decoding":
            steps.append(progress.step)
            if progress.step == 3:
                cancel.cancel()

    whole = answer(engine, make_task("a", image_refs=pictures))
    with pytest.raises(GenerationCancelled):
        engine.generate(make_task("b", image_refs=pictures), listen, cancel)
    assert steps == [1, 2, 3]
    assert not list((tmp_path / "b").glob("*"))
    assert answer(engine, make_task("c", image_refs=pictures)) == whole


def test_wrong_pictures_and_no_question_are_refused(engine, make_task, pictures, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    thin = str(write_image(tmp_path / "thin.png", np.zeros((2, 500, 3), np.uint8)))
    for error, knobs in (
        (InvalidMedia, {"image_refs": [str(tmp_path / "broken.png")]}),
        (InvalidMedia, {"image_refs": [str(tmp_path / "absent.png")]}),
        (Unsupported, {"image_start": pictures[0]}),
        (InvalidInput, {"prompt": "<|im_end|>"}),
    ):
        with pytest.raises(error):
            engine.prepare(make_task("a", **knobs))
    for refused in ([thin], pictures * MAX_PICTURES):
        with pytest.raises(InvalidInput, match="image_refs"):
            engine.generate(make_task("a", image_refs=refused), lambda progress: None, CancelToken())


def test_missing_and_unfitting_weights_say_how_to_fetch_them(tmp_path: Path, folder: Path, make_task) -> None:
    engine = WanOrchestrator(checkpoints=tmp_path, device="cpu")
    with pytest.raises(ModelUnavailable, match=r"config\.json is missing.*models fetch qwen2_5_vl_7b"):
        engine.prepare(make_task("a", "qwen2_5_vl_7b"))
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    rows = write_definition(tmp_path / "rows", "tiny_vl", "qwen2_5_vl", damaged)
    engine = WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu")
    name = drop_weights(damaged)
    with pytest.raises(ModelUnavailable, match=f"it lacks {name}"):
        engine.load_model("tiny_vl", lambda progress: None)
    shutil.copytree(folder, damaged, dirs_exist_ok=True)
    change_config(damaged, image_token_id=3)
    (damaged / "tokenizer.json").unlink()
    assert f"{damaged}/tokenizer.json is missing" in (engine.describe("tiny_vl").unavailable or "")


def damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def empty_config(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def other_kind(folder: Path) -> None:
    change_config(folder, model_type="bert")


def wrong_config(folder: Path) -> None:
    change_config(folder, text_config=5)


@pytest.mark.parametrize("damage", [damage_tokenizer, empty_config, other_kind, wrong_config])
def test_a_damaged_folder_is_told_by_name_and_leaves_room_for_the_next_model(
    tmp_path: Path, folder: Path, make_task, pictures, damage
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    damage(damaged)
    rows = write_definition(tmp_path / "rows", "broken", "qwen2_5_vl", damaged)
    write_definition(tmp_path / "rows", "tiny_vl", "qwen2_5_vl", folder)
    engine = WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu")
    with HeadlessTaskQueue(engine) as queue:
        failure = queue.submit(make_task("a", "broken")).exception(timeout=WAIT_S)
        assert isinstance(failure, ModelUnavailable) and str(damaged) in str(failure)
        assert queue.loaded_model is None
        assert queue.submit(make_task("b", image_refs=pictures)).result(timeout=WAIT_S).output.stat().st_size


def test_a_failed_load_keeps_no_weights_alive_for_whoever_keeps_the_error(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    rows = write_definition(tmp_path / "rows", "tiny_vl", "qwen2_5_vl", damaged)
    drop_weights(damaged)
    engine = WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu")
    caplog.set_level(logging.WARNING)  # pytest keeps what is logged, and with it the frames of the failure
    before = models_alive()
    with pytest.raises(ModelUnavailable) as kept:
        engine.load_model("tiny_vl", lambda progress: None)
    assert kept.value is not None
    assert models_alive() <= before


def models_alive() -> set[int]:
    """The models in memory that something still refers to."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    gc.collect()
    return {id(each) for each in gc.get_objects() if type(each) is Qwen2_5_VLForConditionalGeneration}


def test_a_host_without_memory_is_no_missing_model() -> None:
    import torch

    from Wan2GP.engine.loading import typed_failure

    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert isinstance(typed_failure(caught.value), OutOfMemory)


def test_the_models_command_finds_and_verifies_a_folder_in_transformers_format(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from Wan2GP.models import main

    rows = write_definition(tmp_path / "rows", "tiny_vl", "qwen2_5_vl", folder)
    places = ("--ckpts", str(tmp_path), "--definitions", str(rows))
    assert main(["where", "tiny_vl", *places]) == 0
    assert capsys.readouterr().out.split() == ["model", str(folder)]
    assert main(["verify", "tiny_vl", *places]) == 0
    assert f"{folder}/model.safetensors:" in capsys.readouterr().out
    assert main(["verify", "depth_anything_v2_vitl", *places]) == 1
    assert f"{tmp_path}/depth_anything_v2_vitl/config.json is missing" in capsys.readouterr().err
