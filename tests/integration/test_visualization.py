"""Visualizations measured: which frame each panel shows, where the cursor, the images and the borders stand."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_floor import Floor

from source.errors import GenerationCancelled
from source.media.timeline_strip import ACCENT, BACKGROUND, Strip, draw_strip, thumbnail_boxes
from source.media.visualization import Arrangement, Panel, Visualization, arrange, visualize
from source.planning.timeline import LAYOUTS, Layout, timeline_for
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP.media import Frame, probe_video, read_frame, write_image, write_video

SIZE = (96, 64)
COUNT = 22
#: levels of grey between one frame and the next: far more than what encoding changes
STEP = 10
COLOURS = [(220, 40, 40), (40, 200, 60), (50, 60, 230)]


def solid(colour: tuple[int, int, int], size: tuple[int, int] = SIZE) -> Frame:
    return np.full((size[1], size[0], 3), colour, np.uint8)


def clip(path: Path, levels: Sequence[int], channels: int | slice = slice(None), fps: float = 12) -> Path:
    """A video whose frame k has the brightness levels[k], in the given channels alone."""
    frames = []
    for level in levels:
        frame = solid((0, 0, 0))
        frame[:, :, channels] = level
        frames.append(frame)
    return write_video(path, frames, fps=fps).path


def rising(count: int = COUNT) -> list[int]:
    return [20 + STEP * index for index in range(count)]


@pytest.fixture
def media(tmp_path: Path) -> dict[str, Path]:
    """Output red, guide green, mask blue, all brighter frame by frame; and three images."""
    channels = {"output": 0, "guide": 1, "mask": 2}
    made = {name: clip(tmp_path / f"{name}.mp4", rising(), channel) for name, channel in channels.items()}
    for index, colour in enumerate(COLOURS):
        made[f"image{index}"] = write_image(tmp_path / f"image{index}.png", solid(colour))
    return made


def images(media: dict[str, Path]) -> tuple[Path, ...]:
    return tuple(media[f"image{index}"] for index in range(3))


def described(media: dict[str, Path], layout: Layout = "triple", **changes: Any) -> Visualization:
    beside = (Panel("guide", media["guide"]), Panel("mask", media["mask"]))
    values = {"beside": beside, "images": images(media), "prompts": ("one", "two"), "layout": layout}
    return Visualization(media["output"], timeline_for([13, 13], [4], COUNT), **(values | changes))


def places_of(shown: Visualization) -> Arrangement:
    return arrange(shown.layout, [SIZE] * len(shown.panels))


def colour_in(frame: Frame, place: tuple[int, int, int, int]) -> tuple[int, int, int]:
    """Mean colour of the middle of a box (x, y, width, height)."""
    x, y, width, height = place
    middle = frame[y + height // 4 : y + height * 3 // 4, x + width // 4 : x + width * 3 // 4]
    red, green, blue = (round(float(each)) for each in middle.reshape(-1, 3).mean(axis=0))
    return red, green, blue


def panel_levels(frame: Frame, places: Arrangement) -> list[int]:
    """The brightest channel of each panel."""
    return [max(colour_in(frame, (box.x, box.y, box.width, box.height))) for box in places.panels]


def cursor_x(frame: Frame, places: Arrangement, strip: Strip) -> float:
    """The middle of what has the cursor's colour just above the lower edge."""
    row = frame[places.strip.y + strip.cursor[1] - 3].astype(int)
    found = np.flatnonzero(np.abs(row - ACCENT).max(axis=1) < 60)
    assert 0 < len(found) <= 8
    return float(found.mean()) + 0.5


def close(one: Sequence[int], other: Sequence[int], tolerance: int = STEP // 2 - 1) -> bool:
    return bool(np.abs(np.subtract(one, other)).max() <= tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_shows_the_same_frame_of_every_video(
    layout: Layout, media: dict[str, Path], tmp_path: Path
) -> None:
    shown = described(media, layout)
    places = places_of(shown)
    made = visualize(shown, tmp_path / "shown.mp4")
    assert (made.num_frames, made.fps, (made.width, made.height)) == (COUNT, Fraction(12), places.size)
    assert (made.codec, made.width % 2, made.height % 2) == ("h264", 0, 0)
    assert len(places.panels) == (2 if layout == "side_by_side" else 3)
    for index in (0, 1, 10, COUNT - 1):
        frame = read_frame(made.path, index)
        assert close(panel_levels(frame, places), [rising()[index]] * len(places.panels)), index


@pytest.mark.parametrize("layout", LAYOUTS)
def test_panels_never_overlap_and_stay_inside(layout: Layout) -> None:
    places = arrange(layout, [(1080, 1920), (832, 480), (333, 77), (64, 64)])
    width, height = places.size
    boxes = [*places.panels, places.strip]
    for number, box in enumerate(boxes):
        assert min(box.x, box.y) >= 0
        assert (box.x + box.width <= width, box.y + box.height <= height) == (True, True)
        assert not any(each % 2 for each in (box.x, box.y, box.width, box.height))
        for other in boxes[number + 1 :]:
            apart = other.x >= box.x + box.width or box.x >= other.x + other.width
            assert apart or other.y >= box.y + box.height or box.y >= other.y + other.height


def test_a_panorama_makes_no_picture_too_wide_to_encode(tmp_path: Path) -> None:
    frames = [solid((200, 90, 40), (4096, 128))] * 2
    wide = write_video(tmp_path / "wide.mp4", frames, fps=12).path
    shown = Visualization(wide, timeline_for([2], [], 2), tuple(Panel(name, wide) for name in "abc"))
    made = visualize(shown, tmp_path / "shown.mp4")
    places = arrange("triple", [(4096, 128)] * 4)
    assert (made.num_frames, (made.width, made.height)) == (2, places.size)
    assert all(box.width / box.height == pytest.approx(32, rel=0.02) for box in places.panels)
    assert close(panel_levels(read_frame(made.path, 1), places), [200] * 4)


def test_the_cursor_stands_at_the_frame_that_is_shown(media: dict[str, Path], tmp_path: Path) -> None:
    shown = described(media)
    places = places_of(shown)
    strip = Strip(places.strip.width, places.strip.height, shown.timeline)
    made = visualize(shown, tmp_path / "shown.mp4")
    for index in (0, COUNT // 2, COUNT - 1):
        assert cursor_x(read_frame(made.path, index), places, strip) == pytest.approx(strip.x_of(index), abs=2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_image_stands_over_the_frame_that_shows_it(layout: Layout, media: dict[str, Path], tmp_path: Path) -> None:
    shown = described(media, layout)
    places = places_of(shown)
    strip = Strip(places.strip.width, places.strip.height, shown.timeline)
    frame = read_frame(visualize(shown, tmp_path / "shown.mp4").path, COUNT // 4)
    boxes = thumbnail_boxes(strip, [solid(colour) for colour in COLOURS])
    assert shown.timeline.anchors == (0, 12, 21)
    for (x, y, width, height), anchor, colour in zip(boxes, shown.timeline.anchors, COLOURS, strict=True):
        assert x <= strip.x_of(anchor) <= x + width
        assert close(colour_in(frame, (x, places.strip.y + y, width, height)), colour, 16)
        tick = frame[places.strip.y + strip.bar[0] - 6, strip.x_of(anchor)]
        assert int(tick.min()) > 150


@pytest.mark.parametrize("count", [1, 3, 40])
def test_thumbnails_never_cover_each_other(count: int) -> None:
    strip = Strip(640, 150, timeline_for([5] * (count - 1) or [5], 0, 5 * max(count - 1, 1)))
    boxes = thumbnail_boxes(strip, [solid((0, 0, 0), (160, 90))] * count)
    assert len(boxes) == count
    for before, after in pairwise(boxes):
        assert before[0] + before[2] <= after[0]


@pytest.mark.parametrize(("lengths", "overlap"), [([81] * 20, 1), ([1] * 2000, 0)])
def test_what_is_narrower_than_a_pixel_is_drawn_too(lengths: list[int], overlap: int) -> None:
    total = sum(lengths) - overlap * (len(lengths) - 1)
    strip = Strip(640, 200, timeline_for(lengths, overlap, total))
    assert strip.timeline.planned == total
    drawn = draw_strip(strip, [], ["a prompt"] * len(lengths))
    bar = drawn[strip.bar[0] + 1, strip.edge_of(0) : strip.edge_of(total)]
    assert (bar != BACKGROUND).any(axis=1).all(), "no place of the timeline is empty"


def test_large_input_images_are_held_as_small_as_they_are_shown(media: dict[str, Path], tmp_path: Path) -> None:
    big = write_image(tmp_path / "big.png", solid((200, 90, 40), (3000, 2000)))

    def peak(count: int) -> int:
        timeline = timeline_for([11] * (count - 1), 0, 11 * (count - 1))
        output = clip(tmp_path / f"{count}.mp4", [60] * timeline.num_frames)
        tracemalloc.start()
        visualize(Visualization(output, timeline, images=(big,) * count), tmp_path / "shown.mp4")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(7) < peak(3) + 3000 * 2000 * 3


def test_segments_and_what_they_share_have_colours_of_their_own(media: dict[str, Path], tmp_path: Path) -> None:
    shown = described(media, prompts=())
    places = places_of(shown)
    strip = Strip(places.strip.width, places.strip.height, shown.timeline)
    frame = read_frame(visualize(shown, tmp_path / "shown.mp4").path, 0)
    row = frame[places.strip.y + strip.bar[1] - 4].astype(int)
    colours = [row[strip.edge_of(position) + 4] for position in (4, 10, 18)]
    for number, colour in enumerate(colours):
        for other in colours[number + 1 :]:
            assert np.abs(colour - other).max() > 8


def test_a_panel_whose_video_has_ended_is_dark(media: dict[str, Path], tmp_path: Path) -> None:
    short = clip(tmp_path / "short.mp4", [200] * 9)
    shown = described(media, beside=(Panel("guide", short),))
    made = visualize(shown, tmp_path / "shown.mp4")
    levels = [panel_levels(read_frame(made.path, index), places_of(shown))[0] for index in (8, 9, COUNT - 1)]
    assert levels[0] > 190
    assert max(levels[1:]) < 30


def test_frames_may_be_mapped_held_and_repeated(media: dict[str, Path], tmp_path: Path) -> None:
    wanted = [None, *[3] * 5, *range(4, 10), *range(10)]
    shown = described(media, beside=(Panel("structure", media["guide"], wanted),))
    made = visualize(shown, tmp_path / "shown.mp4")
    found = [panel_levels(read_frame(made.path, index), places_of(shown))[0] for index in range(COUNT)]
    assert found[0] < 30
    assert close(found[1:], [rising()[index] for index in wanted[1:] if index is not None])


def test_another_rate_leaves_no_frame_out(media: dict[str, Path], tmp_path: Path) -> None:
    made = visualize(described(media, fps=30), tmp_path / "shown.mp4")
    assert (made.num_frames, float(made.fps)) == (COUNT, 30)


def test_odd_sizes_and_other_codecs_can_be_shown(media: dict[str, Path], tmp_path: Path) -> None:
    odd = write_video(tmp_path / "odd.mkv", [solid((200, 0, 0), (75, 51))] * COUNT, fps=12, codec="ffv1").path
    shown = described(media, beside=(Panel("guide", odd),))
    frame = read_frame(visualize(shown, tmp_path / "shown.mp4").path, 5)
    box = arrange("triple", [(75, 51), SIZE]).panels[0]
    assert close(colour_in(frame, (box.x, box.y, box.width, box.height)), (200, 0, 0), 6)


def test_it_stops_when_asked_and_leaves_nothing(media: dict[str, Path], tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == COUNT
        if done == 3:
            raise GenerationCancelled

    with pytest.raises(GenerationCancelled):
        visualize(described(media), tmp_path / "new" / "shown.mp4", progress=stop)
    assert not list((tmp_path / "new").iterdir())


# -- the task type ---------------------------------------------------------------------------------------------------


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    floor.close()


def ran(floor: Floor, task_type: str, params: dict[str, Any]) -> Task:
    task = floor.add(task_type, **params)
    assert floor.worker(registry=registry()).run(until_idle=True) == 0
    return floor.store.get(task)


def row_of(media: dict[str, Path], **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "output_video_path": str(media["output"]),
        "input_image_paths": [str(path) for path in images(media)],
        "segment_frames": [13, 13],
        "frame_overlaps": [4],
        "segment_prompts": ["one", None],
    }
    return values | changes


@pytest.mark.parametrize("nested", [False, True])
def test_parameters_are_read_flat_and_one_level_deeper(floor: Floor, media: dict[str, Path], nested: bool) -> None:
    """The predecessor looked one level deeper than its own server wrote."""
    values = row_of(media, guidance_video_path=str(media["guide"]), mask_video_path=str(media["mask"]))
    row = ran(floor, "create_visualization", {"params": values, "tool_type": "x"} if nested else values)
    assert row.status is Status.COMPLETE, row.error_message
    assert floor.output(row.id).name == f"{row.id}_visualization.mp4"
    assert row.result_data is not None
    assert row.result_data["panels"] == ["guide", "mask", "output"]
    assert row.result_data["anchors"] == [0, 12, 21]
    made = probe_video(floor.output(row.id))
    assert (made.num_frames, float(made.fps)) == (COUNT, 12)
    assert "warning" not in floor.event_names(row.id)


def test_the_outer_level_wins(floor: Floor, media: dict[str, Path]) -> None:
    row = ran(floor, "create_visualization", {"params": row_of(media, layout="grid", fps=5), "fps": 25})
    made = probe_video(floor.output(row.id))
    assert (float(made.fps), made.height) == (25, arrange("grid", [SIZE]).size[1])


@pytest.mark.parametrize(
    ("treatment", "levels", "expected"),
    [
        ("adjust", rising(12), [rising(12)[k * 11 // COUNT] for k in range(COUNT)]),
        ("clip", rising(8), (rising(8) * 3)[:COUNT]),
    ],
)
def test_the_structure_video_is_shown_as_it_guided(
    floor: Floor, media: dict[str, Path], tmp_path: Path, treatment: str, levels: list[int], expected: list[int]
) -> None:
    structure = clip(tmp_path / "structure.mp4", levels)
    given = row_of(media, structure_video_path=str(structure), structure_video_treatment=treatment)
    made = floor.output(ran(floor, "create_visualization", given).id)
    places = arrange("triple", [SIZE, SIZE])
    assert close([panel_levels(read_frame(made, index), places)[0] for index in range(COUNT)], expected)


@pytest.mark.parametrize(
    ("asked", "panels"), [(False, ["structure", "output"]), (True, ["structure", "guide", "output"])]
)
def test_the_guide_stands_beside_a_structure_video_when_asked(
    floor: Floor, media: dict[str, Path], asked: bool, panels: list[str]
) -> None:
    given = row_of(media, structure_video_path=str(media["mask"]), guidance_video_path=str(media["guide"]))
    row = ran(floor, "create_visualization", given | {"show_guidance": asked})
    assert (row.result_data or {})["panels"] == ["structure", *["guide"] * asked, "output"]


def test_what_does_not_fit_the_output_is_a_warning_in_the_timeline(
    floor: Floor, media: dict[str, Path], tmp_path: Path
) -> None:
    mask = clip(tmp_path / "short.mp4", [0] * 5)
    row = ran(floor, "create_visualization", row_of(media, segment_frames=[17, 17], mask_video_path=str(mask)))
    assert row.status is Status.COMPLETE
    said = [event.detail or "" for event in floor.store.events(row.id) if event.name == "warning"]
    assert said == [
        "FRAME: segments and overlaps (expected 34, actual 22)",
        "FRAME: mask video (expected 22, actual 5)",
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"segment_frames": None}, "segment_frames"),
        ({"output_video_path": None}, "output_video_path"),
        ({"layout": "circle"}, "layout"),
        ({"segment_frames": [0]}, "segment_frames"),
        ({"guidance_video_path": "nowhere.mp4"}, "guidance_video_path"),
        ({"input_image_paths": ["nowhere.png"]}, "input_image_paths[0]"),
    ],
)
def test_bad_input_is_named(floor: Floor, media: dict[str, Path], changes: dict[str, Any], named: str) -> None:
    row = ran(floor, "create_visualization", row_of(media) | changes)
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert named in (row.error_message or "")


def test_the_samples_parse_strictly(samples: Path) -> None:
    found = sorted((samples / "tasks").glob("create_visualization*.json"))
    assert len(found) == 2
    for path in found:
        assert registry().get("create_visualization").parse(json.loads(path.read_text()), strict=True).unknown == ()


def test_a_name_inside_params_that_means_nothing_is_reported(media: dict[str, Path]) -> None:
    given = {"params": row_of(media, show_guidnce=True)}
    assert registry().get("create_visualization").parse(given).unknown == ("params.show_guidnce",)
