"""Proves that each cloud's notice is seen once, with the time that is left, whatever else its
metadata service does. The service is a fake that refuses what the real one refuses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_bootstrap.interruption import FileWatcher, Watcher, watcher
from agent_bootstrap.notices import AwsWatcher, AzureWatcher, GcpWatcher
from agent_bootstrap.wire import Notice
from tests.fakes.metadata.server import NAME, Metadata, Reply

YEARS_OFF = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
"""The services' clock; the clock of this machine is wrong by years, and it must not matter."""
ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
EVENTS = "/metadata/scheduledevents"
WATCHERS = {"aws": AwsWatcher, "gcp": GcpWatcher, "azure": AzureWatcher}
FIRST = {"aws": ACTION, "gcp": PREEMPTED, "azure": EVENTS}

clouds = pytest.mark.parametrize("cloud", list(WATCHERS))


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    metadata = Metadata(now=lambda: YEARS_OFF)
    yield metadata
    metadata.close()


def made(cloud: str, metadata: Metadata) -> Watcher:
    return WATCHERS[cloud](metadata.url)


# --------------------------------------------------------------------------------------- all


def test_the_cloud_decides_who_watches(tmp_path: Path, metadata: Metadata) -> None:
    assert isinstance(watcher("local", tmp_path, metadata.url), FileWatcher)
    for cloud, kind in WATCHERS.items():
        assert isinstance(watcher(cloud, tmp_path, metadata.url), kind)


@clouds
def test_there_is_no_notice_before_one_and_only_one_then(cloud: str, metadata: Metadata) -> None:
    watching = made(cloud, metadata)
    assert watching.poll() is None
    metadata.preempt(1000)
    usual = {"aws": 110.0, "gcp": 25.0, "azure": 25.0}[cloud]
    assert watching.poll() == Notice("spot", usual)
    assert watching.poll() is None


@pytest.mark.parametrize(("cloud", "path"), [*FIRST.items(), ("aws", "/latest/api/token")])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_a_service_that_fails_is_asked_again(
    cloud: str, path: str, status: int, metadata: Metadata
) -> None:
    metadata.faults[path] = [status] * 2
    metadata.preempt(1000)
    watching = made(cloud, metadata)
    seen = [watching.poll() for _ in range(3)]
    assert [notice.kind for notice in seen if notice] == ["spot"]
    assert seen[0] is None


@clouds
def test_where_nobody_answers_there_is_no_notice(cloud: str, metadata: Metadata) -> None:
    watching = made(cloud, metadata)
    metadata.close()
    assert watching.poll() is None


@clouds
@pytest.mark.parametrize("answer", ["", "<html>", "[1]", "null", '{"Events": [{}, 7, null]}'])
def test_nonsense_is_no_notice_and_no_failure(
    cloud: str, answer: str, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = made(cloud, metadata)
    monkeypatch.setattr(metadata, "_preempted", lambda _query: Reply(200, answer))
    monkeypatch.setattr(metadata, "_show_events", lambda: Reply(200, answer))
    assert watching.poll() is None


@clouds
def test_no_proxy_is_asked(cloud: str, metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    metadata.preempt(1000)
    assert made(cloud, metadata).poll() is not None


# --------------------------------------------------------------------------------------- AWS


@pytest.mark.parametrize(("given", "left"), [(120, 110), (90, 90), (0, 0), (-5, 0)])
def test_aws_says_when_it_takes_the_machine(given: int, left: float, metadata: Metadata) -> None:
    metadata.preempt(given)
    assert made("aws", metadata).poll() == Notice("spot", float(left))


@pytest.mark.parametrize("text", ["soon", "{}", "[]", '{"time": 7}', '{"time": "tomorrow"}'])
def test_a_notice_of_aws_without_a_readable_time_is_still_one(
    text: str, metadata: Metadata
) -> None:
    metadata.documents[ACTION] = lambda _: text
    assert made("aws", metadata).poll() == Notice("spot", 110.0)


def test_a_rebalance_recommendation_is_a_hint_given_once(metadata: Metadata) -> None:
    watching = made("aws", metadata)
    metadata.rebalance()
    assert watching.poll() == Notice("rebalance")
    assert watching.poll() is None
    metadata.preempt(1000)
    assert watching.poll() == Notice("spot", 110.0)


def test_one_token_serves_until_aws_refuses_it(metadata: Metadata) -> None:
    watching = made("aws", metadata)
    for _ in range(3):
        watching.poll()
    assert metadata.count("/latest/api/token") == 1
    metadata.forget_tokens()
    metadata.preempt(1000)
    assert [watching.poll(), watching.poll()] == [None, Notice("spot", 110.0)]
    assert metadata.count("/latest/api/token") == 2


# --------------------------------------------------------------------------------------- GCP


def test_google_holds_the_question_until_it_preempts(metadata: Metadata) -> None:
    watching = made("gcp", metadata)
    assert watching.poll() is None
    seen: list[Notice | None] = []
    asking = threading.Thread(target=lambda: seen.append(watching.poll()))
    asking.start()
    try:
        asking.join(0.3)
        assert asking.is_alive(), "the answer is held"
    finally:
        metadata.preempt(30)
    asking.join(10)
    assert seen == [Notice("spot", 25.0)]
    assert metadata.count(PREEMPTED) == 2


def test_what_google_says_between_two_questions_is_not_missed(metadata: Metadata) -> None:
    watching = made("gcp", metadata)
    assert watching.poll() is None
    metadata.preempt(30)
    assert watching.poll() == Notice("spot", 25.0)


# ------------------------------------------------------------------------------------- Azure


@pytest.mark.parametrize(
    ("kind", "seconds", "notice"),
    [
        ("Preempt", 30, Notice("spot", 25.0)),
        ("Preempt", 12, Notice("spot", 12.0)),
        ("Preempt", None, Notice("spot", 25.0)),
        ("Terminate", 300, Notice("maintenance", 300.0)),
        ("Terminate", None, Notice("maintenance", 25.0)),
        ("Reboot", 30, None),
        ("Redeploy", 30, None),
        ("Freeze", 30, None),
    ],
)
def test_an_event_of_azure_is_read(
    kind: str, seconds: float | None, notice: Notice | None, metadata: Metadata
) -> None:
    metadata.schedule("Freeze", 5)
    metadata.schedule(kind, seconds)
    assert made("azure", metadata).poll() == notice


@pytest.mark.parametrize(
    ("resources", "ours"),
    [((NAME,), True), ((NAME.upper(), "b"), True), (("a", "b"), False), ((), True)],
)
def test_an_event_of_azure_counts_when_it_names_this_machine(
    resources: tuple[str, ...], ours: bool, metadata: Metadata
) -> None:
    metadata.schedule("Preempt", 30, resources)
    assert (made("azure", metadata).poll() is not None) == ours


def test_an_event_counts_when_a_machine_of_azure_cannot_learn_its_name(metadata: Metadata) -> None:
    del metadata.documents["/metadata/instance/compute/name"]
    metadata.schedule("Preempt", 30, ("a",))
    assert made("azure", metadata).poll() is not None


def test_azure_takes_its_time_for_the_first_answer(metadata: Metadata) -> None:
    metadata.events_begin_after_s = 0.3
    metadata.preempt(30)
    began = time.monotonic()
    assert made("azure", metadata).poll() == Notice("spot", 25.0)
    assert time.monotonic() - began >= 0.3


def test_azure_is_told_when_nothing_runs_any_more(metadata: Metadata) -> None:
    other = metadata.schedule("Preempt", 30, ("a-neighbour",))
    watching = made("azure", metadata)
    watching.drained()
    assert "POST" not in {each.method for each in metadata.asked}
    ours = metadata.schedule("Preempt", 30)
    watching.poll()
    assert metadata.started == []
    watching.drained()
    assert metadata.started == [ours]
    assert other not in metadata.started
    metadata.close()
    watching.drained()  # and nobody answers: no failure


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_event = st.fixed_dictionaries(
    {},
    optional={
        "EventType": st.just("Preempt") | _json,
        "Resources": st.just([NAME]) | _json,
        "NotBefore": st.just("Thu, 01 May 2031 12:00:09 GMT") | _json,
        "EventId": _json,
    },
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Metadata]:
    shared = Metadata()
    yield shared
    shared.close()


@given(events=st.lists(_event | _json, max_size=3) | _json, action=st.text(max_size=30) | _json)
def test_no_document_whatever_it_holds_ends_the_watch(
    shared: Metadata, events: Any, action: Any
) -> None:
    shared.events = events
    text = json.dumps(action)
    shared.documents[ACTION] = lambda _: text
    azure, aws = AzureWatcher(shared.url), AwsWatcher(shared.url)
    assert azure.poll() is None or azure.poll() is None, "once at most"
    azure.drained()
    notice = aws.poll()
    assert notice is not None
    assert 0 <= notice.seconds_left <= 110
