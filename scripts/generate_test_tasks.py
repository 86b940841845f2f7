"""Make rows to try a worker with, with the pictures that they need, and queue them.

Each gets a folder with its pictures and `params.json`. Without a name: the four travels (from one image, through three,
and from the end of a video to one and to two images).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from synthetic_scenes import SCENES, TRAVELS, Scale, Scene  # noqa: E402

from source.command_line import CommandParser, database_of, exit_code  # noqa: E402
from source.enqueue import check_task, enqueue  # noqa: E402
from source.errors import InvalidInput, WanError  # noqa: E402
from source.settings import Settings, load_settings  # noqa: E402
from source.store.types import Status, Task  # noqa: E402
from Wan2GP.media import probe_video  # noqa: E402

EXAMPLES = (
    ("python scripts/generate_test_tasks.py --list", "what there is"),
    ("python scripts/generate_test_tasks.py --enqueue", "queue the four travels for tasks.db, 81 frames of 500x500"),
    (
        "python scripts/generate_test_tasks.py three_images --model draft --frames 17 --overlap 4 --size 96x64 --wait",
        "queue a small one, follow it while a worker runs it, and copy its video beside its pictures",
    ),
    ("python scripts/generate_test_tasks.py --all --dry-run", "print every row"),
)
CODES = {
    0: "made; with --wait: each is Complete",
    1: "wrong input, or a row that this version refuses",
    2: "the database failed",
    3: "with --wait: one failed, or its video has other than the planned frames",
    4: "with --wait: one was cancelled",
    5: "with --wait: one had not ended after --timeout seconds",
}


def parser() -> CommandParser:
    """The flags."""
    usual = Scale()
    flags = CommandParser("scripts/generate_test_tasks.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("names", nargs="*", metavar="NAME", help="which; --list shows them (default: the four travels)")
    flags.add_argument("-l", "--list", action="store_true", help="show the names and leave")
    flags.add_argument("-a", "--all", action="store_true", help="all that this version does not refuse")
    flags.add_argument("-n", "--dry-run", action="store_true", help="print the rows as JSON, queue none")
    flags.add_argument(
        "--folder", type=Path, default=Path("test_tasks"), metavar="DIR", help="where they go (default: test_tasks)"
    )
    flags.add_argument("--model", default=usual.model, help=f"of the travels (default: {usual.model})")
    flags.add_argument("--frames", type=int, default=usual.frames, help="of each segment (default: 81)")
    flags.add_argument("--overlap", type=int, default=usual.overlap, help="frames of neighbours (default: 12)")
    flags.add_argument("--size", type=_size, default=usual.size, metavar="WxH", help="pixels (default: 500x500)")
    flags.add_argument("--seed", type=int, default=usual.seed, help="default: 11111")
    flags.add_argument("--enqueue", action="store_true", help="queue them, and print an id each")
    flags.add_argument(
        "--wait", action="store_true", help="queue and follow them, and copy what they make into their folders"
    )
    flags.add_argument("--timeout", type=float, metavar="S", help="with --wait: for at most S seconds")
    flags.add_database()
    flags.add_version()
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    if given.list:
        print("\n".join(f"{scene.name:27} {scene.help}" for scene in SCENES))
        return 0
    try:
        scale = Scale(given.model, given.frames, given.overlap, given.size, given.seed)
        rows = {scene: made(scene, given.folder / scene.name, scale) for scene in chosen(given.names, given.all)}
        for scene in [scene for scene, row in rows.items() if not allowed(scene, row, tolerant=given.all)]:
            del rows[scene]
        if given.dry_run:
            listed = [{"name": scene.name, "task_type": scene.task_type, "params": row} for scene, row in rows.items()]
            print(json.dumps(listed, indent=2, ensure_ascii=False))
            return 0
        if not (given.enqueue or given.wait):
            print("\n".join(f"{given.folder / scene.name / 'params.json'}" for scene in rows))
            return 0
        settings = load_settings(**database_of(given))
        tasks = {scene: enqueue(settings, scene.task_type, row) for scene, row in rows.items()}
        print("\n".join(f"{scene.name:27} {task}" for scene, task in tasks.items()), flush=True)
        return followed(settings, tasks, given.folder, scale, given.timeout) if given.wait else 0
    except (WanError, OSError) as error:
        print(f"generate_test_tasks.py: {error}", file=sys.stderr)
        return exit_code(error)


def chosen(names: Sequence[str], everything: bool) -> list[Scene]:
    """Raises InvalidInput for a name that there is not."""
    known = {scene.name: scene for scene in SCENES}
    if unknown := [name for name in names if name not in known]:
        raise InvalidInput(f"there is no {unknown[0]!r}; there are: {', '.join(known)}", field="name")
    return [known[name] for name in (known if everything else names or TRAVELS)]


def made(scene: Scene, folder: Path, scale: Scale) -> dict[str, object]:
    """Draw the pictures and write the parameters of a scene; the parameters. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    params = scene.params(folder, scale)
    text = json.dumps(params, indent=2, ensure_ascii=False)
    (folder / "params.json").write_text(text + "\n", encoding="utf-8")
    return params


def allowed(scene: Scene, params: dict[str, object], *, tolerant: bool) -> bool:
    """Whether this version takes the row; one that was named itself raises InvalidInput."""
    try:
        check_task(scene.task_type, params)
    except InvalidInput as error:
        if not tolerant:
            raise InvalidInput(f"{scene.name}: {error}") from None
        print(f"{scene.name} is left out: {error}", file=sys.stderr)
        return False
    return True


def followed(
    settings: Settings, tasks: dict[Scene, str], folder: Path, scale: Scale, timeout_s: float | None
) -> int:  # fmt: skip
    """Wait for the tasks, copy and measure what they made; the exit code. Raises StoreError, OSError."""
    from source.following import FAILED, said_of, watch
    from source.storage import LocalStorage

    outcome = watch(settings, list(tasks.values()), timeout_s)
    code = outcome.code
    for scene, task in zip(tasks, outcome.tasks, strict=True):
        if task.status is not Status.COMPLETE or not task.output_location:
            print(f"{scene.name:27} {said_of(task, settings)}", file=sys.stderr)
        elif settings.db_type == "supabase":
            print(f"{scene.name:27} {task.output_location}")
        else:
            well = compared(scene, task, LocalStorage(settings).resolve(task.output_location), folder, scale)
            code = code or (0 if well else FAILED)
    return code


def compared(scene: Scene, task: Task, output: Path, folder: Path, scale: Scale) -> bool:
    """Copy an output into its scene's folder and say what it is; whether it has the planned frames."""
    copy = folder / scene.name / f"result{output.suffix}"
    shutil.copyfile(output, copy)
    if scene.frames is None:
        print(f"{scene.name:27} {copy}")
        return True
    info, planned = probe_video(copy), scene.frames(scale)
    print(f"{scene.name:27} {copy}  {info.num_frames} frames of {planned}, {info.width}x{info.height}")
    return info.num_frames == planned


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500x500")
    return int(width), int(height)


if __name__ == "__main__":
    sys.exit(main())
