"""Outputs say how they were made, and `debug.py replay` makes the same frames again, from files found by digest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replay_shop import CLIP, FAKE_CLIP, Command, ReplayShop

from headless.orchestrator import WanOrchestrator
from source.provenance.record import FORMAT, FileNote, as_text, read_provenance
from source.provenance.replay import Files
from source.store.types import Status
from Wan2GP import wgp
from Wan2GP.media import write_image, write_video
from Wan2GP.media.digest import file_digest
from Wan2GP.media.metadata import embed_text


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WanOrchestrator]:
    yield WanOrchestrator(checkpoints=tmp_path_factory.mktemp("ckpts"), device="cpu")
    wgp.release_model()


@pytest.fixture
def shop(tmp_path: Path, engine: WanOrchestrator) -> Iterator[ReplayShop]:
    shop = ReplayShop(tmp_path, engine)
    yield shop
    shop.close()


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[ReplayShop]:
    """With the fake engine."""
    shop = ReplayShop(tmp_path)
    yield shop
    shop.close()


@pytest.fixture
def order(quick: ReplayShop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(quick, monkeypatch, capsys)


@pytest.fixture
def command(shop: ReplayShop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(shop, monkeypatch, capsys)


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    folder = tmp_path / "private folder"
    folder.mkdir()
    frames = [np.full((64, 64, 3), 40 + 20 * index, np.uint8) for index in range(5)]
    return write_video(folder / "guide.mp4", frames, fps=16).path


def test_a_video_says_how_it_was_made_and_is_made_again_with_the_seed_that_was_drawn(
    shop: ReplayShop, command: Command
) -> None:
    row = shop.run("t2v", **CLIP)
    record = shop.record(row)
    assert (record.task.id, record.task.type, record.task.claim) == (row.id, "t2v", 1)
    assert record.root.params == CLIP
    [run] = record.task.generations
    assert run.model == "tiny_wan_t2v"
    assert run.seed is not None
    assert f"seed {run.seed}" in (row.result_data or {})["notes"]
    assert run.settings["num_inference_steps"] == 2
    assert [weight.name.split("/")[2] for weight in record.weights] == ["text_encoder", "transformer", "vae"]
    assert all(len(weight.sha256 or "") == 64 for weight in record.weights)
    assert {"headless-wan2gp", "torch", "diffusers", "transformers"} == set(record.versions)

    view = command.replay(shop.output(row.id))
    assert (view["task_type"], view["replays"], view["warnings"]) == ("t2v", row.id, [])
    again = shop.finished(view["id"])
    assert again.params == {**CLIP, "seed": run.seed}
    assert (shop.frames(again) == shop.frames(row)).all()
    assert shop.record(again).root.id == again.id
    assert not (shop.frames(shop.run("t2v", **CLIP)) == shop.frames(row)).all()


def test_a_picture_is_made_again_and_a_dry_run_queues_nothing(shop: ReplayShop, command: Command) -> None:
    row = shop.run("wan_2_2_t2i", **CLIP)
    file = shop.output(row.id)
    assert file.suffix == ".png"
    shown = command.replay(file, "--dry-run")
    assert shown["id"] is None
    assert len(shop.store.tasks()) == 1
    code, out, _ = command("replay", file)
    assert code == 0
    [again] = shop.store.tasks(status=Status.QUEUED)
    assert out.startswith(f"queued {again.id}: wan_2_2_t2i")
    assert (shop.frames(shop.finished(again.id)) == shop.frames(row)).all()


def test_inputs_are_found_by_what_they_hold(
    shop: ReplayShop, command: Command, guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = shop.run("vace", **CLIP | {"model": "tiny_wan_vace", "video_guide": str(guide), "seed": 3})
    file, digest = shop.output(row.id), file_digest(guide)
    record = shop.record(row)
    assert record.root.params["video_guide"] == {"name": "guide.mp4", "sha256": digest}
    assert [(note.name, note.sha256) for note in record.inputs] == [("guide.mp4", digest)]
    assert str(tmp_path).encode() not in file.read_bytes()
    assert b"private folder" not in file.read_bytes()

    elsewhere = tmp_path / "archive" / "2026"
    elsewhere.mkdir(parents=True)
    moved = Path(shutil.move(guide, elsewhere / "renamed.mp4"))
    said = command.refusal(file)
    assert f"guide.mp4 (sha256 {digest}) is not here" in said
    assert "--input guide.mp4=PATH" in said
    assert command.replay(file, "--search", tmp_path / "archive", "--dry-run")["inputs"] == {"guide.mp4": str(moved)}
    assert command.replay(file, "--input", f"{digest[:16]}={moved}", "--dry-run")["inputs"] == {"guide.mp4": str(moved)}

    monkeypatch.chdir(elsewhere)
    (elsewhere / "guide.mp4").write_bytes(b"something else")
    said = command.refusal(file)
    assert "guide.mp4 has its name and other content" in said
    assert "holds something else" in command.refusal(file, "--input", "guide.mp4=guide.mp4")
    assert "there is no file" in command.refusal(file, "--input", "guide.mp4=nowhere.mp4")
    assert "made with no file 'mask.mp4'; its files: guide.mp4" in command.refusal(file, "--input", "mask.mp4=x")
    assert "no folder" in command.refusal(file, "--search", "nowhere")
    assert "is not NAME=PATH" in command.refusal(file, "--input", "guide.mp4")
    (elsewhere / "guide.mp4").unlink()

    moved.rename(elsewhere / "guide.mp4")
    again = shop.finished(command.replay(file)["id"])
    assert again.params["video_guide"] == str(elsewhere / "guide.mp4")
    assert (shop.frames(again) == shop.frames(row)).all()


def test_a_stitched_travel_queues_its_orchestrator_with_every_seed(
    shop: ReplayShop, command: Command, samples: Path
) -> None:
    images = [str(samples / "shapes" / f"red_circle_step{number}.png") for number in (1, 2, 3)]
    details = {
        "run_id": "tiny", "model_name": "tiny_wan_vace", "model_type": "vace", "input_image_paths_resolved": images,
        "base_prompts_expanded": ["a red circle moving right"] * 2, "segment_frames_expanded": [5, 5],
        "frame_overlap_expanded": [4], "parsed_resolution_wh": "32x32", "fps_helpers": 8, "seed_base": -1,
        "num_inference_steps": 2,
    }  # fmt: skip
    row = shop.run("travel_orchestrator", orchestrator_details=details)
    record = shop.record(row)
    children = {child.child_key: child for child in shop.store.children(row.id)}
    assert (record.root.id, record.task.type, record.task.key) == (row.id, "travel_stitch", "travel_stitch:0")
    assert {part.id: part.key for part in record.parts} == {
        children[key].id: key for key in ("travel_segment:0", "travel_segment:1")
    }
    seeds = [part.generations[0].seed for part in record.parts]
    assert len(set(seeds)) == 2
    noted = record.root.params["orchestrator_details"]["input_image_paths_resolved"]
    assert [each["sha256"] for each in noted] == [file_digest(Path(image)) for image in images]
    assert {weight.model for weight in record.weights} == {"tiny_wan_vace"}
    assert str(samples).encode() not in shop.output(row.id).read_bytes()

    view = command.replay(shop.output(row.id), "--search", samples / "shapes")
    assert view["task_type"] == "travel_orchestrator"
    again = shop.finished(view["id"])
    remade = [part.generations[0].seed for part in shop.record(again).parts]
    assert remade == seeds
    assert (shop.frames(again) == shop.frames(row)).all()
    assert "_seeds" not in as_text(shop.record(again))

    segment = children["travel_segment:0"]
    assert command.replay(shop.output(segment.id), "--search", samples / "shapes", "--dry-run")["replays"] == row.id


def test_a_draft_travel_with_its_poster_is_made_again(shop: ReplayShop, command: Command, root: Path) -> None:
    params = json.loads((root / "samples" / "tasks" / "travel_orchestrator.json").read_text())
    params["orchestrator_details"] |= {"segment_frames_expanded": [9, 9], "frame_overlap_expanded": [4]}
    params["orchestrator_details"]["parsed_resolution_wh"] = "64x64"
    row = shop.run("travel_orchestrator", **params)
    stitch = next(child for child in shop.store.children(row.id) if child.task_type == "travel_stitch")
    poster = shop.settings.public_dir / (stitch.result_data or {})["thumbnail_url"]
    assert read_provenance(poster) == shop.record(row)
    again = shop.finished(command.replay(shop.output(row.id), "--search", root / "samples")["id"])
    assert (shop.frames(again) == shop.frames(row)).all()


def test_what_a_row_depends_on_has_to_be_there_as_it_was(quick: ReplayShop, order: Command) -> None:
    first = quick.run("t2v", **FAKE_CLIP)
    row = quick.run("upscale_video", dependant_on=(first.id,), upscale_factor=1.5, upscale_model_name="lanczos")
    [needed] = quick.record(row).root.dependant_on
    assert (needed.task, needed.sha256) == (first.id, file_digest(quick.output(first.id)))
    view = order.replay(quick.output(row.id))
    assert view["dependant_on"] == [first.id]
    assert (quick.frames(quick.finished(view["id"])) == quick.frames(row)).all()
    shutil.copyfile(quick.output(row.id), quick.output(first.id))
    assert f"the output of task {first.id} is not what it was" in order.refusal(quick.output(row.id))
    quick.output(first.id).unlink()
    assert "does not exist any more" in order.refusal(quick.output(row.id))


def test_the_weights_of_every_model_that_took_part_are_asked_for(shop: ReplayShop, samples: Path) -> None:
    asked: list[str] = []

    def weights(model: str) -> tuple[Path, ...]:
        asked.append(model)
        return ()

    shop.add(
        "generate_video", model="draft", prompt="a cat", image_start=str(samples / "chelsea.jpg"),
        image_end=str(samples / "coffee.jpg"), resolution="64x48", video_length=5, temporal_upsampling="rife2",
    )  # fmt: skip
    assert shop.worker(weights=weights).run(until_idle=True) == 0
    assert asked == ["draft", "rife"]


# ---- what is refused


def test_files_without_metadata_or_with_those_of_another_version_are_refused(
    quick: ReplayShop, order: Command, tmp_path: Path
) -> None:
    foreign = write_image(tmp_path / "foreign.png", np.zeros((8, 8, 3), np.uint8))
    assert "foreign.png does not say how it was made" in order.refusal(foreign)
    assert "does not exist" in order.refusal(tmp_path / "missing.png")
    later = tmp_path / "later.png"
    text = {"format": FORMAT, "version": 2, "versions": {"headless-wan2gp": "9.1"}}
    embed_text(foreign, later, json.dumps(text), tool="later")
    said = order.refusal(later)
    assert "metadata of version 2" in said
    assert "headless-wan2gp 9.1" in said
    embed_text(foreign, later, json.dumps(text | {"version": 1, "task": 3}), tool="broken")
    assert "metadata of later.png are damaged: task" in order.refusal(later)
    code, _, said = order("replay", later, db_file=tmp_path / "no.db")
    assert (code, "no database" in said) == (2, True)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"video_guide": "/etc/passwd"}, "name a place themselves"),
        ({"activated_loras": ["https://example.com/lora.safetensors"]}, "name a place themselves"),
        ({"video_length": "many"}, "video_length"),
        ({"image_start": {"name": "../../secret.png", "sha256": "0" * 64}}, "is not here"),
    ],
)
def test_changed_metadata_lead_nowhere(
    params: dict[str, object], said: str, quick: ReplayShop, order: Command, tmp_path: Path
) -> None:
    plain = write_image(tmp_path / "plain.png", np.zeros((8, 8, 3), np.uint8))
    task = {"id": "a", "type": "t2v"}
    text = {"format": FORMAT, "version": 1, "task": task, "root": task | {"params": FAKE_CLIP | params}}
    embed_text(plain, tmp_path / "changed.png", json.dumps(text), tool="hand")
    assert said in order.refusal(tmp_path / "changed.png")


def test_a_folder_of_more_files_than_are_looked_into_is_no_surprise(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]))
    wanted = [FileNote(name="other.bin", sha256=file_digest(file)) for file in tmp_path.iterdir()]
    assert all(Files({}, [tmp_path], [], most=5).path_of(note) for note in wanted)
    files = Files({}, [tmp_path], [], most=3)
    assert sum(files.path_of(note) is not None for note in wanted) == 3
    assert len(files.missing) == 2
    assert all("of one folder 3 files are looked into" in each for each in files.missing)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "a file instead of parameters": ({"root": {"params": {"name": "a", "sha256": None}}}, "a:"),
    "a text instead of parameters": ({"root": {"params": {"json_text": {"prompt": "a"}}}}, "no parameters"),
    "nested without end": ({"root": {"params": FAKE_CLIP | {"x": nested(600)}}}, "nested more than"),
    "an address behind a file": ({"root": {"params": FAKE_CLIP | {"image_start": "a.png,http://x.example"}}}, "name a"),
    "a file behind a file": ({"root": {"params": FAKE_CLIP | {"image_refs": "a.png, /etc/b.png"}}}, "name a place"),
    "a place among words": ({"root": {"params": FAKE_CLIP | {"prompts": [{"image": "/etc/passwd"}]}}}, "name a place"),
    "a type that there is not": ({"root": {"type": "rm -rf"}}, "rm -rf"),
    "a seed without end": ({"task": {"generations": [{"model": "m", "seed": 10**400}]}}, "seed"),
    "a level that is none": ({"root": {"params": FAKE_CLIP | {"orchestrator_details": "x"}}}, "orchestrator_details"),
    "a row that UTF-8 cannot hold": ({"root": {"dependant_on": [{"task": "\ud800", "name": ""}]}}, "depends on task"),
    "a file that no disk can hold": (
        {"root": {"params": FAKE_CLIP | {"image_start": {"name": "\0", "sha256": "0" * 64}}}}, "is not here"
    ),
}  # fmt: skip


def hand_written(folder: Path, changes: Mapping[str, Any]) -> Path:
    """A picture whose metadata were made up."""
    plain = write_image(folder / "plain.png", np.zeros((8, 8, 3), np.uint8))
    task = {"id": "a", "type": "t2v"}
    values: dict[str, Any] = {"format": FORMAT, "version": 1, "task": task, "root": task | {"params": FAKE_CLIP}}
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) and name in values else value
    embed_text(plain, folder / "changed.png", json.dumps(values), tool="hand")
    return folder / "changed.png"


@pytest.mark.parametrize("name", HOSTILE)
def test_metadata_that_somebody_made_up_are_refused_in_words(
    name: str, quick: ReplayShop, order: Command, tmp_path: Path
) -> None:
    changes, said = HOSTILE[name]
    refusal = order.refusal(hand_written(tmp_path, changes))
    assert said in refusal
    assert "Traceback" not in refusal


def test_made_up_texts_are_shown_without_harm(quick: ReplayShop, order: Command, tmp_path: Path) -> None:
    weights = [
        {"model": "m", "name": name, "sha256": "0" * 64} for name in ("a\0b", "/etc/passwd", "../../x", "\ud800")
    ]
    file = hand_written(tmp_path, {"root": {"id": "\x1b[2J\ud800\u202eevil\n"}, "weights": weights,
                                   "versions": {"torch\x1b[31m": "1\x1b[0m"}})  # fmt: skip
    code, out, err = order("replay", file, "--dry-run")
    assert (code, err) == (0, "")
    assert not {"\x1b", "\u202e"} & set(out)
    out.encode()
    assert order.replay(file, "--dry-run")["task_type"] == "t2v"
    odd = {"tool_type": "\ud800", "image_start": {"name": "\x1b[2J", "sha256": "0" * 64}}
    assert "\x1b" not in order.refusal(hand_written(tmp_path, {"root": {"params": FAKE_CLIP | odd}}))
    del odd["image_start"]
    view = order.replay(hand_written(tmp_path, {"root": {"params": FAKE_CLIP | odd}}))
    assert quick.store.get(view["id"]).params == view["params"]


def test_other_versions_and_weights_are_said(quick: ReplayShop, order: Command, tmp_path: Path) -> None:
    quick.settings.ckpts.mkdir()
    weights = quick.settings.ckpts / "model.safetensors"
    weights.write_bytes(b"weights")
    row = quick.add("t2v", **FAKE_CLIP)
    quick.worker(weights=lambda model: (weights,)).run(until_idle=True)
    file = quick.output(row)
    [note] = quick.record(quick.store.get(row)).weights
    assert (note.model, note.name, note.sha256) == ("fake_t2v", "model.safetensors", file_digest(weights))
    assert order.replay(file, "--dry-run")["warnings"] == []
    values = json.loads(as_text(quick.record(quick.store.get(row))))
    values["versions"]["torch"] = "1.0"
    values["weights"][0]["sha256"] = "0" * 64
    embed_text(file, tmp_path / "changed.mp4", json.dumps(values), tool="hand")
    warnings = order.replay(tmp_path / "changed.mp4", "--dry-run")["warnings"]
    assert warnings[0].startswith("made with torch 1.0, here is ")
    assert "model.safetensors of fake_t2v are not those" in warnings[1]
