"""Webhooks in and out, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.core.alerts import Delivery
from control_plane.core.hooks import Hook
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.memory.tables import Tables, atomic


class Hooks(Tables):
    """`ports.HookStore`."""

    @atomic
    def hook_put(self, record: Hook, *, expected_version: int) -> None:
        held = self._hooks.get(record.name)
        stored = held.version if held else 0
        transitions.check_version(f"hook {record.name}", stored, record.version, expected_version)
        self._hooks[record.name] = record

    @atomic
    def hook_get(self, name: str) -> Hook:
        if name not in self._hooks:
            raise NotFound(f"there is no hook {name}")
        return self._hooks[name]

    @atomic
    def hook_list(self) -> Sequence[Hook]:
        return tuple(self._hooks[each] for each in sorted(self._hooks))

    @atomic
    def hook_remove(self, name: str) -> None:
        self._hooks.pop(name, None)

    @atomic
    def delivery_put(self, record: Delivery, *, expected_version: int) -> None:
        held = self._deliveries.get(record.id)
        stored = held.version if held else 0
        transitions.check_version(f"delivery {record.id}", stored, record.version, expected_version)
        self._deliveries[record.id] = record

    @atomic
    def delivery_list(self, *, limit: int = 100) -> Sequence[Delivery]:
        newest = sorted(self._deliveries, reverse=True)[:limit]
        return tuple(self._deliveries[each] for each in newest)
