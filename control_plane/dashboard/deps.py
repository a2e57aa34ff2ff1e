"""What the pages need: the parts of the API's own dependencies they look at."""

from __future__ import annotations

from typing import Protocol

from control_plane.fleet import Fleet
from control_plane.ports import Blobs, Clock, PriceBook, Store
from control_plane.service import Service


class Deps(Protocol):
    """Everything a page may use."""

    @property
    def store(self) -> Store: ...

    @property
    def blobs(self) -> Blobs: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def service(self) -> Service: ...

    @property
    def fleet(self) -> Fleet: ...

    @property
    def prices(self) -> PriceBook: ...
