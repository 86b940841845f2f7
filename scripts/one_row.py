"""One row queued, followed, and its output copied: what the example scripts do."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from source.command_line import CommandParser, database_of, exit_code
from source.enqueue import enqueue
from source.errors import WanError
from source.following import location_of, said_of, watch
from source.settings import Settings, load_settings
from source.store.types import Status

MODEL = "wan_2_2_vace_lightning_baseline_2_2_2"
CODES = {
    0: "the video is written",
    1: "wrong input, nothing was queued",
    2: "the database failed",
    3: "the task failed; standard error says why",
    4: "it was cancelled",
    5: "it had not ended after --timeout seconds, and goes on",
    130: "Ctrl-C; the task goes on",
}


def add_generation(flags: CommandParser) -> None:
    """The flags of frames that are generated between others."""
    flags.add_argument("--output", type=Path, required=True, metavar="FILE", help="the video that is written")
    flags.add_argument("--prompt", required=True, help="what the new frames show")
    flags.add_argument("--negative-prompt", default="", help="what they do not show")
    flags.add_argument("--context-frames", type=int, default=8, metavar="N", help="frames shown of each side (8)")
    flags.add_argument("--model", default=MODEL, help=f"default: {MODEL}")
    flags.add_argument("--steps", type=int, default=6, metavar="N", help="denoising steps (6)")
    flags.add_argument("--guidance-scale", type=float, default=3.0, metavar="G", help="default: 3")
    flags.add_argument("--seed", type=int, default=-1, help="-1 draws one (default)")
    flags.add_argument("--resolution", metavar="WxH", help="default: that of the model")
    flags.add_argument("--fps", type=float, help="frames per second (default: the task type's)")
    flags.add_argument("--timeout", type=float, metavar="S", help="wait for at most S seconds")
    flags.add_database()
    flags.add_version()


def generation(given: argparse.Namespace) -> dict[str, Any]:
    """The same as parameters of a row; what was not given is left to the task type."""
    params = {
        "model": given.model,
        "prompt": given.prompt,
        "negative_prompt": given.negative_prompt,
        "context_frame_count": given.context_frames,
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance_scale,
        "seed": given.seed,
        "resolution": given.resolution,
        "fps": given.fps,
    }
    return {name: value for name, value in params.items() if value is not None}


def rendered(given: argparse.Namespace, task_type: str, params: dict[str, Any]) -> int:
    """Queue the row, follow it and copy its output to `given.output`; the exit code."""
    try:
        settings = load_settings(**database_of(given))
        task = enqueue(settings, task_type, params)
        print(f"queued {task}; a worker of this database runs it", file=sys.stderr)
        return _followed(settings, task, given)
    except (WanError, OSError) as error:
        print(f"{task_type}: {error}", file=sys.stderr)
        return exit_code(error)


def _followed(settings: Settings, task_id: str, given: argparse.Namespace) -> int:
    outcome = watch(settings, [task_id], given.timeout)
    task = outcome.tasks[0]
    if task.status is not Status.COMPLETE:
        print(said_of(task, settings), file=sys.stderr)
    elif "://" in (location := location_of(task, settings)):
        print(location)
    else:
        shutil.copyfile(location, given.output)
        print(given.output)
    return outcome.code
