"""File names, staging and publishing of results."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source.errors import InvalidMedia
from source.settings import Settings, load_settings
from source.storage import (
    LocalStorage,
    prepare_output_path_with_upload,
    publish_together,
    sanitise_filename,
    upload_and_get_final_output_location,
)
from source.store.types import Status, Task

#: the Edge Functions keep the same rules, by the same table
FILENAMES = json.loads((Path(__file__).parent.parent / "filenames.json").read_text(encoding="utf-8"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(db_file=tmp_path / "db" / "tasks.db", main_output_dir=tmp_path / "outputs")


@pytest.fixture
def storage(settings: Settings) -> LocalStorage:
    return LocalStorage(settings)


def row(task_id: str = "t1", claim_number: int = 1) -> Task:
    return Task(
        id=task_id, task_type="t2v", params={}, status=Status.IN_PROGRESS, created_at="", claim_number=claim_number
    )


def result(settings: Settings, name: str = "clip.mp4", content: bytes = b"video") -> Path:
    path = settings.main_output_dir / "t2v" / "t1-1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "clean"), [(row["name"], row["clean"]) for row in FILENAMES])
def test_names_are_sanitised(name: str, clean: str) -> None:
    assert sanitise_filename(name) == clean


@given(st.text(max_size=400))
def test_a_sanitised_name_is_one_file_in_one_folder(name: str) -> None:
    clean = sanitise_filename(name.encode(errors="ignore").decode())
    assert Path(clean).name == clean
    assert clean not in (".", "..")
    assert 0 < len(clean.encode()) <= 180
    assert sanitise_filename(clean) == clean


def test_a_long_name_keeps_its_suffix() -> None:
    assert sanitise_filename("x" * 300 + ".mp4").endswith("x.mp4")


def test_a_result_is_invisible_until_it_is_published(storage: LocalStorage, settings: Settings) -> None:
    staged = storage.stage(row(), result(settings))
    final = settings.public_dir / "files" / "t1_clip.mp4"
    assert staged.location == "files/t1_clip.mp4"
    assert not final.exists()
    staged.publish()
    assert final.read_bytes() == b"video"


def test_a_place_that_takes_no_results_is_found_out_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "public").write_text("a file where a folder is needed")
    with pytest.raises(OSError, match="public"):
        LocalStorage(load_settings(db_file=tmp_path / "tasks.db", main_output_dir=tmp_path / "outputs")).prepare()


def test_publishing_twice_does_nothing_more(storage: LocalStorage, settings: Settings) -> None:
    staged = storage.stage(row(), result(settings))
    staged.publish()
    staged.publish()
    staged.discard()
    assert storage.resolve(staged.location).read_bytes() == b"video"


def test_a_discarded_result_leaves_nothing(storage: LocalStorage, settings: Settings) -> None:
    storage.stage(row(), result(settings)).discard()
    assert not [path for path in settings.public_dir.rglob("*") if path.is_file()]


def test_a_later_claim_replaces_the_published_file_and_clears_what_the_dead_one_staged(
    storage: LocalStorage, settings: Settings
) -> None:
    storage.stage(row(claim_number=1), result(settings, content=b"half"))
    storage.stage(row(claim_number=2), result(settings, content=b"whole")).publish()
    files = [path for path in settings.public_dir.rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [b"whole"]


def test_a_name_that_starts_with_the_task_id_is_not_prefixed_again(storage: LocalStorage, settings: Settings) -> None:
    final, location = prepare_output_path_with_upload(storage, row(), "t1_clip.mp4")
    assert location == "files/t1_clip.mp4"
    assert final == settings.public_dir.resolve() / "files" / "t1_clip.mp4"


def test_a_task_id_with_path_separators_stays_inside(storage: LocalStorage, settings: Settings) -> None:
    location = upload_and_get_final_output_location(storage, row("../../evil"), result(settings))
    assert storage.resolve(location).parent == settings.public_dir.resolve() / "files"


def test_a_file_of_the_users_is_copied_and_one_of_ours_takes_no_second_place(
    storage: LocalStorage, settings: Settings, tmp_path: Path
) -> None:
    own = tmp_path / "mine.mp4"
    own.write_bytes(b"mine")
    link = settings.main_output_dir / "link.mp4"
    link.parent.mkdir()
    link.symlink_to(own)
    location = upload_and_get_final_output_location(storage, row(), link)
    assert own.read_bytes() == b"mine"
    assert not storage.resolve(location).is_symlink()
    scratch = result(settings)
    published = storage.resolve(upload_and_get_final_output_location(storage, row(), scratch))
    assert published.samefile(scratch)
    scratch.unlink()
    assert published.read_bytes() == b"video"


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_or_empty_result_is_refused(storage: LocalStorage, settings: Settings, content: bytes | None) -> None:
    path = result(settings, content=content or b"")
    if content is None:
        path.unlink()
    with pytest.raises(InvalidMedia, match=r"clip.mp4 of task t1"):
        storage.stage(row(), path)


@pytest.mark.parametrize("location", ["../tasks.db", "files/../../tasks.db", "/etc/hostname"])
def test_locations_outside_the_public_folder_are_refused(
    storage: LocalStorage, settings: Settings, location: str
) -> None:
    settings.db_file.parent.mkdir(exist_ok=True)
    settings.db_file.write_bytes(b"secret")
    with pytest.raises(InvalidMedia, match="outside"):
        storage.resolve(location)


def test_a_location_whose_file_is_gone_says_so(storage: LocalStorage) -> None:
    with pytest.raises(InvalidMedia, match=r"gone.mp4 does not exist"):
        storage.resolve("files/gone.mp4")


def test_results_of_different_tasks_never_share_a_name(storage: LocalStorage, settings: Settings) -> None:
    ids = ["a:b", "ab", "a?b", "x" * 100, "x" * 101, "x" * 5000, "\u597d" * 100]
    locations = {upload_and_get_final_output_location(storage, row(each), result(settings)) for each in ids}
    assert len(locations) == len(ids)
    long_name = "y" * 400 + ".mp4"
    final, _ = prepare_output_path_with_upload(storage, row("\u597d" * 5000), long_name)
    assert len(final.name.encode()) <= 255


def test_an_id_that_only_begins_a_name_is_put_before_it(storage: LocalStorage, settings: Settings) -> None:
    _, location = prepare_output_path_with_upload(storage, row("t"), "t2v.mp4")
    assert location == "files/t_t2v.mp4"


def test_a_result_that_could_not_be_copied_leaves_nothing(
    storage: LocalStorage, settings: Settings, tmp_path: Path
) -> None:
    """The disk is full: here, files may not grow beyond 64 KiB."""
    own = tmp_path / "own.mp4"
    own.write_bytes(b"x" * 200_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            storage.stage(row(), own)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not [path for path in settings.public_dir.rglob("*") if path.is_file()]


def test_several_files_are_published_together(storage: LocalStorage, settings: Settings) -> None:
    staged = [storage.stage(row(), result(settings, name, name.encode())) for name in ("a.png", "b.png")]
    publish_together(staged)
    publish_together(staged)
    assert [each.final.read_bytes() for each in staged] == [b"a.png", b"b.png"]


def test_of_several_files_none_is_visible_when_one_cannot_be(storage: LocalStorage, settings: Settings) -> None:
    """The third name is taken by a folder, which no file can replace; once it is gone, all are published."""
    staged = [storage.stage(row(), result(settings, name)) for name in ("a.png", "b.png", "c.png")]
    staged[2].final.mkdir(parents=True)
    with pytest.raises(OSError):
        publish_together(staged)
    assert [each.final.is_file() for each in staged] == [False, False, False]
    assert all(each.staged.read_bytes() == b"video" for each in staged)
    staged[2].final.rmdir()
    publish_together(staged)
    assert all(each.final.is_file() and not each.staged.exists() for each in staged)


def test_two_files_of_one_name_are_not_published(storage: LocalStorage, settings: Settings) -> None:
    staged = [storage.stage(row(), result(settings, name)) for name in ("a.png", "a?.png")]
    with pytest.raises(ValueError, match="one name"):
        publish_together(staged)
    assert not staged[0].final.exists()
