"""The Edge Functions that store results: the Deno tests of supabase/functions/storage_tests, on the local stack."""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import requests
from local_stack import LocalStack, bearer
from local_stack import stack as stack
from page_site import PageSite

from source.devstack.programs import program
from source.edge_functions import EdgeFunctions, Token
from source.media.fetch import MediaFetcher
from source.store.supabase import SupabaseStore
from source.supabase_storage import storage_for

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FUNCTIONS = Path(__file__).resolve().parents[2] / "supabase" / "functions"


def test_results_are_stored_and_checked(stack: LocalStack) -> None:
    given = {
        "SUPABASE_URL": stack.url,
        "TEST_ADMIN_URL": stack.postgres.uri(),
        "TEST_OBJECTS": str(stack.objects),
        "NO_COLOR": "1",
    }
    # their types are checked by `make check`
    command = [program("deno"), "test", "--frozen", "--quiet", "--no-check", "--allow-all", "storage_tests"]
    done = subprocess.run(
        command, cwd=FUNCTIONS, env=dict(os.environ) | stack.functions_environment | given, check=False,
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_public_address_of_a_result_shows_it(stack: LocalStack) -> None:
    """All of it over HTTP, as a worker of another machine goes."""
    anna = stack.person()
    content = b"a picture" * 100_000

    def ask(function: str, body: dict[str, Any]) -> Any:
        answer = requests.post(
            f"{stack.url}/functions/v1/{function}", json=body, headers=bearer(anna.access_token), timeout=10
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    ask("create-task", {"task_type": "t2v", "params": {"prompt": "a"}, "project_id": anna.project_id})
    [task] = ask("claim-next-task", {"worker_id": "w", "lease_s": 60})["tasks"]
    claim = {"task_id": task["id"], "worker_id": "w", "claim_number": task["claim_number"]}
    target = ask("generate-upload-url", claim | {
        "filename": "Käse & Brot (1)+'2'.png", "content_type": "image/png", "size_bytes": len(content),
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
    })  # fmt: skip
    sent = requests.put(target["upload_url"], data=content, headers=target["upload_headers"], timeout=10)
    assert sent.status_code == 200, sent.text
    done = ask("complete_task", claim | {"output_location": target["public_url"]})
    assert done["output_location"] == target["public_url"]
    shown = requests.get(done["output_location"], timeout=10)
    assert (shown.content, shown.headers["Content-Type"]) == (content, "image/png")
    assert (stack.objects / target["storage_path"]).read_bytes() == content


def test_a_file_uploaded_on_the_page_is_read_by_the_task_that_names_it(stack: LocalStack, tmp_path: Path) -> None:
    anna, photo = stack.person(), SAMPLES / "coffee.jpg"
    given = {"db_type": "supabase", "supabase_url": stack.url, "supabase_access_token": anna.access_token}
    with closing(SupabaseStore(EdgeFunctions(stack.url, Token(anna.access_token)))) as store:
        site = PageSite(tmp_path, store, **given)
        csrf = site.form("/new/vace").values["csrf"]
        kept = site.client.post(
            "/uploads", params={"name": "a coffee.jpg", "kind": "image", "project": anna.project_id},
            content=photo.read_bytes(), headers={"X-CSRF-Token": csrf},
        )  # fmt: skip
        assert kept.status_code == 201, kept.text
        reference = kept.json()["reference"]
        sent = site.form("/new/vace").with_changes(
            {"prompt": "a cup", "image_start": reference, "_project": anna.project_id}
        )
        answer = site.client.post("/new/vace", data=sent, follow_redirects=False)
        task = store.get(answer.headers["location"].removeprefix("/task?id="))
        assert (task.params["image_start"], task.project_id) == (reference, anna.project_id)
        fetcher = MediaFetcher(
            site.settings, tmp_path / "scratch", storage=storage_for(site.settings, store), reader=task.id
        )
        (tmp_path / "scratch").mkdir()
        read = fetcher.fetch(reference, kind="image", field="image_start")
        assert read.read_bytes() == photo.read_bytes()
        assert "No worker was heard of" in site.client.get("/charts?span=24h").text
        refused = site.form("/new/vace").with_changes({"prompt": "a cup", "_project": str(uuid.uuid4())})
        assert "no project" in site.client.post("/new/vace", data=refused).text
