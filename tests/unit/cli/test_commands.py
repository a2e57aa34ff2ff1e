"""Every command: the request it makes, its JSON, its table, and its exit code."""

from __future__ import annotations

import csv
import io
import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from control_plane.config.template import template
from control_plane.core.model import JobState
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer

LISTS: list[tuple[tuple[str, ...], str, Any, tuple[str, ...]]] = [
    (("job", "list"), "/v1/jobs", samples.job(), ("j-7k2m9", "queued", "L4:1, 4 cpu")),
    (("queue", "list"), "/v1/queues", samples.queue(), ("default", "7", "4m", "l4")),
    (
        ("machine", "list"),
        "/v1/machines",
        samples.machine(),
        ("m-4d1xq", "us-east-1d", "g6.xlarge", "0.310", "1.23", "1h5m", "j-7k2m9"),
    ),
    (("machine", "logs", "m-1"), "/v1/machines/m-1/events", samples.event(), ("launched in",)),
    (("job", "events", "j-1"), "/v1/events", samples.event(), ("launched in us-east-1d",)),
    (("server", "events"), "/v1/events", samples.event(), ("m-4d1xq", "launched in us-east-1d")),
    (("autoscaler", "list"), "/v1/autoscalers", samples.autoscaler(), ("example", "4", "ada")),
    (
        ("autoscaler", "history", "example"),
        "/v1/autoscalers/example/history",
        samples.autoscaler(),
        ("2026-11-02T08:00:00", "ada"),
    ),
    (
        ("job", "artifacts", "j-1"),
        "/v1/jobs/j-1/artifacts",
        {"name": "model.pt", "size_bytes": 12, "sha256": "ab", "blob": "b"},
        ("model.pt", "12"),
    ),
]


@pytest.mark.parametrize(
    ("words", "path", "item", "cells"), LISTS, ids=[" ".join(each[0][:2]) for each in LISTS]
)
def test_lists_print_tables_for_people_and_the_items_for_programs(
    cli: Cli, server: FakeServer, words: tuple[str, ...], path: str, item: Any, cells: tuple[str]
) -> None:
    server.on("GET", path, samples.page(item))

    table = cli(*words)
    assert (table.code, table.err) == (0, "")
    assert all(cell in table.out for cell in cells)

    as_json = cli(*words, "-o", "json")
    assert json.loads(as_json.out) == [item]


GETS: list[tuple[tuple[str, ...], str, Any, tuple[str, ...]]] = [
    (("job", "get", "j-1"), "/v1/jobs/j-1", samples.job(), ("python train.py", "position")),
    (
        ("machine", "get", "m-1"),
        "/v1/machines/m-1",
        samples.machine(),
        ("7 jobs wait in default",),
    ),
    (
        ("autoscaler", "get", "example"),
        "/v1/autoscalers/example",
        samples.autoscaler(),
        ("kind: Autoscaler  # ours\n",),
    ),
    (
        ("queue", "waits", "default"),
        "/v1/queues/default/waits",
        {
            "queue": "default",
            "count": 40,
            "p50_s": 12.0,
            "p90_s": 90.0,
            "p99_s": 3900.0,
            "max_s": None,
        },
        ("40", "12s", "1m30s", "1h5m"),
    ),
    (
        ("server", "status"),
        "/v1/health",
        {"status": "ok", "version": "0.1.0", "installation": "orchctl-4f2c1d"},
        ("ok", "0.1.0", "orchctl-4f2c1d"),
    ),
]


@pytest.mark.parametrize(
    ("words", "path", "item", "parts"), GETS, ids=[" ".join(each[0][:2]) for each in GETS]
)
def test_gets_print_fields_for_people_and_the_noun_for_programs(
    cli: Cli, server: FakeServer, words: tuple[str, ...], path: str, item: Any, parts: tuple[str]
) -> None:
    server.on("GET", path, item)

    shown = cli(*words)
    assert shown.code == 0
    assert all(part in shown.out for part in parts)
    assert json.loads(cli(*words, "-o", "json").out) == item


ACTIONS: list[tuple[tuple[str, ...], str, Any, str]] = [
    (("job", "retry", "j-1"), "/v1/jobs/j-1/retry", samples.job(), "job j-7k2m9 queued"),
    (
        ("job", "cancel", "j-7k2m9"),
        "/v1/jobs/j-7k2m9/cancel",
        samples.job(state=JobState.RUNNING),
        "will be cancelled",
    ),
    (("queue", "create", "bench"), "/v1/queues", samples.queue(name="bench"), "bench created"),
    (("queue", "pause", "q"), "/v1/queues/q/pause", None, "queue q paused"),
    (("queue", "resume", "q"), "/v1/queues/q/resume", None, "queue q resumed"),
    (("machine", "drain", "m-1"), "/v1/machines/m-1/drain", None, "m-1 drains"),
    (("machine", "protect", "m-1"), "/v1/machines/m-1/protect", None, "is protected"),
    (("machine", "unprotect", "m-1"), "/v1/machines/m-1/unprotect", None, "no longer"),
    (("machine", "terminate", "m-1", "--yes"), "/v1/machines/m-1/terminate", None, "being ended"),
    (("autoscaler", "pause", "a"), "/v1/autoscalers/a/pause", None, "a paused"),
    (("autoscaler", "resume", "a"), "/v1/autoscalers/a/resume", None, "a resumed"),
    (("server", "reconcile"), "/v1/reconcile", None, "woken"),
]


@pytest.mark.parametrize(
    ("words", "path", "answer", "sentence"),
    ACTIONS,
    ids=[" ".join(each[0][:2]) for each in ACTIONS],
)
def test_actions_post_once_with_an_idempotency_key_and_say_what_was_done(
    cli: Cli, server: FakeServer, words: tuple[str, ...], path: str, answer: Any, sentence: str
) -> None:
    server.on("POST", path, answer, status=202)

    done = cli(*words)

    assert done.code == 0
    assert sentence in done.out
    (asked,) = server.of("POST", path)
    assert uuid.UUID(asked.headers["idempotency-key"]).version == 7
    assert isinstance(json.loads(cli(*words, "-o", "json").out), dict)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("queue", "delete", "q"), "/v1/queues/q"),
        (("autoscaler", "delete", "a", "--yes"), "/v1/autoscalers/a"),
    ],
)
def test_deletes(cli: Cli, server: FakeServer, words: tuple[str, ...], path: str) -> None:
    server.on("DELETE", path, status=204, content=b"")
    assert cli(*words).code == 0
    assert len(server.of("DELETE", path)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("queue", "clear", "default"),
        ("machine", "terminate", "m-1"),
        ("autoscaler", "delete", "research"),
    ],
)
def test_what_destroys_is_refused_without_a_terminal_and_without_yes(
    cli: Cli, server: FakeServer, words: tuple[str, ...]
) -> None:
    server.on("POST", "/v1/queues/default/clear", {"would_cancel": 7})

    refused = cli(*words)

    assert refused.code == 2
    assert "--yes" in refused.err
    assert all(asked.query.get("dry_run") == "true" for asked in server.asked)


def test_list_filters_travel_and_limit_stops_paging(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/jobs", samples.page(samples.job(), samples.job(), cursor="next"))

    shown = cli("job", "list", "--queue", "q", "--state", "running", "--limit", "1", "-o", "name")

    assert shown.out == "j-7k2m9\n"
    (asked,) = server.asked
    assert asked.query == {"queue": "q", "state": "running", "limit": "1"}


def test_yaml_and_wide_and_empty(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/queues", samples.page(samples.queue()))
    server.on("GET", "/v1/queues", samples.page(samples.queue()))
    server.on("GET", "/v1/queues", samples.page())

    assert cli("queue", "list", "-o", "yaml").out.startswith("- name: default\n")
    assert "AUTOSCALER" in cli("queue", "list", "-o", "wide").out
    empty = cli("queue", "list")
    assert (empty.out, empty.err) == ("", "nothing to show\n")


def test_clear_previews_and_then_cancels(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/queues/q/clear", {"would_cancel": 2})
    server.on("POST", "/v1/queues/q/clear", {"would_cancel": 2})
    server.on("POST", "/v1/queues/q/clear", {"cancelled": ["j-1", "j-2"]})

    assert cli("queue", "clear", "q", "--dry-run").out == "would cancel 2 jobs\n"
    assert cli("queue", "clear", "q", "--yes").out == "2 jobs cancelled\n"
    assert [asked.query for asked in server.asked] == [{"dry_run": "true"}] * 2 + [{}]


def test_move_and_reorder_are_conditional_on_what_was_seen(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/jobs/j-1", samples.job(id="j-1", version=7))
    server.on("PUT", "/v1/jobs/j-1/position", samples.job(id="j-1", queue="urgent"))

    assert cli("queue", "move", "j-1", "--to", "urgent", "--top").code == 0
    assert cli("queue", "reorder", "j-1", "--before", "j-2").code == 0

    moved, reordered = server.of("PUT", "/v1/jobs/j-1/position")
    assert moved.headers["if-match"] == '"7"'
    assert moved.body == {"place": "top", "queue": "urgent"}
    assert reordered.body == {"place": "before", "of": "j-2"}


@pytest.mark.parametrize("flags", [(), ("--top", "--bottom"), ("--top", "--before", "j-2")])
def test_reorder_wants_exactly_one_place(cli: Cli, flags: tuple[str, ...]) -> None:
    refused = cli("queue", "reorder", "j-1", *flags)
    assert refused.code == 2
    assert "exactly one" in refused.err


def test_clone_sends_only_what_is_replaced(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/jobs/j-1/clone", samples.job(), status=201)

    assert cli("job", "clone", "j-1", "--set", "LR=1e-3", "--queue", "urgent").code == 0
    assert cli("job", "clone", "j-1", "--set", "LR").code == 2

    assert [asked.body for asked in server.asked] == [{"set": {"LR": "1e-3"}, "queue": "urgent"}]


def test_logs_follow_until_the_job_has_ended(cli: Cli, server: FakeServer) -> None:
    for content, size, state in (
        (b"one\n\xc3", 9, "running"),  # half a letter: the log is bytes
        (b"\xa9tw\n", 9, "running"),
        (b"", 9, "running"),
        (b"end\n", 13, "succeeded"),
    ):
        headers = {"X-Log-Size": str(size), "X-Job-State": state}
        server.on("GET", "/v1/jobs/j-1/logs", content=content, headers=headers)

    followed = cli("job", "logs", "-f", "j-1")

    assert followed.code == 0
    assert followed.out == "one\nétw\nend\n"
    assert [asked.query["offset"] for asked in server.asked] == ["0", "5", "9", "9"]


@pytest.mark.parametrize(
    ("exit_code", "state", "expected"),
    [
        (0, JobState.SUCCEEDED, 0),
        (3, JobState.FAILED, 3),
        (137, JobState.CANCELLED, 137),
        (-1, JobState.FAILED, 1),  # the command was never started
        (None, JobState.EXHAUSTED, 1),
        (0, JobState.CANCELLED, 1),  # a cancelled job did not do its work, whatever it exited with
    ],
)
def test_wait_exits_as_the_job_did(
    cli: Cli, server: FakeServer, exit_code: int | None, state: JobState, expected: int
) -> None:
    server.on("GET", "/v1/jobs/j-1/wait", samples.job(state=JobState.RUNNING))
    server.on("GET", "/v1/jobs/j-1/wait", samples.ended(exit_code, state))

    waited = cli("job", "wait", "j-1")

    assert waited.code == expected
    assert state in waited.err


def test_wait_gives_up_in_time(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/jobs/j-1/wait", samples.job(state=JobState.RUNNING))
    waited = cli("job", "wait", "j-1", "--timeout", "0")
    assert waited.code == 1
    assert "still running" in waited.err


def test_artifacts_land_below_the_directory_and_nowhere_else(
    cli: Cli, server: FakeServer, tmp_path: Path
) -> None:
    good = {"name": "out/model.pt", "size_bytes": 3, "sha256": "", "blob": ""}
    server.on("GET", "/v1/jobs/j-1/artifacts", samples.page(good))
    server.on("GET", "/v1/jobs/j-1/artifacts/out/model.pt", content=b"abc")
    server.on("GET", "/v1/jobs/j-2/artifacts", samples.page(good | {"name": "../evil"}))
    target = tmp_path / "results"

    assert cli("job", "artifacts", "j-1", "--download", str(target)).code == 0
    assert (target / "out/model.pt").read_bytes() == b"abc"

    assert cli("job", "artifacts", "j-2", "--download", str(target)).code == 2
    assert not (tmp_path / "evil").exists()


def test_cost_as_table_csv_and_json(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/costs", samples.COSTS)

    table = cli("cost", "--by", "queue,cloud", "--since", "7d")
    figures = "default aws 12.50 10.00 1.50 1.00 40.00 27.50 40.3 12"
    assert " ".join(table.out.splitlines()[1].split()) == figures
    assert table.out.splitlines()[2].startswith("total")
    assert server.asked[0].query == {"by": "queue,cloud", "since": "7d", "step": "day"}

    (row,) = csv.DictReader(io.StringIO(cli("cost", "--by", "queue,cloud", "-o", "csv").out))
    assert (row["group.queue"], row["cost_usd"], row["job_count"]) == ("default", "12.50", "12")

    data = json.loads(cli("cost", "-o", "json").out)
    assert data["rows"] == samples.COSTS["rows"]
    assert data["totals"]["cost_usd"] == "12.50"


# ------------------------------------------------------------------------------- autoscalers


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(template("example"))
    return path


def test_the_example_is_valid_and_never_overwrites(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert cli("autoscaler", "init", str(path)).code == 0
    assert cli("autoscaler", "validate", str(path)).out.endswith("example is valid\n")
    assert cli("autoscaler", "init", str(path)).code == 1


def test_mistakes_name_file_line_and_column(cli: Cli, server: FakeServer, config: Path) -> None:
    config.write_text(config.read_text().replace("idle_timeout: 1m", "idle_timeout: soon"))
    line = (
        config.read_text()
        .splitlines()
        .index(next(each for each in config.read_text().splitlines() if "soon" in each))
    )

    for verb in ("validate", "diff", "apply"):
        refused = cli("autoscaler", verb, str(config))
        assert refused.code == 2
        assert f"{config}:{line + 1}:" in refused.err
        assert "fix:" in refused.err
    assert server.asked == []


DIFF = """\
example: 2 changes
  ~ pools.l4.machines.max  8 -> 12
  + pools.l4.clouds.azure  eastus (3 offers)
  worst case 9.66 -> 14.49 USD/hour (+4.83), within budget 20 USD/hour
  right now: 7 jobs wait 4m in default -> would launch 3 machines
  warning: pools.l4: 3 regions are many
"""


def test_diff_shows_settings_money_and_now(cli: Cli, server: FakeServer, config: Path) -> None:
    server.on("GET", "/v1/autoscalers/example", samples.autoscaler())
    server.on("PUT", "/v1/autoscalers/example", samples.PREVIEW)

    assert cli("autoscaler", "diff", str(config)).out == DIFF
    assert cli("autoscaler", "diff", str(config), "--exit-code").code == 3
    assert json.loads(cli("autoscaler", "diff", str(config), "-o", "json").out) == samples.PREVIEW
    puts = server.of("PUT", "/v1/autoscalers/example")
    assert {asked.query["dry_run"] for asked in puts} == {"true"}
    assert puts[0].body == {"document": config.read_text()}


def test_diff_without_differences_exits_with_0(cli: Cli, server: FakeServer, config: Path) -> None:
    server.on("GET", "/v1/autoscalers/example", samples.autoscaler())
    server.on("PUT", "/v1/autoscalers/example", samples.PREVIEW | {"changes": []})
    shown = cli("autoscaler", "diff", str(config), "--exit-code")
    assert shown.code == 0
    assert shown.out.startswith("example: no changes\n")


def test_apply_writes_what_was_compared(cli: Cli, server: FakeServer, config: Path) -> None:
    server.on("GET", "/v1/autoscalers/example", samples.autoscaler(version=4))
    server.on("PUT", "/v1/autoscalers/example", samples.PREVIEW)
    server.on("PUT", "/v1/autoscalers/example", samples.autoscaler(version=5))

    applied = cli("autoscaler", "apply", str(config), "--yes")

    assert (applied.code, applied.out) == (0, "example applied, version 5\n")
    assert applied.err == DIFF
    dry, real = server.of("PUT", "/v1/autoscalers/example")
    assert (dry.query, real.query) == ({"dry_run": "true"}, {})
    assert real.headers["if-match"] == '"4"'


def test_a_new_autoscaler_must_not_exist_yet(cli: Cli, server: FakeServer, config: Path) -> None:
    server.problem("GET", "/v1/autoscalers/example", 404, "not-found")
    server.on("PUT", "/v1/autoscalers/example", samples.PREVIEW | {"changes": []})
    server.on("PUT", "/v1/autoscalers/example", samples.autoscaler(version=1), status=201)

    assert cli("autoscaler", "apply", str(config), "-y", "-o", "name").out == "example\n"
    assert [asked.headers["if-none-match"] for asked in server.asked[1:]] == ["*", "*"]


def test_apply_stops_where_it_should(cli: Cli, server: FakeServer, config: Path) -> None:
    server.on("GET", "/v1/autoscalers/example", samples.autoscaler())
    server.on("PUT", "/v1/autoscalers/example", samples.PREVIEW)

    dry = cli("autoscaler", "apply", str(config), "--dry-run")
    asked = cli("autoscaler", "apply", str(config))

    assert (dry.code, dry.out) == (0, DIFF)
    assert asked.code == 2
    assert "--yes" in asked.err
    assert all(each.query for each in server.of("PUT", "/v1/autoscalers/example"))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("reply", "applied"), [("y\n", True), ("n\n", False), ("", False)])
def test_on_a_terminal_apply_asks(
    cli: Cli,
    server: FakeServer,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: str,
    applied: bool,
) -> None:
    server.on("GET", "/v1/autoscalers/example", samples.autoscaler())
    server.on("PUT", "/v1/autoscalers/example", samples.PREVIEW)
    server.on("PUT", "/v1/autoscalers/example", samples.autoscaler(version=5))
    monkeypatch.setattr("sys.stdin", _Terminal(reply))

    ran = cli("autoscaler", "apply", str(config))

    assert ran.code == 0
    assert "Apply? [y/N]" in ran.err
    assert len(server.of("PUT", "/v1/autoscalers/example")) == (2 if applied else 1)
    assert ("nothing was applied" in ran.err) is not applied


def test_explain_finds_the_autoscaler_of_the_queue(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/queues/default", samples.queue())
    answer = {"queue": "default", "text": "3 machines, because …", "lines": [], "plan_id": "p-1"}
    server.on("GET", "/v1/autoscalers/research/explain", answer)

    assert cli("autoscaler", "explain", "default").out == "3 machines, because …\n"
    assert server.asked[-1].query == {"queue": "default"}


def test_limits_of_a_queue_are_sent_and_what_is_left_out_has_none(
    cli: Cli, server: FakeServer
) -> None:
    server.on("POST", "/v1/queues", samples.queue(name="bench", max_running=4))
    server.on("PUT", "/v1/queues/bench/limits", samples.queue(name="bench", max_running=4))
    cli("queue", "create", "bench", "--max-running", "4")
    assert server.asked[-1].body == {
        "name": "bench",
        "max_running": 4,
        "max_running_per_owner": None,
    }
    told = cli("queue", "limit", "bench", "--max-running-per-owner", "2")
    assert told.out == "queue bench: no limit in all, 2 per owner\n"
    assert server.asked[-1].body == {"max_running": None, "max_running_per_owner": 2}
    assert cli("queue", "limit", "bench", "--max-running", "0").code == 2


def test_a_queue_shows_its_limit_and_where_counting_stopped(cli: Cli, server: FakeServer) -> None:
    much = samples.queue(waiting=10_000, delayed=7, blocked=5, exact=False, max_running=4)
    server.on("GET", "/v1/queues", samples.page(much))
    (row,) = cli("queue", "list", "-o", "wide").out.splitlines()[1:]
    assert row.split()[2:6] == ["10000+", "2/4", "7+", "5+"]


def test_dead_letters_are_listed_and_submitted_again(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/jobs", samples.page(samples.ended(1)))
    server.on("POST", "/v1/queues/default/redrive", {"jobs": ["j-8", "j-9"]})
    assert cli("job", "list", "--dead", "--queue", "default", "-o", "name").out == "j-7k2m9\n"
    assert server.asked[-1].query["state"] == "failed,exhausted"
    both = cli("job", "list", "--dead", "--state", "running")
    assert (both.code, "--dead is a state" in both.err) == (2, True)
    assert cli("queue", "redrive", "default").out == "2 jobs queued\n"


def test_a_job_shows_what_it_waits_for(cli: Cli, server: FakeServer) -> None:
    waits = samples.job(
        state=JobState.BLOCKED, depends_on=("j-1", "j-2"), not_before=samples.AT + timedelta(days=1)
    )
    server.on("GET", "/v1/jobs/j-7k2m9", waits)
    shown = cli("job", "get", "j-7k2m9").out
    assert "j-1, j-2" in shown
    assert "2026-11-03T08:00:00" in shown


def test_a_queue_no_autoscaler_serves_is_explained_too(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/queues/bench", samples.queue(name="bench", autoscaler=""))
    refused = cli("autoscaler", "explain", "bench")
    assert refused.code == 1
    assert "no autoscaler serves bench" in refused.err


def test_machine_drain_dry_run_changes_nothing(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/machines/m-1", samples.machine())
    assert "would drain m-1 after 1 job\n" in cli("machine", "drain", "m-1", "--dry-run").out
    assert [asked.method for asked in server.asked] == ["GET"]


def test_offers(cli: Cli, server: FakeServer) -> None:
    from control_plane.core.codec import to_json

    server.on("GET", "/v1/offers", samples.page(to_json(samples.offer())))
    assert "g6.xlarge" in cli("server", "offers", "--pool", "l4").out
    assert server.asked[0].query == {"pool": "l4"}
