"""The methods of the API that the fake answers, by name. Each runs under the cloud's lock."""

from __future__ import annotations

from tests.fakes.gcp import billing, goods, instances, loose, places
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.discovery import Json
from tests.fakes.gcp.listings import Call

_METHODS = billing.METHODS | instances.METHODS | goods.METHODS | loose.METHODS | places.METHODS


def answer(cloud: GcpCloud, call: Call) -> Json:
    """What the API says. Raises `ApiError`."""
    return _METHODS[call.name](cloud, call)
