"""The figures of docs/explanation/frames.md, drawn from plans that the code makes: each number in them is the code's.

`scripts/document.py` writes them to docs/images and checks them.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from xml.sax.saxutils import escape

from source.params.structure_guidance import StructureGuidanceConfig
from source.planning.frames import FramePlan, plan_frames
from source.planning.guidance import GuidanceTimeline, SourceVideo, plan_guidance

#: pixels: of the figure, of its margin on the left, of a bar and between two
WIDTH, LEFT, BAR, GAP = 960, 150, 28, 14
NEW, SHARED, DROPPED, GIVEN, GUIDE = "#4c78a8", "#f2b05e", "#d9d9d9", "#7aa874", "#b279a2"
INK, PAPER, LINE = "#222222", "#ffffff", "#888888"
TEXT = 'font-family="Helvetica, Arial, sans-serif"'

#: what the page tells of
CHAINED = plan_frames([17, 25, 21], [6, 4], chained=True)
UNCHAINED = plan_frames([17, 25, 21], [6, 4], chained=False)
CONTINUED = plan_frames([17, 25, 21], [6, 4], chained=True, continued=30)
PACKED = plan_frames([17, 25, 21], [0, 0], chained=True, packed=True)
GUIDED = plan_guidance(
    StructureGuidanceConfig.from_params(
        {
            "structure_guidance": {
                "target": "vace",
                "preprocessing": "flow",
                "videos": [
                    {"path": "dance.mp4", "start_frame": 0, "end_frame": 30, "treatment": "adjust"},
                    {"path": "waves.mp4", "start_frame": 38, "end_frame": 63, "treatment": "clip"},
                ],
            }
        }
    ),
    {0: SourceVideo(90, Fraction(30)), 1: SourceVideo(25, Fraction(24))},
    CHAINED.total_frames,
    16,
)


class Drawing:
    """Shapes on a time axis of frames: frame f begins at `x(f)`."""

    def __init__(self, frames: int) -> None:
        self._scale = (WIDTH - LEFT - 20) / frames
        self._shapes: list[str] = []
        self.y = GAP

    def x(self, frame: float) -> float:
        return round(LEFT + frame * self._scale, 1)

    def row(self, label: str) -> None:
        """What stands left of the bars that follow."""
        self._text(LEFT - 10, self.y + BAR / 2 + 4, label, anchor="end")

    def bar(self, start: int, stop: int, fill: str, label: str = "") -> None:
        """The frames start … stop-1; the label stands inside, where it fits."""
        if stop <= start:
            return
        left, width = self.x(start), round(self.x(stop) - self.x(start), 1)
        shape = f'x="{left}" y="{self.y}" width="{width}" height="{BAR}" fill="{fill}" stroke="{PAPER}"'
        self._shapes.append(f"<rect {shape}/>")
        if label and width > 7.5 * len(label):
            self._text(left + width / 2, self.y + BAR / 2 + 4, label, anchor="middle", fill=_ink_on(fill))

    def mark(self, frame: int, label: str) -> None:
        """A triangle under the middle of a frame, with a word below."""
        x = round((self.x(frame) + self.x(frame + 1)) / 2, 1)
        self._shapes.append(f'<path d="M{x} {self.y}l5 9h-10z" fill="{INK}"/>')
        self._text(x, self.y + 22, label, anchor="middle")

    def next_row(self, height: int = BAR + GAP) -> None:
        self.y += height

    def legend(self, entries: dict[str, str]) -> None:
        x = LEFT
        for label, fill in entries.items():
            self._shapes.append(f'<rect x="{x}" y="{self.y}" width="14" height="14" fill="{fill}"/>')
            self._text(x + 20, self.y + 12, label)
            x += 40 + 7 * len(label)
        self.y += 14 + GAP

    def svg(self, title: str) -> str:
        body = "\n".join(self._shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.y}" role="img">\n'
            f"<title>{escape(title)}</title>\n"
            f'<rect width="{WIDTH}" height="{self.y}" fill="{PAPER}"/>\n{body}\n</svg>\n'
        )

    def _text(self, x: float, y: float, text: str, *, anchor: str = "start", fill: str = INK) -> None:
        place = f'x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}" font-size="13" fill="{fill}"'
        self._shapes.append(f"<text {place} {TEXT}>{escape(text)}</text>")


def _ink_on(fill: str) -> str:
    """Black or white, whichever is read better (relative luminance by WCAG 2)."""
    red, green, blue = (int(fill[index : index + 2], 16) / 255 for index in (1, 3, 5))
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.25 else PAPER


def travel(plan: FramePlan, title: str) -> str:
    """What each generation makes, over the video that comes of them."""
    drawing = Drawing(max(plan.total_frames, max(each.offset + each.generated for each in plan.segments)))
    if plan.continued:
        drawing.row("given video")
        drawing.bar(0, plan.continued, GIVEN, str(plan.continued))
        drawing.next_row()
    for segment in plan.segments:
        drawing.row(f"generation {segment.index}")
        new = segment.offset + segment.context
        drawing.bar(segment.offset, segment.start, DROPPED, str(segment.drop))
        drawing.bar(segment.start, segment.start + segment.overlap_previous, SHARED, str(segment.overlap_previous))
        begins = max(new, segment.start + segment.overlap_previous)
        drawing.bar(begins, new + segment.new_frames, NEW, str(new + segment.new_frames - begins))
        drawing.bar(new + segment.new_frames, segment.offset + segment.generated, DROPPED, str(segment.tail))
        drawing.next_row()
    drawing.row(f"the video, {plan.total_frames}")
    _stitched(drawing, plan)
    drawing.next_row(BAR + 4)
    drawing.row("pictures at")
    for anchor in plan.anchors:
        drawing.mark(anchor, str(anchor))
    drawing.next_row()
    drawing.legend({"new frames": NEW, "shared with the one before": SHARED, "dropped": DROPPED}
                   | ({"given": GIVEN} if plan.continued else {}))  # fmt: skip
    return drawing.svg(title)


def _stitched(drawing: Drawing, plan: FramePlan) -> None:
    drawing.bar(0, plan.total_frames, NEW)
    drawing.bar(0, plan.continued, GIVEN)
    for segment in plan.segments:
        drawing.bar(segment.start, segment.start + segment.overlap_previous, SHARED)


def guidance(timeline: GuidanceTimeline, plan: FramePlan, names: dict[int, str], title: str) -> str:
    """Which source frames guide which frames of the video, and which of them each generation is shown."""
    drawing = Drawing(timeline.total_frames)
    drawing.row("guided by")
    drawing.bar(0, timeline.total_frames, DROPPED)
    for placed in timeline.placements:
        drawing.bar(placed.start, placed.stop, GUIDE, f"{names[placed.video]}, {placed.treatment}")
    drawing.next_row(BAR + 4)
    drawing.row("source frame")
    for placed in timeline.placements:
        for position in sorted({*range(placed.start, placed.stop, 6), placed.stop - 1}):
            if position == placed.stop - 1 or placed.stop - position > 3:
                drawing.mark(position, str(placed.source_frame(position)))
    drawing.next_row(BAR + GAP)
    for segment in plan.segments:
        drawing.row(f"generation {segment.index}")
        stop = segment.offset + segment.generated
        drawing.bar(segment.offset, stop, NEW, f"positions {segment.offset} to {stop - 1}")
        drawing.next_row()
    drawing.row("position")
    for position in range(0, timeline.total_frames, 10):
        drawing.mark(position, str(position))
    drawing.next_row()
    return drawing.svg(title)


def figures() -> dict[str, str]:
    """File name -> SVG."""
    return {
        "frames-chained.svg": travel(CHAINED, "A chained travel of 17, 25 and 21 frames with overlaps of 6 and 4"),
        "frames-unchained.svg": travel(UNCHAINED, "The same lengths and overlaps, unchained"),
        "frames-continued.svg": travel(CONTINUED, "The same travel, going on from a video of 30 frames"),
        "frames-packed.svg": travel(PACKED, "The same lengths without overlaps, packed into one generation"),
        "guidance-timeline.svg": guidance(
            GUIDED, CHAINED, {0: "dance.mp4", 1: "waves.mp4"}, "Two videos on the timeline of the finished video"
        ),
    }


def plan_rows(plan: FramePlan) -> Iterator[tuple[str, ...]]:
    """The numbers of a plan, a generation a row."""
    for each in plan.segments:
        yield tuple(map(str, (each.index, each.new_frames, each.context, each.generated, each.drop, each.output,
                              each.start)))  # fmt: skip


def stale_figures(root: Path, *, write: bool) -> list[str]:
    """The names of figures that are not what the code plans; `write` makes them so."""
    stale = []
    for name, text in figures().items():
        path = root / "docs" / "images" / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(f"docs/images/{name}")
            if write:
                path.write_text(text, encoding="utf-8")
    return stale
