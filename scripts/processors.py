"""A picture, and what the processors make of it, side by side: pose, edges, outlines, and the mask of the person.

python scripts/processors.py samples/astronaut.jpg docs/images/processors.png
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
#: pixels: the sides of a cell's picture, the line of text above it
SIDE, LABEL = 256, 24
#: what a cell is called -> task type, and what its row says besides the picture
DRAWN: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "pose": ("generate_openpose", {}),
    "canny": ("generate_canny", {}),
    "scribble": ("generate_scribble", {}),
    "person_mask": ("create_mask", {"model": "person_mask"}),
}
sys.path.insert(0, str(ROOT))

from demo import run  # noqa: E402

from source.media.lettering import font  # noqa: E402
from Wan2GP.command_line import Command  # noqa: E402


def drawn(picture: Path, folder: Path) -> list[Path]:
    """What each task type makes of a picture, by one worker."""
    database = ("--db-file", str(folder / "tasks.db"))
    tasks = []
    for kind, besides in DRAWN.values():
        params = json.dumps({"input_image_path": str(picture), **besides})
        tasks.append(run("add_task.py", "--type", kind, "--params", params, *database).strip())
    run("worker.py", *database, "--main-output-dir", str(folder / "outputs"), "--until-idle")
    views = [json.loads(run("debug.py", "task", task, "--json", *database)) for task in tasks]
    for view in views:
        if view["status"] != "Complete":
            raise SystemExit(f"{view['task_type']} is {view['status']}: {view['error_message']}")
    return [folder / "public" / view["output_location"] for view in views]


def side_by_side(pictures: Mapping[str, Path], sheet: Path) -> None:
    """A PNG with a cell for each picture, under its name."""
    board = Image.new("RGB", (SIDE * len(pictures), LABEL + SIDE), "white")
    for column, (name, path) in enumerate(pictures.items()):
        ImageDraw.Draw(board).text((SIDE * column + 6, 5), name, fill="black", font=font(13))
        with Image.open(path) as picture:
            fitting = picture.convert("RGB")
        fitting.thumbnail((SIDE - 4, SIDE - 4))
        board.paste(fitting, (SIDE * column + (SIDE - fitting.width) // 2, LABEL + (SIDE - fitting.height) // 2))
    board.save(sheet, optimize=True)


EXAMPLES = (("python scripts/processors.py samples/astronaut.jpg sheet.png", "draw what the processors make of it"),)
CODES = {0: "the picture is written", 1: "a task failed; the message says which"}


def parser() -> Command:
    """The flags."""
    parser = Command("scripts/processors.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    parser.add_argument("picture", type=Path)
    parser.add_argument("sheet", type=Path, help="the PNG that is written")
    parser.add_version()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    picture = given.picture.resolve()
    with tempfile.TemporaryDirectory() as folder:
        made = drawn(picture, Path(folder))
        side_by_side({given.picture.name: picture, **dict(zip(DRAWN, made, strict=True))}, given.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
