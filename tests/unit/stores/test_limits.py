"""What a queue's limits leave room for."""

from __future__ import annotations

import pytest

from control_plane.core.model import QueueRecord
from control_plane.stores.limits import Room, room
from tests.conformance.builders import NOW


def of(running: dict[str, int], **limits: int | None) -> Room:
    return room(QueueRecord(name="q", created_at=NOW, **limits), running)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "running", "left"),
    [
        ({"max_running": 3}, {}, 3),
        ({"max_running": 3}, {"ann": 1, "bob": 1}, 1),
        ({"max_running": 3}, {"ann": 2, "bob": 2}, -1),  # lowered while four ran
        ({"max_running_per_owner": 2}, {"ann": 1, "bob": 9}, 1),
        ({"max_running": 5, "max_running_per_owner": 2}, {"bob": 4}, 1),
        ({"max_running": 5, "max_running_per_owner": 2}, {"bob": 1}, 2),
        ({"max_running": 0}, {}, 0),
    ],
)
def test_the_tighter_limit_says_how_many_more_may_run(
    limits: dict[str, int], running: dict[str, int], left: int
) -> None:
    found = of(running, **limits)
    assert found.limited
    assert found.left("ann") == left
    assert found.admits("ann") is (left > 0)


def test_a_queue_without_limits_has_room_for_all() -> None:
    found = of({"ann": 10**6})
    assert not found.limited
    assert found.left("ann") > 10**12


def test_what_is_taken_counts_for_its_owner_and_for_all() -> None:
    found = of({}, max_running=3, max_running_per_owner=2)
    found.take("ann", 2)
    assert (found.admits("ann"), found.left("bob")) == (False, 1)
    found.take("bob")
    assert not found.admits("bob")
    assert not found.admits("eve")


def test_a_room_leaves_what_it_was_made_from_alone() -> None:
    running = {"ann": 1}
    of(running, max_running=3).take("ann")
    assert running == {"ann": 1}
