"""What bodies of webhooks say, and which of that starts a job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control_plane.core.hooks import Occurrence, mismatch
from control_plane.errors import InvalidInput
from control_plane.webhooks import payloads
from tests.conformance.builders import hook

SHA = "a" * 40
HERE = {"full_name": "acme/vision"}
PUSH = {"ref": "refs/heads/main", "after": SHA, "repository": HERE}


def test_a_push() -> None:
    assert payloads.of_github("push", PUSH) == Occurrence(
        event="push", repository="acme/vision", ref="refs/heads/main", sha=SHA
    )


@pytest.mark.parametrize(
    ("event", "body", "ref", "sha"),
    [
        ("pull_request", {"number": 7, "pull_request": {"head": {"sha": SHA}}}, "pull/7/head", SHA),
        ("pull_request_review", {"pull_request": {"number": 7}}, "pull/7/head", ""),
        ("release", {"release": {"tag_name": "v1"}}, "tags/v1", ""),
        (
            "workflow_run",
            {
                "workflow_run": {
                    "head_branch": "main",
                    "head_sha": SHA,
                    "head_repository": HERE,
                }
            },
            "heads/main",
            SHA,
        ),
    ],
)
def test_the_ref_of_each_event(event: str, body: dict[str, Any], ref: str, sha: str) -> None:
    found = payloads.of_github(event, {**body, "action": "done", "repository": HERE})
    assert (found.ref, found.sha, found.action) == (f"refs/{ref}", sha, "done")


def test_a_branch_of_a_fork_is_not_ours_by_its_name() -> None:
    run = {"head_branch": "main", "head_sha": SHA, "head_repository": {"full_name": "evil/vision"}}
    found = payloads.of_github("workflow_run", {"workflow_run": run, "repository": HERE})
    assert (found.ref, found.sha) == ("", "")
    assert "not named" in mismatch(hook(on=("workflow_run",)), found)


def test_a_message_of_the_standard() -> None:
    body = {"type": "model.ready", "data": {"repository": "acme/m", "ref": "v2", "sha": SHA}}
    assert payloads.of_standard(body) == Occurrence(
        event="model.ready", repository="acme/m", ref="v2", sha=SHA
    )


@pytest.mark.parametrize(
    "body",
    [
        {**PUSH, "ref": "refs/heads/a b"},
        {**PUSH, "ref": "refs/heads/a\n"},
        {**PUSH, "ref": "refs/heads/\x00"},
        {**PUSH, "ref": "r" * 501},
        {**PUSH, "after": "$(reboot)"},
        {**PUSH, "after": SHA.upper()},
        {**PUSH, "repository": {"full_name": "acme/vision; reboot"}},
        {**PUSH, "repository": {"full_name": "a" * 400}},
        {**PUSH, "action": "x\r\ny"},
    ],
)
def test_what_no_repository_is_called_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        payloads.of_github("push", body)


@pytest.mark.parametrize(
    "body",
    [{}, {"ref": 5, "after": [], "repository": "x"}, {"repository": {"full_name": {"a": 1}}}],
)
def test_what_is_not_said_is_empty(body: dict[str, Any]) -> None:
    assert payloads.of_github("push", body) == Occurrence(event="push")


@pytest.mark.parametrize("event", ["", "a b", "x" * 101, "push\n"])
def test_an_event_is_a_word(event: str) -> None:
    with pytest.raises(InvalidInput):
        payloads.of_github(event, PUSH)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"payload=%7B%7D",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 500_000,
        b'{"a":' * 200_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"a": 1',
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        payloads.read_json(body)


def test_a_commit_of_nothing_is_none() -> None:
    gone = payloads.of_github("push", {**PUSH, "after": "0" * 40, "deleted": True})
    assert (gone.sha, gone.deleted) == ("", True)
    assert mismatch(hook(refs=()), gone) == "refs/heads/main was deleted"


MAIN = Occurrence(event="push", repository="acme/vision", ref="refs/heads/main", sha=SHA)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"event": "release", "action": "published"}, ""),
        ({"event": "release", "action": "deleted"}, "the event is release.deleted"),
        ({"event": "issues"}, "the event is issues, the hook is on push, release.published"),
        ({"ref": "refs/heads/main2"}, "the ref is refs/heads/main2, the hook takes"),
        ({"ref": ""}, "the ref is not named"),
        ({"repository": "evil/vision"}, "the repository is evil/vision, the hook takes acme/*"),
        ({"repository": "acme/vision/x"}, "the repository is"),
        ({"repository": ""}, "the repository is not named"),
    ],
)
def test_what_starts_the_job(changes: dict[str, str], why: str) -> None:
    found = mismatch(hook(), replace(MAIN, **changes))
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_without_patterns_anything_will_do() -> None:
    assert not mismatch(hook(refs=(), repositories=()), Occurrence(event="push"))
