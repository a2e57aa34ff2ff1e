"""Who may come in, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.core.access import ApiToken, Federation
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.memory.tables import Tables, atomic


class Access(Tables):
    """`ports.AccessStore`."""

    @atomic
    def token_put(self, record: ApiToken, *, expected_version: int) -> None:
        held = self._tokens.get(record.id)
        stored = held.version if held else 0
        transitions.check_version(f"token {record.id}", stored, record.version, expected_version)
        self._tokens[record.id] = record

    @atomic
    def token_get(self, token_id: str) -> ApiToken:
        if token_id not in self._tokens:
            raise NotFound(f"there is no token {token_id}")
        return self._tokens[token_id]

    @atomic
    def token_list(self) -> Sequence[ApiToken]:
        return tuple(self._tokens[each] for each in sorted(self._tokens))

    @atomic
    def token_remove(self, token_id: str) -> None:
        self._tokens.pop(token_id, None)

    @atomic
    def federation_put(self, record: Federation, *, expected_version: int) -> None:
        held = self._federations.get(record.name)
        stored = held.version if held else 0
        what = f"federation {record.name}"
        transitions.check_version(what, stored, record.version, expected_version)
        self._federations[record.name] = record

    @atomic
    def federation_get(self, name: str) -> Federation:
        if name not in self._federations:
            raise NotFound(f"there is no federation {name}")
        return self._federations[name]

    @atomic
    def federation_list(self) -> Sequence[Federation]:
        return tuple(self._federations[each] for each in sorted(self._federations))

    @atomic
    def federation_remove(self, name: str) -> None:
        self._federations.pop(name, None)
