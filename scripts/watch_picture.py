"""The picture of `debug.py watch` in the documentation: docs/images/watch.svg, drawn by its own code."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from source.diagnostics.views import View
from source.diagnostics.watch.drawing import draw

PICTURE = "docs/images/watch.svg"
COLUMNS, LINES = 124, 26
GB = 2**30

#: background, foreground, the eight colours, and their bright forms
THEME = TerminalTheme(
    (22, 24, 29), (208, 212, 220),
    [(60, 64, 72), (224, 108, 117), (126, 191, 120), (226, 180, 92), (97, 160, 239), (190, 132, 222), (86, 190, 201),
     (208, 212, 220)],
    [(110, 116, 128), (240, 130, 138), (150, 210, 144), (240, 200, 120), (130, 184, 250), (210, 160, 238),
     (120, 212, 222), (240, 242, 246)],
)  # fmt: skip
#: rich's own asks another server for a font
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"
 role="img" aria-label="debug.py watch: the queue, three workers, what ended, the log">
<style>
.{unique_id}-matrix {{ font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace;
 font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g>
</svg>
"""


def frame() -> View:
    """A moment of an installation with three workers."""
    return {
        "now": "2026-11-26T18:42:07.000Z",
        "tasks": {"Queued": 23, "In Progress": 5, "Complete": 418, "Failed": 6, "Cancelled": 3},
        "per_hour": 38,
        "eta_s": 2179,
        "parents": 1,
        "workers": [
            _worker("gpu-1-4be02d91", "vace_14B_cocktail_2_2", 21.4, 24, _course(0.93), [
                _task("travel_segment", "7c1e4a90", "denoising", 17 / 30, step=17, total=30, window=2, windows=3,
                      seconds_per_step=2.41, eta_s=158.0),
                _task("travel_segment", "d2907f3b", "preparing", 0.0, text="guide video"),
            ]),
            _worker("gpu-2-9a33c7f0", "qwen_image_edit_20B", 31.0, 80, _course(0.71), [
                _task("qwen_image_edit", "0b5d88e1", "decoding", 1.0, text="VAE"),
                _task("image_inpaint", "51f60c2d", "uploading", 1.0, step=3, total=4, text="inpainted.png (75 %)"),
            ]),
            _worker("gpu-3-e81f5502", "flux", 12.9, 24, _course(0.18), []),
        ],
        "ended": [
            _end("18:41:58", "image_inpaint", "a1f4c07e", "Complete", 9.8),
            _end("18:41:31", "travel_stitch", "3d77b5c9", "Complete", 4.2),
            _end("18:40:12", "travel_segment", "90e2d1aa", "Complete", 171.0),
            _end("18:39:47", "t2v", "6b0c93f4", "Failed", 3.1, "LoRA sketch.safetensors: it is cut off"),
            _end("18:37:20", "travel_segment", "fe4412d8", "Complete", 168.4),
            _end("18:36:02", "upscale_video", "c8b97e05", "Complete", 52.6),
            _end("18:35:44", "flux", "27ad6013", "Cancelled", None),
            _end("18:34:30", "qwen_image_edit", "ee15f7b2", "Complete", 14.9),
        ],
        "logs": [
            _line("18:39:12", "INFO", "90e2d1aa", "travel_segment started, claim 1"),
            _line("18:39:46", "ERROR", "6b0c93f4", "t2v failed (bad_input): LoRA sketch.safetensors: it is cut off"),
            _line("18:40:12", "INFO", "90e2d1aa", "travel_segment complete: files/90e2d1aa_seg01.mp4 in 171.0 s"),
            _line("18:40:13", "INFO", "7c1e4a90", "travel_segment started, claim 1"),
            _line("18:41:27", "INFO", "3d77b5c9", "travel_stitch started, claim 1"),
            _line("18:41:31", "INFO", "3d77b5c9", "travel_stitch complete in 4.2 s"),
            _line("18:41:48", "WARNING", "d2907f3b", "the guidance video is too short (expected 81, actual 64)"),
            _line("18:41:58", "INFO", "a1f4c07e", "image_inpaint complete: files/a1f4c07e_inpainted.png"),
        ],
    }  # fmt: skip


def _course(mean: float) -> list[float]:
    return [min(max(mean + 0.25 * math.sin(1.7 * place) * math.cos(0.6 * place), 0.0), 1.0) for place in range(24)]


def _worker(name: str, model: str, used_gb: float, total_gb: int, course: list[float], running: list[View]) -> View:
    return {
        "id": name, "health": "healthy", "heartbeat_age_s": 4.0, "current_model": model, "course": course,
        "use": course[-1], "memory_used": used_gb * GB, "memory_total": total_gb * GB, "running": running,
    }  # fmt: skip


def _task(task_type: str, task_id: str, phase: str, share: float, **progress: Any) -> View:
    told = {"phase": phase, **progress}
    return {"id": task_id, "task_type": task_type, "phase": phase, "share": share, "progress": told, "seconds": 12.0}


def _end(
    at: str, task_type: str, task_id: str, status: str, seconds: float | None, error: str | None = None
) -> View:  # fmt: skip
    return {
        "id": task_id, "task_type": task_type, "status": status, "seconds": seconds, "error_message": error,
        "generation_processed_at": f"2026-11-26T{at}.000Z",
    }  # fmt: skip


def _line(at: str, level: str, task_id: str, message: str) -> View:
    return {"at": f"2026-11-26T{at}.000Z", "level": level, "task_id": task_id, "message": message}


def picture(columns: int = COLUMNS, lines: int = LINES) -> str:
    """The frame as SVG."""
    console = Console(
        width=columns, height=lines, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor",
        legacy_windows=False,
    )  # fmt: skip
    console.print(draw(frame(), columns, lines), height=lines)
    drawn = console.export_svg(title="python debug.py watch", theme=THEME, code_format=FORMAT, unique_id="watch")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def stale_picture(root: Path, *, write: bool) -> list[str]:
    """The picture's name when it is not what would be drawn now; then it is drawn, where `write` says so."""
    path, drawn = root / PICTURE, picture()
    if path.is_file() and path.read_text(encoding="utf-8") == drawn:
        return []
    if write:
        path.write_text(drawn, encoding="utf-8")
    return [PICTURE]
