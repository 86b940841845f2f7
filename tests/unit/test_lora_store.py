"""LoRAs by name, by path and by URL: found, downloaded from a real server, continued, checked, kept, removed."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lora_site import LoRASite, lora_bytes, put_lora, serving, sha256

from headless.generation import CancelToken
from source.errors import DiskFull, GenerationCancelled, InvalidInput, Transient
from source.loras import LoRAStore
from source.loras.housekeeping import FORGOTTEN_S
from source.loras.locks import LOOK_S
from source.media.download import CHUNK_BYTES
from source.settings import load_settings

#: larger than one chunk, so that a cut falls in the middle
LARGE = lora_bytes(2, 200_000)
CUT = 9 * CHUNK_BYTES


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoRASite]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as site:
        yield site


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    return tmp_path / "loras"


def store_of(loras: Path, **settings: Any) -> LoRAStore:
    settings = {"loras_dir": loras, "download_timeout_s": 2.0} | settings
    return LoRAStore(load_settings(**settings), first_retry_s=0)


@pytest.fixture
def store(loras: Path) -> LoRAStore:
    return store_of(loras)


def resolve(store: LoRAStore, reference: str, family: str = "wan") -> Path:
    with store.for_task() as task:
        return task.resolve(reference, family)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def remains(loras: Path) -> list[str]:
    return sorted(path.name for path in (loras / "wan" / ".downloads").iterdir() if path.suffix in (".part", ".json"))


# ---- names and paths


def test_a_name_is_a_file_in_the_folder_of_the_models_family(store: LoRAStore, loras: Path) -> None:
    mine = put_lora(loras / "wan" / "style.safetensors")
    nested = put_lora(loras / "wan" / "sub" / "style.safetensors")
    assert resolve(store, "style.safetensors") == mine
    assert resolve(store, "sub/style.safetensors") == nested
    assert resolve(store, str(mine), family="flux") == mine
    with pytest.raises(InvalidInput, match=r"^activated_loras: .*style\.safetensors.*flux"):
        resolve(store, "style.safetensors", family="flux")
    assert mine.is_absolute()
    assert not (loras / "wan" / ".downloads").exists()


def test_an_unknown_name_offers_the_nearest(store: LoRAStore, loras: Path) -> None:
    put_lora(loras / "wan" / "style_v2.safetensors")
    with pytest.raises(InvalidInput, match=r"Did you mean 'style_v2\.safetensors'"):
        resolve(store, "Style_v2.safetensors")


def test_further_folders_may_be_allowed(loras: Path, tmp_path: Path) -> None:
    theirs = put_lora(tmp_path / "shared" / "style.safetensors")
    with pytest.raises(InvalidInput, match=r"^activated_loras: .*LORA_DIRS"):
        resolve(store_of(loras), str(theirs))
    allowed = store_of(loras, lora_dirs=f"{tmp_path / 'other'}{os.pathsep}{theirs.parent}")
    assert resolve(allowed, str(theirs)) == resolve(allowed, "style.safetensors") == theirs


@pytest.mark.parametrize(
    "reference",
    [
        "", " ", "a\0b", "a" * 400, "nowhere.safetensors", "/etc/passwd", "../secret.safetensors", "file:///etc/passwd",
        "wan/../../secret.safetensors", "link.safetensors", "linked/secret.safetensors", "circle.safetensors",
        "ftp://h.org/x.safetensors", "http://", ".",
    ],
)  # fmt: skip
def test_what_lies_or_leads_outside_is_refused(store: LoRAStore, loras: Path, reference: str) -> None:
    secret = put_lora(loras.parent / "secret.safetensors")
    (loras / "wan").mkdir(parents=True)
    (loras / "wan" / "link.safetensors").symlink_to(secret)
    (loras / "wan" / "linked").symlink_to(loras.parent)
    (loras / "wan" / "circle.safetensors").symlink_to(loras / "wan" / "circle.safetensors")
    with pytest.raises(InvalidInput, match=r"^activated_loras: "):
        resolve(store, reference)
    with pytest.raises(InvalidInput, match=r"^activated_loras: "):
        resolve(store, str(loras / "wan" / ".." / ".." / "secret.safetensors"))


def test_a_folder_of_loras_may_be_a_link_itself(loras: Path, tmp_path: Path) -> None:
    real = put_lora(tmp_path / "disk" / "wan" / "style.safetensors")
    loras.symlink_to(real.parent.parent)
    assert resolve(store_of(loras), "style.safetensors").samefile(real)


def test_a_damaged_file_of_the_users_is_named_and_left_alone(store: LoRAStore, loras: Path) -> None:
    mine = put_lora(loras / "wan" / "style.safetensors", lora_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"^activated_loras: .*style\.safetensors.*cut off"):
        resolve(store, "style.safetensors")
    assert mine.read_bytes() == lora_bytes()[:-100]


# ---- downloads


def test_a_url_is_downloaded_once_and_kept(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    url = site.add("/a/resolve/style%20one.safetensors", LARGE)
    path = resolve(store, url)
    assert path == loras / "wan" / "style one.safetensors"
    assert path.read_bytes() == LARGE
    assert resolve(store_of(loras), f"{url}?download=true") == resolve(store, "style one.safetensors") == path
    assert len(site.requests) == 1
    index = json.loads((loras / "wan" / ".downloads" / "index.json").read_text())
    entry = index["files"]["style one.safetensors"]
    assert (entry["url"], entry["size_bytes"], entry["sha256"]) == (url, len(LARGE), sha256(LARGE))
    assert remains(loras) == ["index.json"]


def test_each_family_has_its_folder(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    url = site.add("/style.safetensors")
    assert resolve(store, url, "wan").parent == loras / "wan"
    assert resolve(store, url, "flux").parent == loras / "flux"


def test_progress_counts_up_to_the_whole(store: LoRAStore, site: LoRASite) -> None:
    url, told = site.add("/style.safetensors", LARGE), []
    with store.for_task(on_download=lambda *progress: told.append(progress)) as task:
        task.resolve(url, "wan")
    assert len(told) > 1
    assert [received for _, received, _ in told] == sorted(received for _, received, _ in told)
    assert told[-1] == ("style.safetensors", len(LARGE), len(LARGE))


def test_a_cut_connection_is_continued_where_it_broke(store: LoRAStore, site: LoRASite) -> None:
    url = site.add("/style.safetensors", LARGE, cuts=[CUT])
    assert resolve(store, url).read_bytes() == LARGE
    first, second = site.requests
    assert (first.sent, second.range, second.sent) == (CUT, f"bytes={CUT}-", len(LARGE) - CUT)


def test_a_later_task_continues_what_an_earlier_one_began(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    cuts = [CUT, CHUNK_BYTES, CHUNK_BYTES, 0]
    url = site.add("/style.safetensors", LARGE, cuts=[*cuts])
    with pytest.raises(Transient, match=r"^activated_loras: "):
        resolve(store, url)
    assert [request.sent for request in site.requests] == cuts
    assert resolve(store_of(loras), url).read_bytes() == LARGE
    assert sum(request.sent for request in site.requests) == len(LARGE)


def test_a_server_without_ranges_sends_it_anew(store: LoRAStore, site: LoRASite) -> None:
    url = site.add("/style.safetensors", LARGE, cuts=[CUT], ranges=False)
    assert resolve(store, url).read_bytes() == LARGE
    assert [request.sent for request in site.requests] == [CUT, len(LARGE)]


@pytest.mark.parametrize("careless", [False, True])
def test_a_file_that_changed_is_downloaded_anew(store: LoRAStore, site: LoRASite, loras: Path, careless: bool) -> None:
    url = site.add("/style.safetensors", LARGE, cuts=[CUT, 0, 0, 0])
    with pytest.raises(Transient):
        resolve(store, url)
    changed = lora_bytes(7, 200_000)
    site.add("/style.safetensors", changed, etag='"v2"', careless=careless)
    assert resolve(store, url).read_bytes() == changed


@pytest.mark.parametrize("validator", [{"ETag": ""}, {"ETag": 'W/"v1"'}])
def test_without_a_strong_validator_nothing_is_continued(
    store: LoRAStore, site: LoRASite, validator: dict[str, str]
) -> None:
    url = site.add("/style.safetensors", LARGE, cuts=[CUT], headers=validator)
    assert resolve(store, url).read_bytes() == LARGE
    assert [request.range for request in site.requests] == [None, None]


def test_a_date_continues_where_there_is_no_etag(store: LoRAStore, site: LoRASite) -> None:
    dated = {"ETag": "", "Last-Modified": "Wed, 01 Jan 2025 10:00:00 GMT"}
    url = site.add("/style.safetensors", LARGE, cuts=[CUT], headers=dated)
    assert resolve(store, url).read_bytes() == LARGE
    assert [request.sent for request in site.requests] == [CUT, len(LARGE) - CUT]


def test_a_complete_part_is_not_asked_for_again(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    """A worker that died before it named the file."""
    url = site.add("/style.safetensors", LARGE, cuts=[CUT, 0, 0, 0])
    with pytest.raises(Transient):
        resolve(store, url)
    next((loras / "wan" / ".downloads").glob("*.part")).write_bytes(LARGE)
    asked = len(site.requests)
    assert resolve(store, url).read_bytes() == LARGE
    assert len(site.requests) == asked


def test_a_spoilt_part_is_dropped_and_fetched_anew(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    url = site.add("/style.safetensors", LARGE, cuts=[CUT, 0, 0, 0], headers={"X-Linked-ETag": f'"{sha256(LARGE)}"'})
    with pytest.raises(Transient):
        resolve(store, url)
    next((loras / "wan" / ".downloads").glob("*.part")).write_bytes(bytes(CUT))
    assert resolve(store, url).read_bytes() == LARGE


def test_faults_of_the_server_are_tried_again(store: LoRAStore, site: LoRASite) -> None:
    url = site.add("/style.safetensors", LARGE, statuses=[503, 429], cuts=[CUT])
    assert resolve(store, url).read_bytes() == LARGE
    assert len(site.requests) == 4


def test_a_fault_in_between_does_not_lose_what_came(store: LoRAStore, site: LoRASite) -> None:
    url = site.add("/style.safetensors", LARGE, cuts=[CUT, 0, 0, 0])
    with pytest.raises(Transient):
        resolve(store, url)
    site.files["/style.safetensors"].statuses = [500]
    resolve(store, url)
    assert [request.sent for request in site.requests][-2:] == [0, len(LARGE) - CUT]


def test_tries_are_bounded(store: LoRAStore, site: LoRASite) -> None:
    url = site.add("/style.safetensors", statuses=[500] * 9)
    with pytest.raises(Transient, match=r"^activated_loras: .*500.*style\.safetensors"):
        resolve(store, url)
    assert len(site.requests) == 4


def test_silence_is_transient(loras: Path, site: LoRASite) -> None:
    url = site.add("/style.safetensors", LARGE, stuck=True)
    with pytest.raises(Transient):
        resolve(store_of(loras, download_timeout_s=0.1), url)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"statuses": [404] * 2}, "404.*check the URL"),
        ({"statuses": [401] * 2}, "401.*login"),
        ({"statuses": [403] * 2}, "403.*login"),
        ({"content": b"<html><head><title>Sign in</title></head>" + bytes(9000)}, "HTML page titled 'Sign in'"),
        ({"content": b'{"error": "gone"}'}, "JSON"),
        ({"content": b"short"}, "text"),
        ({"content": LARGE[:-10]}, "cut off"),
        ({"headers": {"X-Linked-ETag": f'"{sha256(b"other")}"'}}, "checksum"),
        ({"headers": {"X-Linked-Size": "10"}}, "10 were announced"),
        ({"headers": {"Content-Length": str(60 * 1024**3)}}, "larger than 50 GB .*max_lora_gb"),
    ],
)
def test_what_a_later_try_cannot_mend_is_bad_input(
    store: LoRAStore, site: LoRASite, loras: Path, behaviour: dict[str, Any], said: str
) -> None:
    url = site.add("/style.safetensors", **behaviour)
    with pytest.raises(InvalidInput, match=rf"^activated_loras: .*{said}"):
        resolve(store, url)
    assert len(site.requests) == 1
    assert visible(loras / "wan") == remains(loras) == []


def test_a_page_is_refused_before_all_of_it_came(store: LoRAStore, site: LoRASite) -> None:
    page = b"<html>" + bytes(64 * 1024 * 1024)
    url = site.add("/style.safetensors", page)
    with pytest.raises(InvalidInput, match="HTML"):
        resolve(store, url)
    assert all(request.sent < len(page) for request in site.requests)


def test_a_disk_without_room_is_said_before_anything_is_written(loras: Path, site: LoRASite) -> None:
    url = site.add("/style.safetensors", headers={"Content-Length": str(10**17)})
    with pytest.raises(DiskFull, match=r"GB free.*LORA_CACHE_GB"):
        resolve(store_of(loras, max_lora_gb=1e9), url)
    assert remains(loras) == []


def test_a_cancel_stops_a_download_and_keeps_what_came(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    url, token = site.add("/style.safetensors", LARGE), CancelToken()

    def cancel(name: str, received: int, total: int) -> None:
        token.cancel()

    with store.for_task(token.raise_if_cancelled, cancel) as task, pytest.raises(GenerationCancelled):
        task.resolve(url, "wan")
    part = next((loras / "wan" / ".downloads").glob("*.part"))
    assert 0 < part.stat().st_size < len(LARGE)
    assert resolve(store, url).read_bytes() == LARGE


def test_secrets_stay_out_of_messages_logs_and_the_index(
    store: LoRAStore, site: LoRASite, loras: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="source")
    site.add("/style.safetensors")
    secret = site.url("/style.safetensors?token=swordfish").replace("http://", "http://me:hunter2@")
    resolve(store, secret)
    with pytest.raises(InvalidInput) as caught:
        resolve(store, secret.replace("style", "nowhere"))
    said = str(caught.value) + caplog.text + (loras / "wan" / ".downloads" / "index.json").read_text()
    assert "swordfish" not in said
    assert "hunter2" not in said


# ---- the hub


def test_a_page_of_the_hub_leads_through_its_redirect_to_the_checked_file(site: LoRASite, loras: Path) -> None:
    linked = {"X-Linked-Size": str(len(LARGE)), "X-Linked-ETag": f'"{sha256(LARGE)}"'}
    cdn = site.add("/cdn/1234", LARGE, cuts=[CUT])
    site.add("/me/repo/resolve/main/style.safetensors", b"", moved_to=cdn, headers=linked)
    store = store_of(loras, hf_endpoint=site.url(""))
    path = resolve(store, "https://huggingface.co/me/repo/blob/main/style.safetensors")
    assert (path.name, path.read_bytes()) == ("style.safetensors", LARGE)
    assert [request.sent for request in site.asked("/cdn/1234")] == [CUT, len(LARGE) - CUT]


def test_another_content_than_the_hub_announced_is_refused(site: LoRASite, loras: Path) -> None:
    cdn = site.add("/cdn/1234", LARGE)
    headers = {"X-Linked-ETag": f'"{sha256(b"another")}"'}
    site.add("/me/repo/resolve/main/style.safetensors", b"", moved_to=cdn, headers=headers)
    with pytest.raises(InvalidInput, match="checksum"):
        resolve(store_of(loras, hf_endpoint=site.url("")), site.url("/me/repo/blob/main/style.safetensors"))


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(site: LoRASite, loras: Path) -> None:
    cdn = site.add("/cdn/1234").replace("127.0.0.1", "localhost")
    site.add("/me/repo/resolve/main/style.safetensors", b"", moved_to=cdn, token="hf_secret")
    store = store_of(loras, hf_endpoint=site.url(""), hf_token="hf_secret")
    resolve(store, "https://huggingface.co/me/repo/resolve/main/style.safetensors")
    assert [request.authorization for request in site.requests] == ["Bearer hf_secret", None]


def test_another_host_is_never_told_the_token(site: LoRASite, loras: Path) -> None:
    resolve(store_of(loras, hf_token="hf_secret"), site.add("/style.safetensors"))
    assert [request.authorization for request in site.requests] == [None]


def test_a_private_repository_asks_for_the_token(site: LoRASite, loras: Path) -> None:
    url = site.add("/me/repo/resolve/main/style.safetensors", token="hf_right")
    with pytest.raises(InvalidInput, match=r"401.*set HF_TOKEN"):
        resolve(store_of(loras, hf_endpoint=site.url("")), url)
    with pytest.raises(InvalidInput, match=r"401.*HF_TOKEN was sent") as caught:
        resolve(store_of(loras, hf_endpoint=site.url(""), hf_token="hf_wrong"), url)
    assert "hf_wrong" not in str(caught.value)
    assert resolve(store_of(loras, hf_endpoint=site.url(""), hf_token="hf_right"), url).is_file()


# ---- names that collide


def test_generic_names_get_their_folder_and_equal_names_a_hash(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    contents = {}
    for number, path in enumerate(
        (
            "/one/high_noise_model.safetensors",
            "/two/high_noise_model.safetensors",
            "/a/x.safetensors",
            "/b/x.safetensors",
        )
    ):
        content = lora_bytes(number + 1)
        contents[resolve(store, site.add(path, content))] = content
    assert len(contents) == 4
    assert all(path.read_bytes() == content for path, content in contents.items())
    names = visible(loras / "wan")
    assert {"one_high_noise_model.safetensors", "two_high_noise_model.safetensors", "x.safetensors"} < set(names)
    assert sum(name.startswith("x_") for name in names) == 1
    assert [resolve(store, site.url(path)) for path in ("/a/x.safetensors", "/b/x.safetensors")] == list(contents)[2:]
    assert len(site.requests) == 4


def test_a_file_of_the_users_is_taken_for_the_first_url_of_its_name_alone(
    store: LoRAStore, site: LoRASite, loras: Path
) -> None:
    mine = put_lora(loras / "wan" / "x.safetensors", lora_bytes(9))
    assert resolve(store, site.add("/a/x.safetensors")) == mine
    assert site.requests == []
    theirs = resolve(store, site.add("/b/x.safetensors", lora_bytes(3)))
    assert theirs != mine
    assert (mine.read_bytes(), theirs.read_bytes()) == (lora_bytes(9), lora_bytes(3))


def test_a_damaged_file_of_the_users_is_not_replaced_by_a_download(
    store: LoRAStore, site: LoRASite, loras: Path
) -> None:
    mine = put_lora(loras / "wan" / "x.safetensors", b"a note")
    with pytest.raises(InvalidInput, match=r"x\.safetensors"):
        resolve(store, site.add("/a/x.safetensors"))
    assert mine.read_bytes() == b"a note"


def test_a_url_without_a_name_gets_the_servers(store: LoRAStore, site: LoRASite) -> None:
    offered = {"Content-Disposition": 'attachment; filename="../../Nice.safetensors"'}
    url = site.add("/api/download/models/123", headers=offered)
    assert resolve(store, f"{url}?type=Model").name == "Nice.safetensors"
    assert resolve(store, f"{url}?type=Model").name == "Nice.safetensors"
    assert len(site.requests) == 1


@pytest.mark.parametrize("damage", [LARGE[:-1000], b"<html>", None])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_damaged_download_is_fetched_anew(
    store: LoRAStore, site: LoRASite, damage: bytes | None, by_name: bool
) -> None:
    url = site.add("/style.safetensors", LARGE)
    path = resolve(store, url)
    if damage is None:
        if by_name:
            return  # a file that is gone has no name any more
        path.unlink()
    else:
        path.write_bytes(damage)
    assert resolve(store, "style.safetensors" if by_name else url) == path
    assert path.read_bytes() == LARGE
    assert len(site.requests) == 2


def test_an_intact_file_in_a_downloads_place_is_the_users(loras: Path, site: LoRASite) -> None:
    store = store_of(loras, lora_cache_gb=1e-9)
    url = site.add("/style.safetensors", LARGE)
    path = resolve(store, url)
    path.write_bytes(lora_bytes(5))
    assert resolve(store, url).read_bytes() == lora_bytes(5)
    resolve(store, site.add("/other.safetensors"))
    assert path.read_bytes() == lora_bytes(5)


def test_a_damaged_index_makes_every_file_the_users(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    url = site.add("/style.safetensors", LARGE)
    path = resolve(store, url)
    (loras / "wan" / ".downloads" / "index.json").write_text('{"files": {"style')
    assert resolve(store, url) == path
    assert len(site.requests) == 1


# ---- several at once


def test_eight_tasks_share_one_download(store: LoRAStore, site: LoRASite) -> None:
    url, together = site.add("/style.safetensors", LARGE), threading.Barrier(8)

    def task(_: int) -> Path:
        together.wait()
        return resolve(store, url)

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(task, range(8)))
    assert [path.read_bytes() for path in paths] == [LARGE]
    assert len(site.requests) == 1


def test_one_who_waits_for_anothers_download_can_be_cancelled(loras: Path, site: LoRASite) -> None:
    store, url = store_of(loras, download_timeout_s=20), site.add("/style.safetensors", LARGE, stuck=True)
    loader, waiter, looks = CancelToken(), CancelToken(), []

    def load() -> None:
        with store.for_task(loader.raise_if_cancelled) as task, pytest.raises((Transient, GenerationCancelled)):
            task.resolve(url, "wan")

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 4:
            waiter.cancel()
        waiter.raise_if_cancelled()

    thread = threading.Thread(target=load)
    thread.start()
    assert site.waiting.wait(10)
    with store.for_task(look) as task, pytest.raises(GenerationCancelled):
        task.resolve(url, "wan")
    assert looks[-1] - looks[0] > LOOK_S
    assert len(site.requests) == 1
    loader.cancel()
    site.closing.set()
    thread.join(10)
    assert not thread.is_alive()


def test_two_urls_of_one_name_at_once_do_not_overwrite_each_other(store: LoRAStore, site: LoRASite) -> None:
    urls = [site.add(f"/{number}/x.safetensors", lora_bytes(number)) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(lambda url: resolve(store, url), urls))
    assert [path.read_bytes() for path in paths] == [lora_bytes(number) for number in range(6)]


# ---- what is kept


def test_the_least_recently_used_download_goes_first(loras: Path, site: LoRASite) -> None:
    limited = store_of(loras, lora_cache_gb=2.5 * len(LARGE) / 1024**3)
    mine = put_lora(loras / "wan" / "mine.safetensors", LARGE)
    urls = {name: site.add(f"/{name}.safetensors", LARGE) for name in "abcd"}
    a, b = resolve(limited, urls["a"]), resolve(limited, urls["b"], "flux")
    resolve(limited, urls["a"])
    c = resolve(limited, urls["c"])
    assert [path.exists() for path in (mine, a, b, c)] == [True, True, False, True]
    resolve(limited, urls["d"])
    assert [path.exists() for path in (mine, a, c)] == [True, False, True]


def test_what_a_running_task_uses_stays(loras: Path, site: LoRASite) -> None:
    limited, other = (store_of(loras, lora_cache_gb=1.5 * len(LARGE) / 1024**3) for _ in range(2))
    running = limited.for_task()
    a = running.resolve(site.add("/a.safetensors", LARGE), "wan")
    b = resolve(other, site.add("/b.safetensors", LARGE))
    assert a.exists() and b.exists()
    running.release()
    c = resolve(other, site.add("/c.safetensors", LARGE))
    assert [path.exists() for path in (a, b, c)] == [False, False, True]


def test_without_a_limit_nothing_goes(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    for name in "abcd":
        resolve(store, site.add(f"/{name}.safetensors", LARGE))
    store.prepare()
    assert len(visible(loras / "wan")) == 4


def test_ambiguous_files_of_older_versions_are_set_aside_and_said(
    store: LoRAStore, loras: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "high_noise_model.safetensors"
    old = put_lora(loras / "wan" / name)
    untouched = [
        put_lora(loras / "wan" / "mine" / name),
        put_lora(loras / "wan" / "adapter_model.safetensors"),
        put_lora(loras / "wan" / "Seko_high_noise_model.safetensors"),
    ]
    with caplog.at_level(logging.WARNING, logger="source"):
        store.prepare()
    assert f"{name}.ambiguous" in caplog.text
    assert not old.exists()
    assert (loras / "wan" / f"{name}.ambiguous").read_bytes() == lora_bytes()
    assert all(path.exists() for path in untouched)
    with pytest.raises(InvalidInput, match=r"renamed to high_noise_model\.safetensors\.ambiguous"):
        resolve(store, name)
    put_lora(old, lora_bytes(4))
    store.prepare()
    assert (loras / "wan" / f"{name}.ambiguous").read_bytes() == lora_bytes()
    assert (loras / "wan" / f"{name}.ambiguous2").read_bytes() == lora_bytes(4)


def test_a_worker_starts_without_a_lora_folder(store: LoRAStore, loras: Path) -> None:
    store.prepare()
    assert not loras.exists()


def test_parts_that_nobody_continues_are_dropped(store: LoRAStore, site: LoRASite, loras: Path) -> None:
    for name in "ab":
        with pytest.raises(Transient):
            resolve(store, site.add(f"/{name}.safetensors", LARGE, cuts=[CUT, 0, 0, 0]))
    forgotten, recent = (loras / "wan" / ".downloads").glob("*.part")
    old = time.time() - FORGOTTEN_S - 60
    os.utime(forgotten, (old, old))
    store.prepare()
    assert remains(loras) == sorted([recent.name, recent.with_suffix(".json").name])
