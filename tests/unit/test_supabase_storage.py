"""Results in a Supabase project: what is asked for, what is sent where, what is kept here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_site import SECRET, BucketSite, bucket_site
from project_functions import ProjectFunctions

from source.errors import GenerationCancelled, InvalidMedia, RefusedUpload, StaleClaim, StorageUnavailable
from source.media.fetch import MediaFetcher
from source.settings import Settings, load_settings
from source.store.types import Status, Task
from source.supabase_storage import SupabaseStorage

PROJECT = "https://abc.supabase.co"
FOLDER = f"{PROJECT}/storage/v1/object/public/image_uploads/"


@pytest.fixture
def bucket() -> Iterator[BucketSite]:
    with bucket_site() as site:
        yield site


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        db_type="supabase", supabase_url=PROJECT, supabase_access_token="pat", main_output_dir=tmp_path / "outputs"
    )


@pytest.fixture
def functions(bucket: BucketSite) -> ProjectFunctions:
    return ProjectFunctions(bucket, PROJECT)


@pytest.fixture
def storage(settings: Settings, functions: ProjectFunctions) -> SupabaseStorage:
    storage = SupabaseStorage(settings, functions)
    storage.prepare()
    return storage


def row(claim_number: int = 3) -> Task:
    return Task(
        id="t1", task_type="t2v", params={}, status=Status.IN_PROGRESS, created_at="", worker_id="w",
        claim_number=claim_number,
    )  # fmt: skip


def clip(settings: Settings, content: bytes = b"a video") -> Path:
    path = settings.main_output_dir / "scratch" / "clip.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_declared_by_the_claim_and_put_where_the_project_says(
    storage: SupabaseStorage, settings: Settings, functions: ProjectFunctions, bucket: BucketSite
) -> None:
    staged = storage.stage(row(), clip(settings))
    assert staged.location == f"{FOLDER}project/tasks/t1/3-clip.mp4"
    assert bucket.files == {"project/tasks/t1/3-clip.mp4": b"a video"}
    assert bucket.headers[0]["Content-Type"] == "video/mp4"
    [(function, body)] = functions.asked
    assert function == "generate-upload-url"
    assert body == {
        "task_id": "t1", "worker_id": "w", "claim_number": 3, "filename": "clip.mp4", "content_type": "video/mp4",
        "size_bytes": 7, "sha256": hashlib.sha256(b"a video").hexdigest(), "md5": hashlib.md5(b"a video").hexdigest(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "video/mp4"), ("a.png", "image/png"), ("a.jpg", "image/jpeg"), ("a.txt", "text/plain"),
        ("a.svg", "application/octet-stream"), ("a.html", "application/octet-stream"),
        ("a.nothing", "application/octet-stream"),
    ],
)  # fmt: skip
def test_no_result_is_shown_as_a_page(
    storage: SupabaseStorage, settings: Settings, functions: ProjectFunctions, name: str, kind: str
) -> None:
    storage.stage(row(), clip(settings).rename(settings.main_output_dir / name))
    assert functions.asked[0][1]["content_type"] == kind


def test_a_stale_claim_sends_nothing(
    storage: SupabaseStorage, settings: Settings, functions: ProjectFunctions, bucket: BucketSite
) -> None:
    functions.stale = True
    with pytest.raises(StaleClaim):
        storage.stage(row(), clip(settings))
    assert not bucket.headers


def test_an_expired_address_is_signed_anew(
    storage: SupabaseStorage, settings: Settings, functions: ProjectFunctions, bucket: BucketSite
) -> None:
    bucket.troubles = [403, 403]
    storage.stage(row(), clip(settings))
    assert len(functions.asked) == 3
    bucket.troubles = [403, 403, 403]
    with pytest.raises(RefusedUpload, match=r"refused clip\.mp4"):
        storage.stage(row(), clip(settings))


def test_a_storage_that_fails_is_for_the_caller_to_ask_again(
    storage: SupabaseStorage, settings: Settings, bucket: BucketSite
) -> None:
    bucket.troubles = [503]
    with pytest.raises(StorageUnavailable):
        storage.stage(row(), clip(settings))
    storage.stage(row(), clip(settings))
    assert len(bucket.files) == 1


def test_reading_a_file_before_its_upload_can_be_stopped(
    storage: SupabaseStorage, settings: Settings, functions: ProjectFunctions
) -> None:
    def stop(sent: int, total: int) -> None:
        raise GenerationCancelled

    with pytest.raises(GenerationCancelled):
        storage.stage(row(), clip(settings), on_sent=stop)
    assert not functions.asked


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_or_empty_result_is_refused(
    storage: SupabaseStorage, settings: Settings, content: bytes | None
) -> None:
    path = clip(settings, content or b"")
    if content is None:
        path.unlink()
    with pytest.raises(InvalidMedia, match=r"clip\.mp4 of task t1 is missing or empty"):
        storage.stage(row(), path)


def test_publishing_is_the_completing_writes_work(
    storage: SupabaseStorage, settings: Settings, bucket: BucketSite
) -> None:
    staged = storage.stage(row(), clip(settings))
    for act in (staged.publish, staged.withdraw, staged.discard):
        act()
    assert len(bucket.headers) == 1 and len(bucket.files) == 1


def test_a_private_file_of_ours_gets_a_signed_address_and_any_other_is_left_alone(
    settings: Settings, bucket: BucketSite
) -> None:
    functions = ProjectFunctions(bucket, PROJECT, public=False)
    storage = SupabaseStorage(settings, functions)
    storage.prepare()
    location = storage.stage(row(), clip(settings)).location
    assert storage.address(location, "t2") == bucket.upload_url("project/tasks/t1/3-clip.mp4")
    assert functions.asked[-1][1] == {"location": location, "task_id": "t2"}
    assert storage.address("https://elsewhere.example/cat.png", "t2") == "https://elsewhere.example/cat.png"
    assert [function for function, _ in functions.asked] == ["generate-upload-url", "generate-download-url"]


def test_a_private_output_is_downloaded_from_wherever_the_project_says(
    settings: Settings, bucket: BucketSite, tmp_path: Path
) -> None:
    """The storage is on this machine, which no row could name."""
    storage = SupabaseStorage(settings, ProjectFunctions(bucket, PROJECT, public=False))
    storage.prepare()
    location = storage.stage(row(), clip(settings)).location
    fetcher = MediaFetcher(settings, tmp_path / "inputs", storage=storage)
    found = fetcher.locate(location)
    assert found.read_bytes() == b"a video"
    assert SECRET not in found.name
    with pytest.raises(InvalidMedia, match="FETCH_ALLOW"):
        fetcher.locate(bucket.upload_url("project/tasks/t1/3-clip.mp4"))


def test_what_the_project_does_not_give_is_not_taken_from_what_is_kept_here(
    settings: Settings, bucket: BucketSite, tmp_path: Path
) -> None:
    """It is asked for as anybody would, and a private bucket gives nothing then."""
    functions = ProjectFunctions(bucket, bucket.address, public=False)
    here = settings.model_copy(update={"supabase_url": bucket.address})
    storage = SupabaseStorage(here, functions)
    storage.prepare()
    location = storage.stage(row(), clip(settings)).location
    storage.keep(location, clip(settings))
    bucket.files.clear()
    with pytest.raises(InvalidMedia, match="the server answered 403"):
        MediaFetcher(here, tmp_path / "inputs", storage=storage).locate(location)


def test_a_public_bucket_is_asked_about_once(
    storage: SupabaseStorage, settings: Settings, functions: ProjectFunctions
) -> None:
    location = storage.stage(row(), clip(settings)).location
    assert storage.address(f"{FOLDER}gone.mp4", None) is None
    assert storage.address(location, None) == storage.address(location, None) == location
    asked = [function for function, _ in functions.asked]
    assert asked == ["generate-upload-url", "generate-download-url", "generate-download-url"]


def test_what_was_delivered_here_needs_no_download(
    storage: SupabaseStorage, settings: Settings, tmp_path: Path
) -> None:
    location, other = f"{FOLDER}project/tasks/t1/3-clip.mp4", f"{FOLDER}project/tasks/t2/1-clip.mp4"
    storage.keep(location, clip(settings))
    found = storage.kept(location, tmp_path / "inputs")
    assert found is not None and found.read_bytes() == b"a video" and found.suffix == ".mp4"
    assert found.is_relative_to(tmp_path / "inputs")
    assert storage.kept(other, tmp_path / "inputs") is None
    assert storage.kept("https://elsewhere.example/clip.mp4", tmp_path / "inputs") is None


def test_only_so_much_is_kept_and_what_a_task_holds_stays(settings: Settings, tmp_path: Path) -> None:
    from source.kept_outputs import KeptOutputs

    kept = KeptOutputs(settings.main_output_dir / "delivered", 2e-8)  # 20 bytes
    settings.main_output_dir.mkdir()
    for number in range(3):
        kept.add(f"{FOLDER}{number}.mp4", clip(settings, b"%d" % number * 9))
        held = kept.link(f"{FOLDER}0.mp4", tmp_path / "inputs")
    assert held is not None and held.read_bytes() == b"0" * 9
    assert kept.link(f"{FOLDER}2.mp4", tmp_path / "inputs") is not None
    left = sum(path.stat().st_size for path in (settings.main_output_dir / "delivered").iterdir())
    assert left <= 20
    kept.add(f"{FOLDER}large.mp4", clip(settings, b"x" * 21))
    assert kept.link(f"{FOLDER}large.mp4", tmp_path / "inputs") is None
