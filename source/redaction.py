"""Secrets, taken out of texts and values before they are written anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """A log line without bearer tokens, JWTs, keys in URLs, `name=value` of secret names, and the given values."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return _NAMED.sub(rf"\1{REDACTED}", _without_tokens(text))


def _without_tokens(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_values(value: Any) -> Any:
    """JSON values with every string redacted, and what stands under a secret's name removed."""
    if isinstance(value, str):
        return _without_tokens(value)
    if isinstance(value, Mapping):
        return {
            redact_values(name): REDACTED if _SECRET_NAME.fullmatch(str(name)) and inner else redact_values(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return value
