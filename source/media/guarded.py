"""HTTP connections that are made to allowed addresses alone, also where redirects lead."""

from __future__ import annotations

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from source.media.places import Reach


class GuardedAdapter(HTTPAdapter):
    """For one session. A proxy would look names up by itself, so the session must use none."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        super().__init__()

    def init_poolmanager(self, *given: Any, **named: Any) -> None:
        """The pools of `requests`, of connections that ask `reach` first."""
        super().init_poolmanager(*given, **named)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": _plain_pool(self._reach), "https": _secure_pool(self._reach)}


class _Guarded(HTTPConnection):
    """Looks the host up itself and connects to the address that it looked at."""

    reach: Reach

    def _new_conn(self) -> socket.socket:
        name, failure = self._dns_host, None
        try:
            for address in self.reach.addresses(self.host, self.port):
                try:
                    self._dns_host = address
                    return super()._new_conn()
                except (NewConnectionError, ConnectTimeoutError) as error:
                    failure = error
                finally:
                    self._dns_host = name  # certificates are of the name
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, socket.gaierror(str(error))) from error
        raise failure or NewConnectionError(self, "the name has no address")


def _plain_pool(allowed: Reach) -> type[HTTPConnectionPool]:
    class Connection(_Guarded):
        reach = allowed

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    return Pool


def _secure_pool(allowed: Reach) -> type[HTTPSConnectionPool]:
    class Connection(_Guarded, HTTPSConnection):
        reach = allowed

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool
