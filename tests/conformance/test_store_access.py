"""Tokens and federations: versioned, and gone as soon as they are removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from control_plane.core.access import Grant, Role
from control_plane.errors import Conflict, InvalidInput, NotFound
from control_plane.ports import Store
from tests.conformance.builders import federation, token


def test_a_token_is_kept_as_it_was_written(store: Store) -> None:
    for each in (token(), token(token_id="t-0", name="bob")):
        store.token_put(each, expected_version=0)
    assert store.token_get("t-1") == token()
    assert store.token_list() == (token(token_id="t-0", name="bob"), token())


def test_a_token_that_never_expires(store: Store) -> None:
    endless = replace(token(), expires_at=None, grant=Grant(role=Role.ADMIN, queues=("*",)))
    store.token_put(endless, expected_version=0)
    assert store.token_get("t-1") == endless


def test_a_removed_token_is_gone_at_once(store: Store) -> None:
    store.token_put(token(), expected_version=0)
    store.token_remove("t-1")
    store.token_remove("t-1")
    with pytest.raises(NotFound):
        store.token_get("t-1")
    assert store.token_list() == ()


def test_tokens_and_federations_of_one_name_are_apart(store: Store) -> None:
    store.token_put(token(token_id="x"), expected_version=0)
    store.federation_put(federation(name="x"), expected_version=0)
    store.token_remove("x")
    assert store.federation_list() == (federation(name="x"),)
    assert store.token_list() == ()


def test_a_federation_is_written_by_whoever_has_seen_the_last_one(store: Store) -> None:
    with pytest.raises(Conflict):
        store.federation_put(federation(2), expected_version=1)
    store.federation_put(federation(1), expected_version=0)
    for version, expected in ((1, 0), (3, 2)):
        with pytest.raises(Conflict):
            store.federation_put(federation(version), expected_version=expected)
    with pytest.raises(InvalidInput):
        store.federation_put(federation(5), expected_version=1)
    changed = replace(federation(2), audience="another", rules=())
    store.federation_put(changed, expected_version=1)
    assert store.federation_get("github") == changed
    store.federation_remove("github")
    store.federation_remove("github")
    with pytest.raises(NotFound):
        store.federation_get("github")
    store.federation_put(federation(1), expected_version=0)


def test_tokens_have_versions_too(store: Store) -> None:
    store.token_put(token(), expected_version=0)
    with pytest.raises(Conflict):
        store.token_put(token(), expected_version=0)
    with pytest.raises(Conflict):
        store.token_put(token(3), expected_version=2)
    store.token_put(token(2, name="carol"), expected_version=1)
    assert store.token_get("t-1").name == "carol"


@pytest.mark.usefixtures("jumpy_threads")
def test_of_many_that_apply_at_once_one_does(store: Store) -> None:
    def put(number: int) -> bool:
        try:
            record = replace(federation(1), audience=str(number))
            store.federation_put(record, expected_version=0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(put, range(8)))
    assert done.count(True) == 1
    assert store.federation_get("github").audience == str(done.index(True))
