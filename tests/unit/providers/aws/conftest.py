"""A fake account for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.providers.aws.world import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """One account for many tests that make nothing."""
    made = World()
    yield made
    made.close()
