"""A federation with an issuer that serves on loopback, and what checks its tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control_plane.access.entrance import Access
from control_plane.access.oidc import Issuers
from control_plane.core.access import Federation, Grant, Role, Rule
from control_plane.identity.web import Web
from control_plane.stores.memory import MemoryStore
from tests.api.world import NOW, SECRET, CountingIds, ManualClock
from tests.fakes.issuer import Issuer

AUDIENCE = "https://orchctl.example"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[Issuer]:
    issuer = Issuer(clock.now)
    yield issuer
    issuer.close()


@pytest.fixture
def issuers(clock: ManualClock) -> Issuers:
    return Issuers(Web(), clock.now)


@pytest.fixture
def federation(issuer: Issuer) -> Federation:
    """Who pushes to `main` of one repository hands in jobs for one queue."""
    return Federation(
        name="github",
        issuer=issuer.url,
        audience=AUDIENCE,
        rules=(
            Rule(
                claims={"repository": ("acme/train",), "ref": ("refs/heads/main",)},
                grant=Grant(role=Role.SUBMITTER, queues=("ci",)),
            ),
        ),
        applied_at=NOW,
        applied_by="admin",
    )


@pytest.fixture
def store(federation: Federation) -> MemoryStore:
    store = MemoryStore()
    store.federation_put(federation, expected_version=0)
    return store


@pytest.fixture
def access(store: MemoryStore, clock: ManualClock, issuers: Issuers) -> Access:
    return Access(store, clock, CountingIds(), issuers, secret=SECRET)
