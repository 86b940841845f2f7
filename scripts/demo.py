"""The main job on real input: travel between three photos, in a fresh database, on this machine's CPU.

Prints the paths of the stitched video, of a contact sheet and of the task's timeline.
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
SAMPLE = "samples/tasks/travel_orchestrator.json"
sys.path.insert(0, str(ROOT))

from source.media.analysis import contact_sheet  # noqa: E402
from source.planning.frames import plan_frames  # noqa: E402
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


def photos_by_frame() -> dict[int, str]:
    """Where the plan puts each photo in the stitched video."""
    details = json.loads((ROOT / SAMPLE).read_text(encoding="utf-8"))["orchestrator_details"]
    plan = plan_frames(details["segment_frames_expanded"], details["frame_overlap_expanded"], chained=True)
    return {
        frame: Path(photo).name
        for frame, photo in zip(plan.anchors, details["input_image_paths_resolved"], strict=True)
    }


def main() -> int:
    started = time.monotonic()
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    database = str(DEMO / "tasks.db")
    task = run(
        "add_task.py", "--type", "travel_orchestrator", "--params", f"@{SAMPLE}",
        "--db-file", database,
    ).strip()  # fmt: skip
    print(f"queued      {task}", flush=True)
    run("worker.py", "--db-file", database, "--main-output-dir", str(DEMO / "outputs"), "--until-idle", quiet=False)

    view = json.loads(run("debug.py", "task", task, "--json", "--db-file", database))
    if view["status"] != "Complete":
        raise SystemExit(f"the travel is {view['status']}: {view['error_message']}")
    video = DEMO / "public" / view["output_location"]
    sheet = DEMO / "contact_sheet.png"
    made = probe_video(video)
    numbers = f"{made.num_frames} frames, {made.width}x{made.height}, {float(made.fps):g} fps"
    contact_sheet(video, sheet, labels=photos_by_frame(), title=f"The stitched travel: {numbers}")
    timeline = DEMO / "timeline.txt"
    lines = timeline_text(view)
    for child in view["children"]:
        lines += timeline_text(json.loads(run("debug.py", "task", child["id"], "--json", "--db-file", database)), "  ")
    timeline.write_text("\n".join(lines) + "\n", encoding="utf-8")

    print(f"video       {video}")
    print(f"            {numbers}")
    print(f"contact     {sheet}")
    print(f"timeline    {timeline}")
    print(f"took        {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
