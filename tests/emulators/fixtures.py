"""Emulators for any test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.emulators.ministack import Ministack
from tests.emulators.unreliable import Unreliable

_tables = count(1)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """An AWS for all tests of this process. What they share in it is for them to keep apart, by a
    `new_account()` or a name."""
    server = Ministack(tmp_path_factory.mktemp("ministack"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def dynamodb(ministack: Ministack) -> Iterator[Any]:
    """One client for all tests of this process: making one takes as long as thirty requests."""
    # Here, since it takes half a second that only tests who need it should pay.
    from control_plane.stores.dynamodb.calls import connect

    client = connect(
        region="eu-central-1",
        endpoint_url=ministack.endpoint,
        access_key=ministack.new_account(),
        secret_key="any",
        # Sixty threads on one emulator wait for each other longer than for AWS.
        read_timeout_s=60,
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def s3(ministack: Ministack) -> Iterator[Any]:
    """One client for all tests of this process."""
    from control_plane.blobs.s3 import connect

    client = connect(
        region="eu-central-1",
        endpoint_url=ministack.endpoint,
        aws_access_key_id=ministack.new_account(),
        # The one by which it checks addresses that were signed.
        aws_secret_access_key="test",
    )
    yield client
    client.close()


@pytest.fixture
def table_name() -> str:
    """A name that no other test has for its table."""
    return f"orchctl-{next(_tables)}"


@pytest.fixture
def unreliable(ministack: Ministack) -> Iterator[Unreliable]:
    """A bad line to that AWS."""
    proxy = Unreliable(upstream=ministack.endpoint)
    yield proxy
    proxy.close()
