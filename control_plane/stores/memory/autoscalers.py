"""Declared documents and their history in memory."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.core.policy import AutoscalerRecord
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.memory.tables import Tables, atomic


class Autoscalers(Tables):
    """`ports.AutoscalerStore`."""

    @atomic
    def autoscaler_put(self, record: AutoscalerRecord, *, expected_version: int) -> None:
        stored = self._autoscalers.get(record.name)
        transitions.check_version(
            f"autoscaler {record.name}",
            stored.version if stored else 0,
            record.version,
            expected_version,
        )
        self._autoscalers[record.name] = record
        self._autoscaler_versions.setdefault(record.name, []).append(record)

    @atomic
    def autoscaler_get(self, name: str) -> AutoscalerRecord:
        if name not in self._autoscalers:
            raise NotFound(f"there is no autoscaler {name}")
        return self._autoscalers[name]

    @atomic
    def autoscaler_list(self) -> Sequence[AutoscalerRecord]:
        return tuple(self._autoscalers[name] for name in sorted(self._autoscalers))

    @atomic
    def autoscaler_history(self, name: str, *, limit: int = 50) -> Sequence[AutoscalerRecord]:
        return tuple(reversed(self._autoscaler_versions.get(name, [])))[:limit]

    @atomic
    def autoscaler_remove(self, name: str) -> None:
        self._autoscalers.pop(name, None)
