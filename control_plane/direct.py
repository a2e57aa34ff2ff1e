"""Blobs that are too large for one request of the API: their bytes go between whoever has them and
the storage itself, by addresses that are good for minutes.

Where a request may have any size nothing of this is used, and all goes through the API.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.ports import Presigned, Upload

EXPIRES_S = 300
"""An address is used at once, by a program. Whoever tries again asks for a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Where a blob is fetched instead."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """Which blobs go past the API, and where."""

    storage: Presigned | None = None
    """None = they all go through the API."""
    above_bytes: int = 0
    """One of more bytes than this goes past it."""

    def upload(self, key: str, *, size: int, sha256: str) -> Upload | None:
        """Where to put a blob; None = it is sent to the API. Raises `InvalidInput`."""
        if self.storage is None or size <= self.above_bytes:
            return None
        return self.storage.sign_upload(key, size=size, sha256=sha256, expires_s=EXPIRES_S)

    def download(self, key: str, *, size: int, name: str) -> Elsewhere | None:
        """Where to fetch a blob; None = the API sends it."""
        if self.storage is None or size <= self.above_bytes:
            return None
        url = self.storage.sign_download(key, name=name, expires_s=EXPIRES_S)
        return Elsewhere(url=url)


THROUGH_THE_API = Direct()
