"""Join two clips by a transition that a model generates: a row is queued, followed, and its video copied."""

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
        "python scripts/join_clips_example.py --clip1 a.mp4 --clip2 b.mp4 --output joined.mp4 --prompt 'the sun rises'",
        "with Wan 2.2 Lightning; a worker has to run on the same database",
    ),
    (
        "python scripts/join_clips_example.py --clip1 samples/bbb_416x240_49f.mp4 "
        "--clip2 samples/bbb_320x180_audio.mp4 --output joined.mp4 --prompt x --model draft --gap-frames 21",
        "without a GPU",
    ),
)


def parser() -> CommandParser:
    """The flags."""
    flags = CommandParser("scripts/join_clips_example.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--clip1", type=Path, required=True, metavar="FILE", help="the clip before")
    flags.add_argument("--clip2", type=Path, required=True, metavar="FILE", help="the clip after")
    flags.add_argument("--gap-frames", type=int, default=53, metavar="N", help="frames to generate (53)")
    add_generation(flags)
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    clips = {"starting_video_path": str(given.clip1.resolve()), "ending_video_path": str(given.clip2.resolve())}
    return rendered(given, "join_clips_segment", clips | {"gap_frame_count": given.gap_frames} | generation(given))


if __name__ == "__main__":
    sys.exit(main())
