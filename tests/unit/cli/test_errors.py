"""Every problem of the API becomes its own exception, message and exit code; never a traceback."""

from __future__ import annotations

import pytest

from control_plane import errors as server_errors
from control_plane.api import problems
from control_plane.config import errors as config_errors
from orchctl import errors
from orchctl.main import main
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer


def test_one_exception_for_each_problem_code() -> None:
    kinds = [
        kind
        for module in (server_errors, problems, config_errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, server_errors.OrchctlError)
    ]
    kinds = [kind for kind in kinds if kind.code != "gone"]  # said to agents only
    assert {kind.code for kind in kinds} == set(errors.BY_CODE)
    for kind in kinds:
        ours = {each.__name__ for each in errors.BY_CODE[kind.code].__mro__}
        known = {each.__name__ for each in kind.__mro__} & {
            e.__name__ for e in errors.BY_CODE.values()
        }
        assert known <= ours, f"{kind.__name__} is caught by other classes here than there"


PROBLEMS = [
    (404, "not-found", 4),
    (409, "conflict", 6),
    (412, "conflict", 6),
    (428, "precondition-required", 6),
    (409, "idempotency-in-flight", 6),
    (422, "idempotency-key-reused", 2),
    (413, "too-large", 2),
    (421, "misdirected", 2),
    (400, "malformed", 2),
    (409, "stale-epoch", 6),
    (409, "fenced-out", 6),
    (409, "refused", 1),
    (422, "invalid-input", 2),
    (400, "invalid-input", 2),
    (422, "config-error", 2),
    (401, "denied", 5),
    (403, "denied", 5),
    (503, "unavailable", 7),
    (502, "provider-error", 1),
    (500, "error", 1),
]


@pytest.mark.parametrize(("status", "code", "exit_code"), PROBLEMS)
def test_a_problem_ends_with_its_exit_code_and_its_fix(
    cli: Cli, server: FakeServer, status: int, code: str, exit_code: int
) -> None:
    server.problem(
        "GET",
        "/v1/jobs/j-1",
        status,
        code,
        detail="it did not work",
        fix="try another way",
        errors=[{"pointer": "/gpu", "detail": "no such GPU"}],
    )

    failed = cli("job", "get", "j-1")

    assert failed.code == exit_code
    assert failed.out == ""
    assert failed.err == ("error: it did not work\n  /gpu: no such GPU\n  fix: try another way\n")


@pytest.mark.parametrize(
    ("status", "exit_code"), [(401, 5), (403, 5), (404, 4), (418, 1), (502, 7), (503, 7)]
)
def test_an_answer_that_is_no_problem_document_counts_by_its_status(
    cli: Cli, server: FakeServer, status: int, exit_code: int
) -> None:
    server.on("GET", "/v1/jobs/j-1", content=b"<html>gateway</html>", status=status)
    failed = cli("job", "get", "j-1")
    assert failed.code == exit_code
    assert f"the server answered {status}" in failed.err


def test_a_silent_server_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = FakeServer()
    gone.close()
    monkeypatch.setenv("ORCHCTL_SERVER", gone.url)

    assert main(["queue", "list"]) == 7
    assert f"{gone.url} does not answer" in capsys.readouterr().err


def test_an_answer_from_another_world_is_an_error(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/jobs/j-1", {"id": "j-1"})
    failed = cli("job", "get", "j-1")
    assert failed.code == 1
    assert "not understood" in failed.err


def test_a_server_that_sends_no_json_is_an_error(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/jobs/j-1", content=b"<html>a login page</html>")
    failed = cli("job", "get", "j-1")
    assert failed.code == 1
    assert "not understood" in failed.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("autoscalr",), "Did you mean 'autoscaler'?"),
        (("job", "lst"), "Did you mean 'list'?"),
        (("job", "list", "--limit", "x"), "--limit"),
        (("job", "list", "--wrong"), "--wrong"),
        (("job", "get"), "JOB"),
        (("job", "list", "-o", "xml"), "xml"),
        (("run", "--no-capture", "--packages", "some", "--", "true"), "auto, lock, none"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_where_to_look(
    cli: Cli, words: tuple[str, ...], told: str
) -> None:
    failed = cli(*words)
    assert failed.code == 2
    assert failed.out == ""
    assert failed.err.startswith("error: ")
    assert told in failed.err


def test_a_mistake_of_ours_is_a_message_too(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    server.on("GET", "/v1/queues", samples.page())
    monkeypatch.setattr("orchctl.session.Session.rows", broken)
    failed = cli("queue", "list")
    assert failed.code == 1
    assert "unexpected: RuntimeError: boom" in failed.err
    assert "Traceback" not in failed.err

    monkeypatch.setenv("ORCHCTL_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli("queue", "list")


def test_an_interrupt_exits_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchctl.contexts.load", interrupted)
    assert cli("queue", "list").code == 130
