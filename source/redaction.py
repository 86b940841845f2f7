"""Secrets, taken out of texts and values before they are written anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

REDACTED = "***"

_SECRET_NAMES = (
    r"(?:access_?|refresh_?|auth_?|id_?|session_?)?token|api[_-]?key|anon_?key|service_?(?:role_?)?key|secret\w*|"
    r"(?:aws)?access[_-]?key(?:[_-]?id)?|private[_-]?key|"
    r"passw(?:or)?d|authorization|cookie|signature|sig|x-(?:amz|goog)-[\w-]+"
)
#: after underscores and hyphens, or as the last word of a name in camel case
_SECRET_NAME = re.compile(
    rf"(?:[\w-]*[_-])?(?:{_SECRET_NAMES})|(?-i:[a-z]\w*(?:Token|ApiKey|AccessKey|Password|Secret))", re.IGNORECASE
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"\b(Authorization[\"']?\s*[:=]\s*[\"']?(?:Basic|Token|Key|ApiKey|Digest)\s+)[^\"'\n]+", re.IGNORECASE
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(Bearer)\s+[\w.~+/=-]{16,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\beyJ[\w-]{5,1000}\.[\w-]{5,}\.[\w-]*"), REDACTED),
    (re.compile(r"\b(?:sk|hf|ghp|r8|pat|sbp|sb_secret|sb_publishable)[-_][A-Za-z0-9_-]{16,}"), REDACTED),
    (re.compile(rf"([?&](?:{_SECRET_NAMES}|key)=)[^&\s\"'<>]+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+@"), rf"\1{REDACTED}@"),
)
#: name=value and name: value, as they stand in log lines
_NAMED = re.compile(
    rf"([\"']?\b(?:\w+[_-])?(?:{_SECRET_NAMES})[\"']?\s*[=:]\s*(?:Bearer\s+)?[\"']?)[^\s\"',;&}}]+", re.IGNORECASE
)


#: what the task at work was given as secrets: an error may quote one that nothing else would know for one
_of_task: ContextVar[tuple[str, ...]] = ContextVar("secrets_of_task", default=())
#: texts shorter than this are no secrets, whatever they are called, but words that stand everywhere
SHORTEST = 8


def secrets_in(value: Any, *, secret: bool = False) -> tuple[str, ...]:
    """The texts of JSON that stand under a secret's name, the longest first."""
    if isinstance(value, str):
        return (value,) if secret and len(value) >= SHORTEST else ()
    if isinstance(value, Mapping):
        found = [secrets_in(each, secret=secret or _names_secret(name)) for name, each in value.items()]
    else:
        found = [secrets_in(each, secret=secret) for each in value] if isinstance(value, list | tuple) else []
    return tuple(sorted({text for texts in found for text in texts}, key=len, reverse=True))


def _names_secret(name: object) -> bool:
    return _SECRET_NAME.fullmatch(str(name)) is not None


@contextmanager
def hidden(secrets: tuple[str, ...]) -> Iterator[None]:
    """Inside, and on threads that copy the context, these are taken out of texts too."""
    token = _of_task.set(secrets)
    try:
        yield
    finally:
        _of_task.reset(token)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """A log line without bearer tokens, JWTs, keys in URLs, `name=value` of secret names, the given values, and the
    secrets of the task at work."""
    text = _without(text, secrets)
    return _NAMED.sub(rf"\1{REDACTED}", _without_tokens(text))


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in (*secrets, *_of_task.get()):
        text = text.replace(secret, REDACTED)
    return text


def _without_tokens(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_values(value: Any, secrets: Iterable[str] = ()) -> Any:
    """JSON values with every string redacted, and what stands under a secret's name removed."""
    if isinstance(value, str):
        return _without_tokens(_without(value, secrets))
    if isinstance(value, Mapping):
        return {
            redact_values(name, secrets): REDACTED if _names_secret(name) and inner else redact_values(inner, secrets)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_values(item, secrets) for item in value]
    return value
