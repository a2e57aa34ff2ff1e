"""`orchctl hook`: the requests it makes, and what it prints of the answers."""

from __future__ import annotations

import json
from typing import Any

from control_plane.core.alerts import DeliveryState
from control_plane.core.codec import to_json
from tests.conformance import builders
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer


def record(**changes: Any) -> Any:
    return to_json(builders.hook(**changes))


def test_a_hook_is_made_with_the_job_it_starts(cli: Cli, server: FakeServer) -> None:
    server.on("PUT", "/v1/hooks/deploy", record(), status=201)
    ran = cli(
        *("hook", "create", "deploy", "--queue", "q", "--on", "push", "--on", "release.published"),
        *("--ref", "refs/heads/main", "--repository", "acme/*", "--gpu", "L4:1", "-e", "A=b"),
        *("--", "python", "train.py", "--lr", "1 2"),
    )
    assert ran.code == 0, ran.err
    (asked,) = server.asked
    assert asked.headers["if-none-match"] == "*"
    assert asked.body == {
        "on": ["push", "release.published"],
        "repositories": ["acme/*"],
        "refs": ["refs/heads/main"],
        "job": {
            "command": "python train.py --lr '1 2'",
            "queue": "q",
            "gpu": "L4:1",
            "cpu": 0,
            "memory": "",
            "env": {"A": "b"},
            "timeout": "",
        },
    }
    assert "/v1/hooks/deploy\n" in ran.err
    assert "orchctl hook secret deploy" in ran.out


def test_one_word_is_a_shell_line_and_replacing_is_asked_for(cli: Cli, server: FakeServer) -> None:
    server.on("PUT", "/v1/hooks/deploy", record())
    cli("hook", "create", "deploy", "--on", "push", "--replace", "--", "make a && make b")
    (asked,) = server.asked
    assert "if-none-match" not in asked.headers
    assert asked.body["job"]["command"] == "make a && make b"
    assert cli("hook", "create", "deploy", "--", "x").code == 2, "on what?"
    assert len(server.asked) == 1


def test_a_hook_that_is_there_is_not_replaced_by_mistake(cli: Cli, server: FakeServer) -> None:
    server.problem("PUT", "/v1/hooks/deploy", 412, "conflict", detail="it is there")
    assert cli("hook", "create", "deploy", "--on", "push", "--", "x").code != 0


def test_hooks_are_listed_changed_and_deleted(cli: Cli, server: FakeServer) -> None:
    anything = record(name="free", repositories=(), refs=())
    server.on("GET", "/v1/hooks", samples.page(record(), anything))
    table = cli("hook", "list").out
    for shown in ("deploy", "push, release.published", "acme/*", "make train", "any"):
        assert shown in table
    server.on("POST", "/v1/hooks/deploy/rotate", record(generation=2))
    assert "secret no. 2" in cli("hook", "rotate", "deploy").out
    server.on("DELETE", "/v1/hooks/deploy", status=204, content=b"")
    assert cli("hook", "delete", "deploy").out == "hook deploy is deleted\n"


def test_a_secret_goes_to_standard_output_alone(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/hooks/deploy/secret", {"secret": "whsec_a"})
    ran = cli("hook", "secret", "deploy")
    assert (ran.out, ran.err) == ("whsec_a\n", "")
    assert json.loads(cli("hook", "secret", "deploy", "-o", "json").out)["secret"] == "whsec_a"
    server.on("GET", "/v1/alert-secret", {"secret": "whsec_b"})
    assert cli("hook", "alert-secret", "secret://pager").out == "whsec_b\n"
    assert server.asked[-1].query == {"target": "secret://pager"}


def test_what_was_told_is_listed(cli: Cli, server: FakeServer) -> None:
    failed = builders.delivery(
        state=DeliveryState.GIVEN_UP, attempts=7, problem="the receiver answered 500"
    )
    server.on("GET", "/v1/deliveries", samples.page(to_json(failed)))
    table = cli("hook", "deliveries", "--limit", "7").out
    for shown in ("job-failed", "j-1", "webhook secret://pager", "given-up", "answered 500"):
        assert shown in table
    assert server.asked[0].query["limit"] == "7"
