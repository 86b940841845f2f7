"""SVI 2 Pro: a video goes on from an anchor image and the last latent frame of the video before."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import picture
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_loras import LAYOUTS, factors, linears, write
from wan_passes import conditions_of
from wan_runs import CLIP, Tiny, tiny_models

from training.tiny_wan.measure import Case, cases, drawn, ssim
from training.tiny_wan.shapes import ALL_PROMPTS
from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.lora.multipliers import plan_multipliers
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.wan.image_conditions import clip_states
from Wan2GP.engine.wan.latents import decode, encode, to_tensor
from Wan2GP.engine.wan.media import context_of, spans_of
from Wan2GP.engine.wan.model import Wan
from Wan2GP.engine.wan.steps import plan_steps
from Wan2GP.engine.wan.window import Span, plan_svi_windows
from Wan2GP.errors import GenerationCancelled, InvalidInput, Unsupported, WanError
from Wan2GP.media import write_video

SIZE = {"width": 64, "height": 64}
START, END, ANCHOR = (picture(number, **SIZE) for number in (1, 2, 3))
#: the knob on, an anchor given
ON: dict[str, Any] = {"svi2pro": 1, "image_refs": [ANCHOR], "video_prompt_type": "I"}
#: windows of 17 frames
LONG = {"video_length": 41, "sliding_window_size": 17, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    return tiny_models(tmp_path_factory)


def clip(path: Path, count: int) -> tuple[str, np.ndarray]:
    """A lossless video of smooth pictures, each different, and its frames."""
    frames = np.stack([picture(40 + number, **SIZE) for number in range(count)])
    write_video(path, list(frames), fps=16, codec="ffv1")
    return str(path), frames


@pytest.fixture
def source(tmp_path: Path) -> tuple[str, np.ndarray]:
    return clip(tmp_path / "source.mkv", 9)


# ---- windows


@given(
    length=st.integers(1, 60).map(lambda k: 4 * k + 1),
    size=st.integers(2, 24).map(lambda k: 4 * k + 1),
    discard=st.sampled_from([0, 1, 4]),
    made=st.integers(5, 60) | st.just(0),
)
def test_every_plan_adds_what_is_missing_after_four_shared_frames(length, size, discard, made):
    assume(size - 4 - discard >= 1 and size - discard >= 5)
    total = made + length - 4 if made else length
    spans = plan_svi_windows(total, size, 4, discard, 4, made)
    there = made
    for number, span in enumerate(spans):
        last = number == len(spans) - 1
        begins = number == 0 and not made
        assert (span.overlap, span.start) == ((0, 0) if begins else (4, there - 4))
        assert span.frames % 4 == 1
        room = span.frames - (0 if begins else 1) - span.overlap - span.new
        assert 0 <= room - (0 if last else discard) <= 3
        there += span.new
    assert there == total


def test_a_piece_of_a_chain_makes_one_latent_frame_more_than_its_length():
    """9 frames of the video before, 17 = 13 new + 4 shared: anchor, 4 shared and 16 frames are made, 3 left out."""
    assert plan_svi_windows(9 + 13, 81, 4, 0, 4, 9) == (Span(5, 21, 4, 13),)


def test_full_windows_add_what_the_formula_says():
    assert [span.new for span in plan_svi_windows(17 + 13 + 13, 17, 4, 0, 4)] == [17, 13, 13]


@pytest.mark.parametrize("count", [1, 4])
def test_too_short_a_video_is_refused(tiny, tmp_path: Path, count):
    short, _ = clip(tmp_path / "short.mkv", count)
    with pytest.raises(InvalidInput, match="5 frames or more") as caught:
        tiny("i2v_2_2").request(**ON, video_source=short)
    assert caught.value.field == "video_source"


@pytest.mark.parametrize("architecture", ["i2v", "i2v_2_2", "i2v_2_2_svi2pro", "fun_inp_1.3B"])
@pytest.mark.parametrize(("length", "keep"), [(5, ""), (9, ""), (17, ""), (21, "6"), (33, "5")])
def test_the_source_comes_first_and_exactly_the_new_frames_follow(tiny, source, architecture, length, keep):
    kept = int(keep or 9)
    values = ON | {"video_source": source[0], "video_length": length, "keep_frames_video_source": keep}
    found = tiny(architecture).frames(**values, num_inference_steps=1)
    assert len(found) == kept + length - 4 == tiny(architecture).request(**values).total_frames
    assert np.array_equal(found[:kept], source[1][:kept])


@pytest.mark.parametrize("length", [17, 29, 41, 45])
@pytest.mark.parametrize("begins", ["image", "video"])
def test_several_windows_make_exactly_the_frames_asked_for(tiny, source, length, begins):
    given_values = {"image_start": START} if begins == "image" else {"video_source": source[0], "image_end": END}
    values = LONG | given_values | {"svi2pro": 1, "video_length": length}
    wanted = length if begins == "image" else 9 + length - 4
    assert len(tiny("i2v_2_2").frames(**values)) == wanted


@pytest.mark.parametrize(("length", "discard", "last"), [(41, 2, 4), (41, 1, 13), (25, 2, 10), (41, 3, 7)])
def test_a_last_window_of_any_remainder_ends_where_it_should(tiny, length, discard, last):
    values = LONG | {"svi2pro": 1, "image_start": START, "image_end": END, "num_inference_steps": 1}
    values |= {"video_length": length, "sliding_window_discard_last_frames": discard}
    model = tiny("i2v_2_2")
    assert spans_of(model.request(**values))[-1].new == last
    assert len(model.frames(**values)) == length


# ---- the condition


def layout(conditions: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask (1, 4, F', H', W') and the latents (1, 16, F', H', W') beside the noisy ones."""
    return conditions._condition[:, :4], conditions._condition[:, 4:]


def encoded(model: Tiny, *frames: np.ndarray) -> torch.Tensor:
    return encode(model.parts, to_tensor(np.stack(frames)))


@pytest.mark.parametrize("end", [None, END])
def test_the_condition_is_anchor_last_latent_zeros_and_the_end(tiny, source, end):
    model = tiny("i2v_2_2")
    conditions = conditions_of(model, **ON, video_source=source[0], image_end=end, video_length=17)
    mask, latents = layout(conditions)
    assert latents.shape[2] == mask.shape[2] == 6  # anchor, 4 shared frames, 13 new ones in 4
    expected, marks = torch.zeros_like(latents), torch.zeros_like(mask)
    expected[:, :, :1], marks[:, :, :1] = encoded(model, ANCHOR), 1
    expected[:, :, 1:2] = encoded(model, *source[1])[:, :, 2:]
    if end is not None:
        expected[:, :, 5:], marks[:, :, 5:] = encoded(model, *[END] * 5)[:, :, 1:], 1
    assert torch.allclose(latents, expected, atol=1e-6)
    assert torch.equal(mask, marks)


@pytest.mark.parametrize(("keep", "first"), [(12, 3), (9, 0), (8, 3), (7, 2), (6, 1), (5, 0)])
def test_the_last_nine_or_five_frames_that_are_kept_make_the_last_latent_frame(tiny, tmp_path: Path, keep, first):
    model = tiny("i2v_2_2")
    path, frames = clip(tmp_path / "long.mkv", 14)
    kept = {"video_source": path, "keep_frames_video_source": str(keep)}
    latents = layout(conditions_of(model, **ON, **kept))[1]
    assert torch.allclose(latents[:, :, 1:2], encoded(model, *frames[first:keep])[:, :, -1:], atol=1e-6)


@pytest.mark.parametrize(("keep", "last"), [("", 8), ("7", 6)])
def test_without_a_reference_the_last_kept_frame_is_the_anchor(tiny, source, keep, last):
    model = tiny("i2v_2_2")
    values = {"svi2pro": 1, "video_source": source[0], "keep_frames_video_source": keep}
    latents = layout(conditions_of(model, **values))[1]
    assert torch.allclose(latents[:, :, :1], encoded(model, source[1][last]), atol=1e-6)


def test_the_image_encoder_sees_the_anchor(tiny, source):
    model = tiny("i2v")
    conditions = conditions_of(model, **ON, video_source=source[0])
    assert torch.equal(conditions._image, clip_states(model.parts, [ANCHOR]))


def test_the_anchors_frame_is_left_out_and_so_are_the_shared_ones(tiny, source):
    model = tiny("i2v_2_2")
    values = ON | {"video_source": source[0], "video_length": 17}
    made = decode(model.parts, model.latents(**values))
    assert len(made) == 21
    assert np.array_equal(model.frames(**values)[9:], made[1 + 4 : 1 + 4 + 13])


@pytest.mark.parametrize("change", [{"image_refs": [END]}, {"image_end": END}, {"seed": 6}])
def test_everything_that_is_given_acts_and_the_same_gives_the_same(tiny, source, change):
    model = tiny("i2v_2_2")
    values = ON | {"video_source": source[0]}
    first = model.frames(**values)
    assert np.array_equal(first, model.frames(**values))
    assert not np.array_equal(first[9:], model.frames(**values | change)[9:])


def test_later_windows_go_on_the_same_way_from_the_start_image_as_the_anchor(tiny):
    """Each is given what a chain would give it: the frames so far as its video, the image as its anchor."""
    model = tiny("i2v_2_2")
    seen: list[torch.Tensor] = []
    hook = model.parts.transformer.register_forward_pre_hook(
        lambda module, args, named: seen.append(named["hidden_states"][:, 16:]), with_kwargs=True
    )
    frames = model.frames(**LONG, image_start=START, svi2pro=1, guidance_scale=1.0)
    hook.remove()
    assert [span.new for span in spans_of(model.request(**LONG, image_start=START, svi2pro=1))] == [17, 13, 11]
    assert [count for count, _ in itertools.groupby(each.shape[2] for each in seen)] == [5, 6, 5]
    second = next(each for each in seen if each.shape[2] == 6)
    assert torch.allclose(second[:, 4:, :1], encoded(model, START), atol=1e-6)
    assert torch.allclose(second[:, 4:, 1:2], encoded(model, *frames[8:17])[:, :, 2:], atol=1e-6)
    assert not second[:, 4:, 2:].any()


def test_each_expert_has_its_lora_alone_in_every_window_and_none_afterwards(tiny, tmp_path: Path):
    model = tiny("i2v_2_2")
    layers = linears(model.parts.transformer, ("blocks",))
    files = [
        write(tmp_path, LAYOUTS["diffusers"](factors(model.parts.transformer, layers, seed)), f"{seed}.safetensors")
        for seed in (1, 2)
    ]
    own = {name: expert.get_submodule(layers[0]).weight.clone() for name, expert in model.parts.experts.items()}
    seen: set[tuple[str, float]] = set()
    hooks = [
        expert.register_forward_pre_hook(
            lambda module, args, name=name: seen.add(
                (name, float((module.get_submodule(layers[0]).weight - own[name]).sum()))
            )
        )
        for name, expert in model.parts.experts.items()
    ]
    loras = {"activated_loras": [str(file) for file in files], "loras_multipliers": "1;0 0;1", "guidance_phases": 2}
    long = LONG | {"num_inference_steps": 4, "switch_threshold": 800, "guidance_scale": 1.0, "guidance2_scale": 1.0}
    frames = model.frames(**long, **loras, image_start=START, svi2pro=1)
    for hook in hooks:
        hook.remove()
    assert len(frames) == 41
    changes = {}
    for file in files:
        down, up = (load_file(file)[f"transformer.{layers[0]}.lora_{side}.weight"] for side in "AB")
        changes[file.stem] = float((up @ down).sum())
    assert {name for name, _ in seen} == set(own)
    assert len(seen) == 2, "the same weights in each window"
    assert dict(seen) == pytest.approx({"transformer": changes["1"], "transformer_2": changes["2"]}, abs=1e-4)
    for name, expert in model.parts.experts.items():
        assert torch.equal(expert.get_submodule(layers[0]).weight, own[name])


def test_a_zero_for_the_model_that_is_always_on_is_noted_and_the_record_says_what_applied(tiny, source):
    values = {"video_source": source[0], "image_refs": [ANCHOR], "video_prompt_type": "I"}
    model = tiny("i2v_2_2_svi2pro")
    assert model.request(**values).settings["svi2pro"] == 1
    assert not model.request(**values).notes
    off = model.request(**values, svi2pro=0)
    assert off.svi and any("svi2pro" in note for note in off.notes)
    assert not model.request(image_start=START, svi2pro=0).notes, "nothing goes on"


# ---- plain image-to-video stays


def test_a_video_that_begins_with_an_image_begins_plainly(tiny):
    model = tiny("i2v_2_2")
    plain = model.frames(image_start=START, image_end=END)
    assert np.array_equal(plain, model.frames(image_start=START, image_end=END, svi2pro=1))


def test_without_the_knob_one_frame_is_shared_and_no_reference_taken(tiny, source):
    model = tiny("i2v_2_2")
    assert len(model.frames(video_source=source[0], num_inference_steps=1)) == 9 + 17 - 1
    with pytest.raises(WanError, match="does not take it"):
        model.request(video_source=source[0], image_refs=[ANCHOR])


def test_an_anchor_that_nothing_goes_on_from_is_named(tiny, source):
    model = tiny("i2v_2_2")
    assert any("image_refs has no effect" in note for note in model.request(**ON, image_start=START).notes)
    assert not model.request(**ON, **LONG, image_start=START).notes
    assert not model.request(**ON, video_source=source[0]).notes


@pytest.mark.parametrize("name", ["t2v", "vace_1.3B", "flf2v_720p", "ti2v_2_2", "fantasy", "phantom_1.3B"])
def test_models_that_cannot_do_it_refuse_the_knob(name):
    with pytest.raises(Unsupported, match="SVI 2 Pro") as caught:
        parse_request(CLIP | {"svi2pro": 1}, load_definitions()[name], Wan.reads, Path("loras"))
    assert caught.value.field == "svi2pro"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"video_guide": "source", "video_prompt_type": "GVI"}, "video_guide"),
        ({"vid2vid_init_video": "source"}, "vid2vid_init_video"),
        ({"video_prompt_type": "FI", "frames_positions": "1"}, "video_prompt_type"),
        ({"image_refs": [ANCHOR, END]}, "image_refs"),
        ({"image_start": START}, "image_start"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_name(tiny, source, values, field):
    given_values = {name: source[0] if isinstance(value, str) and value == "source" else value
                    for name, value in values.items()}  # fmt: skip
    with pytest.raises(WanError) as caught:
        tiny("i2v_2_2").request(**ON | {"video_source": source[0]} | given_values)
    assert caught.value.field == field


# ---- the model of its own


def test_the_shipped_model_is_always_on_and_brings_its_loras_by_phase(tmp_path: Path, source):
    definition = load_definitions()["i2v_2_2_svi2pro"]
    assert definition.weights_of == "i2v_2_2"
    for url in definition.model["loras"]:
        (tmp_path / "wan").mkdir(exist_ok=True)
        (tmp_path / "wan" / url.rsplit("/", 1)[1]).touch()
    values = {"video_source": source[0], "image_refs": [ANCHOR], "video_prompt_type": "I"}
    request = parse_request(CLIP | values | {"num_inference_steps": 6}, definition, Wan.reads, tmp_path)
    assert request.svi and request.windows.overlap == 4
    assert context_of(request, spans_of(request)[0]) == 9
    steps, _ = plan_steps(request.sampling, ("transformer", "transformer_2"))
    phases = [step.phase for step in steps]
    names = [file.name for file in request.loras.files]
    schedules = plan_multipliers(names, " ".join(request.loras.multipliers), phases, 2, 1)
    assert ["high" in name for name in names] == [True, False]
    assert schedules[0] == tuple(float(phase == 0) for phase in _from_zero(phases))
    assert schedules[1] == tuple(float(phase == 1) for phase in _from_zero(phases))
    assert len(set(phases)) == 2


def _from_zero(phases: list[int]) -> list[int]:
    return [phase - min(phases) for phase in phases]


# ---- interrupted


def test_an_interrupted_chain_goes_on_bit_for_bit(tiny, source, tmp_path: Path):
    model = tiny("i2v_2_2")
    values = ON | LONG | {"video_source": source[0], "image_end": END, "num_inference_steps": 4}
    kept = {"plugin_data": {"checkpoint": tmp_path / "kept", "checkpoint_interval_s": 0}}
    asked: list[bool] = []
    windows: list[int] = []

    def report(phase: str, step: int, total: int) -> None:
        windows.extend([step] if phase == "window" else [])
        asked.extend([True] if (phase, step, len(windows)) == ("denoising", 2, 2) else [])

    whole = model.frames(**values)
    request = model.request(**values, **kept)
    with pytest.raises(GenerationCancelled):
        list(model.model.generate(request, report, Cancel(lambda: bool(asked))))
    assert np.array_equal(np.stack(list(model.model.generate(request, lambda *_: None, Cancel(bool)))), whole)
    assert model.model.remarks == ("window 1 was there already", "went on after step 2 of window 2")


# ---- what trained weights make of it


@pytest.fixture
def trained() -> Any:
    wgp.configure(definitions=[], device="cpu")
    yield
    wgp.release_model()


def test_a_chain_of_two_pieces_on_trained_weights_heads_for_its_end_image(trained, tmp_path: Path):
    """The tiny model was not trained for this layout, so the bounds are low: 0.83 with the end image, 0.77 without."""
    chosen = list(itertools.islice(cases(len(ALL_PROMPTS), 2_000_000), 0, len(ALL_PROMPTS), 18))
    with_end, without = zip(*(_chain(case, tmp_path) for case in chosen), strict=True)
    assert np.mean(with_end) >= 0.78
    assert np.mean(with_end) >= np.mean(without) + 0.02


def _chain(case: Case, folder: Path) -> tuple[float, float]:
    """SSIM of the last frame with the end image: where it was given, and where it was not."""
    first = drawn("tiny_wan_i2v", case, folder, image_start=case.truth[0])
    write_video(folder / "before.mkv", list(first[-9:]), fps=16, codec="ffv1")
    on = {"video_source": folder / "before.mkv", "svi2pro": 1, "image_refs": [case.truth[0]], "video_prompt_type": "I"}
    found = []
    for end in (case.truth[-1], None):
        piece = drawn("tiny_wan_i2v", case, folder, **on, image_end=end)
        assert piece.shape == (9 + 13, 64, 64, 3)
        found.append(ssim(piece[-1], case.truth[-1]))
    return found[0], found[1]
