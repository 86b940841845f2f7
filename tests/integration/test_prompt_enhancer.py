"""Prompts that are written before a model reads them: what a writer is told, what reaches the model, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import Run, picture, run_engine
from tiny_enhancers import parrot_llama, tiny_florence2, tiny_llama
from tiny_models import write_definition
from tiny_vision import tiny_qwen_vl

from training.tiny_wan.judge import judge
from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.language.enhancer_words import cleaned, message, role
from Wan2GP.errors import InvalidInput, ModelUnavailable, UnknownModel, Unsupported
from Wan2GP.layout import weight_files
from Wan2GP.parameters import asked as asked_for

#: of weights that answer each of the requests below with a word
SEED = 1
SENTENCE = "a red circle moving right"
#: one enhancer of each kind: random weights that write and caption, that see themselves, and two that say one thing
ENHANCERS = {
    "pair": {"writer": "tiny_llama", "captioner": "tiny_florence2"},
    "sighted": {"writer": "tiny_vl"},
    "parrot": {"writer": "parrot_llama", "captioner": "tiny_florence2"},
    "mute": {"writer": "mute_llama"},
}
SMALL: dict[str, Any] = {
    "model_type": "tiny_wan_t2v", "video_length": 5, "resolution": "64x64", "num_inference_steps": 2, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    for name, architecture, folder in (
        ("tiny_llama", "llama3", tiny_llama(root / "llama", SEED)),
        ("tiny_florence2", "florence2", tiny_florence2(root / "florence2")),
        ("tiny_vl", "qwen2_5_vl", tiny_qwen_vl(root / "vl", 1)),
        ("parrot_llama", "llama3", parrot_llama(root / "parrot", SENTENCE)),
        ("mute_llama", "llama3", parrot_llama(root / "mute", "")),
    ):
        write_definition(root / "rows", name, architecture, folder)
    for name, parts in ENHANCERS.items():
        model = {"name": name, "architecture": "prompt_enhancer", "parts": parts}
        (root / "rows" / f"{name}.json").write_text(json.dumps({"model": model}))
    return root / "rows"


@pytest.fixture(autouse=True)
def engine(rows: Path, tmp_path: Path) -> Iterator[None]:
    wgp.configure(checkpoints=tmp_path / "ckpts", save_path=tmp_path / "out", device="cpu", definitions=[rows])
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


def text(run: Run) -> str:
    assert not run.data("error"), run.data("error")
    return run.files[0].read_text(encoding="utf-8")


def asked(model: str, **values: Any) -> str:
    return text(run_engine(model_type=model, **values))


# ---- the enhancer by itself


@pytest.mark.parametrize(("letters", "still"), [("", 0), ("T", 1), ("I", 0), ("TI", 1)])
def test_a_writer_is_told_the_idea_and_what_the_pictures_show(letters: str, still: int) -> None:
    pictures = [picture(1, 90, 60), picture(2, 70, 70)]
    written = asked("pair", prompt="a fox", image_refs=pictures, prompt_enhancer=letters, image_mode=still)
    used = letters or "TI"
    captions = asked("tiny_florence2", image_refs=pictures).split("\n") if "I" in used else []
    said = message(used, "a fox", ["picture 1", "picture 2"] if captions else [], captions)
    assert all(caption in said for caption in captions) and ("a fox" in said) == ("T" in used)
    told = role(used, bool(still), sees=False)
    assert written == cleaned(asked("tiny_llama", prompt=said, system_prompt=told)) != ""


def test_a_writer_that_sees_is_shown_the_pictures_themselves() -> None:
    pictures = [picture(1, 90, 60)]
    written = asked("sighted", prompt="a fox", image_refs=pictures)
    said, told = message("TI", "a fox", ["picture 1"], []), role("TI", still=False, sees=True)
    assert written == cleaned(asked("tiny_vl", prompt=said, system_prompt=told, image_refs=pictures))
    assert asked("sighted", prompt="a fox", image_refs=pictures, prompt_enhancer="T") != written


def test_each_letter_and_each_kind_of_result_has_words_of_its_own() -> None:
    told = {
        role(letters, still, sees) for letters in ("T", "I", "TI") for still in (False, True) for sees in (False, True)
    }
    assert len(told) == 10, "what it sees makes no difference to T"
    assert all("paragraph alone" in each for each in told)


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        ('"A fox runs."\n', "A fox runs."),
        ("  A fox\n\nruns. ", "A fox runs."),
        ("“ ”", ""),
        ("...\x08", ""),
        ("'s", "'s"),
    ],
)
def test_an_answer_is_cleaned(answer: str, prompt: str) -> None:
    assert cleaned(answer) == prompt


def test_a_model_without_words_leaves_the_prompt_and_says_so() -> None:
    run = run_engine(model_type="mute", prompt="a fox")
    assert text(run) == "a fox"
    assert any("as it was given" in note for note in run.data("info"))


@pytest.mark.parametrize(
    ("model", "error", "reason", "values"),
    [
        ("pair", InvalidInput, "prompt: is missing", {}),
        ("pair", InvalidInput, "image_refs: is missing", {"prompt": "a fox", "prompt_enhancer": "I"}),
        ("pair", InvalidInput, "takes 4 pictures", {"image_refs": [picture(1)] * 5}),
        ("pair", Unsupported, "knows the letters", {"prompt": "a fox", "prompt_enhancer": "TK"}),
        ("mute", Unsupported, "sees no pictures", {"image_refs": [picture(1)]}),
    ],
)
def test_what_an_enhancer_cannot_do_is_refused(model: str, error: type[Exception], reason: str, values: Any) -> None:
    with pytest.raises(error, match=reason):
        wgp.check_generation(model_type=model, **values)


def test_all_parts_leave_memory() -> None:
    import gc

    from transformers import Florence2ForConditionalGeneration, LlamaForCausalLM

    asked("pair", prompt="a fox", image_refs=[picture(1)])
    wgp.release_model()
    gc.collect()
    kinds = (Florence2ForConditionalGeneration, LlamaForCausalLM)
    assert not [each for each in gc.get_objects() if type(each) in kinds]


# ---- before a generation


def test_the_model_reads_the_prompt_that_was_written() -> None:
    """The tiny Wan that ships was trained on such sentences: what it draws tells which prompt reached it."""
    records: list[dict[str, Any]] = []

    def look(command: str, data: Any, state: dict[str, Any]) -> None:
        records.extend(state["gen"]["file_settings_list"] if command == "output" else ())

    enhancer = {"prompt_enhancer": "T", "prompt_enhancer_model": "parrot"}
    run = run_engine(look, model_type="tiny_wan_t2v", prompt="a blue square moving up", seed=2, **enhancer)
    seen = judge(run.frames())
    assert (seen.colour, seen.direction) == ("red", "right")
    assert f"prompt enhanced: {SENTENCE}" in run.data("info")
    assert records[0]["prompt"] == "a blue square moving up" and records[0]["enhanced_prompt"] == SENTENCE
    plain = run_engine(model_type="tiny_wan_t2v", prompt=SENTENCE, seed=2)
    assert np.array_equal(run.frames(), plain.frames())


@pytest.fixture
def frames_of() -> Callable[..., np.ndarray]:
    def made(**values: Any) -> np.ndarray:
        run = run_engine(**SMALL | values)
        assert not run.data("error"), run.data("error")
        return run.frames()

    return made


def test_letter_i_shows_the_start_image_as_the_first_frame(frames_of) -> None:
    start = picture(4, 64, 64)
    given = {"model_type": "tiny_wan_i2v", "image_start": start}
    caption = asked("tiny_florence2", image_refs=[start])
    said, told = message("TI", "a ball", ["first frame"], [caption]), role("TI", still=False, sees=False)
    wanted = cleaned(asked("tiny_llama", prompt=said, system_prompt=told))
    enhanced = frames_of(prompt="a ball", prompt_enhancer="it", prompt_enhancer_model="pair", **given)
    assert np.array_equal(enhanced, frames_of(prompt=wanted, **given))


def test_a_still_is_asked_for_as_a_still() -> None:
    told = role("T", still=True, sees=False)
    wanted = cleaned(asked("tiny_llama", prompt=message("T", "a ball", [], []), system_prompt=told))
    enhancer = {"prompt_enhancer": "T", "prompt_enhancer_model": "pair"}
    run = run_engine(**SMALL | {"image_mode": 1, "video_length": 1} | enhancer, prompt="a ball")
    assert wanted and f"prompt enhanced: {wanted}" in run.data("info")


def test_without_words_or_without_a_picture_the_run_goes_on_and_says_so(frames_of) -> None:
    run = run_engine(**SMALL, prompt=SENTENCE, prompt_enhancer="TI", prompt_enhancer_model="mute")
    notes = run.data("info")
    assert "prompt_enhancer TI became T: no image is given" in notes
    assert any(note.startswith("the prompt was not enhanced: ") for note in notes)
    assert np.array_equal(run.frames(), frames_of(prompt=SENTENCE))


@pytest.mark.parametrize(
    ("error", "reason", "values"),
    [
        (Unsupported, "knows the letters T", {"prompt_enhancer": "TK"}),
        (Unsupported, "knows the letters T", {"prompt_enhancer": "T1"}),
        (InvalidInput, "I asks for what is not there: no image is given", {"prompt_enhancer": "I"}),
        (InvalidInput, "T asks for what is not there: the prompt is empty", {"prompt_enhancer": "T", "prompt": " "}),
        (UnknownModel, "'parot'", {"prompt_enhancer_model": "parot"}),
        (Unsupported, "is no prompt enhancer; there are: mute", {"prompt_enhancer_model": "draft"}),
        (ModelUnavailable, "models fetch llama3_2_3b.*models fetch florence2_large", {}),
        (ModelUnavailable, "needs a device of kind cuda", {"prompt_enhancer_model": "prompt_enhancer_vl"}),
    ],
)
def test_what_cannot_be_enhanced_is_refused_before_anything_is_loaded(error, reason: str, values: Any) -> None:
    with pytest.raises(error, match=reason):
        wgp.check_generation(**SMALL | {"prompt": "a ball", "prompt_enhancer": "T"} | values)


def test_models_that_read_no_prompt_ignore_the_knob(tmp_path: Path) -> None:
    notes = wgp.check_generation(
        model_type="draft", image_start=picture(1), image_end=picture(2), video_length=5, prompt_enhancer="T"
    )
    assert any("ignored by draft" in note and "prompt_enhancer" in note for note in notes)


def test_a_run_that_is_cancelled_while_its_prompt_is_written_leaves_no_file_and_harms_no_other(frames_of) -> None:
    enhancer = {"prompt": "a ball", "prompt_enhancer": "T", "prompt_enhancer_model": "pair"}
    steps: list[int] = []

    def stop(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "decoding":
            steps.append(data[0][0])
            state["gen"]["abort"] = len(steps) == 2

    run = run_engine(stop, **SMALL | enhancer)
    assert run.returned and not run.files and steps == [1, 2]
    assert np.array_equal(frames_of(**enhancer), frames_of(**enhancer))


def test_what_was_written_is_no_setting_that_somebody_asked_for() -> None:
    assert asked_for({"enhanced_prompt": SENTENCE, "seed": 3}) == {"seed"}


# ---- a run that is taken up


class Died(BaseException):
    """Stands for the death of the process: nothing in the engine answers it."""


def test_a_run_that_is_taken_up_goes_on_with_the_prompt_it_began_with(tmp_path: Path, frames_of) -> None:
    kept = {"checkpoint": tmp_path / "kept", "checkpoint_interval_s": 0.0}
    given = {
        "num_inference_steps": 4, "prompt": "a fox", "prompt_enhancer": "T", "prompt_enhancer_model": "pair",
        "plugin_data": kept,
    }  # fmt: skip

    def dies(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0][0] == 2:
            raise Died

    with pytest.raises(Died):
        run_engine(dies, **SMALL | given)
    assert list((tmp_path / "kept").glob("enhanced_prompt.json"))
    phases: list[str] = []
    run = run_engine(lambda command, data, state: phases.append(str(data)), **SMALL | given)
    assert any("went on after step 2" in note for note in run.data("info"))
    assert not any("encoding" in phase and "tiny_llama" in phase for phase in phases)
    assert np.array_equal(run.frames(), frames_of(**{**given, "plugin_data": None}))


def test_a_kept_prompt_is_used_as_it_is_and_only_for_the_same_wish(tmp_path: Path) -> None:
    given = {"prompt": "a fox", "prompt_enhancer": "T", "prompt_enhancer_model": "parrot"}
    given |= {"plugin_data": {"checkpoint": tmp_path / "kept"}}
    run_engine(**SMALL | given)
    file = tmp_path / "kept" / "enhanced_prompt.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"prompt": "a green triangle moving down"}))
    records: list[dict[str, Any]] = []

    def look(command: str, data: Any, state: dict[str, Any]) -> None:
        records.extend(state["gen"]["file_settings_list"] if command == "output" else ())

    run_engine(look, **SMALL | given)
    run_engine(look, **SMALL | given | {"prompt": "a cat"})
    file.write_text("{")
    run_engine(look, **SMALL | given)
    assert [record["enhanced_prompt"] for record in records] == ["a green triangle moving down", SENTENCE, SENTENCE]


# ---- rows


@pytest.mark.parametrize(
    ("parts", "reason"),
    [({}, "model.parts.writer: is missing"), ({"writer": "tiny_lama"}, "'tiny_lama', which is no model.*'tiny_llama'")],
)
def test_a_row_with_wrong_parts_is_named(tmp_path: Path, rows: Path, parts: dict[str, str], reason: str) -> None:
    (tmp_path / "more").mkdir()
    model = {"name": "X", "architecture": "prompt_enhancer", "parts": parts}
    (tmp_path / "more" / "mine.json").write_text(json.dumps({"model": model}))
    with pytest.raises(InvalidInput, match=f"mine.json.*{reason}"):
        load_definitions([rows, tmp_path / "more"])


def test_the_weights_of_an_enhancer_are_those_of_its_parts(tmp_path: Path, rows: Path) -> None:
    """They are what the record of a result lists."""
    files = weight_files(load_definitions([rows])["pair"], tmp_path)
    assert [(file.parent.name, file.name) for file in files] == [
        ("florence2", "model.safetensors"),
        ("llama", "model.safetensors"),
    ]


def test_the_models_command_knows_of_parts(tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from Wan2GP.models import main

    places = ("--ckpts", str(tmp_path), "--definitions", str(rows))
    assert main(["where", "pair", *places]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["writer", "captioner"]
    assert main(["verify", "pair", *places]) == 0
    assert capsys.readouterr().out.count("model.safetensors") >= 2
    assert main(["verify", "prompt_enhancer", *places]) == 1
    assert "llama3_2_3b/config.json is missing" in capsys.readouterr().err
    assert main(["list", "--json", *places]) == 0
    states = {row["id"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert (states["pair"], states["prompt_enhancer"]) == ("ready", "missing")
