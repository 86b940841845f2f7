"""Who may look and who may change: one token, sessions, tries.

Without a token everybody on this machine may look, and nobody may change anything. With one, everything but the log-in
needs it: pasted once by a person (a cookie from then on), or as a bearer token by a program.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from source.errors import ConfigurationError

COOKIE = "headless_wan2gp_session"
#: of the token's text: shorter ones can be guessed
LEAST_CHARACTERS = 16
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 100
#: wrong tokens in `TRIES_S` seconds, from everybody together, after which none is looked at
MOST_TRIES, TRIES_S = 10, 60.0


@dataclass(frozen=True)
class Session:
    """Somebody who showed the token."""

    id: str
    #: what each form of theirs must carry; "" for a program, whose request no page of others can make
    csrf: str
    ends_at: float

    def vouches_for(self, sent: str) -> bool:
        """Whether a form is one that we gave to this session."""
        return not self.csrf or hmac.compare_digest(self.csrf.encode(), sent.encode())


class TooManyTries(Exception):
    """Wrong tokens were tried too often; seconds until the next one is looked at."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many wrong tokens; try again in {wait_s:.0f} s")
        self.wait_s = wait_s


@dataclass
class Access:
    """The token of a page, None where it has none, and who showed it."""

    token: str | None = None
    clock: Callable[[], float] = time.monotonic
    _sessions: dict[str, Session] = field(default_factory=dict)
    _tries: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def required(self) -> bool:
        return self.token is not None

    def log_in(self, sent: str) -> Session | None:
        """A new session for who sends the token. Raises TooManyTries."""
        with self._lock:
            now = self.clock()
            if not self._matches(sent, now):
                return None
            self._forget(now)
            session = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32), now + SESSION_S)
            self._sessions[session.id] = session
            return session

    def log_out(self, session: Session) -> None:
        """Its cookie is worth nothing from now on."""
        with self._lock:
            self._sessions.pop(session.id, None)

    def session(self, cookie: str | None) -> Session | None:
        """Whose cookie this is."""
        with self._lock:
            found = self._sessions.get(cookie or "")
            return found if found is not None and found.ends_at > self.clock() else None

    def program(self, authorization: str) -> Session | None:
        """A request with the header `Authorization: Bearer TOKEN` speaks for itself. Raises TooManyTries."""
        kind, _, sent = authorization.partition(" ")
        with self._lock:
            now = self.clock()
            if kind.lower() != "bearer" or not self._matches(sent.strip(), now):
                return None
            return Session("", "", now)

    def _matches(self, sent: str, now: float) -> bool:
        while self._tries and self._tries[0] <= now - TRIES_S:
            self._tries.popleft()
        if len(self._tries) >= MOST_TRIES:
            raise TooManyTries(self._tries[0] + TRIES_S - now)
        if self.token is not None and hmac.compare_digest(self.token.encode(), sent.encode()):
            return True
        self._tries.append(now)
        return False

    def _forget(self, now: float) -> None:
        """Sessions that are over; the oldest where there are too many."""
        for each in [each for each in self._sessions.values() if each.ends_at <= now]:
            del self._sessions[each.id]
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]


def access_of(text: str | None) -> Access:
    """Access by a token, or `@FILE`. Raises ConfigurationError for one that cannot be read or is easily guessed."""
    if text is None:
        return Access()
    token = _read(Path(text[1:]).expanduser()) if text.startswith("@") else text.strip()
    if len(token) < LEAST_CHARACTERS or not token.isascii() or not token.isprintable():
        raise ConfigurationError(
            f"the page's token must be at least {LEAST_CHARACTERS} plain characters long; "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    return Access(token)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the page's token cannot be read: {path}: {error}") from error
