"""What a local stack keeps: keys and ports."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from source.devstack.parts import StackError
from source.devstack.state import Person, State, free_ports


def test_what_was_written_is_read_and_is_for_the_owner_alone(tmp_path: Path) -> None:
    assert State.read(tmp_path) is None
    state = State.new(free_ports()).model_copy(
        update={"person": Person(user_id="u", project_id="p", access_token="pat_1")}
    )
    state.write(tmp_path)
    assert State.read(tmp_path) == state
    assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600


def test_two_stacks_have_no_key_in_common_and_show_none() -> None:
    one, other = State.new({}), State.new({})
    secret = one.model_dump(exclude={"ports", "person"})
    assert not set(secret.values()) & set(other.model_dump(exclude={"ports", "person"}).values())
    assert not [value for name, value in secret.items() if value in repr(one) and name != "s3_key_id"]


def test_a_file_of_another_version_is_refused_without_its_secrets(tmp_path: Path) -> None:
    state = State.new(free_ports())
    kept = state.model_dump(exclude={"service_key"})
    (tmp_path / "stack.json").write_text(json.dumps(kept))
    with pytest.raises(StackError, match=r"not of this version \(service_key\); remove .* to begin anew") as raised:
        State.read(tmp_path)
    assert not [value for value in kept.values() if isinstance(value, str) and value in str(raised.value)]
    (tmp_path / "stack.json").write_text(f'{{"jwt_secret": "{state.jwt_secret}')
    with pytest.raises(StackError, match="not of this version") as raised:
        State.read(tmp_path)
    assert state.jwt_secret not in str(raised.value)
