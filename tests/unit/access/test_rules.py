"""Who is let in by a rule, and which rules would let strangers in."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from control_plane.core.access import Federation, Grant, Role, Rule, faults, matches

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
GITHUB = "https://token.actions.githubusercontent.com"


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("acme/train", "acme/train", True),
        ("acme/train", "acme/train2", False),
        ("acme/train", "xacme/train", False),
        ("acme/train", "acme/train\n", False),
        ("acme/train", "Acme/train", False),
        ("acme/train", "acme\u2215train", False),  # a slash of another kind
        ("acme/train", "\u0430cme/train", False),  # a Cyrillic a
        ("acme.io/train", "acmexio/train", False),  # a dot is a dot
        ("acme/*", "acme/train", True),
        ("acme/*", "acme/", True),
        ("acme/*", "acme/train/deep", False),
        ("acme/*", "acme-evil/train", False),
        ("acme/*", "evil/acme/train", False),
        ("refs/heads/release/*", "refs/heads/release/1.0", True),
        ("refs/heads/release/*", "refs/heads/release/1/0", False),
        ("refs/heads/**", "refs/heads/release/1/0", True),
        ("refs/heads/**", "refs/tags/v1", False),
        ("**@refs/heads/main", "a/b@refs/heads/main", True),
        ("**@refs/heads/main", "a/b@refs/heads/main2", False),
        # The nearest fit is not the right one here.
        ("**a*b", "a/ab", True),
        ("*/x/**", "a/x/x/y", True),
        ("*", "", True),
        ("*", "a/b", False),
        ("**", "a/b\n", True),
        ("[ab]", "a", False),
        ("a?", "ab", False),
    ],
)
def test_a_pattern(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


def test_no_branch_name_makes_a_pattern_slow() -> None:
    began = time.perf_counter()
    assert not matches("**a" * 20 + "b", "a" * 500)
    assert not matches("*a" * 20 + "b", "a" * 500)
    assert time.perf_counter() - began < 2


def rule(role: Role = Role.SUBMITTER, **claims: str | tuple[str, ...]) -> Rule:
    patterns = {name: (each,) if isinstance(each, str) else each for name, each in claims.items()}
    return Rule(claims=patterns, grant=Grant(role=role, queues=("q",)))


def federation(*rules: Rule, issuer: str = GITHUB) -> Federation:
    return Federation(
        name="ci", issuer=issuer, audience="us", rules=rules, applied_at=NOW, applied_by="admin"
    )


def test_all_claims_of_a_rule_must_match_and_one_pattern_of_each() -> None:
    one = rule(repository=("acme/train", "acme/eval"), ref="refs/heads/main")
    assert one.admits({"repository": "acme/eval", "ref": "refs/heads/main", "more": "x"})
    assert not one.admits({"repository": "acme/eval", "ref": "refs/heads/other"})
    assert not one.admits({"repository": "acme/eval"})
    assert not one.admits({})


def test_the_first_rule_that_admits_decides() -> None:
    rules = (
        rule(Role.OPERATOR, repository="acme/train", ref="refs/heads/main"),
        rule(Role.VIEWER, repository="acme/*"),
    )
    both = federation(*rules)
    main = both.grant({"repository": "acme/train", "ref": "refs/heads/main"})
    assert main is not None
    assert main.role is Role.OPERATOR
    other = both.grant({"repository": "acme/train", "ref": "refs/heads/x"})
    assert other is not None
    assert other.role is Role.VIEWER
    assert both.grant({"repository": "evil/train"}) is None


@pytest.mark.parametrize(
    ("one", "good"),
    [
        (rule(repository="acme/train"), True),
        (rule(repository="acme/*"), True),
        (rule(repository=("acme/train", "*/train")), False),
        (rule(repository="acme*/train"), False),
        (rule(repository="*"), False),
        (rule(repository="**"), False),
        (rule(repository_owner="acme"), True),
        (rule(repository_owner="acme*"), False),
        (rule(repository_id="74"), True),
        (rule(repository_owner_id="*"), False),
        (rule(sub="repo:acme/train:**"), True),
        (rule(sub="repo:acme*"), False),
        # Anybody may call a public workflow, and call a branch what they like.
        (rule(job_workflow_ref="acme/ci/.github/workflows/x.yml@refs/heads/main"), False),
        (rule(ref="refs/heads/main"), False),
        (rule(environment="gpu"), False),
        (rule(), False),
    ],
)
def test_a_rule_for_an_issuer_of_everybody_names_the_owner(one: Rule, good: bool) -> None:
    assert (not faults(federation(one))) is good
    # One bad rule among good ones is found.
    found = faults(federation(rule(repository="acme/train"), one))
    assert [place for place, _ in found][:1] == ([] if good else ["/rules/1/claims"])


def test_gitlab_too_and_an_own_issuer_may_be_looser() -> None:
    assert not faults(federation(rule(project_path="acme/*"), issuer="https://gitlab.com"))
    assert faults(federation(rule(project_path="*/train"), issuer="https://gitlab.com"))
    own = federation(rule(ref="main"), issuer="https://gitlab.acme.example")
    assert not faults(own)
    assert faults(replace(own, rules=(rule(ref="**"),)))
    assert faults(replace(own, rules=(rule(),)))


@pytest.mark.parametrize("role", Role)
def test_each_role_may_all_that_the_ones_before_it_may(role: Role) -> None:
    grant = Grant(role=role, queues=("q",))
    allowed = [each for each in Role if grant.allows(each, "q")]
    assert allowed == list(Role)[: role.rank + 1]
    assert not any(grant.allows(each, "other") for each in Role)
    assert not any(grant.allows(each) for each in Role), "all queues are more than one"
    everywhere = replace(grant, queues=("*",))
    assert [each for each in Role if everywhere.allows(each)] == allowed
    assert everywhere.allows(role, "any")
    assert not replace(grant, queues=()).allows(Role.VIEWER, "q")
