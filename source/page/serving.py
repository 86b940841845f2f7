"""`debug.py serve`: the page, on a port of this machine."""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import uvicorn

from source.errors import ConfigurationError
from source.page.access import Access, access_of
from source.page.app import page
from source.settings import Settings
from source.store.opening import open_existing


def serve(settings: Settings, given: argparse.Namespace, beginning: Callable[[str], None]) -> tuple[Any, str]:
    """Serve the page until Ctrl-C or SIGTERM. Raises ConfigurationError, StoreError."""
    marked = settings.page_token.get_secret_value() if settings.page_token else None
    access = access_of(given.page_token or marked)
    _check_host(given.host, access)
    with closing(open_existing(settings)) as store, _bound(given.host, given.port) as sock:
        address = f"http://{_shown(given.host)}:{sock.getsockname()[1]}/"
        sys.stderr.write(
            f"the page: {address}  ({'with its token' if access.required else 'read-only'}; Ctrl-C ends)\n"
        )
        sys.stderr.flush()
        beginning(f"serving {address}")
        app = page(store, settings, access)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off",
            forwarded_allow_ips="127.0.0.1,::1", timeout_graceful_shutdown=2,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[sock])
    return {"address": address}, "stopped"


def _check_host(host: str, access: Access) -> None:
    """Raises ConfigurationError where others could look without a token."""
    if access.required or host == "localhost":
        return
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise ConfigurationError(
        f"--host {host} lets other machines look: set PAGE_TOKEN or --token @FILE, or leave --host at 127.0.0.1"
    )


def _bound(host: str, port: int) -> socket.socket:
    """Raises ConfigurationError for a port that is taken or not ours to use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"{host}:{port} cannot be listened on: {error}; name another with --port") from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
