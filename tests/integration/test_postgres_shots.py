"""The prompts that a worker writes to the images of a shot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres_server import DEFAULT_PROJECT, Connection, Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database

SHOT = "aaaaaaaa-0000-4000-8000-0000000000d1"


@pytest.fixture
def service(database: Database) -> Iterator[Connection]:
    with database.acting("service_role") as connection:
        connection.execute("delete from public.generations; delete from public.shots")
        connection.execute("insert into public.shots (id, project_id) values (%s, %s)", (SHOT, DEFAULT_PROJECT))
        yield connection


def place(service: Connection, name: str, frame: int | None, type_: str | None = "image") -> None:
    """A generation `name` at a frame of the shot."""
    service.execute(
        "with made as (insert into public.generations (project_id, type, location) values (%s, %s, %s) returning id)"
        " insert into public.shot_generations (shot_id, generation_id, timeline_frame, metadata)"
        ' select %s, id, %s, \'{"pair_prompt": "p"}\' from made',
        (DEFAULT_PROJECT, type_, name, SHOT, frame),
    )


def write(service: Connection, *prompts: str | None) -> Any:
    return call(service, "update_shot_pair_prompts", p_shot_id=SHOT, p_enhanced_prompts=list(prompts))


def prompts(service: Connection) -> dict[str, str | None]:
    rows = service.execute(
        "select location, metadata ->> 'enhanced_prompt' from public.shot_generations"
        " join public.generations as made on made.id = generation_id where metadata ->> 'pair_prompt' = 'p'"
    ).fetchall()
    return dict(rows)


def test_the_ith_prompt_goes_to_the_ith_image_of_the_timeline(service: Connection) -> None:
    for name, frame in (("c.png", 90), ("a.png", 0), ("b.png", 45), ("off.png", -1), ("beside.png", None)):
        place(service, name, frame)
    place(service, "clip.mp4", 10)
    place(service, "clip", 20, "video_travel_output")
    place(service, "untyped.webm?x=1", 30, None)
    assert write(service, "one", "two") == {"updated_count": 2, "skipped_count": 0, "failed_count": 0}
    found = prompts(service)
    assert {name: prompt for name, prompt in found.items() if prompt} == {"a.png": "one", "b.png": "two"}
    assert len(found) == 8


def test_empty_prompts_are_skipped_and_those_without_an_image_fail(service: Connection) -> None:
    place(service, "a.png", 0)
    place(service, "b.png", 1)
    assert write(service, "one", "two")["updated_count"] == 2
    assert write(service, " ", "new", None, "three") == {"updated_count": 1, "skipped_count": 2, "failed_count": 1}
    assert prompts(service) == {"a.png": "one", "b.png": "new"}
    assert write(service) == {"updated_count": 0, "skipped_count": 0, "failed_count": 0}


def test_a_shot_that_is_not_there_is_named(service: Connection) -> None:
    service.execute("delete from public.shots")
    with pytest.raises(psycopg.Error, match=f"no shot {SHOT}") as error:
        write(service, "one")
    assert (error.value.sqlstate, error.value.diag.column_name) == ("PT404", "shot_id")
