"""Whether a disk has room, how that is said, and what errors mean that it has none."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from source.disk import GB, Disk, Room, free_bytes, size_of
from source.errors import EngineError, GenerationCancelled, InvalidInput, Outcome, StoreError, verdict
from source.settings import Settings, load_settings


class Measured:
    """Disks of which a test says how much is free."""

    def __init__(self, gigabytes: float) -> None:
        self.gigabytes = gigabytes

    def __call__(self, folder: Path) -> int:
        return int(self.gigabytes * GB)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(db_file=tmp_path / "tasks.db", main_output_dir=tmp_path / "outputs", min_free_gb=2)


def test_a_shortage_names_the_folder_and_what_to_do(settings: Settings) -> None:
    assert Disk(settings, free_bytes=Measured(2.1)).shortage() is None
    short = str(Disk(settings, free_bytes=Measured(0.5)).shortage())
    for part in (str(settings.main_output_dir), "0.5 GB are free", "MIN_FREE_GB is 2", "debug.py disk --clean"):
        assert part in short


def test_what_a_run_gives_back_counts(settings: Settings) -> None:
    disk = Disk(settings, free_bytes=lambda folder: int((0.5 if folder.name == "outputs" else 9) * GB))
    assert disk.shortage() is not None
    assert disk.shortage(given_back=int(2 * GB)) is None


def test_a_disk_that_cannot_be_measured_stops_nobody(settings: Settings) -> None:
    def fails(folder: Path) -> int:
        raise PermissionError(errno.EACCES, "no", str(folder))

    assert Disk(settings, free_bytes=fails).shortage() is None


def test_a_folder_above_its_quota_is_a_shortage(settings: Settings) -> None:
    parcel = settings.main_output_dir / "outbox" / "a-1"
    parcel.mkdir(parents=True)
    (parcel / "clip.mp4").write_bytes(bytes(3_000_000))
    limited = settings.model_copy(update={"outbox_quota_gb": 0.002})
    disk = Disk(limited, free_bytes=Measured(9))
    short = disk.shortage()
    assert "OUTBOX_QUOTA_GB is 0.002" in str(short)
    assert short is not None and (short.delivers, short.begun) == (True, "one task at a time")
    (parcel / "clip.mp4").unlink()
    disk.forget_measures()
    assert disk.shortage() is None


def test_the_quota_of_scratch_is_one_of_what_a_task_can_do_without(settings: Settings) -> None:
    limited = settings.model_copy(update={"scratch_quota_gb": 0.002})
    for place, short in (("outbox", None), ("draw", "SCRATCH_QUOTA_GB is 0.002")):
        folder = settings.main_output_dir / place / "a-1"
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(bytes(3_000_000))
        found = Disk(limited, free_bytes=Measured(9)).shortage()
        assert found is None if short is None else short in str(found)


def test_cleaning_comes_first_and_a_pause_is_said_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    free = Measured(0.5)
    cleanings: list[float] = []
    room = Room(Disk(settings, free_bytes=free), lambda: cleanings.append(free.gigabytes))
    with caplog.at_level(logging.INFO):
        assert [room(), room(), room()] == [False, False, False]
        assert (cleanings, room.shortage is not None) == ([0.5], True)
        free.gigabytes = 2.1  # a pause ends a little above what began it
        assert room() is False
        free.gigabytes = 2.3
        assert [room(), room()] == [True, True]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_no_pause_where_cleaning_made_room(settings: Settings) -> None:
    free = Measured(0.5)
    room = Room(Disk(settings, free_bytes=free), lambda: setattr(free, "gigabytes", 5))
    assert (room(), room.shortage) == (True, None)


def test_a_real_disk_is_measured_through_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") > 0
    assert size_of(tmp_path / "nothing") == 0


def raised(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("nothing was raised")


def write_to_a_full_disk() -> None:
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


def wrapped(kind: type[Exception]) -> Callable[[], None]:
    def act() -> None:
        try:
            write_to_a_full_disk()
        except OSError as error:
            raise kind("the video could not be written") from error

    return act


def fill_a_database() -> None:
    db = sqlite3.connect(":memory:")
    try:
        db.execute("PRAGMA max_page_count = 2")
        db.execute("CREATE TABLE a (b)")
        db.execute("INSERT INTO a VALUES (zeroblob(100000))")
    finally:
        db.close()


@pytest.mark.parametrize(
    "act",
    [write_to_a_full_disk, wrapped(EngineError), wrapped(InvalidInput), wrapped(RuntimeError), fill_a_database],
    ids=["plain", "engine", "input", "unforeseen", "sqlite"],
)
def test_an_error_of_a_full_disk_is_known_however_it_is_wrapped(act: Callable[[], None]) -> None:
    decided = verdict(raised(act))
    assert (decided.outcome, decided.error_class) == (Outcome.RETRY, "disk_full")


def test_what_programs_say_of_a_full_disk_is_understood() -> None:
    assert (
        verdict(EngineError("ffmpeg: av_interleaved_write_frame(): No space left on device")).error_class == "disk_full"
    )


@pytest.mark.parametrize(
    ("error", "error_class"),
    [(InvalidInput("prompt: missing"), "bad_input"), (OSError(errno.EIO, "io"), "io"), (StoreError("x"), "database")],
)
def test_other_errors_stay_what_they_are(error: Exception, error_class: str) -> None:
    assert verdict(error).error_class == error_class


def test_a_cancel_during_a_full_disk_is_a_cancel() -> None:
    assert verdict(raised(wrapped(GenerationCancelled))).outcome is Outcome.CANCEL
