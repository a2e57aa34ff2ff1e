"""Stands for the Internet inside a function that runs in the emulator: a request for a cloud's
public server goes to the fake that `FAKE_INTERNET` names for it. Python reads this file at its
start, since the folder is on the function's `PYTHONPATH`; the program is as it is shipped.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

ROUTES: dict[str, str] = json.loads(os.environ.get("FAKE_INTERNET", "{}"))
"""End of a host name -> where its fake listens."""


def fake_of(host: str) -> str:
    """Empty for what is on this computer."""
    return next((url for ending, url in ROUTES.items() if host.endswith(ending)), "")


def httpx2_goes_there(httpx2: Any) -> None:
    """The client of what checks proofs."""
    send = httpx2.HTTPTransport.handle_request

    def rerouted(self: Any, request: Any) -> Any:
        if fake := fake_of(request.url.host):
            there = httpx2.URL(fake)
            request.url = request.url.copy_with(
                scheme=there.scheme, host=there.host, port=there.port
            )
        return send(self, request)

    httpx2.HTTPTransport.handle_request = rerouted


def requests_go_there(sessions: Any) -> None:
    """The client of Google's and Azure's SDKs."""
    send = sessions.Session.send

    def rerouted(self: Any, request: Any, **options: Any) -> Any:
        asked = urlsplit(request.url)
        if fake := fake_of(asked.hostname or ""):
            there = urlsplit(fake)
            request.headers["Host"] = asked.hostname
            request.url = asked._replace(scheme=there.scheme, netloc=there.netloc).geturl()
            options["verify"] = False
        return send(self, request, **options)

    sessions.Session.send = rerouted


def azure_is_vouched_for(azure: Any) -> None:
    """The certificate authorities that sign Azure's documents."""
    if roots := os.environ.get("FAKE_ROOTS"):
        azure.AzureIdentity.__init__.__defaults__ = (Path(roots),)


LATE = {
    "httpx2": httpx2_goes_there,
    "requests.sessions": requests_go_there,
    "control_plane.identity.azure": azure_is_vouched_for,
}


class _Loader(Loader):
    def __init__(self, inner: Loader, change: Any) -> None:
        self._inner = inner
        self._change = change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        self._change(module)


class _Finder(MetaPathFinder):
    """Changes a module when the program imports it, so that nothing is imported for it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        change = LATE.pop(name, None)
        if change is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, change)
        return spec


if ROUTES:
    sys.meta_path.insert(0, _Finder())
