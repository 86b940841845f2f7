"""Media by path and by URL, from a real server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headless.generation import CancelToken
from source.errors import GenerationCancelled, InvalidMedia, Transient
from source.media.download import shown
from source.media.fetch import MediaFetcher
from source.settings import load_settings


class Site(ThreadingHTTPServer):
    """Serves `files`; some paths misbehave."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.files = files
        self.requests: list[str] = []
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up early are what these tests are about."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(path)
        if path.startswith("/status/"):
            self.send_error(int(path.removeprefix("/status/")))
        elif path == "/loop":
            self._redirect("/loop")
        elif path == "/moved":
            self._redirect("/cat.png")
        elif path == "/to-a-file":
            self._redirect("file:///etc/hostname")
        elif path == "/to-nonsense":
            self._redirect("http://[nonsense/")
        elif path == "/cut-short":
            self._body(b"half of it", announced=1000)
        elif path == "/silent":
            self.server.closing.wait(30)
        elif path == "/endless":
            self._endless()
        elif path in self.server.files:
            self._body(self.server.files[path])
        else:
            self.send_error(404)

    def _redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def _body(self, content: bytes, announced: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(announced or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _endless(self) -> None:
        """No length announced, and no end."""
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.closing.is_set():
                self.wfile.write(bytes(65536))
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def site(samples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    picture = (samples / "chelsea.jpg").read_bytes()
    site = Site({"/cat.png": picture, "/note.txt": b"just text", "/empty.png": b""})
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield site
    site.closing.set()
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "inputs"


@pytest.fixture
def fetcher(tmp_path: Path, folder: Path) -> MediaFetcher:
    settings = load_settings(db_file=tmp_path / "tasks.db", max_download_mb=1, download_timeout_s=0.5)
    return MediaFetcher(settings, folder)


def picture(fetcher: MediaFetcher, reference: str) -> Path:
    return fetcher.fetch(reference, kind="image", field="image_start")


def test_a_path_stays_where_it_is(fetcher: MediaFetcher, samples: Path) -> None:
    assert picture(fetcher, str(samples / "chelsea.jpg")) == (samples / "chelsea.jpg").resolve()


def test_a_relative_path_starts_at_the_working_directory(
    fetcher: MediaFetcher, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(samples)
    assert picture(fetcher, "chelsea.jpg") == (samples / "chelsea.jpg").resolve()


def test_an_output_location_is_a_reference_too(fetcher: MediaFetcher, samples: Path, tmp_path: Path) -> None:
    published = tmp_path / "public" / "files" / "t1_cat.jpg"
    published.parent.mkdir(parents=True)
    published.write_bytes((samples / "chelsea.jpg").read_bytes())
    assert picture(fetcher, "files/t1_cat.jpg") == published.resolve()


def test_a_url_is_downloaded_once(fetcher: MediaFetcher, site: Site, folder: Path) -> None:
    first = picture(fetcher, site.url("/cat.png"))
    assert first == picture(fetcher, site.url("/cat.png"))
    assert first.parent == folder
    assert first.read_bytes() == site.files["/cat.png"]
    assert site.requests == ["/cat.png"]


def test_urls_of_one_name_do_not_overwrite_each_other(fetcher: MediaFetcher, site: Site) -> None:
    assert picture(fetcher, site.url("/cat.png?v=1")) != picture(fetcher, site.url("/cat.png?v=2"))


def test_a_download_stays_in_its_folder(fetcher: MediaFetcher, site: Site, folder: Path) -> None:
    site.files["/..%2F..%2Fevil.png"] = site.files["/cat.png"]
    assert picture(fetcher, site.url("/..%2F..%2Fevil.png")).parent == folder


def test_redirects_are_followed(fetcher: MediaFetcher, site: Site) -> None:
    assert picture(fetcher, site.url("/moved")).stat().st_size == len(site.files["/cat.png"])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/status/404", "404"),
        ("/status/403", "403"),
        ("/loop", "redirects"),
        ("/to-a-file", "http"),
        ("/to-nonsense", "http"),
        ("/endless", "larger than 1 MB"),
        ("/note.txt", "text"),
        ("/empty.png", "empty"),
    ],
)
def test_what_a_later_try_cannot_mend_is_bad_input(fetcher: MediaFetcher, site: Site, path: str, said: str) -> None:
    with pytest.raises(InvalidMedia, match=rf"^image_start: .*{said}"):
        picture(fetcher, site.url(path))


@pytest.mark.parametrize("path", ["/status/500", "/status/503", "/status/429", "/cut-short", "/silent"])
def test_what_may_pass_is_transient(fetcher: MediaFetcher, site: Site, folder: Path, path: str) -> None:
    with pytest.raises(Transient, match=r"^image_start: "):
        picture(fetcher, site.url(path))
    assert not list(folder.iterdir())


def test_an_announced_size_is_refused_before_it_is_read(fetcher: MediaFetcher, site: Site) -> None:
    site.files["/huge.png"] = bytes(2 * 1024 * 1024)
    with pytest.raises(InvalidMedia, match="larger than 1 MB"):
        picture(fetcher, site.url("/huge.png"))


def test_a_server_that_is_not_there_is_transient(fetcher: MediaFetcher, site: Site) -> None:
    with pytest.raises(Transient, match=r"^image_start: "):
        picture(fetcher, "http://127.0.0.1:1/cat.png")


@pytest.mark.parametrize("reference", ["file:///etc/hostname", "ftp://host/cat.png", "data:image/png;base64,AAAA"])
def test_other_schemes_are_refused(fetcher: MediaFetcher, reference: str) -> None:
    with pytest.raises(InvalidMedia, match=r"^image_start: .*http"):
        picture(fetcher, reference)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "  ",
        "nowhere.png",
        "~nobody-of-that-name/x.png",
        "a" * 400,
        "a\0b",
        "files/../../tasks.db",
        "http://",
        "http://h:x/",
        "http://[::1/x.png",
    ],
)
def test_references_that_lead_nowhere_are_named(fetcher: MediaFetcher, reference: str) -> None:
    with pytest.raises((InvalidMedia, Transient), match=r"^image_start: "):
        picture(fetcher, reference)


def test_a_folder_is_no_file(fetcher: MediaFetcher, samples: Path) -> None:
    with pytest.raises(InvalidMedia, match="folder"):
        picture(fetcher, str(samples))


def test_each_kind_is_checked(fetcher: MediaFetcher, samples: Path) -> None:
    video, sound = str(samples / "bbb_416x240_49f.mp4"), str(samples / "bbb_320x180_audio.mp4")
    fetcher.fetch(video, kind="video", field="video_guide")
    fetcher.fetch(sound, kind="audio", field="audio_guide")
    for reference, kind in ((video, "image"), (str(samples / "chelsea.jpg"), "video"), (video, "audio")):
        with pytest.raises(InvalidMedia, match=r"^it: "):
            fetcher.fetch(reference, kind=kind, field="it")


def test_text_is_no_sound(fetcher: MediaFetcher, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_text("la la la " * 100)
    with pytest.raises(InvalidMedia, match=r"^audio_guide: .*sound"):
        fetcher.fetch(str(tmp_path / "song.mp3"), kind="audio", field="audio_guide")


def test_a_truncated_video_is_found(fetcher: MediaFetcher, samples: Path, tmp_path: Path) -> None:
    whole = (samples / "bbb_416x240_49f.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidMedia, match=r"^video_guide: "):
        fetcher.fetch(str(tmp_path / "half.mp4"), kind="video", field="video_guide")


def test_a_cancel_stops_a_download(tmp_path: Path, folder: Path, site: Site) -> None:
    token = CancelToken()
    token.cancel()
    fetcher = MediaFetcher(load_settings(db_file=tmp_path / "tasks.db"), folder, token.raise_if_cancelled)
    with pytest.raises(GenerationCancelled):
        picture(fetcher, site.url("/endless"))
    assert not list(folder.iterdir())


def test_secrets_in_a_url_do_not_reach_the_message(fetcher: MediaFetcher, site: Site) -> None:
    url = site.url("/status/404?token=swordfish").replace("http://", "http://user:hunter2@")
    with pytest.raises(InvalidMedia) as caught:
        picture(fetcher, url)
    assert "swordfish" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InvalidMedia) as malformed:
        picture(fetcher, "http://user:hunter2@[nonsense/?token=swordfish")
    assert "swordfish" not in str(malformed.value)
    assert "hunter2" not in str(malformed.value)
    assert shown("https://u:p@host:81/a/b.png?x=1") == "https://host:81/a/b.png"
