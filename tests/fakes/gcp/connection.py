"""How a provider reaches the fake."""

from __future__ import annotations

from google.auth.credentials import AnonymousCredentials

from providers.gcp.client import Connection


def to(url: str) -> Connection:
    """A connection without credentials, with short deadlines."""
    return Connection(
        endpoint=url,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        connect_s=5.0,
        read_s=10.0,
    )
