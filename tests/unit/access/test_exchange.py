"""A token of a CI system is exchanged once, for a session that may what the rules say now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from control_plane.access.entrance import FEDERATIONS_MAX, REMEMBERED_S, SESSION, Access
from control_plane.access.oidc import Issuers
from control_plane.core.access import Federation, Grant, Role, Rule
from control_plane.errors import Conflict, Denied, InvalidInput, NotFound, Refused
from control_plane.stores.memory import MemoryStore
from tests.api.world import ManualClock
from tests.fakes.issuer import Issuer, rsa_key


def test_a_session_is_of_the_rule_that_admits(access: Access, issuer: Issuer) -> None:
    session = access.exchange(issuer.token(), "k")
    identity = access.identify(session.token)
    assert identity == session.identity
    assert identity.actor == "ci:github:repo:acme/train:ref:refs/heads/main"
    assert identity.grant == Grant(role=Role.SUBMITTER, queues=("ci",))
    assert len(session.token) < 1024, "it travels in a header"


STRANGERS: list[dict[str, Any]] = [
    {"repository": "evil/train"},
    {"repository": "acme/train2"},
    {"repository": "acme-evil/train"},
    {"repository": "ACME/train"},
    {"repository": "acme/train/../train"},
    {"repository": "acme/train\n"},
    {"repository": "\u0430cme/train"},
    {"repository": ["acme/train"]},
    {"repository": {"acme/train": 1}},
    {"repository": None},
    {"ref": "refs/heads/main2"},
    {"ref": "refs/pull/1/merge"},
    {"ref": "main"},
    {"ref": None},
    {"sub": None},
    {"sub": ""},
    {"sub": 0.5},
]


@pytest.mark.parametrize("changes", STRANGERS)
def test_a_look_alike_is_not_admitted(
    access: Access, issuer: Issuer, changes: dict[str, Any]
) -> None:
    with pytest.raises(Denied):
        access.exchange(issuer.token(**changes), "k")


def test_a_token_is_good_for_one_session(access: Access, issuer: Issuer) -> None:
    token = issuer.token()
    first = access.exchange(token, "mine")
    assert access.exchange(token, "mine") == first, "its answer was lost"
    for key in ("theirs", ""):
        with pytest.raises(Denied, match="used before"):
            access.exchange(token, key)
    assert access.identify(first.token) == first.identity


def test_without_a_key_nothing_can_be_repeated(access: Access, issuer: Issuer) -> None:
    token = issuer.token()
    access.exchange(token, "")
    with pytest.raises(Denied, match="used before"):
        access.exchange(token, "")


def test_another_spelling_of_the_signature_is_the_same_token(
    access: Access, issuer: Issuer
) -> None:
    """In a signature on a curve anybody can turn one number round; it stays right."""
    token = issuer.token(kid="curve")
    access.exchange(token, "mine")
    with pytest.raises(Denied, match="used before"):
        access.exchange(_turned(token), "theirs")


def _turned(token: str) -> str:
    import base64

    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    what, _, text = token.rpartition(".")
    raw = base64.urlsafe_b64decode(text + "==")
    turned = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    return f"{what}.{base64.urlsafe_b64encode(turned).decode().rstrip('=')}"


def test_of_many_that_come_with_one_token_one_gets_a_session(
    access: Access, issuer: Issuer
) -> None:
    token = issuer.token()
    access.exchange(issuer.token(), "warm")  # the keys are read

    def exchange(number: int) -> bool:
        try:
            access.exchange(token, f"key {number}")
        except Denied:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(exchange, range(16))).count(True) == 1


def test_a_used_token_is_remembered_for_longer_than_it_lives(
    access: Access, issuer: Issuer, clock: ManualClock
) -> None:
    at = int(clock.now().timestamp())
    token = issuer.token(exp=at + 12 * 3600)
    access.exchange(token, "mine")
    clock.sleep(12 * 3600)
    with pytest.raises(Denied, match="used before"):
        access.exchange(token, "theirs")
    clock.sleep(REMEMBERED_S - 12 * 3600 + 1)
    with pytest.raises(Denied, match="expired"):
        access.exchange(token, "theirs")


def test_a_session_ends(access: Access, issuer: Issuer, clock: ManualClock) -> None:
    session = access.exchange(issuer.token(), "k")
    clock.sleep(3599)
    access.identify(session.token)
    clock.sleep(1)
    with pytest.raises(Denied, match="over"):
        access.identify(session.token)


def test_rules_hold_at_once_for_open_sessions_too(
    access: Access, store: MemoryStore, issuer: Issuer, federation: Federation
) -> None:
    token = access.exchange(issuer.token(), "k").token

    def apply(version: int, *rules: Rule, **changes: Any) -> None:
        record = replace(federation, version=version, rules=rules, **changes)
        store.federation_put(record, expected_version=version - 1)

    (rule,) = federation.rules
    demoted = replace(rule, grant=Grant(role=Role.VIEWER, queues=("other",)))
    apply(2, demoted)
    assert access.identify(token).grant == demoted.grant
    apply(3, replace(rule, claims={**rule.claims, "environment": ("gpu",)}))
    with pytest.raises(Denied, match="rules"):
        access.identify(token)
    apply(4, rule, audience="https://elsewhere.example")
    with pytest.raises(Denied, match="rules"):
        access.identify(token)
    apply(5, rule, issuer="https://evil.example")
    with pytest.raises(Denied, match="rules"):
        access.identify(token)
    apply(6, rule)
    access.identify(token)
    access.remove("github", actor="admin")
    with pytest.raises(Denied, match="rules"):
        access.identify(token)


def test_a_session_cannot_be_made_or_changed(access: Access, issuer: Issuer) -> None:
    token = access.exchange(issuer.token(), "k").token
    body, _, mac = token.removeprefix(SESSION).partition(".")
    for wrong in (
        f"{SESSION}{body}.{mac[:-1]}",
        f"{SESSION}{body[:-2]}AA.{mac}",
        f"{SESSION}{body}.",
        f"{SESSION}{body}",
        f"{SESSION}.{mac}",
        f"{SESSION}\u00e4.{mac}",
        f"{SESSION}{body}=.{mac}x",
        SESSION,
    ):
        with pytest.raises(Denied):
            access.identify(wrong)


def test_sessions_of_one_server_are_none_at_another(
    access: Access, store: MemoryStore, clock: ManualClock, issuers: Issuers, issuer: Issuer
) -> None:
    token = access.exchange(issuer.token(), "k").token
    other = Access(store, clock, access._ids, issuers, secret=b"o" * 32)
    with pytest.raises(Denied):
        other.identify(token)


def test_of_two_federations_of_one_issuer_the_one_that_admits_counts(
    access: Access, store: MemoryStore, issuer: Issuer, federation: Federation
) -> None:
    rule = Rule(claims={"repository": ("acme/eval",)}, grant=Grant(role=Role.VIEWER, queues=("e",)))
    store.federation_put(replace(federation, name="a", rules=(rule,)), expected_version=0)
    store.federation_put(replace(federation, name="z", audience="z"), expected_version=0)
    assert access.exchange(issuer.token(), "1").identity.actor.startswith("ci:github:")
    assert access.exchange(issuer.token(aud="z"), "2").identity.actor.startswith("ci:z:")
    evaluated = access.exchange(issuer.token(repository="acme/eval"), "3").identity
    assert evaluated.grant.role is Role.VIEWER
    with pytest.raises(Denied):
        access.exchange(issuer.token(aud="nobody"), "4")


def test_an_issuer_that_is_not_ours_is_not_asked(access: Access, issuer: Issuer) -> None:
    with pytest.raises(Denied, match="not taken here"):
        access.exchange(issuer.token(iss="https://evil.example", key=rsa_key(1)), "k")
    assert issuer.asked == []


def test_a_strange_subject_makes_no_strange_actor(
    access: Access, store: MemoryStore, issuer: Issuer
) -> None:
    actor = access.exchange(issuer.token(sub="two words \u00e4" + "x" * 400), "k").identity.actor
    assert actor.startswith("ci:github:two?words??x")
    assert len(actor) == 200
    with pytest.raises(Denied):
        access.exchange(issuer.token(sub="a\nb"), "k")


def test_applying_is_by_version_and_repeats_change_nothing(
    access: Access, store: MemoryStore, federation: Federation, clock: ManualClock
) -> None:
    clock.sleep(5)
    again = replace(federation, applied_at=clock.now())
    assert access.apply(again, expected_version=None, actor="bob") == federation
    changed = replace(federation, session_s=600)
    with pytest.raises(Conflict):
        access.apply(changed, expected_version=7, actor="bob")
    applied = access.apply(changed, expected_version=1, actor="bob")
    assert (applied.version, applied.applied_by, applied.applied_at) == (2, "bob", clock.now())
    with pytest.raises(NotFound):
        access.remove("none", actor="bob")
    for number in range(FEDERATIONS_MAX - 1):
        access.apply(replace(federation, name=f"f{number}"), expected_version=0, actor="bob")
    with pytest.raises(Refused):
        access.apply(replace(federation, name="more"), expected_version=0, actor="bob")
    bad = replace(federation.rules[0], grant=Grant(role=Role.ADMIN, queues=("q",)))
    with pytest.raises(InvalidInput):
        access.apply(replace(federation, rules=(bad,)), expected_version=None, actor="bob")
    texts = [each.text for each in store.event_list(kind="access", subject="github").items]
    assert texts == ["federation applied: 1 rules"]
