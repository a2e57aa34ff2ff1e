"""What the functions of a deployment ask of AWS in its life, seen once for all tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.emulators.ministack import Ministack
from tests.fakes.iam.asks import Account, Call, asks
from tests.fakes.iam.policy import Ask
from tests.unit.infra import history
from tests.unit.infra.plane import running
from tests.unit.infra.roles import ACCOUNT, WORDS

MACHINE_ROLE = WORDS["${MachineRole.Arn}"]

Recorded = Mapping[str, Sequence[tuple[Call, Sequence[Ask]]]]
"""By function: each call, and the rights that it needs."""


@pytest.fixture(scope="session")
def recorded(ministack: Ministack) -> Recorded:
    """A whole life of a deployment."""
    with running(ministack) as plane:
        history.live(plane)
        seen = plane.recorder
        assert not plane.account.violations
    account = Account(
        id=ACCOUNT, machine_role=MACHINE_ROLE, tags=seen.tags, templates=seen.templates
    )
    return {
        function: [(call, asks(call, account)) for call in calls]
        for function, calls in seen.calls.items()
    }
