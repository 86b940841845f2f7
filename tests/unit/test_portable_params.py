"""Parameters without paths and secrets: what is replaced, what is left alone, and that any JSON survives the way."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from source.params.base import CONTAINERS
from source.provenance.ingredients import Ingredients
from source.provenance.portable import as_note, localised, notes_in, places_in, portable
from source.provenance.record import FileNote, Provenance, RootNote, TaskNote, as_text, read_provenance
from source.settings import load_settings
from source.storage import LocalStorage
from Wan2GP.media import write_image
from Wan2GP.media.digest import FileDigests, file_digest
from Wan2GP.media.metadata import embed_text


@pytest.fixture
def made_of(tmp_path: Path) -> Ingredients:
    storage = LocalStorage(load_settings(db_file=tmp_path / "tasks.db", main_output_dir=tmp_path / "outputs"))
    return Ingredients(FileDigests(), storage, tmp_path / "ckpts", lambda: None)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return write_image(tmp_path / "cat.png", np.zeros((8, 8, 3), np.uint8))


def test_files_give_way_to_their_names_and_digests(
    made_of: Ingredients, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    note = {"name": "cat.png", "sha256": file_digest(cat)}
    unseen = {"name": "cat.png", "sha256": None}
    found = portable(
        {
            "image_start": str(cat), "video_guide": "cat.png", "image_refs": f"cat.png, {cat}",
            "nested": {"deep": [str(cat), "https://example.com/a/cat.png?token=abc", "C:\\Users\\me\\cat.png"]},
        },
        made_of.meaning,
    )  # fmt: skip
    assert found == {
        "image_start": note, "video_guide": note, "image_refs": [note, note],
        "nested": {"deep": [note, unseen, unseen]},
    }  # fmt: skip
    made_of.learn([FileNote(name="cat.png", sha256="1" * 64)])
    assert portable({"a": "https://example.com/cat.png"}, made_of.meaning)["a"]["sha256"] == "1" * 64
    made_of.learn([FileNote(name="cat.png", sha256="2" * 64)])
    assert portable({"a": "https://example.com/cat.png"}, made_of.meaning) == {"a": unseen}


NOBODY = {"name": "x.png", "sha256": None}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("image_refs", "/home/me/x.png, C:\\Users\\me\\x.png", [NOBODY] * 2),
        ("image_refs", "https://a.example/x.png?sig=1,https://b.example/x.png?sig=2", [NOBODY] * 2),
        ("image_refs", "not here.png;/home/me/x.png", [{"name": "not here.png", "sha256": None}, NOBODY]),
        ("image_refs", "/home/me/x.png\nhttps://a.example/x.png", [NOBODY] * 2),
        ("image_start", "https://a.example/x.png?size=1,2&sig=0", NOBODY),
        ("image_start", "https://a.example/x.png?token=" + "A" * 5000, NOBODY),
        ("image_start", "C:/Users/me\\pictures\\x.png", NOBODY),
        ("image_start", "data:image/png;base64," + "A" * 5000, {"name": "data", "sha256": None}),
        ("activated_loras", "/home/me/a.safetensors,/home/me/b.safetensors,c.safetensors",
         "a.safetensors,b.safetensors,c.safetensors"),
        ("prompts", [{"image": "/home/me/x.png", "text": "/imagine"}], [{"image": NOBODY, "text": "/imagine"}]),
        ("prompt_image_url", "https://a.example/x.png?sig=1", NOBODY),
        ("caption_file", "/home/me/x.png", NOBODY),
    ],
)  # fmt: skip
def test_no_way_of_naming_a_file_tells_where_it_lies(
    name: str, value: Any, expected: Any, made_of: Ingredients
) -> None:
    assert portable({name: value}, made_of.meaning) == {name: expected}
    assert places_in({name: value})


@pytest.mark.parametrize(
    "name",
    ["api_key", "apikey", "X-API-Key", "x-my-api-key", "hf_token", "replicateApiToken", "hfToken", "Authorization",
     "Cookie", "aws_access_key_id", "accessKeyId", "private_key", "client_secret", "X-Goog-Credential"],
)  # fmt: skip
def test_secrets_go_by_their_names_inside_a_text_of_json_too(name: str, made_of: Ingredients) -> None:
    values = {"1": {"inputs": {name: "open sesame", "seed": 3}}}
    made = portable({"workflow": json.dumps(values), "prompt": json.dumps(values), "extra": values}, made_of.meaning)
    assert "sesame" not in json.dumps(made)
    assert json.loads(localised(made, {}, {})["workflow"])["1"]["inputs"]["seed"] == 3


@pytest.mark.parametrize("name", ["max_tokens", "tokens", "token_count", "keys", "seed_key_"])
def test_what_only_sounds_like_a_secret_stays(name: str, made_of: Ingredients) -> None:
    assert portable({name: "seven"}, made_of.meaning) == {name: "seven"}


def test_a_text_of_json_that_is_nested_without_end_stays_a_text(made_of: Ingredients) -> None:
    for text in ("[" * 400 + "]" * 400, "[" * 200_000, '{"a":' * 400 + "1" + "}" * 400):
        assert portable({"workflow": text}, made_of.meaning) == {"workflow": text}


@example(text="/ ~")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from([*"/~,;:. \n\\ab", "C:", "https://a.b/", "c.png", "d.safetensors"]), max_size=14).map(
        "".join
    )
)
def test_what_a_record_holds_never_names_a_place(text: str, made_of: Ingredients) -> None:
    assert places_in(portable({"a": text}, made_of.meaning)) == []


def test_words_and_settings_are_left_alone(made_of: Ingredients, cat: Path) -> None:
    values: dict[str, Any] = {
        "prompt": f"the picture {cat}", "base_prompts_expanded": ["/imagine a cat", "cat.png"], "model": "t2v",
        "resolution": "832x480", "keep_frames_video_guide": "1:5 7", "exact_fps": "16/1", "seed": 3,
        "video_prompt_type": "VM", "loras_multipliers": "1;0,5", "empty": "", "none": None, "on": True,
        "activated_loras": ["style.safetensors"],
    }  # fmt: skip
    assert portable(values, made_of.meaning) == values


def test_loras_become_names_also_where_they_are_keys(made_of: Ingredients) -> None:
    params = {
        "additional_loras": {"https://example.com/x/style.safetensors?token=a": 0.5, "mine.safetensors": 1},
        "loras": [{"path": "/home/me/loras/wan/a.safetensors", "scale": 1}],
    }
    assert portable(params, made_of.meaning) == {
        "additional_loras": {"style.safetensors": 0.5, "mine.safetensors": 1},
        "loras": [{"path": "a.safetensors", "scale": 1}],
    }


def test_files_inside_a_text_of_json_are_found_too(made_of: Ingredients, cat: Path) -> None:
    workflow = json.dumps({"1": {"inputs": {"image": str(cat), "text": "/imagine"}}})
    plain = json.dumps({"1": {"inputs": {"image": "x.png"}}}, indent=3)
    made = portable({"workflow": workflow, "other": plain, "broken": "{"}, made_of.meaning)
    assert (made["other"], made["broken"]) == (plain, "{")
    [note] = notes_in(made)
    assert str(cat) not in json.dumps(made)
    assert places_in({"workflow": workflow}) == [str(cat)]
    assert json.loads(localised(made, {note: "/there.png"}, {})["workflow"]) == {
        "1": {"inputs": {"image": "/there.png", "text": "/imagine"}}
    }


def test_the_notes_of_front_ends_stay_unless_they_name_places(made_of: Ingredients) -> None:
    params = {"shot_id": "7", "thumbnail_url": "https://example.com/a.png", "_seeds": {"": [1]}}
    assert portable(params, made_of.meaning) == {"shot_id": "7"}


def test_portable_parameters_find_their_files_again() -> None:
    note, other = FileNote(name="a.png", sha256="1" * 64), FileNote(name="b.png")
    params = {
        "one": {"name": "a.png", "sha256": "1" * 64}, "several": [{"name": "b.png", "sha256": None}, None, "x"],
        "gone": {"name": "b.png", "sha256": None}, "kept": None, "loras": {"style.safetensors": 1},
    }  # fmt: skip
    assert notes_in(params) == [note, other]
    assert localised(params, {note: "/here/a.png", other: None}, {"style.safetensors": "/l/s.safetensors"}) == {
        "one": "/here/a.png", "several": [None, "x"], "kept": None, "loras": {"/l/s.safetensors": 1},
    }  # fmt: skip
    assert as_note({"name": "a", "sha256": None, "more": 1}) is None
    assert places_in({"a": ["x.png", "/etc/passwd"], "prompt": "/imagine"}) == ["/etc/passwd"]


TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("plain") / "plain.png", np.zeros((8, 8, 3), np.uint8))


@settings(max_examples=100, deadline=None)
@given(params=st.dictionaries(TEXTS, JSON, max_size=5))
def test_any_parameters_come_back_as_they_were_written(picture: Path, params: dict[str, Any]) -> None:
    record = Provenance(task=TaskNote(id="a", type="t2v"), root=RootNote(id="a", type="t2v", params=params))
    target = picture.with_name("made.png")
    embed_text(picture, target, as_text(record), tool="a test")
    assert read_provenance(target).root.params == json.loads(json.dumps(params))


@settings(max_examples=100, deadline=None)
@given(params=st.dictionaries(TEXTS.filter(lambda name: name not in CONTAINERS), JSON, max_size=5))
def test_what_is_portable_stays_so(params: dict[str, Any]) -> None:
    def nothing(text: str) -> None:
        return None

    once = portable(params, nothing)
    assert portable(once, nothing) == once


def test_secrets_of_the_worker_are_taken_out_of_the_whole_record() -> None:
    record = Provenance(
        task=TaskNote(id="a", type="t2v"), root=RootNote(id="a", type="t2v", params={"prompt": 'a "quoted" secret'})
    )
    assert '"quoted' not in as_text(record, ('"quoted" secret',)).replace("\\", "")
    assert json.loads(as_text(record, ('"quoted" secret',)))["root"]["params"] == {"prompt": "a ***"}


ROOT = Path(__file__).resolve().parents[2]
SAMPLE_ROWS = sorted((ROOT / "samples" / "tasks").glob("*.json"))


@pytest.mark.parametrize("path", SAMPLE_ROWS, ids=lambda path: path.stem)
def test_the_files_of_every_sample_are_found_again(
    path: Path, made_of: Ingredients, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    row = json.loads(path.read_text(encoding="utf-8"))
    made = portable(row, made_of.meaning)
    assert '"samples/' not in json.dumps(made)
    files = sample_files()
    assert all(note.sha256 in files for note in notes_in(made))
    paths: dict[FileNote, str | None] = {note: files[note.sha256 or ""] for note in notes_in(made)}
    assert localised(made, paths, {}) == row


@cache
def sample_files() -> dict[str, str]:
    """Digest -> path as rows name it."""
    every = (file for file in (ROOT / "samples").rglob("*") if file.is_file() and "tasks" not in file.parts)
    return {file_digest(file): str(file.relative_to(ROOT)) for file in every}
