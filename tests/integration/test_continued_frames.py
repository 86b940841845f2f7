"""How many frames a continued video has, and which are given: one table that the fake, the draft model and the rule of
the real models must answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import grey_video, picture

from headless.generation import CancelToken, GenerationTask, Orchestrator
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from headless.testing import FakeOrchestrator
from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.wan.model import Wan
from Wan2GP.errors import InvalidInput
from Wan2GP.media import read_frames, write_image, write_video

SIZE = {"resolution": "64x48", "prompt": "a kite", "seed": 1}
END = picture(9)
#: a control video of 17 frames, of which 2 to 11 are kept
CONTROLLED = {"video_guide": "guide", "video_mask": "mask"}

#: options; frames of the source, frames of the result
CASES = [
    pytest.param({"video_length": 17}, 9, 9 + 16, id="one frame is shared"),
    pytest.param({"video_length": 5, "sliding_window_overlap": 0}, 9, 9 + 5, id="none is shared"),
    pytest.param({"video_length": 17, "sliding_window_overlap": 5}, 9, 9 + 12, id="five are shared"),
    pytest.param({"video_length": 17, "sliding_window_overlap": 5}, 3, 3 + 14, id="as many as there are"),
    pytest.param({"video_length": 17, "sliding_window_overlap": 0}, 1, 1 + 17, id="a source of one frame"),
    pytest.param({"video_length": 17, "keep_frames_video_source": "4"}, 9, 4 + 16, id="the first four are kept"),
    pytest.param({"video_length": 17, "keep_frames_video_source": "-2"}, 9, 7 + 16, id="all but two are kept"),
    pytest.param({"video_length": 17, "keep_frames_video_source": "30"}, 9, 9 + 16, id="more than there are"),
    pytest.param({"video_length": 17, "svi2pro": 1}, 9, 9 + 13, id="svi shares four"),
    pytest.param({"video_length": 5, "svi2pro": 1}, 5, 5 + 1, id="svi, as short as can be"),
    pytest.param({"video_length": 21, "svi2pro": 1, "keep_frames_video_source": "6"}, 9, 6 + 17, id="svi, six kept"),
    pytest.param({"video_length": 17, "svi2pro": 1, "sliding_window_overlap": 2}, 9, 9 + 13, id="svi, always four"),
    pytest.param({"video_length": 9, **CONTROLLED}, 5, 5 + 8, id="control from the result's first frame"),
    pytest.param({"video_length": 9, "video_prompt_type": "VAT", **CONTROLLED}, 5, 5 + 8, id="control from the new"),
    pytest.param({"video_length": 17, "video_prompt_type": "VNA", **CONTROLLED}, 9, 9 + 16, id="inverted control"),
]

#: the same for real models, whose windows share a frame or more
REAL_CASES = [case for case in CASES if case.values[0].get("sliding_window_overlap", 1) > 0]

REFUSED = [
    pytest.param({"video_length": 9, "image_start": "image"}, 9, "image_start", id="two beginnings"),
    pytest.param({"video_length": 5, "sliding_window_overlap": 5}, 9, "sliding_window_overlap", id="nothing to add"),
    pytest.param({"video_length": 17, "svi2pro": 1}, 4, "video_source", id="too short for svi"),
    pytest.param({"video_length": 17, "keep_frames_video_source": "-9"}, 9, "keep_frames_video_source", id="none kept"),
]


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    yield
    wgp.release_model()


@pytest.fixture(params=["fake", "draft"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Orchestrator, str]:
    if request.param == "draft":
        return WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu"), "draft"
    svi = FakeOrchestrator().describe("fake_svi")
    mine = replace(svi, name="mine", inputs=svi.inputs | {"control_video", "mask"}, required=frozenset())
    return FakeOrchestrator([mine]), "mine"


@pytest.fixture
def media(tmp_path: Path) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """The values with the files that they name, a source of that many frames, and an end image."""

    def made(values: dict[str, Any], count: int) -> dict[str, Any]:
        guide = write_video(tmp_path / "guide.mkv", [picture(40 + k) for k in range(17)], fps=16, codec="ffv1")
        mask = grey_video(tmp_path / "mask.mkv", [255] * 2 + [0] * 10 + [255] * 5)
        image = write_image(tmp_path / "end.png", END)
        files = {"guide": guide.path, "mask": mask, "image": image}
        source = write_video(tmp_path / "source.mkv", [picture(20 + k) for k in range(count)], fps=16, codec="ffv1")
        named = {key: str(files[value]) if value in files else value for key, value in values.items()}
        return {**SIZE, **named, "video_source": str(source.path), "image_end": str(image)}

    return made


@pytest.mark.parametrize(("values", "count", "total"), CASES)
def test_both_make_the_same_frames_out_of_what_is_given(engine, media, tmp_path: Path, values, count, total) -> None:
    orchestrator, model = engine
    given = media(values, count)
    options = GenerationOptions.parse(given)
    task = GenerationTask(id="t", model=model, options=options, output_dir=tmp_path / "out", lossless=True)
    orchestrator.prepare(task)
    orchestrator.load_model(model, lambda progress: None)
    (file,) = orchestrator.generate(task, lambda progress: None, CancelToken()).written()
    frames = list(read_frames(file))
    assert len(frames) == total
    fixed = {k: frame for k, frame in enumerate(_controlled(given, total)) if frame is not None}
    fixed |= dict(enumerate(_kept(given))) | {total - 1: END}
    wrong = [k for k, frame in fixed.items() if not np.array_equal(frames[k], frame)]
    assert wrong == []
    dissolved = set(range(total)) - set(fixed)
    assert all(not np.array_equal(frames[k], frames[k - 1]) for k in dissolved)


def _kept(given: dict[str, Any]) -> list[np.ndarray]:
    frames = list(read_frames(given["video_source"]))
    keep = given.get("keep_frames_video_source")
    return frames[: int(keep)] if keep else frames


def _controlled(given: dict[str, Any], total: int) -> list[np.ndarray | None]:
    """What the control video keeps at each frame of the result."""
    if "video_guide" not in given:
        return []
    letters = given.get("video_prompt_type", "")
    black = [2 <= k < 12 for k in range(17)]
    kept = [is_black != ("N" in letters) for is_black in black]
    shown = [frame if keep else None for frame, keep in zip(read_frames(given["video_guide"]), kept, strict=True)]
    before = [None] * len(_kept(given)) if "T" in letters else []
    return [*before, *shown][:total]


@pytest.mark.parametrize(("values", "count", "total"), REAL_CASES)
def test_the_rule_of_the_real_models_gives_the_same_length(media, values, count, total) -> None:
    """A text model shares from 1 frame; image-to-video always 1, with SVI always 4."""
    svi, shared = values.get("svi2pro"), values.get("sliding_window_overlap", 1)
    name = "i2v_2_2" if svi else "t2v"
    given = {key: value for key, value in media(values, count).items() if key not in ("image_end", *CONTROLLED)}
    given |= {} if svi else {"sliding_window_overlap": shared}
    assert parse_request(given, load_definitions()[name], Wan.reads, Path("loras")).total_frames == total


@pytest.mark.parametrize(("values", "count", "field"), REFUSED)
def test_both_refuse_what_cannot_be_gone_on_from_by_the_same_name(engine, media, tmp_path: Path, values, count, field):
    orchestrator, model = engine
    options = GenerationOptions.parse(media(values, count))
    with pytest.raises(InvalidInput) as caught:
        orchestrator.prepare(GenerationTask(id="t", model=model, options=options, output_dir=tmp_path))
    assert caught.value.field == field
