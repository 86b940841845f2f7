"""A run that is cancelled stops before its next piece of work, wherever it is, and harms no later run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture
from wan_runs import Tiny

from Wan2GP.engine.families import Cancel
from Wan2GP.engine.residency.budgets import Budgets
from Wan2GP.errors import GenerationCancelled

STEPS = 3
VALUES: dict[str, Any] = {"image_start": picture(1, 64, 64), "num_inference_steps": STEPS, "guidance_scale": 1.0}
#: two windows
LONG = VALUES | {"video_length": 33, "sliding_window_size": 17}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    """Without a cache: what an earlier run encoded is encoded again."""
    made = Tiny(tmp_path_factory.mktemp("i2v"), "i2v")
    made.parts.memory.budget(Budgets(cache_bytes=0))
    return made


def work_until_cancelled(model: Tiny, when: Callable[[str, int, int], bool], **values: Any) -> list[str]:
    """The pieces of work that were done in a run that is cancelled as soon as `when` is true of a report."""
    done: list[str] = []
    asked = False

    def report(phase: str, step: int, total: int) -> None:
        nonlocal asked
        asked = asked or when(phase, step, total)

    parts = model.parts
    modules = {
        "text": parts.text_encoder,
        "image": parts.image_encoder,
        "encode": parts.vae.quant_conv,
        "step": parts.transformer,
        "decode": parts.vae.post_quant_conv,
    }
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: done.append(name)) for name, module in modules.items()
    ]
    try:
        with pytest.raises(GenerationCancelled):
            list(model.model.generate(model.request(**values), report, Cancel(lambda: asked)))
    finally:
        for hook in hooks:
            hook.remove()
    return done


#: the prompt and the negative one, each by itself
TEXTS = ["text", "text"]
BEFORE = [*TEXTS, "encode", "image"]


@pytest.mark.parametrize(
    ("phase", "number", "done"),
    [
        ("window", 1, TEXTS),
        ("encoding", 0, TEXTS),
        ("encoding", 1, BEFORE),
        ("denoising", 0, BEFORE),
        ("denoising", 1, [*BEFORE, "step"]),
        ("denoising", 2, [*BEFORE, "step", "step"]),
        ("denoising", 3, [*BEFORE, "step", "step", "step"]),
        ("decoding", 0, [*BEFORE, "step", "step", "step"]),
    ],
)
def test_a_cancelled_run_begins_nothing_new(tiny, phase, number, done):
    def when(at: str, step: int, total: int) -> bool:
        return at == phase and step == number

    found = work_until_cancelled(tiny, when, **VALUES)
    assert found == done


def test_a_run_that_is_cancelled_from_the_start_does_nothing(tiny):
    with pytest.raises(GenerationCancelled):
        next(iter(tiny.model.generate(tiny.request(**VALUES), lambda *_: None, Cancel(lambda: True))))


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_run_cancelled_in_its_second_window_stops_there(tiny, at):
    windows: list[int] = []

    def when(phase: str, step: int, total: int) -> bool:
        if phase == "window":
            windows.append(step)
        return windows[-1:] == [2] and phase == "denoising" and step == at

    done = work_until_cancelled(tiny, when, **LONG)
    assert done.count("step") == STEPS + at
    assert done.count("decode") == 1


@pytest.mark.parametrize("phase", ["encoding", "denoising", "decoding"])
def test_the_run_after_a_cancelled_one_makes_what_it_would_have_made(tiny, phase):
    values = LONG | {"NAG_scale": 4.0, "sample_solver": "dpm++_sde"}
    before = tiny.frames(**values)
    work_until_cancelled(tiny, lambda at, step, total: at == phase and step >= 1, **values)
    assert np.array_equal(tiny.frames(**values), before)


def test_a_cancelled_run_leaves_no_file(tiny, tmp_path: Path):
    from Wan2GP.engine.saving import save_frames

    request = tiny.request(**VALUES)
    asked: list[bool] = []

    def report(phase: str, step: int, total: int) -> None:
        if phase == "decoding" and step == 1:
            asked.append(True)

    cancel = Cancel(lambda: bool(asked))
    with pytest.raises(GenerationCancelled):
        save_frames(tiny.model.generate(request, report, cancel), request, tmp_path / "out", report, cancel)
    assert list((tmp_path / "out").iterdir()) == []
