"""Who may come in: tokens of people, federations, and hooks."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.core.access import ApiToken, Federation
from control_plane.core.hooks import Hook
from control_plane.errors import Conflict, NotFound
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.client import Key
from control_plane.stores.dynamodb.expressions import ABSENT, expr
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.parts import Parts


class Access(Parts):
    """`ports.AccessStore`, and the hooks of `ports.HookStore`."""

    def token_put(self, record: ApiToken, *, expected_version: int) -> None:
        self._put_version(f"token {record.id}", token_item(record), expected_version)

    def token_get(self, token_id: str) -> ApiToken:
        return token(self._item(f"token {token_id}", at.token_key(token_id)))

    def token_list(self) -> Sequence[ApiToken]:
        return tuple(map(token, self._table.query(at.TOKENS, consistent=True)))

    def token_remove(self, token_id: str) -> None:
        self._table.delete(*at.token_key(token_id))

    def federation_put(self, record: Federation, *, expected_version: int) -> None:
        self._put_version(f"federation {record.name}", federation_item(record), expected_version)

    def federation_get(self, name: str) -> Federation:
        return federation(self._item(f"federation {name}", at.federation_key(name)))

    def federation_list(self) -> Sequence[Federation]:
        return tuple(map(federation, self._table.query(at.FEDERATIONS, consistent=True)))

    def federation_remove(self, name: str) -> None:
        self._table.delete(*at.federation_key(name))

    def hook_put(self, record: Hook, *, expected_version: int) -> None:
        self._put_version(f"hook {record.name}", hook_item(record), expected_version)

    def hook_get(self, name: str) -> Hook:
        return hook(self._item(f"hook {name}", at.hook_key(name)))

    def hook_list(self) -> Sequence[Hook]:
        return tuple(map(hook, self._table.query(at.HOOKS, consistent=True)))

    def hook_remove(self, name: str) -> None:
        self._table.delete(*at.hook_key(name))

    def _item(self, what: str, key: Key) -> Item:
        item = self._table.get(*key)
        if item is None:
            raise NotFound(f"there is no {what}")
        return item

    def _put_version(self, what: str, item: Item, expected: int) -> None:
        # What is stored is the condition's affair: this refuses a version that does not follow.
        transitions.check_version(what, expected, item[at.VERSION], expected)
        condition = expr(f"{at.VERSION} = :seen", seen=expected) if expected else ABSENT
        try:
            self._table.put(item, condition=condition)
        except ConditionFailed:
            raise Conflict(f"{what} was changed by somebody else") from None


def token(item: Item) -> ApiToken:
    """The token of an item."""
    return records.unpack(ApiToken, item[at.PACKED])


def token_item(record: ApiToken) -> Item:
    """The item of a token."""
    pk, sk = at.token_key(record.id)
    return {"pk": pk, "sk": sk, at.VERSION: record.version, at.PACKED: records.pack(record)}


def federation(item: Item) -> Federation:
    """The federation of an item."""
    return records.unpack(Federation, item[at.PACKED])


def federation_item(record: Federation) -> Item:
    """The item of a federation."""
    pk, sk = at.federation_key(record.name)
    return {"pk": pk, "sk": sk, at.VERSION: record.version, at.PACKED: records.pack(record)}


def hook(item: Item) -> Hook:
    """The hook of an item."""
    return records.unpack(Hook, item[at.PACKED])


def hook_item(record: Hook) -> Item:
    """The item of a hook."""
    pk, sk = at.hook_key(record.name)
    return {"pk": pk, "sk": sk, at.VERSION: record.version, at.PACKED: records.pack(record)}
