"""The SDK over real HTTP: retries, idempotency, paging, and what it sends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import httpx2
import pytest

import orchctl
from control_plane.core.job_ids import id_for, made_at
from control_plane.core.model import JobState
from orchctl import client as module
from orchctl import http
from orchctl.client import Client
from orchctl.errors import Conflict, NotFound, Unavailable
from tests.unit.cli import samples
from tests.unit.cli.fake_server import FakeServer


def test_the_package_exports_exactly_its_public_names() -> None:
    assert orchctl.__all__ == sorted(orchctl.__all__, key=str.lower)
    for name in orchctl.__all__:
        assert getattr(orchctl, name) is not None
    assert orchctl.Client is Client
    with pytest.raises(AttributeError, match="nonsense"):
        _ = orchctl.nonsense


def test_a_post_is_tried_again_with_the_same_key(server: FakeServer) -> None:
    server.problem("POST", "/v1/jobs", 503, "unavailable")
    server.problem("POST", "/v1/jobs", 503, "unavailable")
    server.on("POST", "/v1/jobs", samples.job(), status=201)

    with Client(server.url, "secret") as client:
        job = client.jobs.submit(command="true")
        client.jobs.submit(command="true")
        client.jobs.submit(command="true", idempotency_key="mine")

    assert job.position_in_queue == 3
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys)) == 3
    assert keys[-1] == "mine"
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer secret"}


def test_it_gives_up_after_a_bounded_number_of_tries(server: FakeServer) -> None:
    server.problem("GET", "/v1/jobs/j-1", 503, "unavailable", detail="the store is away")
    with Client(server.url) as client, pytest.raises(Unavailable, match="the store is away"):
        client.jobs.get("j-1")
    assert len(server.asked) == http.ATTEMPTS


def test_refusals_are_not_tried_again(server: FakeServer) -> None:
    server.problem("POST", "/v1/jobs", 409, "conflict")
    with Client(server.url) as client, pytest.raises(Conflict):
        client.jobs.submit(command="true")
    assert len(server.asked) == 1


def test_pauses_double_within_bounds_and_heed_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSE_FIRST_S", 0.2)
    for attempt, full in ((1, 0.2), (2, 0.4), (3, 0.8), (20, http.PAUSE_MAX_S)):
        assert full / 2 <= http.pause(attempt, "") <= full
    assert http.pause(1, "3") == 3.0
    assert http.pause(1, "86400") == http.PAUSE_MAX_S
    assert http.pause(1, "Wed, 21 Oct 2026 07:28:00 GMT") <= 0.2


class _Flaky(httpx2.BaseTransport):
    """Loses the answer of the first request, or never reaches the server with it."""

    def __init__(self, first: type[httpx2.TransportError]) -> None:
        self.first: type[httpx2.TransportError] | None = first
        self.methods: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.methods.append(request.method)
        if request.method == "PUT" and self.first is not None:
            kind, self.first = self.first, None
            raise kind("gone", request=request)
        return httpx2.Response(200, json=samples.autoscaler())


@pytest.mark.parametrize(
    ("first", "tries"), [(httpx2.ConnectError, 2), (httpx2.RemoteProtocolError, 1)]
)
def test_a_conditional_write_whose_answer_was_lost_is_not_tried_again(
    first: type[httpx2.TransportError], tries: int
) -> None:
    transport = _Flaky(first)
    with Client("http://somewhere", transport=transport) as client:
        if tries == 1:
            with pytest.raises(Unavailable):
                client.autoscalers.apply("a", "text", expected_version=4)
        else:
            client.autoscalers.apply("a", "text", expected_version=4)
    assert transport.methods == ["PUT"] * tries


def test_an_answer_lost_on_a_plain_request_is_asked_for_again() -> None:
    transport = _Flaky(httpx2.ReadError)
    with Client("http://somewhere", transport=transport) as client:
        client.autoscalers.apply("a", "text", expected_version=0)
    assert transport.methods == ["PUT", "PUT"]


def test_listings_go_from_page_to_page_and_no_further_than_asked(server: FakeServer) -> None:
    server.on("GET", "/v1/jobs", samples.page(samples.job(id="j-1"), cursor="c1"))
    server.on("GET", "/v1/jobs", samples.page(samples.job(id="j-2"), cursor="c2"))
    server.on("GET", "/v1/jobs", samples.page(samples.job(id="j-3")))

    with Client(server.url) as client:
        jobs = client.jobs.list(queue="default")
        assert next(jobs).id == "j-1"
        assert len(server.asked) == 1
        assert [job.id for job in jobs] == ["j-2", "j-3"]

    assert [asked.query.get("cursor") for asked in server.asked] == [None, "c1", "c2"]
    assert {asked.query["queue"] for asked in server.asked} == {"default"}


def test_following_pauses_only_when_there_is_nothing_new(server: FakeServer) -> None:
    pauses: list[float] = []
    for content, size, state in ((b"ab", 4, "running"), (b"cd", 4, "running"), (b"", 4, "lost")):
        state = "failed" if state == "lost" else state
        headers = {"X-Log-Size": str(size), "X-Job-State": state}
        server.on("GET", "/v1/jobs/j-1/logs", content=content, headers=headers)

    with Client(server.url, sleep=pauses.append) as client:
        assert list(client.jobs.logs("j-1", follow=True)) == [b"ab", b"cd"]
    assert len(pauses) == 1


def test_following_starts_over_when_another_attempt_writes(server: FakeServer) -> None:
    for content, size, epoch, state in (
        (b"abcdef", 6, "1", "running"),
        (b"", 3, "2", "running"),  # the machine was lost; the second attempt wrote 3 bytes
        (b"xyz", 3, "2", "succeeded"),
    ):
        headers = {"X-Log-Size": str(size), "X-Log-Epoch": epoch, "X-Job-State": state}
        server.on("GET", "/v1/jobs/j-1/logs", content=content, headers=headers)

    with Client(server.url) as client:
        assert list(client.jobs.logs("j-1", follow=True)) == [b"abcdef", b"xyz"]
    assert [asked.query["offset"] for asked in server.asked] == ["0", "6", "0"]


def test_a_key_whose_first_request_is_at_work_is_waited_for(server: FakeServer) -> None:
    code = "idempotency-in-flight"
    body = {"code": code, "detail": "still being answered"}
    server.on("POST", "/v1/jobs", body, status=409, headers={"Retry-After": "0"})
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    with Client(server.url) as client:
        assert client.jobs.submit(command="true").id == "j-7k2m9"


def test_names_cannot_leave_their_place_in_the_path(server: FakeServer) -> None:
    server.problem("GET", "/v1/queues/a%2F..%2Fb", 404, "not-found", detail="no queue a/../b")
    with Client(server.url) as client, pytest.raises(NotFound, match=r"a/\.\./b"):
        client.queues.get("a/../b")


def test_waiting_is_a_chain_of_bounded_polls(server: FakeServer) -> None:
    server.on("GET", "/v1/jobs/j-1/wait", samples.job(state=JobState.RUNNING))
    server.on("GET", "/v1/jobs/j-1/wait", samples.ended(0, JobState.SUCCEEDED))
    with Client(server.url) as client:
        assert client.jobs.wait("j-1").state is JobState.SUCCEEDED
    assert [float(asked.query["timeout_s"]) for asked in server.asked] == [20.0, 20.0]


def test_a_server_that_answers_at_once_is_not_asked_again_at_once(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLLOW_PAUSE_S", 1.0)
    slept: list[float] = []
    for _ in range(9):
        server.on("GET", "/v1/jobs/j-1/wait", samples.job(state=JobState.RUNNING))
    server.on("GET", "/v1/jobs/j-1/wait", samples.ended(0, JobState.SUCCEEDED))
    with Client(server.url, sleep=slept.append) as client:
        assert client.jobs.wait("j-1").state is JobState.SUCCEEDED
    assert slept == [1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375, 10.0, 10.0, 10.0]


def test_attempts_plans_and_a_wake(server: FakeServer) -> None:
    server.on("GET", "/v1/jobs/j-1/attempts", samples.page())
    server.on("GET", "/v1/autoscalers/a/plans", samples.page(PLAN))
    server.on("POST", "/v1/reconcile", status=202, content=b"")
    with Client(server.url) as client:
        assert list(client.jobs.attempts("j-1")) == []
        (plan,) = client.autoscalers.plans("a")
        client.reconcile()
    assert plan.plan.empty


PLAN = {
    "id": "p-1",
    "autoscaler": "a",
    "at": samples.AT.isoformat(),
    "plan": {"autoscaler": "a", "at": samples.AT.isoformat(), "generation": 1},
}


def test_a_fresh_key_carries_its_time_and_is_never_the_same() -> None:
    keys = [http.fresh_key() for _ in range(100)]
    assert len(set(keys)) == 100
    for key in keys:
        parsed = UUID(key)
        assert (parsed.version, parsed.variant) == (7, RFC_4122)
        made = made_at(id_for(f"ann POST /v1/jobs {key}") or "")
        assert made is not None
        assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
