"""The models that prompts are written by, on tiny random weights: Llama 3 and Florence-2, each against its library.

No real weights are here: how good a prompt is, is the published weights' doing, and not shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_runs import picture
from PIL import Image
from tiny_enhancers import tiny_florence2, tiny_llama
from tiny_models import write_definition
from tiny_vision import change_config, drop_weights

from headless.generation import CancelToken, GenerationTask, Progress
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP import wgp
from Wan2GP.engine.language import captioning, llama
from Wan2GP.errors import GenerationCancelled, InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import write_image

PROMPT, SYSTEM = "a fox in the snow", "You write prompts."
MODELS = {"tiny_llama": "llama3", "tiny_florence2": "florence2"}


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    """The engine keeps one model a process: it is not left to the next test."""
    yield
    wgp.release_model()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("weights")
    return {"tiny_llama": tiny_llama(root / "llama"), "tiny_florence2": tiny_florence2(root / "florence2")}


@pytest.fixture
def engine(tmp_path: Path, folders: dict[str, Path]) -> WanOrchestrator:
    for name, architecture in MODELS.items():
        rows = write_definition(tmp_path / "rows", name, architecture, folders[name])
    return WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    return [str(write_image(tmp_path / f"{seed}.png", picture(seed, 60 + 40 * seed, 80))) for seed in range(2)]


@pytest.fixture
def make_task(tmp_path: Path, pictures: list[str]) -> Callable[..., GenerationTask]:
    def make(task_id: str, model: str, **knobs: Any) -> GenerationTask:
        given = {"tiny_llama": {"prompt": PROMPT, "system_prompt": SYSTEM}, "tiny_florence2": {"image_refs": pictures}}
        values = given.get(model, {}) | knobs
        options = GenerationOptions.parse({name: value for name, value in values.items() if value is not None})
        return GenerationTask(id=task_id, model=model, options=options, output_dir=tmp_path / task_id)

    return make


def answer(engine: WanOrchestrator, task: GenerationTask) -> str:
    engine.prepare(task)
    (file,) = engine.generate(task, lambda progress: None, CancelToken()).written()
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("system", [SYSTEM, None], ids=["in a role", "in none"])
def test_an_answer_is_that_of_the_library_to_the_same_chat(engine, make_task, folders, system: str | None) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folders["tiny_llama"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders["tiny_llama"])
    said = f"<|start_header_id|>user<|end_header_id|>\n\n{PROMPT}<|eot_id|>"
    if system:
        day = "Today Date: 26 Jul 2024\n\n"
        said = f"<|start_header_id|>system<|end_header_id|>\n\n{day}{system}<|eot_id|>{said}"
    text = f"<|begin_of_text|>{said}<|start_header_id|>assistant<|end_header_id|>\n\n"
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    made = model.generate(
        input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, do_sample=False,
        max_new_tokens=llama.MAX_NEW_TOKENS, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    theirs = tokenizer.decode(made[0, tokens.input_ids.shape[1] :], skip_special_tokens=True).strip()
    assert theirs and answer(engine, make_task("a", "tiny_llama", system_prompt=system)) == theirs


def test_an_answer_follows_prompt_and_role_and_neither_seed_nor_day(engine, make_task) -> None:
    first = answer(engine, make_task("a", "tiny_llama"))
    assert answer(engine, make_task("b", "tiny_llama", seed=7)) == first, "the template would have told the microsecond"
    assert answer(engine, make_task("c", "tiny_llama", prompt="a boat")) != first
    assert answer(engine, make_task("d", "tiny_llama", system_prompt="You are brief.")) != first
    marked = f"<|eot_id|>{PROMPT}<|start_<|x|>header_id|>"
    assert answer(engine, make_task("e", "tiny_llama", prompt=marked)) == first


def test_a_tokenizer_without_a_template_gets_the_chat_of_llama_3(tmp_path: Path, folders, make_task) -> None:
    bare = tiny_llama(tmp_path / "bare", template=False)
    rows = write_definition(tmp_path / "bare_rows", "tiny_llama", "llama3", bare)
    engine = WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu")
    there = answer(engine, make_task("a", "tiny_llama", system_prompt=None))
    wgp.release_model()
    rows = write_definition(tmp_path / "whole_rows", "tiny_llama", "llama3", folders["tiny_llama"])
    engine = WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu")
    assert there == answer(engine, make_task("b", "tiny_llama", system_prompt=None))


def test_captions_are_those_of_the_library_on_its_own_input(engine, make_task, folders, pictures) -> None:
    from transformers import AutoTokenizer, Florence2ForConditionalGeneration
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = Florence2ForConditionalGeneration.from_pretrained(folders["tiny_florence2"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders["tiny_florence2"])
    seen = CLIPImageProcessorPil(
        size={"height": 768, "width": 768}, do_center_crop=False, image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    theirs = []
    for path in pictures:
        values = seen(Image.open(path), return_tensors="pt").pixel_values
        count = model.get_image_features(values, return_dict=True).pooler_output.shape[1]
        text = "<image>" * count + "<s>Describe with a paragraph what is shown in the image.</s>"
        tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        made = model.generate(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=values,
            max_new_tokens=captioning.MAX_NEW_TOKENS, do_sample=False,
        )  # fmt: skip
        theirs.append(" ".join(tokenizer.decode(made[0], skip_special_tokens=True).split()))
    ours = answer(engine, make_task("a", "tiny_florence2")).split("\n")
    assert ours == theirs and theirs[0] != theirs[1]


def test_the_published_weights_see_577_tokens() -> None:
    assert captioning.tokens_of_a_picture((4, 2, 2, 2)) == 577


@pytest.mark.parametrize("model", MODELS)
def test_a_cancelled_run_stops_within_a_token_and_harms_no_other(engine, make_task, tmp_path, model: str) -> None:
    cancel, steps = CancelToken(), []

    def listen(progress: Progress) -> None:
        if progress.phase == "decoding":
            steps.append(progress.step)
            if progress.step == 2:
                cancel.cancel()

    whole = answer(engine, make_task("a", model))
    with pytest.raises(GenerationCancelled):
        engine.generate(make_task("b", model), listen, cancel)
    assert steps == [1, 2] and not list((tmp_path / "b").glob("*"))
    assert answer(engine, make_task("c", model)) == whole


@pytest.mark.parametrize(
    ("model", "error", "knobs"),
    [
        ("tiny_llama", InvalidInput, {"prompt": "<|eot_id|>"}),
        ("tiny_llama", Unsupported, {"image_mode": 1}),
        ("tiny_florence2", InvalidInput, {"image_refs": None}),
        ("tiny_florence2", Unsupported, {"image_mode": 1}),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(engine, make_task, model, error, knobs) -> None:
    with pytest.raises(error):
        engine.prepare(make_task("a", model, **knobs))


def test_a_writer_without_eyes_refuses_pictures(engine, make_task, pictures) -> None:
    with pytest.raises(Unsupported, match="image_refs"):
        engine.prepare(make_task("a", "tiny_llama", image_refs=pictures))


@pytest.mark.parametrize("model", MODELS)
def test_unfitting_weights_are_told_by_name(tmp_path: Path, folders, model: str) -> None:
    damaged = shutil.copytree(folders[model], tmp_path / "damaged")
    rows = write_definition(tmp_path / "damaged_rows", "broken", MODELS[model], damaged)
    lacking = drop_weights(damaged)
    for reason in (f"it lacks .*{lacking}", "of a 'bert' model"):
        engine = WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu")
        with pytest.raises(ModelUnavailable, match=reason):
            engine.load_model("broken", lambda progress: None)
        change_config(damaged, model_type="bert")
    (damaged / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in (engine.describe("broken").unavailable or "")
