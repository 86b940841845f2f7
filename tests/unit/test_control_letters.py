"""The letters that ask for control media to be drawn first: what each means, and what is refused by name."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from engine_runs import grey_video

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.control.letters import MODELS, NOTHING, Processing, check_letters, check_models, processing_of
from Wan2GP.engine.interpolation.draft import Draft
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.wan.model import Wan
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported


def request_of(letters: str, model: str = "vace_1.3B", reads: frozenset[str] = Wan.reads, **values: Any) -> Any:
    asked = {"resolution": "64x48", "video_length": 17, "prompt": "a kite", "video_prompt_type": letters}
    return parse_request(asked | values, load_definitions()[model], reads, Path("loras"))


@pytest.fixture
def guide(tmp_path: Path) -> str:
    return str(grey_video(tmp_path / "guide.mkv", [40] * 6))


@pytest.fixture
def mask(tmp_path: Path) -> str:
    return str(grey_video(tmp_path / "mask.mkv", [255] * 6))


@pytest.mark.parametrize("letter", "PDSEL")
def test_the_order_of_letters_does_not_matter(guide: str, letter: str) -> None:
    for letters in permutations(f"V{letter}T"):
        assert processing_of(request_of("".join(letters), video_guide=guide)) == Processing(letter, None)


@pytest.mark.parametrize(
    ("letters", "inside", "outside"),
    [("PVA", "P", None), ("PVXA", "P", NOTHING), ("EVNYA", "E", "D"), ("VAW", None, "S"), ("CVAZ", "C", "L")],
)
def test_inside_and_outside_of_the_mask_have_letters_of_their_own(guide, mask, letters, inside, outside) -> None:
    found = processing_of(request_of(letters, video_guide=guide, video_mask=mask))
    assert found == Processing(inside, outside)
    assert found.letters == tuple(each for each in (inside, outside) if each in MODELS)


def test_a_letter_means_nothing_without_control_media_or_to_a_model_that_draws_them(guide: str) -> None:
    assert processing_of(request_of("PV")) is None
    assert processing_of(request_of("V", video_guide=guide)) is None
    canny = request_of("EV", "canny", frozenset({"video_guide", "video_prompt_type"}), video_guide=guide)
    assert processing_of(canny) is None
    check_letters(canny)


def refused(request: GenerationRequest, error: type[Exception], *words: str) -> None:
    with pytest.raises(error) as caught:
        check_letters(request)
    assert str(caught.value).startswith("video_prompt_type: ")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("letters", ["PDV", "PSV", "PLV", "DSV", "DLV", "SLV", "EPV", "CDV"])
def test_two_processes_need_two_control_videos_and_are_refused(guide: str, letters: str) -> None:
    refused(request_of(letters, video_guide=guide), Unsupported, "two processes inside the mask", "choose one")


def test_what_else_cannot_be_done_is_refused(guide: str, mask: str) -> None:
    refused(request_of("OV", video_guide=guide), Unsupported, "aligned", "P draws poses")
    refused(request_of("GPV", video_guide=guide), Unsupported, "G redraws")
    refused(request_of("PVY", video_guide=guide), InvalidInput, "Y says what is shown outside the mask")
    masked = request_of("PVYWA", video_guide=guide, video_mask=mask)
    refused(masked, Unsupported, "two processes outside the mask")


def test_models_that_use_their_control_video_as_it_is_say_so(guide: str, mask: str) -> None:
    refused(request_of("EV", "t2v", video_guide=guide), Unsupported, "t2v uses its control media as they are", "'E'")
    draft = request_of("PV", "draft", Draft.reads, video_guide=guide, video_mask=mask)
    refused(draft, Unsupported, "draft uses its control media as they are", "'P'")


def test_a_model_that_a_letter_needs_and_that_is_missing_is_named(guide: str, mask: str, tmp_path: Path) -> None:
    known = load_definitions()

    def unavailable(name: str) -> str | None:
        return known.unavailable(name, tmp_path / "ckpts")

    for letters in ("EV", "SV", "LV", "CV"):
        check_models(request_of(letters, video_guide=guide), unavailable)
    for letters, what, model in (("PV", "pose", "pose"), ("EVYA", "depth", "depth_anything_v2_vitl")):
        command = rf"asks for {what}, .*python -m Wan2GP.models fetch {model} --ckpts {tmp_path}"
        with pytest.raises(ModelUnavailable, match=command):
            check_models(request_of(letters, video_guide=guide, video_mask=mask), unavailable)
