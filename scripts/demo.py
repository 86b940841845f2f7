"""The main job on real input: travel between three photos, in a fresh database, on this machine's CPU.

With --tiny: the same travel between three drawn shapes, by diffusion, with the Wan that this project trained itself.
Prints the paths of the stitched video, of a contact sheet and of the task's timeline. They lie in `demo/`, which is
emptied first, or in a new folder of your choice.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
PHOTOS = "samples/tasks/travel_orchestrator.json"
SHAPES = "samples/shapes/travel_orchestrator.json"
sys.path.insert(0, str(ROOT))

from source.media.analysis import contact_sheet  # noqa: E402
from source.planning.frames import plan_frames  # noqa: E402
from Wan2GP.command_line import Command  # noqa: E402
from Wan2GP.media import probe_video  # noqa: E402


def run(*command: str, quiet: bool = True) -> str:
    """One of the project's own commands, as a user would type it."""
    made = subprocess.run(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE if quiet else None, text=True, check=False
    )
    if made.returncode:
        raise SystemExit(f"`python {' '.join(command)}` failed with exit code {made.returncode}")
    return made.stdout or ""


def timeline_text(view: dict[str, Any], indent: str = "") -> list[str]:
    lines = [f"{indent}{view['task_type']} {view['id']}: {view['status']}"]
    lines += [
        f"{indent}  {event['at']}  {event['name']:<12} {event['detail'] or ''}".rstrip() for event in view["timeline"]
    ]
    return lines


def pictures_by_frame(sample: str) -> dict[int, str]:
    """Where the plan puts each picture in the stitched video."""
    details = json.loads((ROOT / sample).read_text(encoding="utf-8"))["orchestrator_details"]
    plan = plan_frames(details["segment_frames_expanded"], details["frame_overlap_expanded"], chained=True)
    return {
        frame: Path(photo).name
        for frame, photo in zip(plan.anchors, details["input_image_paths_resolved"], strict=True)
    }


EXAMPLES = (
    ("python scripts/demo.py", "travel between three photos; the files lie in demo/"),
    ("python scripts/demo.py --tiny --folder /tmp/shapes", "the same between shapes, by diffusion, in a new folder"),
)
CODES = {0: "the travel is Complete", 1: "it is not, or a command failed; the message says which"}


def parser() -> Command:
    """The flags."""
    parser = Command("scripts/demo.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    parser.add_argument("--folder", type=Path, default=DEMO, help="a folder that does not exist yet (default: demo)")
    parser.add_argument("--tiny", action="store_true", help="travel between shapes with the tiny Wan VACE")
    parser.add_argument("--sample", help="another chained travel, as samples/tasks/travel_orchestrator.photos.json")
    parser.add_version()
    return parser


def new_folder(folder: Path) -> Path:
    """The folder for everything that the demo makes. Only our own `demo/` is ever emptied."""
    folder = folder.resolve()
    if folder == DEMO:
        shutil.rmtree(DEMO, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise SystemExit(f"{folder} cannot be made: {error.strerror}") from None
    return folder


def shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main() -> int:
    started = time.monotonic()
    given = parser().parse_args()
    folder, sample = new_folder(given.folder), given.sample or (SHAPES if given.tiny else PHOTOS)
    database = str(folder / "tasks.db")
    task = run(
        "add_task.py", "--type", "travel_orchestrator", "--params", f"@{sample}",
        "--db-file", database,
    ).strip()  # fmt: skip
    print(f"queued      {task}", flush=True)
    run("worker.py", "--db-file", database, "--main-output-dir", str(folder / "outputs"), "--until-idle", quiet=False)

    view = json.loads(run("debug.py", "task", task, "--json", "--db-file", database))
    if view["status"] != "Complete":
        raise SystemExit(f"the travel is {view['status']}: {view['error_message']}")
    video = folder / "public" / view["output_location"]
    sheet = folder / "contact_sheet.png"
    made = probe_video(video)
    numbers = f"{made.num_frames} frames, {made.width}x{made.height}, {float(made.fps):g} fps"
    contact_sheet(video, sheet, labels=pictures_by_frame(sample), title=f"The stitched travel: {numbers}")
    timeline = folder / "timeline.txt"
    lines = timeline_text(view)
    for child in view["children"]:
        lines += timeline_text(json.loads(run("debug.py", "task", child["id"], "--json", "--db-file", database)), "  ")
    timeline.write_text("\n".join(lines) + "\n", encoding="utf-8")

    print(f"video       {shown(video)}")
    print(f"            {numbers}")
    print(f"contact     {shown(sheet)}")
    print(f"timeline    {shown(timeline)}")
    print(f"took        {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
