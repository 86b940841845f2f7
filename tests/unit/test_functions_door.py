"""The door to the Edge Functions on a server that misbehaves: what is asked again, what is said, what is not shown."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from functions_site import TOKEN, Answer, FunctionsSite, functions_site

from source.edge_functions import (
    EdgeFunctions,
    FunctionFailed,
    NoAnswer,
    Patience,
    Token,
    TokenRefused,
    usual_patience,
)
from source.errors import ConfigurationError, InvalidInput, RefusedWrite, StaleClaim, StoreError, TaskNotFound, WanError
from source.retry_after import retry_after_s

MakeDoor = Callable[..., EdgeFunctions]


def hasty(function: str) -> Patience:
    """As usual, 50 times as fast. A claim is still asked once."""
    usual = usual_patience(function)
    return Patience(usual.answer_s / 50, usual.in_all_s / 50, usual.first_wait_s / 50)


@pytest.fixture
def site() -> Iterator[FunctionsSite]:
    with functions_site() as site:
        yield site


@pytest.fixture
def make_door(site: FunctionsSite) -> Iterator[MakeDoor]:
    with ExitStack() as doors:

        def make(token: str = TOKEN, **options: object) -> EdgeFunctions:
            door = EdgeFunctions(site.url, Token(token), **{"patience": hasty} | options)  # type: ignore[arg-type]
            doors.callback(door.close)
            return door

        yield make


@pytest.fixture
def door(make_door: MakeDoor) -> EdgeFunctions:
    return make_door()


# -- questions ------------------------------------------------------------------------------------------------------


def test_a_question_carries_the_token_and_the_body(site: FunctionsSite, make_door: MakeDoor) -> None:
    site.answer("task-store", Answer({"result": 7}))
    assert make_door(anon_key="anon").call("task-store", {"operation": "open_tasks", "é": "\ud800"}) == {"result": 7}
    [question] = site.questions
    assert question.headers["Authorization"] == f"Bearer {TOKEN}"
    assert question.headers["apikey"] == "anon"
    assert question.body == {"operation": "open_tasks", "é": "?"}


def test_an_empty_answer_is_none(site: FunctionsSite, door: EdgeFunctions) -> None:
    site.answer("claim-next-task", Answer(b"", 204))
    assert door.call("claim-next-task", {}) is None


def test_connections_are_kept(site: FunctionsSite, door: EdgeFunctions) -> None:
    for _ in range(5):
        door.call("task-store", {})
    assert site.connections == 1


def test_functions_may_have_addresses_of_their_own(site: FunctionsSite, make_door: MakeDoor) -> None:
    door = make_door(urls={"claim-next-task": f"{site.url}/elsewhere/take"})
    door.call("claim-next-task", {})
    door.call("task-store", {})
    assert [question.function for question in site.questions] == ["take", "task-store"]


def test_a_login_in_netrc_does_not_replace_the_token(
    site: FunctionsSite, door: EdgeFunctions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    door.call("task-store", {})
    assert site.questions[0].headers["Authorization"] == f"Bearer {TOKEN}"


# -- what passes ----------------------------------------------------------------------------------------------------

FAULTS = [
    Answer({"error": "busy"}, 503), Answer({"error": "slow down"}, 429), Answer(b"<html>bad gateway</html>", 502),
    Answer(b"", 504), Answer(b"error code: 522", 522), Answer(fault="reset"), Answer(fault="silence"),
    Answer({"result": "cut short"}, fault="half"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.fault or str(fault.status))
def test_what_passes_is_asked_again(site: FunctionsSite, door: EdgeFunctions, fault: Answer) -> None:
    site.answer(
        "task-store", fault, fault if fault.fault != "silence" else Answer(fault="reset"), Answer({"result": 1})
    )
    assert door.call("task-store", {"operation": "x"}) == {"result": 1}
    assert len(site.questions) == 3


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.fault or str(fault.status))
def test_a_claim_is_asked_once(site: FunctionsSite, door: EdgeFunctions, fault: Answer) -> None:
    site.answer("claim-next-task", fault, Answer({"tasks": []}))
    lost = NoAnswer if fault.status not in (429, 503) else StoreError
    with pytest.raises(lost, match=r"^claim-next-task: "):
        door.call("claim-next-task", {})
    assert len(site.questions) == 1


def test_what_need_not_be_repeated_is_asked_once(site: FunctionsSite, door: EdgeFunctions) -> None:
    site.answer("task-store", Answer({"error": "busy"}, 503))
    with pytest.raises(StoreError, match=r"busy \(HTTP 503\)"):
        door.call("task-store", {}, repeat=False)
    assert len(site.questions) == 1


def test_retry_after_is_kept_to(site: FunctionsSite, door: EdgeFunctions) -> None:
    site.answer("complete-task", Answer({"error": "busy"}, 503, {"Retry-After": "1"}), Answer({"success": True}))
    started_at = time.monotonic()
    door.call("complete-task", {})
    assert time.monotonic() - started_at >= 1


def test_a_wait_that_is_too_long_is_not_begun(site: FunctionsSite, door: EdgeFunctions) -> None:
    site.answer("create-task", Answer({"error": "more than 120 tasks a minute"}, 429, {"Retry-After": "60"}))
    started_at = time.monotonic()
    with pytest.raises(StoreError, match="more than 120 tasks a minute"):
        door.call("create-task", {})
    assert time.monotonic() - started_at < 1


def test_it_is_given_up_in_time(site: FunctionsSite, door: EdgeFunctions) -> None:
    site.answer("task-store", Answer(fault="silence"))
    started_at = time.monotonic()
    with pytest.raises(NoAnswer, match="task-store: no answer within"):
        door.call("task-store", {})
    patience = hasty("task-store")
    assert patience.in_all_s * 0.5 < time.monotonic() - started_at < patience.in_all_s + 1.5


def test_no_patience_is_longer_than_a_dead_connection_may_hold_up_a_lease() -> None:
    assert usual_patience("heartbeat").answer_s <= 15
    assert usual_patience("heartbeat").in_all_s == usual_patience("claim-next-task").in_all_s == 0


def test_closing_ends_the_wait_for_the_next_try(site: FunctionsSite, make_door: MakeDoor) -> None:
    door = make_door(patience=lambda _: Patience(1, 60, 30))
    site.answer("task-store", Answer({"error": "busy"}, 503))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(door.call, "task-store", {})
        while not site.questions:
            threading.Event().wait(0.01)
        door.close()
        with pytest.raises(StoreError, match="busy"):
            asked.result(timeout=5)


def test_a_heartbeat_does_not_wait_for_other_questions(site: FunctionsSite, make_door: MakeDoor) -> None:
    door = make_door(patience=lambda _: Patience(5, 0))
    site.answer("complete-task", Answer(fault="silence"))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(door.call, "complete-task", {})
        while len(site.questions) < 4:
            threading.Event().wait(0.01)
        started_at = time.monotonic()
        door.call("heartbeat", {})
        assert time.monotonic() - started_at < 1
        site.closing.set()


def test_nobody_there_says_so_and_nothing_was_asked() -> None:
    with functions_site() as gone:
        url = gone.url
    door = EdgeFunctions(url, Token(TOKEN), patience=hasty)
    says = rf"^task-store: {url}/functions/v1/task-store cannot be reached: Connection refused$"
    with pytest.raises(StoreError, match=says) as refused:
        door.call("task-store", {})
    assert not isinstance(refused.value, NoAnswer)
    door.close()


def test_retry_after_may_be_a_date() -> None:
    then = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < retry_after_s({"Retry-After": then}) <= 30
    assert retry_after_s({"Retry-After": "7"}) == 7
    assert retry_after_s({"Retry-After": "soon"}) == retry_after_s({}) == 0


# -- what stays -----------------------------------------------------------------------------------------------------


#: what our functions write into each refusal, and what stands before them does not
OURS = {"success": False}


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (400, OURS | {"error": "params: must be JSON", "field": "params"}, InvalidInput, r"^params: must be JSON \("),
        (400, OURS | {"error": "no such id", "field": "dependant_on"}, InvalidInput, "^dependant_on: no such id"),
        (403, OURS | {"error": "not yours"}, RefusedWrite, "not yours"),
        (404, {"error": "there is no task 1", "code": "PT404"}, TaskNotFound, "there is no task 1"),
        (404, {"message": "Requested function was not found"}, StoreError, "no such function.*supabase/functions"),
        (409, OURS | {"error": "is stale"}, StaleClaim, "is stale"),
        (422, OURS | {"error": "Complete is final"}, RefusedWrite, "Complete is final"),
        (500, {"error": "the server failed; request 77"}, FunctionFailed, "task-store: the server failed; request 77"),
        (200, b"<html>hello</html>", StoreError, "hello"),
        (400, b"<html>Request Header Or Cookie Too Large</html>", StoreError, "Cookie Too Large.*HTTP 400"),
        (403, b"<html>blocked by the firewall</html>", StoreError, "blocked by the firewall.*HTTP 403"),
        (409, {"message": "deploying"}, StoreError, "deploying.*HTTP 409"),
        (302, b"", StoreError, "leads to https://other.example/functions"),
    ],
)  # fmt: skip
def test_each_refusal_is_an_error_of_its_kind_and_is_not_repeated(
    site: FunctionsSite, door: EdgeFunctions, status: int, body: object, kind: type[WanError], says: str
) -> None:
    site.answer("task-store", Answer(body, status, {"Location": "https://other.example/functions"}))
    with pytest.raises(kind, match=says) as refused:
        door.call("task-store", {})
    assert type(refused.value) is kind
    assert "task-store" in str(refused.value)
    assert len(site.questions) == 1


# -- the token ------------------------------------------------------------------------------------------------------


def test_an_expired_token_says_what_to_do(site: FunctionsSite, door: EdgeFunctions) -> None:
    site.answer("claim-next-task", Answer({"error": "the token has expired"}, 401))
    with pytest.raises(TokenRefused, match=r"claim-next-task: .*has expired.*SUPABASE_ACCESS_TOKEN"):
        door.call("claim-next-task", {})
    assert len(site.questions) == 1


def test_a_refused_token_is_read_again_from_its_file(site: FunctionsSite, make_door: MakeDoor, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old-token\n")
    door = make_door(f"@{file}")
    site.answer("claim-next-task", Answer({"error": "expired"}, 401), Answer({"tasks": []}))
    file.write_text("new-token\n")
    assert door.call("claim-next-task", {}) == {"tasks": []}
    door.call("claim-next-task", {})
    sent = [question.headers["Authorization"] for question in site.questions]
    assert sent == ["Bearer old-token", "Bearer new-token", "Bearer new-token"]


UNKNOWN = Answer(OURS | {"error": "nobody has this access token", "code": "unknown_token"}, 403)


def test_a_token_that_was_revoked_is_refused_as_an_expired_one_is(
    site: FunctionsSite, make_door: MakeDoor, tmp_path: Path
) -> None:
    """No verdict on the task: the next token may do it."""
    file = tmp_path / "token"
    file.write_text("old-token")
    door = make_door(f"@{file}")
    site.answer("complete-task", UNKNOWN, UNKNOWN, Answer({"success": True}))
    with pytest.raises(TokenRefused, match=r"nobody has this access token.*SUPABASE_ACCESS_TOKEN"):
        door.call("complete-task", {})
    file.write_text("new-token")
    assert door.call("complete-task", {}) == {"success": True}


def test_a_file_that_is_gone_meanwhile_is_no_reason_to_stop(
    site: FunctionsSite, make_door: MakeDoor, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old-token")
    door = make_door(f"@{file}")
    file.unlink()
    site.answer("task-store", Answer({"error": "expired"}, 401), Answer({"result": 1}))
    with pytest.raises(TokenRefused):
        door.call("task-store", {})
    assert door.call("task-store", {}) == {"result": 1}


@pytest.mark.parametrize("content", ["", "two words", "naïve", None])
def test_a_file_without_a_token_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=str(file)):
        Token(f"@{file}")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(OURS | {"error": f"who is {TOKEN}?"}, 403),
        Answer(f"Bearer {TOKEN} is unknown".encode(), 500),
        Answer({"error": f"PUT https://s3.example/a.mp4?X-Amz-Signature={TOKEN}&x=1 failed"}, 400),
        Answer(b"", 307, {"Location": f"https://h.example/?token={TOKEN}"}),
    ],
)
def test_no_message_shows_the_token(site: FunctionsSite, door: EdgeFunctions, answer: Answer) -> None:
    site.answer("task-store", answer)
    with pytest.raises(WanError) as refused:
        door.call("task-store", {})
    shown, error = [], refused.value
    while error is not None:
        shown.append(str(error))
        error = error.__cause__
    assert TOKEN not in " ".join(shown)
