"""What the record in an output holds, and what it never holds; which outputs carry one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lora_site import LoRASite, lora_bytes, put_lora, serving
from PIL import Image
from replay_shop import FAKE_CLIP, Command, ReplayShop

from source.outbox import Outbox
from source.params.base import TaskParams
from source.provenance.record import read_provenance
from source.provenance.weights import BOOK, WeightDigests
from source.task_registry import Done, TaskContext, TaskRegistry, TaskType
from Wan2GP.media import write_image
from Wan2GP.media.digest import file_digest
from Wan2GP.media.metadata import embedded_texts

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
SIGNED = "SIGNEDTOKEN0123456789"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoRASite]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as site:
        yield site


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ReplayShop]:
    shop = ReplayShop(tmp_path, hf_token="a-secret-of-the-worker")
    yield shop
    shop.close()


@pytest.fixture
def command(shop: ReplayShop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(shop, monkeypatch, capsys)


def test_no_path_no_address_and_no_secret_is_in_the_file(
    shop: ReplayShop, site: LoRASite, tmp_path: Path, samples: Path, command: Command
) -> None:
    picture = (samples / "chelsea.jpg").read_bytes()
    end = tmp_path / "my end.png"
    write_image(end, np.zeros((48, 64, 3), np.uint8))
    row = shop.run(
        "i2v", **FAKE_CLIP | {"model": "fake_i2v", "prompt": f"a ball of a-secret-of-the-worker and {TOKEN}"},
        image_start=site.add("/cat.jpg", picture) + f"?token={SIGNED}", image_end=str(end),
        api_key="planted-key", segment_image_download_dir=str(tmp_path / "downloads"), tool_type="a tool",
    )  # fmt: skip
    content = shop.output(row.id).read_bytes()
    for secret in (TOKEN, SIGNED, "planted-key", "a-secret-of-the-worker", str(tmp_path), "127.0.0.1", "downloads"):
        assert secret.encode() not in content, secret
    params = shop.record(row).root.params
    assert params["image_start"]["name"] == "cat.jpg"
    assert params["image_start"]["sha256"] == file_digest(samples / "chelsea.jpg")
    assert params["image_end"] == {"name": "my end.png", "sha256": file_digest(end)}
    assert params["prompt"] == "a ball of *** and ***"
    assert params["tool_type"] == "a tool"
    view = command.replay(shop.output(row.id), "--search", samples, "--search", tmp_path, "--dry-run")
    assert view["inputs"] == {"cat.jpg": str(samples / "chelsea.jpg"), "my end.png": str(end)}
    assert any("secrets were left out" in warning for warning in view["warnings"])


def test_loras_are_named_with_their_digests(shop: ReplayShop, site: LoRASite, command: Command, tmp_path: Path) -> None:
    style = lora_bytes(2)
    mine = put_lora(tmp_path / "loras" / "wan" / "mine.safetensors")
    url = site.add("/style.safetensors", style) + f"?token={SIGNED}"
    row = shop.run("t2v", **FAKE_CLIP, additional_loras={url: 0.5, "mine.safetensors": 1.0})
    file, record = shop.output(row.id), shop.record(row)
    here = tmp_path / "loras" / "wan" / "style.safetensors"
    assert record.root.params["additional_loras"] == {"style.safetensors": 0.5, "mine.safetensors": 1.0}
    assert {(lora.name, lora.sha256) for lora in record.loras} == {
        ("style.safetensors", file_digest(here)), ("mine.safetensors", file_digest(mine)),
    }  # fmt: skip
    assert record.task.generations[0].settings["activated_loras"] == ["style.safetensors", "mine.safetensors"]
    assert SIGNED.encode() not in file.read_bytes()
    view = command.replay(file)
    assert shop.finished(view["id"]).params["additional_loras"] == record.root.params["additional_loras"]
    assert [Path(lora).name for lora in shop.engine.calls[-1]["activated_loras"]] == [here.name, mine.name]

    mine.write_bytes(lora_bytes(3))
    said = command.refusal(file)
    assert "mine.safetensors (sha256" in said
    assert "style" not in said
    other = put_lora(tmp_path / "elsewhere.safetensors")
    assert "outside the folders of LoRAs" in command.refusal(file, "--input", f"mine.safetensors={other}")
    kept = put_lora(tmp_path / "loras" / "wan" / "kept.safetensors")
    view = command.replay(file, "--input", f"mine.safetensors={kept}", "--dry-run")
    assert view["params"]["additional_loras"] == {"style.safetensors": 0.5, str(kept): 1.0}


def test_a_file_whose_content_nobody_saw_may_be_given_or_left_out(
    shop: ReplayShop, command: Command, samples: Path
) -> None:
    row = shop.run("t2v", **FAKE_CLIP, front_end_picture="/gone/cat.png")
    file = shop.output(row.id)
    assert shop.record(row).root.params["front_end_picture"] == {"name": "cat.png", "sha256": None}
    assert "cat.png: its content is not known" in command.refusal(file)
    assert "front_end_picture" not in command.replay(file, "--input", "cat.png=", "--dry-run")["params"]
    given = command.replay(file, "--input", f"cat.png={samples / 'chelsea.jpg'}", "--dry-run")["params"]
    assert given["front_end_picture"] == str(samples / "chelsea.jpg")


def test_two_files_of_one_name_are_told_apart(
    shop: ReplayShop, site: LoRASite, command: Command, samples: Path, tmp_path: Path
) -> None:
    cat, cup = (samples / "chelsea.jpg"), (samples / "coffee.jpg")
    images = [site.add(f"/{number}/image.jpg", path.read_bytes()) for number, path in enumerate((cat, cup))]
    details = {
        "model_name": "fake_vace", "model_type": "vace", "input_image_paths_resolved": images,
        "segment_frames_expanded": [9], "base_prompts_expanded": ["one"], "parsed_resolution_wh": "64x48",
        "frame_overlap_expanded": [], "stitch": True,
    }  # fmt: skip
    row = shop.run("travel_orchestrator", orchestrator_details=details)
    record = shop.record(row)
    noted = record.root.params["orchestrator_details"]["input_image_paths_resolved"]
    assert noted == [{"name": "image.jpg", "sha256": file_digest(path)} for path in (cat, cup)]
    given = [word for path in (cup, cat) for word in ("--input", f"image.jpg={path}")]
    params = command.replay(shop.output(row.id), *given, "--dry-run")["params"]
    assert params["orchestrator_details"]["input_image_paths_resolved"] == [str(cat), str(cup)]


# ---- which outputs


def deliver(shop: ReplayShop, source: Path) -> Path:
    """The output of a task that hands in a copy of a file."""

    def hand_in(params: TaskParams, context: TaskContext) -> Done:
        return Done(Path(shutil.copy(source, context.scratch)))

    shop.registry = TaskRegistry()
    shop.registry.register(TaskType("hand_in", TaskParams, hand_in, "Of a test.", "a file", uses_gpu=False))
    return shop.output(shop.run("hand_in").id)


@pytest.mark.parametrize("name", ["a.webp", "a.jpg", "a.png"])
def test_pictures_carry_it(name: str, shop: ReplayShop, tmp_path: Path) -> None:
    source = tmp_path / name
    Image.new("RGB", (20, 10), "red").save(source)
    made = deliver(shop, source)
    assert read_provenance(made).task.type == "hand_in"
    with Image.open(made) as after, Image.open(source) as before:
        assert (np.asarray(after) == np.asarray(before)).all()


@pytest.mark.parametrize("name", ["a.txt", "a.gif", "a.bin"])
def test_other_files_go_out_as_they_are(name: str, shop: ReplayShop, tmp_path: Path) -> None:
    source = tmp_path / name
    if name.endswith("gif"):
        Image.new("RGB", (20, 10), "red").save(source)
    else:
        source.write_bytes(b"an answer")
    made = deliver(shop, source)
    assert made.read_bytes() == source.read_bytes()
    assert list(embedded_texts(made)) == []


def test_a_file_that_the_writer_finds_damaged_goes_out_as_it_is(shop: ReplayShop, tmp_path: Path) -> None:
    source = tmp_path / "odd.mp4"
    source.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08mdat")
    assert deliver(shop, source).read_bytes() == source.read_bytes()


def test_a_file_of_the_users_is_copied_and_left_alone(tmp_path: Path) -> None:
    shop = ReplayShop(tmp_path)
    source = write_image(tmp_path / "mine.png", np.zeros((8, 8, 3), np.uint8))
    before = source.read_bytes()
    task = shop.store.get(shop.add("nothing"))
    parcel = Outbox(shop.settings).put(task, "", Done(source), '{"a": 1}')
    assert parcel.output is not None
    assert list(embedded_texts(parcel.output)) == ['{"a": 1}']
    assert source.read_bytes() == before
    shop.close()


# ---- digests of weights


def test_weights_are_read_once_while_they_stay_the_same(tmp_path: Path) -> None:
    ckpts = tmp_path / "ckpts"
    ckpts.mkdir()
    first, second = ckpts / "a.safetensors", ckpts / "b.safetensors"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    expected = {path: file_digest(path) for path in (first, second)}
    assert WeightDigests(ckpts).begin(lambda: (first, second)).result(10) == expected
    written = (ckpts / BOOK).read_text()

    changed = first.stat().st_mtime_ns
    first.write_bytes(b"eno")
    os.utime(first, ns=(changed, changed))  # as if nothing had happened: only who reads it notices
    digests = WeightDigests(ckpts)
    assert digests.begin(lambda: (first,)).result(10) == {first: expected[first]}
    os.utime(first, ns=(changed + 1, changed + 1))
    assert digests.begin(lambda: (first, ckpts / "missing")).result(10) == {first: file_digest(first)}
    second.unlink()
    (ckpts / BOOK).write_text("{damaged")
    assert WeightDigests(ckpts).begin(lambda: (first,)).result(10) == {first: file_digest(first)}
    assert json.loads(written)


def test_a_folder_that_is_not_there_keeps_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"one")
    digests = WeightDigests(tmp_path / "ckpts")
    assert digests.begin(lambda: (file,)).result(10) == {file: file_digest(file)}
    assert not (tmp_path / "ckpts").exists()

    def unreadable() -> tuple[Path, ...]:
        raise PermissionError("no")

    assert digests.begin(unreadable).result(10) == {}


@pytest.mark.parametrize("failure", [KeyError("no such model"), ValueError("embedded null byte"), RuntimeError("no")])
def test_whatever_goes_wrong_with_some_files_the_next_ones_are_read(failure: Exception, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"one")
    digests = WeightDigests(tmp_path)

    def failing() -> tuple[Path, ...]:
        raise failure

    answers = [digests.begin(failing), digests.begin(lambda: (file,))]
    assert [answer.result(10) for answer in answers] == [{}, {file: file_digest(file)}]


def test_a_book_of_digests_that_somebody_made_up_is_read_around(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"one")
    for book in ({"\0": [1, 2, "x"]}, {"a": [[], {}, None]}, {"a": 3}, [1]):
        (tmp_path / BOOK).write_text(json.dumps(book))
        assert WeightDigests(tmp_path).begin(lambda: (file,)).result(10) == {file: file_digest(file)}
    (tmp_path / BOOK).write_text("[" * 100_000)
    assert WeightDigests(tmp_path).begin(lambda: (file,)).result(10) == {file: file_digest(file)}
