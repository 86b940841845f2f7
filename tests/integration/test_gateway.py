"""The gateway of the local stack does what hosted Supabase does around Edge Functions and public objects."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from local_stack import LocalStack, bearer
from local_stack import stack as stack
from process_end import at_process_end

from source.devstack.servers import Gateway
from source.devstack.state import free_ports, signed_jwt
from supabase import ClientOptions, create_client

SECRET = secrets.token_hex(32)
#: function -> its handler
FUNCTIONS = {
    "closed": """export const handler = (request: Request): Promise<Response> =>
        Promise.resolve(new Response(`${request.method} ${new URL(request.url).pathname}`));""",
    "open": """export const handler = async (request: Request): Promise<Response> =>
        new Response(await request.text(), { status: 201, headers: { "x-own": "yes" } });""",
    "stream": """export const handler = (_request: Request): Promise<Response> => {
        const words = new ReadableStream<Uint8Array>({ async start(controller) {
            controller.enqueue(new TextEncoder().encode("first"));
            await new Promise((done) => setTimeout(done, 1_000));
            controller.enqueue(new TextEncoder().encode(" last"));
            controller.close();
        } });
        return Promise.resolve(new Response(words));
    };""",
    "curious": """export const handler = (_request: Request): Promise<Response> => {
        const tried: string[] = [];
        for (const attempt of [() => Deno.env.get("HOME"), () => Deno.readTextFileSync("/etc/hostname"),
            () => new Deno.Command("true").outputSync(), () => Deno.writeTextFileSync("/tmp/gateway.txt", "")]) {
            try { attempt(); tried.push("done"); } catch (error) { tried.push((error as Error).name); }
        }
        return Promise.resolve(Response.json(tried));
    };""",
    "broken": "export const handler = ;",
    "empty": "export const nothing = 1;",
}
CONFIG = "\n".join(f"[functions.{slug}]\nverify_jwt = false\n" for slug in FUNCTIONS if slug != "closed")
STOP = """
import pathlib
from source.devstack.servers import Gateway
Gateway(pathlib.Path(sys.argv[1]), 0, {}, ()).kill()
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not in memory, where other tests lie: below /dev Deno reads nothing for a program that may not do everything."""
    with tempfile.TemporaryDirectory(prefix="gateway-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Gateway]:
    """A gateway before functions of our own."""
    (folder / "config.toml").write_text(CONFIG)
    for slug, code in FUNCTIONS.items():
        (folder / "functions" / slug).mkdir(parents=True)
        (folder / "functions" / slug / "handler.ts").write_text(code)
    (folder / "functions" / "_shared").mkdir()
    ports = free_ports()
    given = {
        "JWT_SECRET": SECRET, "S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}", "S3_REGION": "local",
        "S3_ACCESS_KEY_ID": "id", "S3_SECRET_ACCESS_KEY": "secret", "STORAGE_PUBLIC": "true",
    }  # fmt: skip
    made = Gateway(folder, ports["gateway"], given, (ports["s3"],), functions=folder / "functions")
    at_process_end(STOP, folder)
    made.start()
    made.wait()
    yield made
    made.stop()


def ask(gateway: Gateway, path: str, token: str | None = None, method: str = "POST", **options: Any) -> Any:
    headers = bearer(token) if token else {}
    return requests.request(method, f"http://127.0.0.1:{gateway.port}{path}", headers=headers, timeout=20, **options)


def test_a_function_that_does_not_verify_by_itself_gets_verified_callers_only(gateway: Gateway) -> None:
    path = "/functions/v1/closed"
    right = signed_jwt(SECRET, role="anon")
    assert ask(gateway, path, right).text == "POST /functions/v1/closed"
    unsigned = ".".join([*right.split(".")[:2], ""])
    forged = signed_jwt("another secret that is long enough", role="service_role")
    for token in (unsigned, forged, signed_jwt(SECRET, role="anon", lasts_s=-60), "pat_1", right[:-4]):
        refused = ask(gateway, path, token)
        assert (refused.status_code, refused.json()["message"]) == (401, "Invalid JWT")
    assert ask(gateway, path).json() == {"code": 401, "message": "Missing authorization header"}
    assert ask(gateway, path, method="OPTIONS").status_code == 200  # a browser's question carries no token


def test_a_function_that_verifies_by_itself_gets_every_request_as_it_came(gateway: Gateway) -> None:
    answer = ask(gateway, "/functions/v1/open?a=1", "pat_1", data=b"x" * 200_000)
    assert (answer.status_code, answer.headers["x-own"], len(answer.content)) == (201, "yes", 200_000)
    assert ask(gateway, "/functions/v1/open", data="a").text == "a"


def test_what_is_not_there(gateway: Gateway) -> None:
    for slug in ("none", "_shared", "..%2Ffunctions", "constructor"):
        answer = ask(gateway, f"/functions/v1/{slug}")
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    for path in ("/", "/functions/v1/", "/rest/v1/tasks", "/storage/v1/object/public/image_uploads"):
        assert ask(gateway, path, method="GET").status_code == 404


def test_a_function_that_cannot_be_loaded_takes_no_other_with_it(gateway: Gateway) -> None:
    health = ask(gateway, "/healthz", method="GET").json()
    assert health["functions"] == sorted(FUNCTIONS)
    assert sorted(health["broken"]) == ["broken", "empty"]
    for slug in ("broken", "empty"):
        answer = ask(gateway, f"/functions/v1/{slug}")
        assert (answer.status_code, answer.json()["code"]) == (503, "BOOT_ERROR")


def test_answers_stream(gateway: Gateway) -> None:
    begun = time.monotonic()
    with requests.post(f"http://127.0.0.1:{gateway.port}/functions/v1/stream", stream=True, timeout=20) as answer:
        words = answer.iter_content(chunk_size=None)
        assert next(words) == b"first"
        first = time.monotonic() - begun
        assert b"".join(words) == b" last"
    assert time.monotonic() - begun > first + 0.5


def test_functions_may_do_what_they_need_and_no_more(gateway: Gateway) -> None:
    assert ask(gateway, "/functions/v1/curious").json() == ["NotCapable"] * 4


def test_objects_while_the_s3_server_is_away(gateway: Gateway) -> None:
    answer = ask(gateway, "/storage/v1/object/public/image_uploads/a.txt", method="GET")
    assert (answer.status_code, answer.json()["error"]) == (502, "unreachable")


def test_public_objects_are_served_in_parts_with_their_type(stack: LocalStack) -> None:
    movie = secrets.token_bytes(3_000_000)
    (stack.objects / "u").mkdir()
    (stack.objects / "u" / "1-a b+ü.mp4").write_bytes(movie)
    url = f"{stack.url}/storage/v1/object/public/image_uploads/u/1-a%20b+%C3%BC.mp4"
    whole = requests.get(url, timeout=20)
    assert whole.content == movie
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["access-control-allow-origin"] == "*"
    head = requests.head(url, timeout=20)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "3000000")
    part = requests.get(url, headers={"Range": "bytes=1000-1999"}, timeout=20)
    assert (part.status_code, part.content) == (206, movie[1000:2000])
    assert part.headers["content-range"] == "bytes 1000-1999/3000000"
    assert requests.get(url, headers={"Range": "bytes=9000000-"}, timeout=20).status_code == 416
    asked = requests.options(url, timeout=20)
    assert (asked.status_code, asked.headers["access-control-allow-methods"]) == (204, "GET, HEAD, OPTIONS")


def test_public_objects_that_are_not_there_or_may_not_be_touched(stack: LocalStack) -> None:
    base = f"{stack.url}/storage/v1/object/public"
    for key in ("image_uploads/none.txt", "none/a.txt", "image_uploads/..%2F..%2Fstack.json", "image_uploads/%00"):
        answer = requests.get(f"{base}/{key}", timeout=20)
        assert (answer.status_code, answer.json()["statusCode"]) == (400, "404"), key
    (stack.objects / "a.txt").write_text("a")
    for method in ("PUT", "POST", "DELETE"):
        assert requests.request(method, f"{base}/image_uploads/a.txt", data="b", timeout=20).status_code == 405
    assert (stack.objects / "a.txt").read_text() == "a"


@pytest.mark.filterwarnings("ignore:The '[a-z]+' parameter is deprecated:DeprecationWarning")
def test_an_unmodified_client_of_supabase_invokes_functions(stack: LocalStack) -> None:
    anna = stack.person()
    with httpx.Client(timeout=20) as http:  # its own is never closed
        client = create_client(stack.url, stack.service_key, ClientOptions(httpx_client=http))
        task = {"task_type": "t2v", "params": {"prompt": "a"}, "project_id": anna.project_id}
        made = client.functions.invoke("create-task", {"body": task, "responseType": "json"})
        assert made["status"] == "Task queued"
        counts = client.functions.invoke("task-store", {"body": {"operation": "count_tasks"}, "responseType": "json"})
        assert counts["result"]["Queued"] == 1
        files = client.storage.from_("image_uploads")
        assert files.get_public_url("a b.txt").startswith(f"{stack.url}/storage/v1/object/public/image_uploads/a")
        (stack.objects / "a b.txt").write_text("a")
        assert requests.get(files.get_public_url("a b.txt"), timeout=20).text == "a"
