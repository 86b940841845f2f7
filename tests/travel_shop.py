"""What several tests of travels share: a database with a worker, pictures of plain colours, and rows of travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from headless.testing import FakeOrchestrator
from source.daemon import Worker
from source.settings import Settings
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP.media import Frame, read_frame, write_image, write_video

SIZE = (64, 48)
COLOURS = [(220, 40, 40), (40, 200, 60), (50, 60, 230)]
#: of the frames of a video that a travel goes on from
GREYS = list(range(40, 220, 6))
SVI = {"model_name": "fake_svi", "model_type": "i2v", "use_svi": True}


class Workshop:
    """A database, a queue with an engine, and a worker that runs until nothing is left to do."""

    def __init__(
        self,
        folder: Path,
        engine: FakeOrchestrator | WanOrchestrator | None = None,
        options_class: type[GenerationOptions] = GenerationOptions,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.engine = engine or FakeOrchestrator()
        self.settings = Settings(
            db_file=folder / "tasks.db", main_output_dir=folder / "outputs", poll_interval_s=0.2, retry_delay_s=0.0,
            **settings,
        )  # fmt: skip
        self.store = SqliteStore(self.settings.db_file)
        self.queue = HeadlessTaskQueue(self.engine)
        self.worker = Worker(
            self.settings, self.store, self.queue,
            registry=registry(), describe=self.engine.describe, options_class=options_class,
        )  # fmt: skip

    def add(self, task_type: str, params: dict[str, Any]) -> str:
        return self.store.add(NewTask(task_type=task_type, params=params))

    def work(self) -> None:
        with self.queue:
            assert self.worker.run(until_idle=True) == 0

    def run(self, task_type: str, params: dict[str, Any]) -> Task:
        task = self.add(task_type, params)
        self.work()
        return self.store.get(task)

    def segments(self, travel: Task) -> list[Task]:
        """The segments of a travel, in order."""
        found = [row for row in self.store.children(travel.id) if row.task_type == "travel_segment"]
        return sorted(found, key=lambda row: row.params["segment_index"])

    def warnings(self, row: Task) -> list[str]:
        return [event.detail or "" for event in self.store.events(row.id) if event.name == "warning"]

    def video(self, row: Task) -> Path:
        assert row.status is Status.COMPLETE, row.error_message
        assert row.output_location
        return self.folder / "public" / row.output_location


def pictures(folder: Path) -> list[str]:
    """One picture of each colour."""
    paths = []
    for index, colour in enumerate(COLOURS):
        path = folder / f"image{index}.png"
        write_image(path, plain(colour))
        paths.append(str(path))
    return paths


def plain(colour: tuple[int, int, int]) -> Frame:
    return np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)


def travel(images: list[str], **changes: Any) -> dict[str, Any]:
    details = {
        "run_id": "run",
        "model_name": "fake_vace",
        "model_type": "vace",
        "input_image_paths_resolved": images,
        "segment_frames_expanded": [17, 17],
        "frame_overlap_expanded": 6,
        "base_prompts_expanded": ["one", "two"],
        "parsed_resolution_wh": f"{SIZE[0]}x{SIZE[1]}",
        "fps_helpers": 12,
    }
    return {"orchestrator_details": details | changes}


def colour_at(video: Path, position: int) -> tuple[int, ...]:
    return tuple(round(channel) for channel in read_frame(video, position).reshape(-1, 3).mean(axis=0))


def assert_colour(video: Path, position: int, wanted: tuple[int, int, int]) -> None:
    """Colour order matters: red must come out red."""
    assert np.abs(np.subtract(colour_at(video, position), wanted)).max() <= 8


def clip(path: Path, levels: list[int], fps: float = 12) -> str:
    """A video of the size of a travel whose frames are plain greys of these levels."""
    write_video(path, (plain((level, level, level)) for level in levels), fps=fps)
    return str(path)
