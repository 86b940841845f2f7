"""Generate some frames of a video anew: a row is queued, followed, and the whole video copied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from one_row import CODES, add_generation, generation, rendered  # noqa: E402

from source.command_line import CommandParser  # noqa: E402

EXAMPLES = (
    (
        "python scripts/inpaint_frames_example.py --video a.mp4 --start-frame 20 --end-frame 33 --output mended.mp4 "
        "--prompt 'the bird turns around'",
        "frames 20 to 32 with Wan 2.2 Lightning; a worker has to run on the same database",
    ),
    (
        "python scripts/inpaint_frames_example.py --video samples/bbb_320x180_keyframes.mp4 --start-frame 20 "
        "--end-frame 33 --output mended.mp4 --prompt x --model draft",
        "without a GPU",
    ),
)


def parser() -> CommandParser:
    """The flags."""
    flags = CommandParser("scripts/inpaint_frames_example.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--video", type=Path, required=True, metavar="FILE", help="the video")
    flags.add_argument("--start-frame", type=int, required=True, metavar="N", help="first frame that is made anew")
    flags.add_argument("--end-frame", type=int, required=True, metavar="N", help="frame after the last one")
    add_generation(flags)
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    frames = {
        "video_path": str(given.video.resolve()),
        "inpaint_start_frame": given.start_frame,
        "inpaint_end_frame": given.end_frame,
    }
    return rendered(given, "inpaint_frames", frames | generation(given))


if __name__ == "__main__":
    sys.exit(main())
