"""What a row may name. In a shared database it was written by somebody else, so it reads neither the disk of this
machine nor its network.

On SQLite rows are the user's own and may name anything. On Supabase: files in the folders of MEDIA_DIRS alone, and
addresses of public machines alone, beside the project's own and those of FETCH_ALLOW.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from source.errors import InvalidMedia
from source.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: clouds answer virtual machines about themselves there too, and Python counts these as public (the first: RFC 6890)
_CLOSED = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("168.63.129.16/32"))
#: IPv4 addresses in IPv6 clothes that a gateway undresses (RFC 6052)
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Folders:
    """The folders whose files may be named; None: all."""

    folders: tuple[Path, ...] | None

    @classmethod
    def of(cls, settings: Settings, *own: Path) -> Self:
        """`own` are the task's: what it made and downloaded itself."""
        return cls(None if settings.db_type == "sqlite" else (*own, *settings.media_dirs))

    def allow(self, path: Path) -> bool:
        """Whether a path leads, symbolic links followed, into one of them."""
        if self.folders is None:
            return True
        try:
            real = path.resolve()
            return any(real.is_relative_to(folder.resolve()) for folder in self.folders)
        except (OSError, RuntimeError, ValueError):
            return False

    def check(self, path: Path) -> Path:
        """Raises InvalidMedia, whether there is such a file or not."""
        if not self.allow(path):
            raise InvalidMedia(
                f"{str(path)[:200]!r} is a file path; rows of a shared database name files by http(s) URL, or in a "
                "folder of the worker's setting MEDIA_DIRS"
            )
        return path


@dataclass(frozen=True)
class Reach:
    """Which machines may be asked.

    hosts      (name in lower case, port); None stands for every port
    networks   addresses that are allowed although they are not public
    """

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None: any machine."""
        if settings.db_type == "sqlite":
            return None
        hosts = {host for url in (settings.supabase_url, settings.hf_endpoint) if url and (host := _origin(url))}
        networks: list[Network] = []
        for entry in settings.fetch_allow:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                parts = urlsplit(f"//{entry}")
                hosts.add(((parts.hostname or "").lower(), parts.port))
        return cls(frozenset(hosts), tuple(networks))

    def beside(self, url: str) -> Self:
        """The same, and the machine of a URL that the project itself gave."""
        host = _origin(url)
        return replace(self, hosts=self.hosts | {host}) if host else self

    def addresses(self, host: str, port: int) -> Iterator[str]:
        """The addresses of a machine, each looked at here: the connection is to be made to these, so that a name cannot
        mean another machine a moment later.

        Raises InvalidMedia when one of them may not be asked, OSError (gaierror) for a name that nobody knows.
        """
        named = {(host.lower(), port), (host.lower(), None)} & self.hosts
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        for address in dict.fromkeys(found):
            if not named and not self._allows(address):
                raise InvalidMedia(
                    f"{host} is a machine of a private network (or of this worker); add it to the worker's setting "
                    "FETCH_ALLOW if rows may name it"
                )
            yield address

    def _allows(self, text: str) -> bool:
        address = _bare(ipaddress.ip_address(text.partition("%")[0]))
        return is_public(address) or any(address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address is of the internet, and of one machine there."""
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return False
    closed = address.is_multicast or address.is_reserved or any(address in network for network in _CLOSED)
    return address.is_global and not closed


def _bare(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one (mapped, 6to4, or translated), which is where it leads."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _origin(url: str) -> tuple[str, int | None] | None:
    parts = urlsplit(url)
    return (parts.hostname, parts.port or _PORTS.get(parts.scheme)) if parts.hostname else None
