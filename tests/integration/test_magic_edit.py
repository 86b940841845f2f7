"""Edits by Flux Kontext: at Replicate, as a server on this machine answers for it, and in the worker."""

from __future__ import annotations

import base64
import email.utils
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lora_site import lora_bytes, serving
from PIL import Image
from replicate_site import MODEL, TOKEN, ReplicateSite, replicate_site, webp
from same_media import same_media
from worker_floor import Floor

from headless.generation import ModelInfo
from headless.testing import FakeOrchestrator
from source.errors import EngineError, ShuttingDown
from source.media.download import DownloadRules
from source.replicate_api import Replicate, is_public
from source.settings import load_settings
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP.media import probe_image, read_image

CREATE = f"POST /v1/models/{MODEL}/predictions"
KONTEXT = ModelInfo(
    name="flux_dev_kontext", architecture="flux_dev_kontext", inputs=frozenset({"text", "references", "loras"}),
    required=frozenset({"text", "references"}), fps=1, image_output=True, lora_folder="flux",
)  # fmt: skip
IN_SCENE = "/peteromallet/Flux-Kontext-InScene/resolve/main/InScene-v1.0.safetensors"


@pytest.fixture
def site() -> Iterator[ReplicateSite]:
    with replicate_site() as site:
        yield site


@pytest.fixture
def floor(tmp_path: Path, site: ReplicateSite) -> Iterator[Floor]:
    floor = new_floor(tmp_path, site)
    yield floor
    floor.close()


def new_floor(tmp_path: Path, site: ReplicateSite, engine: FakeOrchestrator | None = None, **choices: Any) -> Floor:
    known = {
        "replicate_api_token": TOKEN, "replicate_base_url": site.url, "max_attempts": 1,
        "loras_dir": tmp_path / "loras",
    }  # fmt: skip
    floor = Floor(tmp_path, engine, **known | choices)
    floor.registry.register(registry().get("magic_edit"))
    return floor


def edit(floor: Floor, **params: Any) -> Task:
    given = {"image_url": "https://example.com/a.jpg", "prompt": "make it red"}
    task = floor.add("magic_edit", **given | params)
    floor.work()
    return floor.store.get(task)


def given_to(site: ReplicateSite) -> dict[str, Any]:
    [run] = site.runs.values()
    return run.given


# -- an edit


def test_the_output_is_published_and_the_model_got_what_the_row_says(floor: Floor, site: ReplicateSite) -> None:
    row = edit(floor, orchestrator_details={"seed": 7, "in_scene": True}, resolution="768x576")
    assert row.status is Status.COMPLETE, row.error_message
    assert given_to(site) == {
        "prompt": "make it red", "input_image": "https://example.com/a.jpg", "seed": 7, "lora_strength": 1,
        "aspect_ratio": "match_input_image", "output_format": "webp", "output_quality": 90,
        "lora_weights": f"https://huggingface.co{IN_SCENE}",
    }  # fmt: skip
    assert row.output_location == f"files/{row.id}_magic_edit.webp"
    assert same_media(floor.output(row.id), site.behaviour.output)
    assert row.result_data == {"model": MODEL, "engine": "replicate", "prediction": "prediction1"}
    assert floor.leftovers() == []


def test_what_is_not_said_is_left_to_the_model(floor: Floor, site: ReplicateSite) -> None:
    row = edit(floor, prompt=" ", seed=-1, num_inference_steps=20, flow_shift=3)
    assert row.status is Status.COMPLETE, row.error_message
    given = given_to(site)
    assert given["prompt"] == "the same scene from another angle"
    assert given["num_inference_steps"] == 20
    assert not {"seed", "lora_weights"} & given.keys()
    assert (row.result_data or {})["notes"] == ["not used at Replicate: flow_shift"]


def test_progress_is_the_models_own(floor: Floor, site: ReplicateSite) -> None:
    site.behaviour.looks = 4
    seen = []
    task = floor.add("magic_edit", image_url="https://example.com/a.jpg")
    with floor.working():
        floor.wait_until(lambda: bool(seen.append(floor.store.get(task).progress)) or floor.store.get(task).terminal)
    assert {(each["phase"], each["step"], each["total"]) for each in seen if each} >= {("generating", 2, 10)}


@pytest.mark.parametrize(("suffix", "sent"), [(".png", "PNG"), (".jpg", "JPEG"), (".bmp", "PNG")])
def test_a_file_of_this_machine_is_handed_over(
    floor: Floor, site: ReplicateSite, tmp_path: Path, suffix: str, sent: str
) -> None:
    picture = np.random.default_rng(3).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / f"image{suffix}")
    row = edit(floor, image_url=str(tmp_path / f"image{suffix}"))
    assert row.status is Status.COMPLETE, row.error_message
    assert given_to(site)["input_image"] == f"{site.url}/v1/files/file1"
    [upload] = site.asked("POST", "/v1/files")
    head, _, rest = upload.body.partition(b"\r\n\r\n")
    assert b'name="content"' in head
    with Image.open(io.BytesIO(rest[: rest.rindex(b"\r\n--", 0, -4)])) as arrived:
        assert (arrived.format, arrived.size) == (sent, (48, 32))
        assert sent == "JPEG" or np.array_equal(np.asarray(arrived.convert("RGB")), picture)


@pytest.mark.parametrize(
    ("reference", "public"),
    [
        ("https://example.com/a.jpg", True),
        ("HTTP://93.184.215.14/a.jpg", True),
        ("http://127.0.0.1:54321/storage/a.jpg", False),
        ("http://192.168.1.5/a.jpg", False),
        ("http://[::1]/a.jpg", False),
        ("http://localhost:54321/a.jpg", False),
        ("http://storage/a.jpg", False),
        ("files/a.jpg", False),
        ("http://localhost./a.png", False),
        ("http://[::1", False),
    ],
)
def test_what_replicate_cannot_read_is_told_apart(reference: str, public: bool) -> None:
    assert is_public(reference) is public


def test_an_image_of_the_own_network_is_fetched_and_handed_over(
    floor: Floor, site: ReplicateSite, samples: Path
) -> None:
    with serving() as storage:
        row = edit(floor, image_url=storage.add("/cup.jpg", (samples / "coffee.jpg").read_bytes()))
    assert row.status is Status.COMPLETE, row.error_message
    assert given_to(site)["input_image"] == f"{site.url}/v1/files/file1"


# -- answers that pass, and answers that do not


def test_too_many_requests_are_sent_again_after_the_time_that_was_asked_for(floor: Floor, site: ReplicateSite) -> None:
    site.behaviour.first = {CREATE: [(429, {"Retry-After": "1"})], "GET /v1/predictions/prediction1": [(503, {})]}
    started_at = time.monotonic()
    row = edit(floor)
    assert row.status is Status.COMPLETE, row.error_message
    assert len(site.asked("POST", "/v1/models")) == 2 and len(site.runs) == 1
    assert time.monotonic() - started_at >= 1


def test_a_server_that_stays_ill_sends_the_task_back(floor: Floor, site: ReplicateSite) -> None:
    site.behaviour.first = {CREATE: [(500, {})] * 4}
    row = edit(floor)
    assert (row.status, row.error_class) == (Status.FAILED, "transient")
    assert "Replicate answered 500 again and again" in (row.error_message or "")
    assert len(site.asked("POST", "/v1/models")) == 4


@pytest.mark.parametrize(
    "after", ["3600", email.utils.formatdate(time.time() + 7200, usegmt=True)], ids=["seconds", "date"]
)
def test_a_long_wait_is_not_waited_for(floor: Floor, site: ReplicateSite, after: str) -> None:
    site.behaviour.first = {CREATE: [(429, {"Retry-After": after})]}
    started_at = time.monotonic()
    row = edit(floor)
    assert row.error_class == "transient" and len(site.asked("POST", "/v1/models")) == 1
    assert time.monotonic() - started_at < 10


def test_a_passing_fault_is_over_at_the_next_attempt(tmp_path: Path, site: ReplicateSite) -> None:
    floor = new_floor(tmp_path, site, max_attempts=2)
    site.behaviour.first = {CREATE: [(429, {"Retry-After": "3600"})]}
    row = edit(floor)
    assert (row.status, row.attempts) == (Status.COMPLETE, 1), row.error_message
    floor.close()


@pytest.mark.parametrize(
    ("ending", "error", "message"),
    [
        ("failed", "NSFW content detected", "the edit at Replicate failed: NSFW content detected"),
        ("canceled", None, "the edit at Replicate canceled: no reason was given"),
        ("aborted", None, "Replicate's answer was not understood"),
    ],
)
def test_an_edit_that_ends_badly_says_how(
    floor: Floor, site: ReplicateSite, ending: str, error: str | None, message: str
) -> None:
    site.behaviour.ending, site.behaviour.error = ending, error
    row = edit(floor)
    assert (row.status, row.error_class) == (Status.FAILED, "engine")
    assert message in (row.error_message or "")


@pytest.mark.parametrize(
    ("output", "answer", "message"),
    [
        (b"<html>gone</html>", None, "what Replicate made cannot be used"),
        (b"", None, "what Replicate made cannot be used"),
        (webp(), ["ftp://example.com/a.webp"], "Replicate's output is no address"),
        (webp(), {"text": "no"}, r"of no known form \(dict\)"),
        (webp(), "data:image/webp;base64,%%", r"damaged data: address"),
    ],
    ids=["page", "empty", "ftp", "object", "damaged"],
)
def test_an_output_that_is_no_image_is_not_published(
    floor: Floor, site: ReplicateSite, output: bytes, answer: Any, message: str
) -> None:
    site.behaviour.output, site.behaviour.answer = output, answer
    row = edit(floor)
    assert (row.status, row.error_class) == (Status.FAILED, "engine")
    assert re.search(message, row.error_message or ""), row.error_message
    assert floor.published() == []


def test_after_a_useless_output_the_next_attempt_asks_for_another(tmp_path: Path, site: ReplicateSite) -> None:
    floor = new_floor(tmp_path, site, max_attempts=2)
    site.behaviour.output = b"no image"
    row = edit(floor)
    assert row.status is Status.FAILED and len(site.runs) == 2
    floor.close()


# -- the token


def test_without_a_token_nothing_is_asked(tmp_path: Path, site: ReplicateSite) -> None:
    floor = new_floor(tmp_path, site, replicate_api_token="")
    row = edit(floor, image_url="/nowhere.png")
    assert (row.status, row.error_class) == (Status.FAILED, "program_unavailable")
    assert "REPLICATE_API_TOKEN" in (row.error_message or "")
    assert site.requests == []
    floor.close()


def test_the_token_is_sent_as_a_header_and_told_to_nobody(
    tmp_path: Path, site: ReplicateSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A secret of an unusual form, which no pattern knows, repeated by the server in its refusal."""
    secret = "an unusual secret"
    floor = new_floor(tmp_path, site, replicate_api_token=secret)
    row = edit(floor)
    assert (row.status, row.error_class) == (Status.FAILED, "program_unavailable")
    assert "Replicate refuses the token (401)" in (row.error_message or "")
    assert site.requests[0].headers["Authorization"] == f"Bearer {secret}"
    assert secret not in f"{row}{caplog.text}{floor.store.events(row.id)}"
    floor.close()


def test_the_outputs_server_gets_no_token_unless_it_is_replicates_own(floor: Floor, site: ReplicateSite) -> None:
    """localhost is another origin than 127.0.0.1."""
    elsewhere = site.url.replace("127.0.0.1", "localhost")
    for answer, told in ((f"{elsewhere}/made/a.webp", None), (f"{site.url}/made/a.webp", f"Bearer {TOKEN}")):
        site.behaviour.answer = answer
        site.requests.clear()
        row = edit(floor)
        assert row.status is Status.COMPLETE, row.error_message
        [download] = site.asked("GET", "/made/")
        assert download.headers.get("Authorization") == told


# -- stopping


def test_cancelling_the_task_cancels_the_prediction(floor: Floor, site: ReplicateSite) -> None:
    site.behaviour.looks = None
    task = floor.add("magic_edit", image_url="https://example.com/a.jpg")
    with floor.working():
        assert site.looked_at.wait(20)
        floor.store.cancel(task)
        floor.wait_for(task, Status.CANCELLED)
    assert len(site.asked("POST", "/v1/predictions/prediction1/cancel")) == 1
    assert site.runs["prediction1"].status == "canceled"


def test_an_edit_that_takes_too_long_is_given_up(tmp_path: Path, site: ReplicateSite) -> None:
    floor = new_floor(tmp_path, site, replicate_timeout_s=1.2)
    site.behaviour.looks = None
    row = edit(floor)
    assert row.error_class == "transient" and "more than 1.2 s" in (row.error_message or "")
    assert site.runs["prediction1"].status == "canceled"
    assert site.asked("POST", "/v1/models")[0].headers["Cancel-After"] == "5s"
    floor.close()


def test_a_prediction_survives_the_worker_and_is_paid_once(floor: Floor, site: ReplicateSite) -> None:
    """The worker is stopped in the middle; the next one goes on with what is there."""
    site.behaviour.looks = None
    task = floor.add("magic_edit", image_url="https://example.com/a.jpg")
    with floor.working() as worker:
        assert site.looked_at.wait(20)
        worker.stop()
    assert floor.store.get(task).status is Status.QUEUED
    site.behaviour.looks = 1
    with floor.working():
        row = floor.wait_for(task, Status.COMPLETE)
    assert len(site.runs) == 1 and (row.result_data or {})["prediction"] == "prediction1"
    assert site.asked("POST", "/v1/predictions/prediction1/cancel") == []
    assert floor.published() == [f"{task}_magic_edit.webp"]


# -- the forms of an output


@pytest.mark.parametrize(
    "output",
    [
        io.BytesIO(webp()),
        SimpleNamespace(url="data:image/webp;base64," + base64.b64encode(webp()).decode()),
        ["data:image/webp;base64," + base64.b64encode(webp()).decode()],
    ],
    ids=["file", "object", "list"],
)
def test_an_output_may_have_any_form_of_the_client(tmp_path: Path, output: Any) -> None:
    rules = DownloadRules(timeout_s=5, max_bytes=10_000, max_text="10 KB")
    with Replicate(load_settings(replicate_api_token=TOKEN), lambda _: None) as replicate:
        path = replicate.save(output, tmp_path / "made.webp", rules)
    assert read_image(path)[0, 0].tolist() == [200, 40, 40]


def test_an_output_that_is_too_large_is_refused(tmp_path: Path) -> None:
    rules = DownloadRules(timeout_s=5, max_bytes=10, max_text="10 bytes")
    settings, large = load_settings(replicate_api_token=TOKEN), io.BytesIO(webp())
    with Replicate(settings, print) as replicate, pytest.raises(EngineError, match="larger than 10 bytes"):
        replicate.save(large, tmp_path / "made.webp", rules)
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_another_try_can_be_stopped(site: ReplicateSite) -> None:
    def stop(_: float) -> None:
        raise ShuttingDown

    site.behaviour.first = {CREATE: [(429, {"Retry-After": "30"})]}
    settings = load_settings(replicate_api_token=TOKEN, replicate_base_url=site.url)
    with Replicate(settings, stop) as replicate, pytest.raises(ShuttingDown):
        replicate.start(MODEL, {"prompt": "x"})


def test_an_address_that_is_none_is_refused_by_its_field(floor: Floor, site: ReplicateSite) -> None:
    row = edit(floor, image_url="http://[::1/a.png")
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert (row.error_message or "").startswith("image_url: ")
    assert site.runs == {}


# -- in the worker


def test_the_workers_own_model_gets_the_image_at_its_shape_and_the_lora(
    tmp_path: Path, site: ReplicateSite, samples: Path
) -> None:
    with serving() as hub:
        hub.add(IN_SCENE, lora_bytes())
        endpoint = hub.url("")
        engine = FakeOrchestrator([KONTEXT])
        floor = new_floor(tmp_path, site, engine, replicate_api_token="", hf_endpoint=endpoint)
        row = edit(floor, image_url=str(samples / "astronaut.jpg"), engine="local", in_scene=True, seed=3)
    assert row.status is Status.COMPLETE, row.error_message
    [call] = engine.calls
    assert (call["prompt"], call["seed"], call["resolution"]) == ("make it red", 3, "1024x1024")
    assert [Path(each).name for each in call["image_refs"]] == ["astronaut.jpg"]
    assert [Path(each).name for each in call["activated_loras"]] == ["InScene-v1.0.safetensors"]
    assert (call["loras_multipliers"], len(hub.asked(IN_SCENE))) == ("1", 1)
    made = probe_image(floor.output(row.id))
    assert (made.format, made.width, made.height) == ("png", 1024, 1024)
    assert site.requests == []
    floor.close()


def test_references_of_the_row_are_shown_to_the_workers_own_model_beside_the_image(
    tmp_path: Path, site: ReplicateSite, samples: Path
) -> None:
    engine = FakeOrchestrator([KONTEXT])
    floor = new_floor(tmp_path, site, engine)
    image, reference = str(samples / "astronaut.jpg"), str(samples / "chelsea.jpg")
    row = edit(floor, image_url=image, image_refs=[reference], engine="local", resolution="64x64")
    assert row.status is Status.COMPLETE, row.error_message
    assert engine.calls[0]["image_refs"] == [image, reference]
    floor.close()
