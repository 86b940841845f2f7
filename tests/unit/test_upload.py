"""Uploads to presigned addresses, against a real HTTP server that misbehaves."""

from __future__ import annotations

import hashlib
import logging
import socket
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_site import SECRET, BucketSite, bucket_site

from source.errors import GenerationCancelled, RefusedUpload, StorageUnavailable
from source.logs import RedactingFormatter
from source.upload import measured, upload

MB = 1024 * 1024


@pytest.fixture
def bucket() -> Iterator[BucketSite]:
    with bucket_site() as site:
        yield site


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0video\r\n" * 500_000)
    return path


def send(bucket: BucketSite, path: Path, **headers: str) -> list[tuple[int, int]]:
    """Upload; returns what was told on the way."""
    told: list[tuple[int, int]] = []
    size = path.stat().st_size
    upload(path, bucket.upload_url("key/clip.mp4"), headers, size, lambda sent, total: told.append((sent, total)))
    return told


def test_a_file_arrives_byte_by_byte_with_exactly_the_headers_asked_for(bucket: BucketSite, clip: Path) -> None:
    told = send(bucket, clip, **{"Content-Type": "video/mp4"})
    assert bucket.files["key/clip.mp4"] == clip.read_bytes()
    [headers] = bucket.headers
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Content-Length"] == str(clip.stat().st_size)
    assert "Authorization" not in headers and "Transfer-Encoding" not in headers
    assert told[0] == (0, clip.stat().st_size)
    assert told[-1] == (clip.stat().st_size, clip.stat().st_size)


def test_size_and_digests_come_of_one_reading(clip: Path) -> None:
    content = clip.read_bytes()
    found = measured(clip, lambda: None)
    assert (found.size_bytes, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert found.md5 == hashlib.md5(content).hexdigest()


def test_memory_does_not_grow_with_the_file(bucket: BucketSite, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(24 * MB)
    bucket.troubles = ["early"]
    tracemalloc.start()
    try:
        measured(path, lambda: None)
        with pytest.raises((RefusedUpload, StorageUnavailable)):
            send(bucket, path)
        assert tracemalloc.get_traced_memory()[1] < 6 * MB
    finally:
        tracemalloc.stop()


PASSING = [
    500, 502, 503, 504, 507, 429, 408, "reset", (503, "SlowDown"), (400, "RequestTimeout"), (400, "IncompleteBody"),
    (403, "RequestTimeTooSkewed"), (400, "ThrottlingException"), (409, "OperationAborted"),
    (409, "ConditionalRequestConflict"),
]  # fmt: skip
LASTING = [
    400, 403, 413, (404, "NoSuchBucket"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken"),
    (400, "EntityTooLarge"), (400, "BadDigest"), (412, "PreconditionFailed"), (501, "NotImplemented"),
]  # fmt: skip


@pytest.mark.parametrize("trouble", PASSING, ids=str)
def test_what_passes_is_for_a_later_try(bucket: BucketSite, clip: Path, trouble: int | str | tuple[int, str]) -> None:
    bucket.troubles = [trouble]
    with pytest.raises(StorageUnavailable) as failure:
        send(bucket, clip)
    assert "clip.mp4" in str(failure.value)
    assert not isinstance(trouble, tuple) or " ".join(map(str, trouble)) in str(failure.value)
    assert SECRET not in str(failure.value) and "secret-part" not in str(failure.value)
    assert not bucket.files
    send(bucket, clip)
    assert bucket.files["key/clip.mp4"] == clip.read_bytes()


@pytest.mark.parametrize("trouble", LASTING, ids=str)
def test_a_refusal_names_its_code_and_no_secret(bucket: BucketSite, clip: Path, trouble: int | tuple[int, str]) -> None:
    bucket.troubles = [trouble]
    status, code = trouble if isinstance(trouble, tuple) else (trouble, "AccessDenied")
    told = rf"the storage refused clip.mp4 \(4.0 MB\): the storage answered {status} {code}$"
    with pytest.raises(RefusedUpload, match=told) as failure:
        send(bucket, clip)
    assert SECRET not in str(failure.value)


def test_other_bytes_than_were_announced_are_refused(bucket: BucketSite, clip: Path) -> None:
    with pytest.raises(RefusedUpload, match="400 BadDigest"):
        send(bucket, clip, **{"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert not bucket.files


def test_a_refusal_before_the_body_was_read_is_no_success(bucket: BucketSite, tmp_path: Path) -> None:
    """The server hangs up with bytes still to come: the answer arrives, or the connection breaks."""
    path = tmp_path / "long.mp4"
    path.write_bytes(bytes(16 * MB))
    bucket.troubles = ["early"]
    with pytest.raises((RefusedUpload, StorageUnavailable)) as failure:
        send(bucket, path)
    assert SECRET not in str(failure.value) and "secret-part" not in str(failure.value)


def test_a_silent_storage_is_given_up(bucket: BucketSite, clip: Path) -> None:
    bucket.troubles = ["silent"]
    with pytest.raises(StorageUnavailable, match="silent for too long"):
        upload(clip, bucket.upload_url("k"), {}, clip.stat().st_size, lambda sent, total: None, settling_s=0.2)


def test_nobody_listening_is_for_a_later_try(clip: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StorageUnavailable, match="connection failed"):
        upload(clip, f"http://127.0.0.1:{port}/key?{SECRET}", {}, clip.stat().st_size, lambda sent, total: None)


def test_an_upload_stops_soon_even_when_the_storage_stands_still(bucket: BucketSite, clip: Path) -> None:
    """As many bytes as fit on the way are sent, then nothing happens any more, until somebody cancels."""
    bucket.troubles = ["silent"]
    begun_at = time.monotonic()

    def stop(sent: int, total: int) -> None:
        if bucket.receiving.is_set():
            raise GenerationCancelled

    with pytest.raises(GenerationCancelled):
        upload(clip, bucket.upload_url("key"), {}, clip.stat().st_size, stop)
    assert time.monotonic() - begun_at < 2
    assert not bucket.files


def test_every_upload_has_a_connection_of_its_own(bucket: BucketSite, clip: Path) -> None:
    for _ in range(3):
        send(bucket, clip)
    assert len(bucket.connections) == 3


def test_addresses_are_in_no_log(bucket: BucketSite, clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The HTTP library writes them at its lowest level; the formatter of our logs takes the secret out."""
    caplog.handler.setFormatter(RedactingFormatter())
    bucket.troubles = [500, 403]
    with caplog.at_level(logging.DEBUG):
        for kind in (StorageUnavailable, RefusedUpload):
            with pytest.raises(kind):
                send(bucket, clip)
        send(bucket, clip)
    lines = [caplog.handler.format(record) for record in caplog.records]
    assert any("PUT /key/clip.mp4" in line for line in lines)
    assert not any("0123456789abcdef" in line for line in lines)
